"""How long a training waits for its checkpoints: ``python -m tests.engine.save_speed CONFIG FOLDER [TIMES]``.

The model of the config with AdamW's moments is saved TIMES times (6) in FOLDER, in turns by a write that is waited for
and by one in the background. Convolutions of half a second stand for the passes before the next step.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import torch

from mmseg.config import load_config
from mmseg.engine.checkpoints import Checkpoints
from mmseg.models import build_segmentor

BETWEEN = 0.5  # seconds


def main(config: str, folder: str, times: str = "6") -> None:
    cfg = load_config(config)
    model = build_segmentor(cfg.model, cfg.get("train_cfg"), cfg.get("test_cfg")).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 1e-6)
    optimizer.step()
    updater = SimpleNamespace(optimizer=optimizer, scaler=torch.amp.GradScaler("cpu", enabled=False))
    with tempfile.TemporaryDirectory(dir=folder) as name:
        waits, goes_on = (
            Checkpoints(Path(name, str(background)), model, updater, {}, max_keep=1, background=background)
            for background in (False, True)
        )
        waited, background = [], []
        for done in range(1, int(times) + 1):
            waited.append(seconds(waits.save, done))
            begun = seconds(goes_on.save, done)
            work(BETWEEN)
            step = seconds(optimizer.step)  # waits for what is left of the copy
            background.append(begun + max(0.0, step - seconds(optimizer.step)))
            goes_on.wait()
        size = goes_on.folder.joinpath("latest.pth").stat().st_size
    write, wait = statistics.median(waited), statistics.median(background)
    sys.stdout.write(
        f"{size / 2**20:.0f} MiB: waited for {write:.3f} s, in the background {wait:.4f} s = "
        f"{100 * wait / write:.1f} % (medians of {times}; worst {max(background):.3f} s)\n"
    )


def seconds(call, *arguments) -> float:
    begin = time.perf_counter()
    call(*arguments)
    return time.perf_counter() - begin


def work(duration: float) -> None:
    """Convolutions for about so many seconds."""
    end, images, layer = time.perf_counter() + duration, torch.randn(1, 3, 64, 64), torch.nn.Conv2d(3, 64, 7)
    while time.perf_counter() < end:
        layer(images).sum().backward()


if __name__ == "__main__":
    main(*sys.argv[1:])
