"""Which rank, GPU and port a process has, by what its launcher has put into the environment."""

import dataclasses

import pytest

from mmseg.errors import ConfigError
from mmseg.launchers import Place, check_port, choose_gpu, find_place, meeting_point, single_device, tasks_of_node

SLURM = {"SLURM_PROCID": "5", "SLURM_NTASKS": "7", "SLURM_LOCALID": "1", "SLURM_NODEID": "1"}


def test_places():
    torchrun = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2", "TORCHELASTIC_RUN_ID": "x"}
    assert find_place("pytorch", torchrun) == Place(3, 4, 1, 2, sees_all_gpus=True)
    assert find_place("slurm", {**SLURM, "SLURM_STEP_TASKS_PER_NODE": "4,3"}) == Place(5, 7, 1, 3, False)
    assert find_place("slurm", {**SLURM, "SLURM_NTASKS_PER_NODE": "4"}) == Place(5, 7, 1, 4, False)
    assert find_place("slurm", SLURM).local_size == 2  # at least
    with pytest.raises(ConfigError, match="no SLURM_NTASKS, SLURM_LOCALID"):
        find_place("slurm", {"SLURM_PROCID": "0"})
    with pytest.raises(ConfigError, match="RANK = 'abc'"):
        find_place("pytorch", {**torchrun, "RANK": "abc"})


def test_tasks_of_a_node():
    assert [tasks_of_node("4(x2),3", node) for node in range(3)] == [4, 4, 3]
    assert [tasks_of_node("1,12(x3)", node) for node in range(4)] == [1, 12, 12, 12]


@pytest.mark.parametrize(
    ("visible", "sees_all", "backend", "gpu"),
    [
        (4, True, None, 3),
        (4, False, "nccl", 3),
        (8, True, "nccl", 3),
        (1, False, None, 0),  # srun --gpus-per-task=1
        (1, True, None, None),  # torchrun with four processes on a machine with one GPU
        (2, False, None, None),
        (0, False, "nccl", None),
        (4, True, "gloo", None),
        (1, False, "gloo", None),
    ],
)
def test_the_gpu_of_local_rank_three_of_four(visible, sees_all, backend, gpu):
    place = Place(7, 8, 3, 4, sees_all)
    assert choose_gpu(place, visible, backend) == gpu
    alone = dataclasses.replace(place, rank=0, world_size=1, local_rank=0, local_size=1)
    assert choose_gpu(alone, visible, backend) == (0 if visible and backend != "gloo" else None)


def test_a_gpu_that_is_not_there():
    assert single_device(-1).type == "cpu"
    with pytest.raises(ConfigError, match=r"GPU number 99, but this process sees (no|\d+) GPU"):
        single_device(99)


def test_where_processes_meet():
    assert meeting_point("pytorch", {"MASTER_ADDR": "node3", "MASTER_PORT": "1234"}) == ("node3", 1234)
    ports = [meeting_point("slurm", {"SLURM_NODELIST": "n1", "SLURM_JOB_ID": str(job)}) for job in (1, 1, 2)]
    assert ports[0] == ports[1] != ports[2] and ports[0][0] == "n1" and 20000 <= ports[0][1] < 29000
    assert meeting_point("mpi", {})[0] == "127.0.0.1"
    with pytest.raises(ConfigError, match="99999"):
        meeting_point("mpi", {"MASTER_PORT": "99999"})


@pytest.mark.parametrize("text", ["abc", "0", "-1", "65536", "1.5", ""])
def test_no_port(text):
    with pytest.raises(ConfigError, match="1 to 65535"):
        check_port(text)
