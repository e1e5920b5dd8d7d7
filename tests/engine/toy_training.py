"""Trainings of the toy model, and what their files hold."""

from __future__ import annotations

import json

import torch
from mmengine.config import Config

from mmseg.engine.average import TRAINED
from mmseg.engine.train import Trainer
from mmseg.weights import read_checkpoint
from tests.engine.toy import CONFIG, ToyClips, ToySegmentor


def trainer(folder, options=None, evaluate=None, resume_from=None, seed=5, nan=False, **arguments) -> Trainer:
    """A training of the toy model in `folder`; `arguments` are those of :class:`Trainer`."""
    folder.mkdir(exist_ok=True)
    cfg = Config.fromstring(CONFIG, ".py")
    cfg.merge_from_dict(options or {})
    torch.manual_seed(seed)
    given = dict(evaluate=evaluate, resume_from=resume_from, meta={"CLASSES": list("rgb")}, log_name="log")
    return Trainer(cfg, ToySegmentor(), ToyClips(nan=nan), folder, seed, **given, **arguments)


def assert_same_checkpoint(a, b) -> None:
    """Bit for bit: weights, batch statistics and the optimiser's moments."""
    a, b = read_checkpoint(a), read_checkpoint(b)
    for part in ("state_dict", TRAINED):
        one, other = a.get(part, {}), b.get(part, {})
        assert one.keys() == other.keys()
        for name, value in one.items():
            assert torch.equal(value, other[name]), (part, name)
    assert a["optimizer"]["state"].keys() == b["optimizer"]["state"].keys()
    for number, moments in a["optimizer"]["state"].items():
        for name, value in moments.items():
            assert torch.equal(value, b["optimizer"]["state"][number][name]), (number, name)
    assert a["optimizer"]["param_groups"] == b["optimizer"]["param_groups"]
    assert {**a["meta"], "time": 0} == {**b["meta"], "time": 0}


def lines(folder, mode="train") -> list[dict]:
    """The entries of a run's JSON log, without times."""
    entries = [json.loads(line) for line in (folder / "log.log.json").read_text().splitlines()]
    return [{k: v for k, v in e.items() if "time" not in k} for e in entries if e.get("mode") == mode]
