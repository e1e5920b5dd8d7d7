"""Signals to a process that cannot answer them, because it waits in a library for what never comes."""

import contextlib
import signal
import subprocess
import sys
import time

import pytest

from mmseg.engine import interrupts
from tests.tools.processes import ROOT, patience, read_until, running

STUCK = """
import ctypes, sys
from mmseg.engine import interrupts

interrupts._STUCK = 1.5
c = ctypes.CDLL(None)
mutex = ctypes.create_string_buffer(64)  # a pthread mutex in its first state

def wait_for_ever():
    print("waiting", flush=True)
    c.pthread_mutex_lock(mutex)
    c.pthread_mutex_lock(mutex)

with interrupts.Interrupts() as outer:
    if sys.argv[1] == "at once":
        with outer.at_once():
            wait_for_ever()
    with interrupts.Interrupts():
        wait_for_ever()
"""


def stuck(how: str) -> contextlib.AbstractContextManager[subprocess.Popen]:
    return running([sys.executable, "-c", STUCK, how], ROOT)


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_a_process_that_is_stuck_but_not_the_first_one_passed_on(signum):
    with stuck("finishes") as process:
        read_until(process, "waiting")
        time.sleep(0.3)
        process.send_signal(signum)  # from the terminal
        time.sleep(0.2)
        process.send_signal(signum)  # from torchrun, which passes it on
        time.sleep(interrupts._SAME + 1)
        assert process.poll() is None
        process.send_signal(signum)
        output, _ = process.communicate(timeout=patience(2))
    assert process.returncode == 128 + signum
    assert f"{signum.name} a second time: leaving at once" in output


def test_a_warning_may_come_often_and_sigterm_after_it_is_no_second_request():
    with stuck("finishes") as process:
        read_until(process, "waiting")
        time.sleep(0.3)
        for signum in (signal.SIGUSR1, signal.SIGUSR1, signal.SIGTERM):
            process.send_signal(signum)
            time.sleep(interrupts._SAME + 0.3)
            assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=patience(2))
    assert process.returncode == 143 and "SIGTERM a second time: leaving at once" in output


def test_one_signal_is_enough_where_nothing_needs_finishing():
    with stuck("at once") as process:
        read_until(process, "waiting")
        time.sleep(0.3)
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=patience(4))
    assert process.returncode == 143 and "SIGTERM and no answer" in output


def test_nested_interrupts_leave_everything_as_it_was():
    handlers = [signal.getsignal(s) for s in interrupts._SIGNALS]
    with interrupts.Interrupts() as outer:
        with interrupts.Interrupts() as inner:
            signal.raise_signal(signal.SIGTERM)
            assert inner.received == signal.SIGTERM and outer.received is None
            with pytest.raises(interrupts.Interrupted) as leaving, inner.at_once():
                raise AssertionError("went on")
            assert leaving.value.code == 143
        signal.raise_signal(signal.SIGINT)
        assert outer.received == signal.SIGINT
    assert [signal.getsignal(s) for s in interrupts._SIGNALS] == handlers
    assert signal.set_wakeup_fd(-1) == -1
    assert interrupts.Interrupts._first is None


DROPPED = """
import signal, sys, time, weakref
from mmseg.engine.interrupts import Interrupts

class Watched:
    pass

with Interrupts() as interrupts, interrupts.at_once():
    watched = Watched()
    reference = weakref.ref(watched, lambda _: signal.raise_signal(signal.SIGTERM))
    del watched
    print("still there", flush=True)
    time.sleep(30)
"""


def test_a_signal_is_not_lost_in_a_call_of_a_weak_reference():
    """Python drops the exception there; the request would never be met."""
    ended = subprocess.run([sys.executable, "-c", DROPPED], cwd=ROOT, capture_output=True, text=True, timeout=25)
    assert ended.returncode == 143 and "still there" in ended.stdout and not ended.stderr
