"""A small model that carries its config, and the Hub of the tests in place of the real one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.engine.tiny_vspw import make_data, write_checkpoint, write_config
from tests.hub_server import TOKEN, HubServer


def small_model(folder: Path) -> Path:
    """A checkpoint of the per-frame baseline; its data are in ``data`` beside it, its config file is gone."""
    make_data(folder / "data", {"a": 4})
    config = write_config(folder / "baseline.py", folder / "data", clip=False)
    write_checkpoint(folder / "model.pth", config)
    config.unlink()
    return folder / "model.pth"


def use_hub(monkeypatch: pytest.MonkeyPatch, address: str, cache: Path, token: str | None = TOKEN) -> None:
    """Let the installed huggingface_hub talk to `address`, with an empty cache: what its environment variables do."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(cache / "token"))
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    if token is not None:
        monkeypatch.setenv("HF_TOKEN", token)


@pytest.fixture
def hub(monkeypatch, tmp_path):
    with HubServer() as server:
        use_hub(monkeypatch, server.address, tmp_path / "cache")
        yield server
