"""What every command-line tool needs around its main function."""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import logging
import multiprocessing
import os
import re
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from typing import Any, get_args

from mmseg import values
from mmseg.engine.interrupts import Interrupted, Interrupts
from mmseg.errors import ConfigError, OtherProcessError, SegError
from mmseg.files import write_error
from mmseg.launchers import LAUNCHER_PID, LOST_STATUS
from mmseg.mmengine_names import DictAction

_SHORT_OF_MEMORY = re.compile(r"out of memory|can't allocate memory|not enough memory|Insufficient memory", re.I)
_BESIDE_VALUES = re.compile(r" +(?=[,\])])|(?<=[,\[(]) +")  # blanks in a list that belong to none of its values
_BLANK = "\0"  # stands for one that does; no argument of a program holds it
_GRACE = 1.5  # seconds that a process waits for another to say what has happened


class OptionsAction(DictAction):
    """``--options a.b=value c=1,2``: a dict of dotted keys; values are written as for mmengine's DictAction.

    Two differences: blanks inside of values stay, as paths need, and what cannot be read is a usage error.
    """

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        options = dict(getattr(namespace, self.dest, None) or {})
        for text in values or ():
            key, equals, value = text.partition("=")
            if not (key and equals):
                parser.error(f"argument {option_string}: {text!r} is not of the form KEY=VALUE")
            try:
                options[key] = self._parse_keeping_blanks(value)
            except AssertionError as error:
                parser.error(f"argument {option_string}: {text!r}: {error}")
        setattr(namespace, self.dest, options)

    def _parse_keeping_blanks(self, text: str) -> Any:
        """DictAction removes all blanks: those inside of values are hidden from it."""
        text = _BESIDE_VALUES.sub("", text.strip()) if "," in text or text.strip()[:1] in ("[", "(") else text
        return _with_blanks(self._parse_iterable(text.replace(" ", _BLANK)))


def _with_blanks(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return type(value)(map(_with_blanks, value))
    return value.replace(_BLANK, " ") if isinstance(value, str) else value


def number(annotation: Any) -> Callable[[str], int | float]:
    """What reads a number of a command line: ``type=number(PositiveInt)`` for the ranges of :mod:`mmseg.values`."""
    kind = (get_args(annotation) or (annotation,))[0]
    adapter = values.checker(annotation)

    def read(text: str) -> int | float:
        try:
            return values.check(kind(text), adapter, "argument")
        except ValueError:
            what = "an integer" if kind is int else "a number"
            raise argparse.ArgumentTypeError(f"{text!r} is not {what}") from None
        except ConfigError as error:
            raise argparse.ArgumentTypeError(f"{text} is not {error.expected}") from None

    return read


def add_options(parser: argparse.ArgumentParser) -> None:
    """Give `parser` the ``--options`` by which every tool overrides config entries."""
    parser.add_argument(
        "--options",
        "--cfg-options",
        nargs="+",
        action=OptionsAction,
        default={},
        metavar="KEY=VALUE",
        help="override config entries by their dotted keys, e.g. data.test.split=test",
    )


def add_dataset(parser: argparse.ArgumentParser, data_root: str) -> None:
    """Give `parser` the arguments that say which data set stored predictions are for (:func:`dataset_settings`)."""
    parser.add_argument("--config", help="take the data set from data.test of this config file")
    add_options(parser)
    parser.add_argument("--data-root", help=f"folder with data/ and the split files (default: {data_root})")
    parser.add_argument("--split", help="name of the split file without .txt (default: val)")
    parser.add_argument(
        "--num-classes", type=number(values.PositiveInt), help="number of classes (default: that of the data set)"
    )
    parser.add_argument(
        "--reduce-zero-label",
        action=argparse.BooleanOptionalAction,
        help="0 is void in the masks and v means class v - 1 (default, as in VSPW); --no-...: masks hold class numbers",
    )


def dataset_settings(args: argparse.Namespace) -> dict[str, Any]:
    """What the arguments of :func:`add_dataset` say about the data set; None where they say nothing.

    Raises:
        ConfigError: ``--options`` without ``--config``.
    """
    if args.options and args.config is None:
        raise ConfigError("--options without --config", "a config file, whose entries they override", "give --config")
    return {name: getattr(args, name) for name in ("data_root", "split", "num_classes", "reduce_zero_label")}


def add_device(parser: argparse.ArgumentParser) -> None:
    """Give `parser` the ``--device`` of tools that run a network."""
    parser.add_argument("--device", help="cpu, cuda or cuda:N (default: a GPU if there is one)")


def say(text: str) -> None:
    """Write a line for the user to the standard output."""
    sys.stdout.write(f"{text}\n")


def add_flow(parser: argparse.ArgumentParser) -> None:
    """Give `parser` the arguments of tools that compute optical flow."""
    from mmseg.making.flow import DEFAULT_FLOW, FLOW_NAMES, UPDATES  # PyTorch, which most tools need later or never

    parser.add_argument(
        "--flow", choices=FLOW_NAMES, default=DEFAULT_FLOW, help="farneback and dis (OpenCV) need no weights"
    )
    parser.add_argument("--weights", help="RAFT's weights (default: torchvision's download)")
    parser.add_argument("--updates", type=number(values.PositiveInt), default=UPDATES, help="of RAFT")
    parser.add_argument("--batch-size", type=number(values.PositiveInt), default=4, help="pairs computed at once")
    add_device(parser)


def placement(device: str | None) -> dict[str, Any]:
    """Arguments of :func:`mmseg.distributed.init` for a ``--device``.

    Raises:
        ConfigError: it is no device.
    """
    if device is None:
        return {}
    if device == "cpu":
        return {"backend": "gloo", "gpu": -1}
    kind, _, number = device.partition(":")
    if kind != "cuda" or not (number or "0").isdecimal():
        raise ConfigError(f"--device {device}", "cpu, cuda or cuda:N", "use --device cpu on a machine without GPUs")
    return {"gpu": int(number or 0)}


def run(main: Callable[[], int | None]) -> None:
    """Call `main` and exit with its status; a user's mistake becomes one message instead of a traceback.

    Of several processes only the first that has met it prints it. Exit status: what `main` returns (None means 0), 2
    after a :class:`SegError` (1 if the next start may do well), 128 + number after a signal.
    """
    _warn_about_other_mmseg()
    several = "RANK" in os.environ
    try:
        with Interrupts() as interrupts, interrupts.at_once():
            status = main() or 0
            sys.stdout.flush()
    except Interrupted as leaving:
        status = leaving.code
        if _own_rank() == 0 and LAUNCHER_PID not in os.environ:  # which says so, or why it has stopped this process
            sys.stderr.write(f"{signal.Signals(status - 128).name}: stopped\n")
    except SegError as error:
        status = _report(error)
    except Exception as error:
        shortage, broken = memory_error(error), _broken_output(error)
        if broken is not None:
            status = _without_output(broken)
        elif shortage is not None:
            status = _report(shortage)
        elif not several:
            raise
        elif _is_lost_connection(error):  # met by torch's own code, in the backward pass
            status = _report(OtherProcessError(f"lost the connection to another process ({error})"))
        else:
            sys.stderr.write(_rank_prefix() + traceback.format_exc())
            status = 1
    if several or "RANK" in os.environ:
        _leave_at_once(status)
    sys.exit(status)


def memory_error(error: BaseException | None) -> SegError | None:
    """The message of an error by which Python, NumPy, PyTorch or OpenCV says that memory is short; else None."""
    while error is not None:
        text = str(error).strip().partition("\n")[0]
        if isinstance(error, MemoryError) or _SHORT_OF_MEMORY.search(text):
            return SegError(
                f"out of memory ({text[:300] or type(error).__name__})",
                "pictures, clips and batches that fit into the memory of this machine",
                "lower data.samples_per_gpu, the crop or the size of the pictures, or take a larger machine",
            )
        error = error.__cause__
    return None


def _broken_output(error: Exception | None = None) -> OSError | None:
    """Why the standard output cannot be written, if so: what was refused stays in its buffer, and is refused again.

    Args:
        error: what has been met; an output without a buffer is tried with an empty line if this may be its error.
    """
    try:
        sys.stdout.flush()
        if isinstance(error, OSError) and error.filename is None:
            sys.stdout.write("\n")
            sys.stdout.flush()
    except OSError as error:
        return error
    return None


def _without_output(error: OSError) -> int:
    """End since nothing can be told any more; silently where the reader has gone, as ``| head`` does."""
    _close_output()
    if isinstance(error, BrokenPipeError):
        return 128 + signal.SIGPIPE
    return _report(write_error("the standard output", error))


def _close_output() -> None:
    """Nothing is left to fail at the exit."""
    with contextlib.suppress(OSError), open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), sys.stdout.fileno())


