"""A Hub of models for the real huggingface_hub: a server of this machine that keeps repositories in memory."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TOKEN = "hf_of_the_tests"


class HubServer(ThreadingHTTPServer):
    """Repositories by name, each a dict of files; `log` has the requests. A context manager."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.log: list[str] = []
        self.address = f"http://127.0.0.1:{self.server_port}"

    def __enter__(self) -> HubServer:
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self.shutdown()
        self.server_close()

    def commit(self, name: str) -> str:
        return hashlib.sha1(repr(sorted(self.repositories[name].items())).encode()).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    server: HubServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: object) -> None:
        self.server.log.append(f"{self.command} {self.path}")

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        parts = self.path.partition("?")[0].strip("/").split("/")
        if parts[:2] == ["api", "models"]:
            name, rest = "/".join(parts[2:4]), parts[4:]
            files = self.server.repositories.get(name)
            if files is None:
                return self._answer(404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
            commit = self.server.commit(name)
            if rest[:1] == ["tree"]:
                tree = [
                    {"type": "file", "path": p, "size": len(c), "oid": hashlib.sha1(c).hexdigest()}
                    for p, c in files.items()
                ]
                return self._answer(200, tree)
            if rest[:1] == ["revision"] and rest[1] not in ("main", commit):
                return self._answer(404, {"error": "Revision not found"}, {"X-Error-Code": "RevisionNotFound"})
            siblings = [{"rfilename": path} for path in files]
            return self._answer(200, {"id": name, "modelId": name, "sha": commit, "siblings": siblings, "tags": []})
        name, path = "/".join(parts[:2]), "/".join(parts[4:])
        files = self.server.repositories.get(name)
        if files is None:
            return self._answer(404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
        if path not in files:
            return self._answer(404, {"error": "Entry not found"}, {"X-Error-Code": "EntryNotFound"})
        tag = hashlib.sha1(files[path]).hexdigest()
        self._answer(200, files[path], {"ETag": f'"{tag}"', "X-Repo-Commit": self.server.commit(name)})

    def do_POST(self) -> None:
        if self.headers.get("Transfer-Encoding") == "chunked":
            blocks = []
            while size := int(self.rfile.readline(), 16):
                blocks.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            body = b"".join(blocks)
        else:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self._answer(401, {"error": "Invalid credentials"})
        parts = self.path.partition("?")[0].strip("/").split("/")
        if parts == ["api", "repos", "create"]:
            asked = json.loads(body)
            name = f"{asked.get('organization') or 'user'}/{asked['name'].split('/')[-1]}"
            status = 409 if name in self.server.repositories else 200
            self.server.repositories.setdefault(name, {})
            return self._answer(status, {"url": f"{self.server.address}/{name}", "name": name, "id": name})
        if parts[-2:] == ["preupload", "main"]:
            files = [
                {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
                for file in json.loads(body)["files"]
            ]
            return self._answer(200, {"files": files})
        if parts[-2:] == ["commit", "main"]:
            name = "/".join(parts[2:4])
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    self.server.repositories[name][line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            commit = self.server.commit(name)
            return self._answer(
                200, {"commitUrl": f"{self.server.address}/{name}/commit/{commit}", "commitOid": commit}
            )
        self._answer(200, {"errors": [], "warnings": []})  # of the card's head

    def _answer(self, status: int, content: object, headers: dict[str, str] | None = None) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)
