"""A demo server inside of the process of the tests, small videos to send to it, and requests as the page makes them."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any
from urllib.parse import quote

import av
import numpy as np
import torch

from mmseg.apis.demo.choices import Choices
from mmseg.apis.demo.server import DemoServer, DemoSettings
from mmseg.config import load_config
from mmseg.engine.checkpoints import save_checkpoint
from mmseg.models import build_segmentor
from mmseg.visualization import VideoWriter
from tests.engine.tiny_vspw import SIZE, write_config

ROOT = Path(__file__).parents[2]
CONFIG = "tiny.py"
OTHER = "hfan.pth"  # a checkpoint of another system


def write_choices(folder: Path) -> Choices:
    """A tiny CFFM, a GSFM, and checkpoints: one that fits, one of another system, one that is damaged."""
    configs, checkpoints = folder / "configs", folder / "checkpoints"
    configs.mkdir()
    checkpoints.mkdir()
    write_config(configs / CONFIG, folder / "data")
    (configs / "gsfm.py").write_text(
        (ROOT / "local_configs/gsfm/davis2017_val.py").read_text().replace("../", f"{ROOT}/local_configs/")
    )

    torch.manual_seed(0)
    model = build_segmentor({**load_config(configs / CONFIG).model, "pretrained": None})
    meta = {"CLASSES": ("floor", "box", "ball"), "PALETTE": [[120, 120, 120], [200, 40, 40], [40, 200, 40]]}
    save_checkpoint(checkpoints / "tiny.pth", {"meta": meta, "state_dict": model.state_dict()})
    save_checkpoint(checkpoints / OTHER, {"meta": {}, "state_dict": {"backbone.conv1.weight": torch.zeros(3)}})
    (checkpoints / "damaged.pth").write_bytes(b"PK\3\4 nothing more")
    return Choices([configs], [checkpoints])


def write_video(path: Path, frames: int = 6, size: tuple[int, int] = SIZE) -> Path:
    """A bright square that moves to the right over a dark ground; the sides are cut to even numbers."""
    with VideoWriter(path.with_suffix(""), 10) as writer:
        for t in range(frames):
            picture = np.full((*size, 3), 40, np.uint8)
            picture[10:30, 5 + 3 * t : 25 + 3 * t] = (60, 60, 230)
            writer.write(picture)
    return writer.path


def write_sound(path: Path) -> Path:
    """A file with sound and no picture."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.float32), format="fltp", layout="mono")
        frame.sample_rate, frame.time_base = 8000, Fraction(1, 8000)
        container.mux([*stream.encode(frame), *stream.encode(None)])
    return path


@contextmanager
def running(choices: Choices, **settings: Any) -> Iterator[DemoServer]:
    """A server on a free port, and a thread that serves."""
    with DemoServer(choices, DemoSettings(port=0, **settings)) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()
    assert not server.folder.exists()


class Client:
    """Requests to a server."""

    def __init__(self, server: DemoServer) -> None:
        self.server = server

    def raw(self, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.server.server_address[1], timeout=120)
        own = {"X-Requested-With": "mmseg-demo"} if method == "POST" else {}
        connection.request(method, path, body, {**own, **{k.replace("_", "-"): v for k, v in headers.items()}})
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        return answer.status, dict(answer.headers), content

    def ask(self, method: str, path: str, body: bytes = b"", status: int = 200) -> dict[str, Any]:
        found, _, content = self.raw(method, path, body)
        assert found == status, content
        return json.loads(content)

    def upload(self, path: Path, name: str | None = None, status: int = 200) -> dict[str, Any]:
        return self.ask("POST", f"/api/videos?name={quote(name or path.name)}", path.read_bytes(), status)

    def submit(self, video: dict[str, Any], config: str, checkpoint: str, mask: bytes = b"", status: int = 200):
        query = f"video={video['key']}&config={config}&checkpoint={checkpoint}&legend=1&opacity=0.6"
        return self.ask("POST", f"/api/jobs?{query}", mask, status)

    def wait(self, job: dict[str, Any], *states: str) -> dict[str, Any]:
        deadline = time.monotonic() + 120
        while job["state"] not in (states or ("done", "failed", "cancelled")):
            assert time.monotonic() < deadline, job
            time.sleep(0.02)
            job = self.ask("GET", f"/api/jobs/{job['key']}")
        return job