def _report(error: SegError) -> int:
    """Print an error, unless somebody else does; returns the exit status."""
    broken = _broken_output()
    if broken is not None:
        _close_output()
    first = 0 if error.rank is None else error.rank  # unless agreed on: what ails all processes, the main one shall say
    if _own_rank() != first:
        time.sleep(_GRACE)  # it prints, and ends, whereupon the launcher ends this one
    launcher_prints = isinstance(error, OtherProcessError) and LAUNCHER_PID in os.environ
    if error.rank in (None, _own_rank()) and not launcher_prints:
        sys.stderr.write(f"{_rank_prefix()}{type(error).__name__}: {error}\n")
    return LOST_STATUS if isinstance(error, OtherProcessError) else error.status


def _leave_at_once(status: int) -> None:
    """End one of several processes without tearing the interpreter down.

    The threads of a process group may outlive it; a normal exit then now and then ends in an abort, which the launcher
    would report as a failure of a run that has done all its work.
    """
    logging.shutdown()
    for child in multiprocessing.active_children():
        child.kill()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _is_lost_connection(error: Exception) -> bool:
    from mmseg.distributed import is_lost_connection  # PyTorch is imported already where a connection can be lost

    return is_lost_connection(error)


def _own_rank() -> int:
    for name in ("RANK", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK"):
        if os.environ.get(name, "").isdecimal():
            return int(os.environ[name])
    return 0


def _rank_prefix() -> str:
    return f"[rank {_own_rank()}] " if _own_rank() else ""


def _warn_about_other_mmseg() -> None:
    """mmsegmentation and its forks install a top-level ``mmseg`` as well; say so before imports go wrong."""
    owners = {found.metadata["Name"] for found in importlib.metadata.distributions() if _installs_mmseg(found)}
    owners -= {"mmseg-video"}
    if owners:
        sys.stderr.write(
            f"warning: {', '.join(sorted(owners))} also installs a package named 'mmseg', which may be imported "
            "instead of this one\n  what to do: pip uninstall it, or use a fresh environment "
            "(./tools/quickstart.sh makes one)\n"
        )


def _installs_mmseg(distribution: importlib.metadata.Distribution) -> bool:
    """Read as text: ``importlib.metadata.packages_distributions`` makes a path of every installed file, which takes
    half a second at every start of a tool."""
    names = (distribution.read_text("top_level.txt") or "").split()
    if names:
        return "mmseg" in names
    return "\nmmseg/" in "\n" + (distribution.read_text("RECORD") or "")
