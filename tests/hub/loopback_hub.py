"""A Hub on this machine: an HTTP server that the real `huggingface_hub` client can push to and load from.

It keeps everything in memory, speaks LFS (clients set `HF_HUB_DISABLE_XET=1`), and can be told to misbehave: to cut
connections, to answer with an error, or to do something just before it answers. `python tests/hub/loopback_hub.py`
starts one by itself and prints what to put into the environment.
"""

from __future__ import annotations

import re
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import loopback_transfers  # noqa: F401  (registers its routes)
from loopback_api import HubApi, Request, Response, as_json
from loopback_store import Account, Repo, Store

HOST = "127.0.0.1"
USER, ORG, STRANGER = "alice", "acme", "bob"
TOKENS = {"write": "hf_loopbackWriteToken", "read": "hf_loopbackReadToken", "stranger": "hf_loopbackStrangerToken"}


@dataclass
class Fault:
    """Something that goes wrong on requests that match.

    Args:
        method: Method of the request.
        pattern: Regular expression that is searched in its path.
        status: Answer with this status instead.
        cut_after: Close the connection after so many bytes of the body: of what comes in for a PUT or POST, of what
            goes out for a GET.
        action: Called before the request is answered, which then goes on.
        times: How many requests are hit.
    """

    method: str
    pattern: str
    status: int | None = None
    cut_after: int | None = None
    action: Callable[[], object] | None = None
    times: int = 1

    def hits(self, method: str, path: str) -> bool:
        """Whether a request is to be hit; counts down."""
        if self.times and method == self.method and re.search(self.pattern, path):
            self.times -= 1
            return True
        return False


@dataclass(frozen=True)
class Entry:
    """A line of the log: what was asked, how it was answered, and how many bytes of content went each way."""

    method: str
    path: str
    status: int
    received: int
    sent: int


@dataclass
class LoopbackHub:
    """The server: two ports, of which the second hands out and takes large objects.

    Args:
        multipart_bytes: Objects above this size are uploaded in parts of it; none are if `None`.
    """

    multipart_bytes: int | None = None
    store: Store = field(default_factory=Store)
    faults: list[Fault] = field(default_factory=list)
    log: list[Entry] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.api = HubApi(self.store, self.multipart_bytes)
        self.store.accounts = {
            TOKENS["write"]: Account(USER, "write", (ORG,)),
            TOKENS["read"]: Account(USER, "read", (ORG,)),
            TOKENS["stranger"]: Account(STRANGER),
        }
        self._servers: list[_Server] = []

    def start(self, port: int = 0) -> LoopbackHub:
        """Listens on a free port, or on `port`, and on another free one for objects."""
        for wanted in (port, 0):
            server = _Server(wanted, self)
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
            self._servers.append(server)
        self.api.hub_url, self.api.blob_url = (f"http://{HOST}:{server.server_port}" for server in self._servers)
        return self

    def stop(self) -> None:
        """Closes both ports."""
        for server in self._servers:
            server.shutdown()
            server.server_close()

    @property
    def endpoint(self) -> str:
        """What `HF_ENDPOINT` is to be set to."""
        return self.api.hub_url

    def repo(self, repo_id: str, kind: str = "model") -> Repo:
        """A repository as the server holds it; `KeyError` if there is none."""
        return self.store.repos[kind, repo_id]

    def create(
        self, repo_id: str, kind: str = "model", files: dict[str, bytes] | None = None, **changes: object
    ) -> Repo:
        """A repository that is there before a test begins, with a second commit that holds `files`."""
        with self.store.lock:
            namespace = repo_id.partition("/")[0]
            repo = self.store.create(kind, repo_id, Account(namespace, "write"))
            for name, value in changes.items():
                setattr(repo, name, value)
            if files:
                self.store.push(repo, files)
            return repo

    def fail(self, method: str, pattern: str, **what: object) -> Fault:
        """Adds a fault, see `Fault`."""
        fault = Fault(method, pattern, **what)  # type: ignore[arg-type]
        self.faults.append(fault)
        return fault

    def uploaded(self) -> list[Entry]:
        """Requests of the log that brought objects."""
        return [entry for entry in self.log if entry.method == "PUT" and entry.status == 200]

    def commits_made(self) -> list[Entry]:
        """Requests of the log that made commits."""
        return [entry for entry in self.log if "/commit/" in entry.path and entry.status == 200]


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, port: int, hub: LoopbackHub) -> None:
        super().__init__((HOST, port), _Handler)
        self.hub = hub


