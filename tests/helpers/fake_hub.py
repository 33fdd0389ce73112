"""A server that answers as the Hugging Face hub does, as far as fetching a file goes.

The requests of huggingface_hub 2.4: what a repository holds (GET /api/models/...), and
a file of it (HEAD and GET /<repository>/resolve/<commit>/<file>), with its headers.
"""

import contextlib
import hashlib
import json
import re
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

FILE = re.compile(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)")
INFO = re.compile(r"/api/models/([^/]+/[^/]+)(?:/revision/(.+))?")


class FakeHub(ThreadingHTTPServer):
    """repositories: {"owner/name": {commit: folder of its files}}, main's the last.

    tags: {tag: commit}. asked: every request, "GET /..." and so on. gated: repositories
    whose files are refused. silent: takes connections and answers nothing.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.repositories: dict[str, dict[str, Path]] = {}
        self.tags: dict[str, str] = {}
        self.asked: list[str] = []
        self.gated: set[str] = set()
        self.silent = False

    def commit(self, repository: str, revision: str | None) -> str | None:
        """The commit that a revision of a repository means."""
        commits = self.repositories[repository]
        if revision in (None, "main"):
            return list(commits)[-1]
        name = self.tags.get(revision, revision)
        return name if name in commits else None

    def gets(self) -> list[str]:
        """The names of the files that were sent, since the last call."""
        sent = [FILE.fullmatch(x[4:]) for x in self.asked if x.startswith("GET ")]
        self.asked.clear()
        return sorted(match[3] for match in sent if match)


@contextlib.contextmanager
def serving() -> Iterator[FakeHub]:
    """A hub of its own on a free port, until the end of the block."""
    with FakeHub() as hub:
        threading.Thread(target=hub.serve_forever, daemon=True).start()
        yield hub
        hub.shutdown()


class _Handler(BaseHTTPRequestHandler):
    server: FakeHub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self):
        self.answer()

    def do_GET(self):
        self.answer()

    def log_message(self, *_):
        pass

    def answer(self):
        path = unquote(self.path.partition("?")[0])
        self.server.asked.append(f"{self.command} {path}")
        until = (
            time.monotonic() + 20
        )  # who waits longer fails a test, and does not hang
        while self.server.silent and time.monotonic() < until:
            time.sleep(0.1)
        info, file = INFO.fullmatch(path), FILE.fullmatch(path)
        if info is None and file is None:
            return self.refuse(404, "")
        repository, revision = (info or file).group(1, 2)
        if repository not in self.server.repositories:
            return self.refuse(404, "RepoNotFound")
        commit = self.server.commit(repository, revision)
        if commit is None:
            return self.refuse(404, "RevisionNotFound")
        folder = self.server.repositories[repository][commit]
        if info:
            return self.send(json_info(repository, commit, folder), {})
        if repository in self.server.gated:
            return self.refuse(403, "GatedRepo")
        if not (folder / file[3]).is_file():
            return self.refuse(404, "EntryNotFound")
        content = (folder / file[3]).read_bytes()
        etag = hashlib.sha256(content).hexdigest()
        return self.send(content, {"X-Repo-Commit": commit, "ETag": f'"{etag}"'})

    def send(self, content: bytes, headers: dict[str, str], status: int = 200):
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def refuse(self, status: int, code: str):
        self.send(b"", {"X-Error-Code": code} if code else {}, status)


def json_info(repository: str, commit: str, folder: Path) -> bytes:
    """What the hub says of a repository: among other things, its files."""
    names = [p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()]
    siblings = [{"rfilename": name} for name in names]
    answer = {"id": repository, "sha": commit, "siblings": siblings}
    return json.dumps(answer).encode()
