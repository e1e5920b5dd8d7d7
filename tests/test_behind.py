"""Work in the background: in order, not too far behind, and errors are raised where items are given."""

import threading

import pytest

from mmseg.behind import Behind


def test_all_items_in_order_and_few_of_them_wait():
    done, gate = [], threading.Semaphore(0)

    def work(item):
        gate.acquire()
        done.append(item)

    behind = Behind(work, depth=2)
    behind.put(0)
    behind.put(1)
    third = threading.Thread(target=behind.put, args=(2,))
    third.start()
    third.join(0.2)
    assert third.is_alive() and done == []  # it waits for the first
    gate.release()
    third.join(10)
    assert not third.is_alive()
    gate.release(2)
    behind.close()
    assert done == [0, 1, 2]


def test_what_an_item_has_met_is_raised_by_a_later_one_or_at_the_end():
    behind = Behind(lambda item: 1 / item)
    behind.put(0)
    with pytest.raises(ZeroDivisionError):
        for _ in range(9):
            behind.put(1)
    with pytest.raises(ZeroDivisionError):
        behind.close()


def test_what_waits_is_dropped():
    done, gate = [], threading.Semaphore(0)

    def work(item):
        gate.acquire()
        done.append(item)

    behind = Behind(work)
    for item in range(3):
        behind.put(item)
    timer = threading.Timer(0.1, gate.release, (3,))
    timer.start()
    behind.discard()
    timer.join()
    assert done in ([], [0])
