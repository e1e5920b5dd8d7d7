"""Real processes over gloo: how they meet, exchange, agree, and notice that one has gone."""

import json
import os
import socket
import sys
import time

import pytest
import torch

from mmseg import distributed
from mmseg.errors import ConfigError
from tests.tools.processes import ENVIRONMENTS, ROOT, finish, finish_all, launch, patience

JOIN = """
import json, sys, warnings
import torch
from mmseg.apis.cli import run
from mmseg import distributed as d
from mmseg.engine.step import prepare_module, wrap
from tests.engine.toy import ToySegmentor, batch_of

def main():
    d.init(sys.argv[1])
    rank = d.rank()
    torch.manual_seed(rank)  # weights differ until the wrapper makes them equal
    plain = prepare_module(ToySegmentor(dropout=0.0, batch_norm=False), {})
    model = wrap(plain)
    batch = batch_of(2)
    model({k: v[rank : rank + 1] for k, v in batch.items()})["decode.loss_seg"].backward()
    shared = plain.head.weight.grad.clone()
    plain.zero_grad()
    plain(batch)["decode.loss_seg"].backward()
    print(json.dumps({
        "rank": rank, "world": d.world_size(), "main": d.is_main(), "device": str(d.device()),
        "mean": d.reduce_mean({"a": float(rank), "b": torch.tensor(3.0)}),
        "gathered": d.all_gather_object(f"from {rank}"), "broadcast": d.broadcast_object(f"from {rank}"),
        "unused": plain.unused.weight.grad is None, "error": float((shared - plain.head.weight.grad).abs().max()),
    }))
    d.barrier()
    d.shutdown()

warnings.simplefilter("error")
run(main)
"""

EXCHANGE = """
import io, json, sys
from pathlib import Path
import torch
from torch import nn
from mmseg import distributed as d
from mmseg.apis.cli import run
from mmseg.errors import DataError, OtherProcessError, SegError

def caught(failure):
    try:
        with d.together():
            if failure is not None:
                raise failure
    except Exception as error:
        return [type(error).__name__, str(error).splitlines()[0], getattr(error, "rank", None)]

def main():
    d.init("pytorch")
    rank = d.rank()
    mine = lambda value: value if rank == 1 else None
    numbers = torch.tensor([1.0, 10.0]) * (rank + 1)
    numbers.requires_grad_()
    mean = d.mean(numbers)
    whole = torch.tensor([[rank, 3]])
    norm = nn.BatchNorm2d(2)
    norm.running_mean.fill_(rank + 1.0)
    norm.num_batches_tracked.fill_(rank + 5)
    norm.register_buffer("mask", torch.tensor([rank]), persistent=False)
    d.broadcast_buffers(norm)
    file = Path(sys.argv[1]) / f"{rank}"
    file.write_bytes(bytes([rank]) * 3_000)
    received = io.BytesIO()
    d._CHUNK = 1024
    d.send_file(file) if rank else d.receive_file(1, received)
    print(json.dumps({
        "mean": mean.tolist(), "gradient": mean.requires_grad, "input": numbers.tolist(),
        "of integers": d.mean(whole).tolist(), "of halves": str(d.mean(numbers.half()).dtype),
        "ready": [d.all_ready(True), d.all_ready(rank == 0), d.all_ready(False)],
        "any": [d.any_of(False), d.any_of(rank == 1), d.any_of(True)],
        "buffers": [norm.running_mean.tolist(), int(norm.num_batches_tracked), norm.mask.tolist()],
        "fine": caught(None),
        "second": caught(mine(DataError("bad file", "a good one"))),
        "both": caught(DataError(f"bad file of {rank}")),
        "other": caught(mine(ZeroDivisionError("1/0"))),
        "received": [received.getbuffer().nbytes, set(received.getvalue()) == {1}],
        "neighbour": d.has_lost_neighbour(),
    }))
    d.barrier()

run(main)
"""

VANISH = """
import os, sys, time
from mmseg import distributed as d
from mmseg.apis.cli import run
from mmseg.errors import DataError

def main():
    d.init("pytorch")
    if d.rank() == 1:
        if sys.argv[1] == "alone":
            raise DataError("a bad file")
        if sys.argv[1] == "gone":
            os._exit(9)
    if sys.argv[1] == "agreed":
        with d.together():
            if d.rank() == 1:
                raise DataError("a bad file")
    d.barrier()

run(main)
"""


