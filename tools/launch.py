"""torchrun for dist_*.sh: launch.py DEFAULT_PORT PROCESSES SCRIPT [arguments of SCRIPT].

Environment: NNODES, NODE_RANK, MASTER_ADDR, PORT, JOIN_TIMEOUT and MAX_RESTARTS. Unlike torchrun it takes a free port
where none is given (several machines must agree on one: DEFAULT_PORT), says in one line what is wrong, adds no
traceback of its own to the message of the process that failed, and restarts after crashes only: what a user has to
change, or has asked for by a signal, is not done over again.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import uuid
from typing import TYPE_CHECKING, Any

from mmseg.errors import ConfigError, SegError
from mmseg.launchers import LAUNCHER_PID, LOST_STATUS, RUN_ID, check_port, join_timeout, restart

if TYPE_CHECKING:
    from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

# A process that has printed a message, a traceback, or which of many videos have failed, ends with one of these.
_ASKED_TO_STOP = tuple(128 + signum for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1))
_HAS_SAID_WHY = (1, 2, *_ASKED_TO_STOP)
_FINAL = (2, *_ASKED_TO_STOP)  # the next start would end in the same way, or nobody wants it


def main(default_port: str, processes: str, *command: str) -> int:
    """Start the processes and wait for them; returns the exit status.

    Raises:
        ConfigError: one of the numbers is none, or the port is in use.
    """
    nnodes, node_rank = _number("NNODES", 1, least=1), _number("NODE_RANK", 0, least=0)
    if node_rank >= nnodes:
        raise ConfigError(f"NODE_RANK is {node_rank}", f"less than NNODES = {nnodes}", "number the machines from 0")
    restarts, patience = _number("MAX_RESTARTS", 0, least=0), join_timeout(os.environ)
    port = _port(int(default_port), alone=nnodes == 1, meets_here=node_rank == 0)

    # Only now, after mistakes have been told: importing PyTorch takes seconds. Where a machine does not come, its C++
    # code writes two screens of stack, unless told otherwise at its start.
    quiet = {"TORCH_CPP_LOG_LEVEL": "FATAL"} if "TORCH_CPP_LOG_LEVEL" not in os.environ else {}
    os.environ.update(quiet)
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import main as torchrun

    for name in quiet:  # the processes may say what they like
        del os.environ[name]
    os.environ[LAUNCHER_PID] = str(os.getpid())
    # of a slurm job that is requeued, the next start belongs to the same run
    os.environ[RUN_ID] = restart(os.environ).run or uuid.uuid4().hex
    _stop_by_warning()
    _restart_after_crashes_only()
    places = [f"--nnodes={nnodes}", f"--node_rank={node_rank}", f"--nproc_per_node={processes}"]
    places += [f"--max_restarts={restarts}", f"--rdzv_conf=timeout={patience}"]
    address = os.environ.get("MASTER_ADDR") or "127.0.0.1"
    # a free port is drawn right before it is used, so that nobody else gets it meanwhile
    port = port or _usable(0)
    meeting = [f"--master_addr={address}", f"--master_port={port}", "--monitor_interval=0.1"]
    try:
        torchrun([*places, *meeting, *command])
    except ChildFailedError as error:
        return _explain(list(error.failures.values()))
    except SignalException as error:
        sys.stderr.write(f"{signal.Signals(error.sigval).name}: all processes have been stopped\n")
        return 128 + error.sigval
    except (RuntimeError, OSError) as error:  # torchrun cannot bind, or not all machines have come
        said = str(error).splitlines()[0]
        waited = f"; they wait {patience} s for each other (JOIN_TIMEOUT)" if nnodes > 1 else ""
        who = f"machine {node_rank} of {nnodes} cannot meet the others" if nnodes > 1 else "the processes cannot meet"
        sys.stderr.write(
            f"error: {who} at {address}:{port}: {said}; check that all have started, MASTER_ADDR and PORT{waited}\n"
        )
        return 2
    return 0


def _stop_by_warning() -> None:
    """A scheduler's SIGUSR1 is what SIGTERM is: torchrun would die of it."""
    signal.signal(signal.SIGUSR1, lambda signum, frame: os.kill(os.getpid(), signal.SIGTERM))


def _restart_after_crashes_only() -> None:
    """torchrun restarts after every failure, and has no option about it; it takes this agent instead of its own."""
    from torch.distributed.launcher import api

    class Agent(api.LocalElasticAgent):
        def _monitor_workers(self, *arguments: Any, **named: Any) -> Any:
            result = super()._monitor_workers(*arguments, **named)
            if result.is_failed() and self._remaining_restarts > 0:
                failures = list(result.failures.values())
                if _first(failures).exitcode in _FINAL:
                    self._remaining_restarts = 0
                else:
                    _explain(failures)
                    number = 1 + _number("MAX_RESTARTS", 0, least=0) - self._remaining_restarts
                    sys.stderr.write(f"restart {number} of {os.environ['MAX_RESTARTS']}\n")
            return result

    api.LocalElasticAgent = Agent


def _number(name: str, default: int, least: int) -> int:
    text = os.environ.get(name) or str(default)
    if not text.isdecimal() or int(text) < least:
        raise ConfigError(f"{name} is {text!r}", f"a number of at least {least}", f"correct or unset {name}")
    return int(text)


def _port(default: int, alone: bool, meets_here: bool) -> int:
    """The port at which the processes meet: $PORT; else `default` if there are other machines, or 0, a free one.

    Raises:
        ConfigError: it is no port, or in use on this machine.
    """
    given = os.environ.get("PORT")
    port = check_port(given) if given else 0 if alone else default
    return _usable(port) if port and meets_here else port


def _usable(port: int) -> int:
    """The port, if it is free; a free one for 0.

    Raises:
        ConfigError: it is in use.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError as error:
            raise ConfigError(
                f"port {port}: {error.strerror}", "a free port", "set PORT to another one, or leave it unset"
            ) from error
        return probe.getsockname()[1]


def _first(failures: list[ProcessFailure]) -> ProcessFailure:
    """The process that failed first: those that only lost the connection to it may have ended before it was looked."""
    return min(failures, key=lambda failure: (failure.exitcode == LOST_STATUS, failure.timestamp))


def _explain(failures: list[ProcessFailure]) -> int:
    """Say which process failed first, unless it has said so itself; returns the exit status."""
    first = _first(failures)
    if first.exitcode < 0:
        name = signal.Signals(-first.exitcode).name
        memory = ", perhaps because memory ran out" if name == "SIGKILL" else ""
        sys.stderr.write(f"process {first.local_rank} was killed by {name}{memory}; all processes have been stopped\n")
        return 128 - first.exitcode
    if first.exitcode == LOST_STATUS:
        sys.stderr.write("the processes have lost the connection to each other or to another machine\n")
    elif first.exitcode not in _HAS_SAID_WHY:
        sys.stderr.write(
            f"process {first.local_rank} ended with status {first.exitcode}; all processes have been stopped\n"
        )
    return first.exitcode


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)  # torchrun's own log; the program says what is wrong
    try:
        sys.exit(main(*sys.argv[1:]))
    except SegError as error:
        sys.stderr.write(f"error: {error.found}; expected {error.expected}; {error.action}\n")
        sys.exit(2)
