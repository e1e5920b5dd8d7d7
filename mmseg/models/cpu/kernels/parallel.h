// A range of work on some threads, which live as long as the call: nothing is left behind for a fork to lose.
#pragma once
#include <pthread.h>

#include <cstdint>

// Calls work(first, last, thread) for parts of 0 .. items; one of them on this thread.
template <class Work>
void in_parallel(int64_t items, int64_t threads, const Work& work) {
    struct Part {
        const Work* work;
        int64_t first, last, number;
        pthread_t thread;
        bool started;
        static void* run(void* self) {
            Part* part = static_cast<Part*>(self);
            (*part->work)(part->first, part->last, part->number);
            return nullptr;
        }
    };
    constexpr int64_t MOST = 256;
    const int64_t count = threads < 1 ? 1 : threads > MOST ? MOST : threads > items ? (items ? items : 1) : threads;
    Part parts[MOST];
    for (int64_t i = count - 1; i >= 0; i--) {
        parts[i] = {&work, items * i / count, items * (i + 1) / count, i, {}, false};
        if (i) parts[i].started = pthread_create(&parts[i].thread, nullptr, Part::run, &parts[i]) == 0;
        if (!parts[i].started) Part::run(&parts[i]);  // the first part, and those for which there is no thread
    }
    for (int64_t i = 1; i < count; i++)
        if (parts[i].started) pthread_join(parts[i].thread, nullptr);
}