@pytest.mark.slow
@pytest.mark.parametrize("launcher", list(ENVIRONMENTS))
def test_two_processes_join(launcher):
    for rank, (status, out, messages) in enumerate(finish_all(launch(JOIN, launcher, launcher=launcher))):
        assert status == 0, messages
        found = json.loads(out.splitlines()[-1])
        assert found.pop("error") < 1e-6
        assert found == {
            "rank": rank,
            "world": 2,
            "main": rank == 0,
            "device": "cpu",
            "mean": {"a": 0.5, "b": 3.0},
            "gathered": ["from 0", "from 1"],
            "broadcast": "from 0",
            "unused": True,
        }


@pytest.mark.slow
def test_two_processes_exchange_and_agree(tmp_path):
    for rank, (status, out, messages) in enumerate(finish_all(launch(EXCHANGE, tmp_path))):
        assert status == 0, messages
        assert json.loads(out.splitlines()[-1]) == {
            "mean": [1.5, 15.0],
            "gradient": False,
            "input": [[1.0, 10.0], [2.0, 20.0]][rank],
            "of integers": [[0.5, 3.0]],
            "of halves": "torch.float32",
            "ready": [True, False, False],
            "any": [False, True, True],
            "buffers": [[1.0, 1.0], 5, [rank]],  # what is not saved stays
            "fine": None,
            "second": ["DataError", "bad file", 1],
            "both": ["DataError", "bad file of 0", 0],
            "other": [
                ["OtherProcessError", "process 1: ZeroDivisionError: 1/0", 1],
                ["ZeroDivisionError", "1/0", None],
            ][rank],
            "received": [0, False] if rank else [3000, True],
            "neighbour": False,
        }


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "statuses"), [("alone", [75, 2]), ("agreed", [2, 2]), ("gone", [75, 9])], ids=lambda v: str(v)
)
def test_one_process_that_fails_ends_both_with_one_message(how, statuses):
    processes = launch(VANISH, how)
    processes[1].wait(patience(30))
    began = time.monotonic()
    results = finish_all(processes)
    assert time.monotonic() - began < patience(3)
    assert [status for status, *_ in results] == statuses
    messages = [text for *_, text in results]
    assert "Traceback" not in "".join(messages)
    if how != "gone":
        assert messages[1].count("DataError: a bad file") == 1 and "[rank 1]" in messages[1]
    assert "bad file" not in messages[0]
    # nobody but the launcher, which is not there, could name the process that has gone
    assert ("lost the connection" in messages[0]) == (how != "agreed")


def test_one_process_needs_no_launcher():
    device = distributed.init("none", gpu=-1)
    assert device == distributed.device() == torch.device("cpu")
    assert (distributed.rank(), distributed.world_size(), distributed.is_main()) == (0, 1, True)
    assert distributed.reduce_mean({"a": torch.tensor(2.0), "b": 4.0}) == {"a": 2.0, "b": 4.0}
    assert distributed.mean(torch.tensor([2, 4])).tolist() == [2.0, 4.0]
    assert distributed.all_gather_object("x") == ["x"] and distributed.broadcast_object("x") == "x"
    assert distributed.all_ready(True) and not distributed.all_ready(False) and not distributed.has_lost_neighbour()
    with pytest.raises(ZeroDivisionError), distributed.together():
        1 / 0  # noqa: B018
    distributed.barrier()
    distributed.broadcast_buffers(torch.nn.BatchNorm2d(1))
    distributed.shutdown()


def test_videos_are_shared_out_by_length():
    assert distributed.share_videos([7, 18, 5], 2) == [1, 0, 1]
    assert distributed.share_videos([1, 1, 1, 1], 3) == [0, 1, 2, 0]
    assert distributed.share_videos([3], 4) == [0]


@pytest.mark.parametrize(
    ("launcher", "variable"), [("pytorch", "LOCAL_RANK"), ("slurm", "SLURM_PROCID"), ("mpi", "OMPI_COMM_WORLD_RANK")]
)
def test_launcher_that_did_not_launch(launcher, variable, monkeypatch):
    monkeypatch.delenv(variable, raising=False)
    with pytest.raises(ConfigError, match=variable):
        distributed.init(launcher)


def test_unknown_launcher():
    with pytest.raises(ConfigError, match="did you mean 'slurm'"):
        distributed.init("slrum")


@pytest.mark.slow
def test_a_port_that_is_taken():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        values = dict(zip(ENVIRONMENTS["pytorch"], "0101"))
        values |= dict(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(taken.getsockname()[1]))
        told = finish([sys.executable, "-c", VANISH, "x"], ROOT, status=2, **values)
    assert "is in use" in told and "Traceback" not in told
    assert os.environ.get("MASTER_PORT") is None
