"""What a user is told who computes in bfloat16 on a processor without instructions for it."""

from __future__ import annotations

import platform

import pytest
import torch

from mmseg.engine.predictor import VideoPredictor
from mmseg.engine.step import amp_dtype
from mmseg.models.cpu import bfloat16
from tests.contract.systems import SYSTEMS
from tests.engine.test_ahead import PIPELINE

CPU = torch.device("cpu")


@pytest.fixture
def fresh():
    """What a process knows when it begins."""

    def forget():
        bfloat16.has_bfloat16.cache_clear()
        bfloat16._warn.cache_clear()

    forget()
    yield
    forget()


@pytest.fixture
def old_processor(fresh, monkeypatch):
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False, raising=False)


def test_an_old_processor_is_told_of_once(old_processor, caplog):
    model = SYSTEMS[0].model()
    for amp in (None, torch.bfloat16, torch.bfloat16):
        VideoPredictor(model, PIPELINE, amp=amp).begin()
        assert ("longer than float32" in caplog.text) == (amp is not None)
    assert amp_dtype({"dtype": "bfloat16"}, CPU) is torch.bfloat16
    assert len(caplog.records) == 1


def test_trainings_and_other_devices(old_processor, caplog):
    amp_dtype({"dtype": "bfloat16"}, torch.device("cuda"))
    assert not caplog.records
    amp_dtype({"dtype": "float16"}, CPU)
    assert ["GPU" in record.message for record in caplog.records] == [True, False]


def test_float16_is_bfloat16_on_a_cpu_and_said_so(fresh, caplog):
    predictor = VideoPredictor(SYSTEMS[0].model(), PIPELINE, amp=torch.float16)
    predictor.begin()
    assert predictor.amp is torch.bfloat16 and "float16 needs a GPU" in caplog.text
    assert bfloat16.mixed_type(torch.float16, torch.device("cuda")) is torch.float16
    assert bfloat16.mixed_type(None, CPU) is None


def test_other_processors_are_asked_through_onednn(fresh, monkeypatch, caplog):
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    bfloat16.mixed_type(torch.bfloat16, CPU)
    assert bool(caplog.records) != torch.ops.mkldnn._is_mkldnn_bf16_supported() == bfloat16.has_bfloat16()
