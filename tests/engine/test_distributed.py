"""Two real processes over gloo, started the way that each launcher starts them."""

import json
import os
import pathlib
import socket
import subprocess
import sys

import pytest
import torch

from mmseg import distributed
from mmseg.errors import ConfigError

ROOT = pathlib.Path(__file__).parents[2]

PROGRAM = """
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

ENVIRONMENTS = {
    "pytorch": ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"),
    "slurm": ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID", "SLURM_NTASKS_PER_NODE"),
    "mpi": (
        "OMPI_COMM_WORLD_RANK",
        "OMPI_COMM_WORLD_SIZE",
        "OMPI_COMM_WORLD_LOCAL_RANK",
        "OMPI_COMM_WORLD_LOCAL_SIZE",
    ),
}


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@pytest.mark.slow
@pytest.mark.parametrize("launcher", list(ENVIRONMENTS))
def test_two_processes(launcher):
    port = free_port()
    processes = []
    for rank in (0, 1):
        env = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM_", "OMPI_"))}
        env.update(PYTHONPATH=str(ROOT), OMP_NUM_THREADS="1", MASTER_PORT=str(port), CUDA_VISIBLE_DEVICES="")
        env.update(zip(ENVIRONMENTS[launcher], map(str, (rank, 2, rank, 2))))
        if launcher == "pytorch":
            env["MASTER_ADDR"] = "127.0.0.1"
        if launcher == "slurm":
            env["SLURM_NODELIST"] = "127.0.0.1"
        command = [sys.executable, "-c", PROGRAM, launcher]
        processes.append(
            subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)
        )
    outputs = [p.communicate(timeout=300) for p in processes]
    assert [p.returncode for p in processes] == [0, 0], outputs
    for rank, (out, _) in enumerate(outputs):
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


def test_one_process_needs_no_launcher():
    device = distributed.init("none", gpu=-1)
    assert device == distributed.device() == torch.device("cpu")
    assert (distributed.rank(), distributed.world_size(), distributed.is_main()) == (0, 1, True)
    assert distributed.reduce_mean({"a": torch.tensor(2.0), "b": 4.0}) == {"a": 2.0, "b": 4.0}
    assert distributed.all_gather_object("x") == ["x"] and distributed.broadcast_object("x") == "x"
    distributed.barrier()
    distributed.shutdown()


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
