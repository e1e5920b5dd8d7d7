"""What the server of the page answers: its files, uploads, jobs and downloads.

Other pages that are open in the same browser must not use it: a request has to name this machine (no DNS rebinding),
and one that changes something carries a header that a foreign page may not send.
"""

from __future__ import annotations

import contextlib
import json
import logging
import mimetypes
import re
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from mmseg.apis.demo.choices import INSIDE, UNTRAINED
from mmseg.apis.demo.jobs import parts, unexpected
from mmseg.apis.demo.videos import DemoVideo, write_ids
from mmseg.errors import ConfigError, DataError, SegError
from mmseg.making.flow import FLOW_NAMES
from mmseg.version import __version__
from mmseg.visualization import palette_table

if TYPE_CHECKING:
    from mmseg.apis.demo.server import DemoServer

logger = logging.getLogger("mmseg.demo")

LOOPBACK = ("127.0.0.1", "localhost", "::1")
_PAGE = {"/": "page.html", "/page.css": "page.css", "/page.js": "page.js", "/painter.js": "painter.js"}
_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
_MAX_BODY = 2**26  # bytes of what is no video: painted masks have one byte for each pixel
_NUM_OBJECTS = 8
_CHUNK = 2**18


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    server: DemoServer
    timeout = 60  # seconds without a byte

    def do_GET(self) -> None:
        self._answered(self._get)

    def do_POST(self) -> None:
        self._answered(self._post)

    def log_message(self, format: str, *args: Any) -> None:
        logger.debug("%s " + format, self.address_string(), *args)

    def _answered(self, answer: Callable[[str, Mapping[str, str]], None]) -> None:
        """Every request gets an answer; an error of the user is told in its three parts."""
        length = self.headers.get("Content-Length") or "0"
        self._unread = int(length) if re.fullmatch(r"\d{1,18}", length, re.ASCII) else 0
        path, _, query = self.path.partition("?")
        try:
            self._check_sender()
            answer(path, {name: values[-1] for name, values in parse_qs(query, keep_blank_values=True).items()})
        except _Missing:
            self._json({"found": f"{path[:100]}: nothing is there"}, HTTPStatus.NOT_FOUND)
        except SegError as error:
            self._json(parts(error, self.server.videos.folder), HTTPStatus.BAD_REQUEST)
        except (ConnectionError, TimeoutError):
            self.close_connection = True
        except Exception as error:
            logger.exception("%s %s", self.command, path)
            self._json(parts(unexpected(error)), HTTPStatus.INTERNAL_SERVER_ERROR)

    def _check_sender(self) -> None:
        host = re.sub(r":\d+$", "", self.headers.get("Host", "")).strip("[]")
        if self.server.settings.host in LOOPBACK and host not in LOOPBACK:
            raise ConfigError(f"a request for {host[:100]!r}", "one for 127.0.0.1", "open the address of the terminal")
        if self.command == "POST" and self.headers.get("X-Requested-With") != "mmseg-demo":
            raise ConfigError("a request of another page", "one of this page", "load the page again")

    # ------------------------------------------------------------------ requests

    def _get(self, path: str, query: Mapping[str, str]) -> None:
        server = self.server
        match path.split("/")[1:]:
            case _ if path in _PAGE:
                data = files("mmseg.apis.demo").joinpath(_PAGE[path]).read_bytes()
                self._send(data, f"{mimetypes.guess_type(_PAGE[path])[0]}; charset=utf-8")
            case ["favicon.ico"]:
                self._send(b"", "image/x-icon", HTTPStatus.NO_CONTENT)
            case ["api", "state"]:
                self._json(self._state())
            case ["api", "videos", key, "first.png"]:
                self._file(server.videos[key].picture)
            case ["api", "videos", key, "mask"]:
                mask = server.videos[key].mask
                self._send(b"" if mask is None else mask.tobytes(), "application/octet-stream")
            case ["api", "jobs", key]:
                self._json(server.jobs.public(key))
            case ["api", "jobs", key, "files", name] if name in server.jobs[key].files:
                self._file(server.jobs[key].files[name], download="download" in query)
            case _:
                raise _Missing

    def _post(self, path: str, query: Mapping[str, str]) -> None:
        server = self.server
        match path.split("/")[1:]:
            case ["api", "describe"]:
                self._json(self._described())
            case ["api", "videos"]:
                self._json(_public(self._received(query.get("name", ""))))
            case ["api", "sample"]:
                self._json(_public(server.videos.sample(server.jobs.uses)))
            case ["api", "jobs"]:
                self._json(self._submitted(query).public())
            case ["api", "jobs", key, "cancel"]:
                server.jobs.cancel(key)
                self._json(server.jobs.public(key))
            case _:
                raise _Missing

    def _state(self) -> dict[str, Any]:
        server = self.server
        return {
            "version": __version__,
            "device": str(server.settings.device),
            "configs": list(server.choices.configs()),
            "checkpoints": list(server.choices.checkpoints()),
            "inside": INSIDE,
            "untrained": UNTRAINED,
            "flows": list(FLOW_NAMES),
            "colours": palette_table(None, None)[1 : _NUM_OBJECTS + 1].tolist(),
            "max_upload": server.settings.max_upload,
            "max_frames": server.settings.max_frames,
        }

    def _described(self) -> dict[str, Any]:
        """What a config and a checkpoint ask for, or why they do not go together."""
        asked = self._read_json()
        config, checkpoint = _text(asked, "config"), _text(asked, "checkpoint")
        try:
            return self.server.choices.describe(config, checkpoint)
        except SegError as error:
            return {"error": parts(error)}

    def _received(self, name: str) -> DemoVideo:
        limit = self.server.settings.max_upload
        if not self._unread:
            raise DataError("an empty file, or one of unknown length", "a video file", "choose another file")
        if self._unread > limit:
            raise DataError(
                f"a file of {self._unread / 1e6:.0f} MB",
                f"{limit / 1e6:.0f} MB at most",
                "cut the video, or start the demo with a larger --max-upload",
            )
        length, self._unread = self._unread, 0
        self.close_connection = True  # unless all of it is read
        video = self.server.videos.receive(name, self.rfile, length, self.server.jobs.uses)
        self.close_connection = False
        return video

    def _submitted(self, query: Mapping[str, str]) -> Any:
        """A job: its settings are in the address, the painted mask, if any, is the body."""
        video, server = self.server.videos[_text(query, "video")], self.server
        ids = self._body()
        settings: dict[str, Any] = {"legend": query.get("legend") == "1", "side_by_side": query.get("beside") == "1"}
        settings["opacity"] = _fraction(query.get("opacity", "0.45"))
        if query.get("flow"):
            settings["flow"] = query["flow"]
        description = server.choices.describe(_text(query, "config"), _text(query, "checkpoint"))
        if description["objects"]:
            path = video.path.parent / f"mask{len(list(video.path.parent.glob('mask*.png')))}.png"
            settings["mask"] = write_ids(path, ids, video.size, palette_table(None, None))
        return server.jobs.submit(video, query["config"], query["checkpoint"], settings)

    # ------------------------------------------------------------------ bodies

    def _body(self) -> bytes:
        if self._unread > _MAX_BODY:
            raise DataError(f"a request of {self._unread} bytes", f"{_MAX_BODY} at most", "take a smaller video")
        data, self._unread = self.rfile.read(self._unread), 0
        return data

    def _read_json(self) -> dict[str, Any]:
        try:
            asked = json.loads(self._body())
        except ValueError as error:
            raise DataError("a request that is no JSON", "JSON", "load the page again") from error
        if not isinstance(asked, dict):
            raise DataError("a request that is no JSON object", "an object", "load the page again")
        return asked

    def _json(self, content: Any, status: HTTPStatus = HTTPStatus.OK) -> None:
        self._send(json.dumps(content).encode(), "application/json", status)

    def _send(self, data: bytes, kind: str, status: HTTPStatus = HTTPStatus.OK) -> None:
        if self._unread:  # what has not been read would be taken for the next request
            self.close_connection = True
        with contextlib.suppress(ConnectionError):
            self._head(status, {"Content-Type": kind, "Content-Length": str(len(data))})
            self.wfile.write(data)

    def _head(self, status: HTTPStatus, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in {**_HEADERS, **headers}.items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()

    def _file(self, path: Path, download: bool = False) -> None:
        """A file, or the part of it that is asked for: players of videos wind on by that."""
        try:
            file = path.open("rb")
        except FileNotFoundError:
            raise _Missing from None
        with file:
            size = path.stat().st_size
            first, last = _range(self.headers.get("Range"), size)
            whole = (first, last) == (0, size - 1)
            headers = {
                "Content-Type": mimetypes.guess_type(path.name)[0] or "application/octet-stream",
                "Content-Length": str(last - first + 1),
                "Accept-Ranges": "bytes",
                **({} if whole else {"Content-Range": f"bytes {first}-{last}/{size}"}),
                **({"Content-Disposition": f'attachment; filename="{path.name}"'} if download else {}),
            }
            self._head(HTTPStatus.OK if whole else HTTPStatus.PARTIAL_CONTENT, headers)
            file.seek(first)
            left = last - first + 1
            while left and (data := file.read(min(_CHUNK, left))):
                self.wfile.write(data)
                left -= len(data)


class _Missing(Exception):
    """There is nothing at that address."""


def _public(video: DemoVideo) -> dict[str, Any]:
    """What the page is told about a video."""
    height, width = video.size
    return {
        "key": video.key, "name": video.name, "width": width, "height": height, "fps": video.fps,
        "length": video.length, "marked": video.mask is not None,
    }  # fmt: skip


def _text(asked: Mapping[str, Any], name: str) -> str:
    value = asked.get(name)
    if not isinstance(value, str) or not value:
        raise DataError(f"a request without {name}", f"a {name}", "load the page again")
    return value


def _fraction(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 <= (value := float(text)) <= 1:
            return value
    raise DataError(f"opacity {text[:20]!r}", "a number from 0 to 1", "correct it")


def _range(header: str | None, size: int) -> tuple[int, int]:
    """First and last byte of a ``Range: bytes=...`` header; all of them if there is none that can be met."""
    match = re.fullmatch(r"bytes=(\d{0,18})-(\d{0,18})", header or "")
    if match is None or match.group(0) == "bytes=-" or not size:
        return 0, size - 1
    begin, end = match.groups()
    if not begin:
        return max(size - int(end), 0), size - 1
    first, last = int(begin), min(int(end) if end else size - 1, size - 1)
    return (first, last) if first <= last else (0, size - 1)