class _Cut(Exception):
    """The connection is to be closed without an answer."""


class _Handler(BaseHTTPRequestHandler):
    """Reads a request, lets the API answer it, and sends the answer; on the way there it does what faults say."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except (_Cut, ConnectionError):
            self.close_connection = True

    def _answer(self) -> None:
        hub, parts = self.server.hub, urlsplit(self.path)
        no_fault = Fault("", "", times=0)
        fault = next((fault for fault in hub.faults if fault.hits(self.command, parts.path)), no_fault)
        body = self._read(fault.cut_after if self.command in {"PUT", "POST"} else None)
        if fault.action is not None:
            fault.action()
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = Request(self.command, parts.path, parse_qs(parts.query), headers, body)
        if fault.status is None:
            response = hub.api.answer(request)
        else:
            response = as_json({"error": "the server was told to fail"}, fault.status)
        _cut_range(response, headers.get("range"))
        hub.log.append(Entry(self.command, parts.path, response.status, len(body), len(response.data)))
        self._send(response, fault.cut_after if self.command == "GET" else None)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _answer

    def _read(self, cut_after: int | None) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            return self._read_chunks()
        length = int(self.headers.get("Content-Length") or 0)
        if cut_after is not None and cut_after < length:
            self.rfile.read(cut_after)
            raise _Cut
        return self.rfile.read(length)

    def _read_chunks(self) -> bytes:
        chunks = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    def _send(self, response: Response, cut_after: int | None) -> None:
        self.send_response(response.status)
        for name, value in response.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(response.data)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if cut_after is not None and cut_after < len(response.data):
            self.wfile.write(response.data[:cut_after])
            raise _Cut
        self.wfile.write(response.data)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing on standard error; `LoopbackHub.log` has it all."""


def _cut_range(response: Response, wanted: str | None) -> None:
    """Cuts an answer down to the bytes that were asked for."""
    match = re.fullmatch(r"bytes=(\d*)-(\d*)", wanted or "")
    if match is None or response.status != 200 or "Accept-Ranges" not in response.headers:
        return
    size = len(response.data)
    first, last = match.groups()
    begin = int(first) if first else max(0, size - int(last))
    end = min(int(last) + 1, size) if first and last else size
    if begin >= size:
        response.status, response.data = 416, b""
        response.headers["Content-Range"] = f"bytes */{size}"
        return
    response.status, response.data = 206, response.data[begin:end]
    response.headers["Content-Range"] = f"bytes {begin}-{end - 1}/{size}"


def client_environment(endpoint: str, token: str | None, home: Path, loopback: bool = True) -> dict[str, str]:
    """What a client process needs in its environment; `home` is its cache, and nothing of the caller's is used."""
    return {
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(home),
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_UPDATE_DOWNLOAD_COUNTS": "0",
        "NO_PROXY": f"{HOST},localhost",
        "no_proxy": f"{HOST},localhost",
        **({"HF_TOKEN": token} if token else {"HF_HUB_DISABLE_IMPLICIT_TOKEN": "1"}),
        **({"HF_HUB_DISABLE_XET": "1"} if loopback else {}),
    }


def main() -> None:
    """Serves until interrupted."""
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 8555
    hub = LoopbackHub().start(port)
    lines = (f"export HF_ENDPOINT={hub.endpoint}", "export HF_HUB_DISABLE_XET=1", f"export HF_TOKEN={TOKENS['write']}")
    sys.stdout.write("\n".join([*lines, f"# the account {USER} may write to {USER}/ and {ORG}/\n"]))
    sys.stdout.flush()
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        hub.stop()


if __name__ == "__main__":
    main()
