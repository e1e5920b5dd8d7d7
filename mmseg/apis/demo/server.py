"""The HTTP server of the page, and what it keeps: videos, jobs, and a temporary folder for all of it."""

from __future__ import annotations

import logging
import os
import socket
import tempfile
from dataclasses import dataclass, field
from http.server import ThreadingHTTPServer
from pathlib import Path
from socketserver import TCPServer
from typing import Any

import torch

from mmseg.apis.demo.choices import Choices
from mmseg.apis.demo.jobs import Jobs
from mmseg.apis.demo.requests import Handler
from mmseg.apis.demo.videos import DemoVideos
from mmseg.errors import ConfigError

logger = logging.getLogger("mmseg.demo")


@dataclass(frozen=True)
class DemoSettings:
    """What the server is told.

    Attributes:
        host, port: where it listens; port 0 takes a free one.
        device: where models compute.
        max_upload: bytes of a video.
        max_frames: of a video; None: all of them.
        keep: how many videos and results are kept.
    """

    host: str = "127.0.0.1"
    port: int = 7860
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    max_upload: int = 500 * 10**6
    max_frames: int | None = None
    keep: int = 12


class DemoServer(ThreadingHTTPServer):
    """Answers each request in a thread. A context manager: at its end nothing of what was uploaded or made is left.

    Args:
        choices: of configs and checkpoints.
        settings: see there.

    Raises:
        ConfigError: nobody can listen there.
    """

    daemon_threads = True

    def __init__(self, choices: Choices, settings: DemoSettings) -> None:
        self.jobs: Jobs | None = None
        self.address_family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
        try:
            super().__init__((settings.host, settings.port), Handler)
        except (OSError, OverflowError) as error:
            raise ConfigError(
                f"--host {settings.host} --port {settings.port}: {error}",
                "an address of this machine and a free port",
                "choose another address or port",
            ) from error
        self.choices, self.settings = choices, settings
        self._temporary = tempfile.TemporaryDirectory(prefix=f"mmseg-demo-{os.getpid()}-", ignore_cleanup_errors=True)
        self.folder = Path(self._temporary.name)
        self.videos = DemoVideos(self.folder / "videos", settings.keep)
        self.jobs = Jobs(self.folder / "results", choices, settings.device, settings.keep, settings.max_frames)

    @property
    def address(self) -> str:
        """What to type into a browser."""
        host, port = self.server_address[:2]
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
        return f"http://{f'[{host}]' if ':' in host else host}:{port}/"

    def server_bind(self) -> None:
        """As that of the base, which would ask a name server first."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]

    def server_close(self) -> None:
        """Stop what is under way and remove everything."""
        super().server_close()
        if self.jobs is not None:
            self.jobs.close()
            self._temporary.cleanup()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Browsers break connections off when a video is wound on: no reason for a traceback."""
        logger.debug("connection with %s", client_address, exc_info=True)
