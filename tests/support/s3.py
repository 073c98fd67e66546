"""A real S3 server on loopback (SeaweedFS), and a proxy before it that can misbehave."""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread
from typing import Any

import pytest

_KEY, _SECRET = "echojepa", "not-a-secret"
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": _KEY,
    "AWS_SECRET_ACCESS_KEY": _SECRET,
    "AWS_EC2_METADATA_DISABLED": "true",
}
_EXPIRED = b"<Error><Code>ExpiredToken</Code><Message>The token has expired.</Message></Error>"
_FORBIDDEN = b"<Error><Code>AccessDenied</Code><Message>Access Denied.</Message></Error>"
_SLOW_DOWN = b"<Error><Code>SlowDown</Code><Message>Reduce your request rate.</Message></Error>"


@dataclass
class Behaviour:
    """What the proxy does to requests."""

    next_answers: list[str] = field(default_factory=list)
    """Answers to the coming requests, one each: 500, 503, reset, expired; then all goes through."""
    always: str = "pass"
    forbidden: str | None = None
    """Requests whose path holds this text are refused, as to credentials without that right."""
    bytes_per_second: float = float("inf")
    seen: list[str] = field(default_factory=list)
    """Method and path of every request."""

    def reset(self) -> None:
        """Behave from now on."""
        self.next_answers, self.always, self.bytes_per_second = [], "pass", float("inf")
        self.seen, self.forbidden = [], None


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
    return port


@contextmanager
def seaweed(folder: Path) -> Iterator[int]:
    """Run SeaweedFS with its S3 interface; yields the port."""
    names = ("-s3.port", "-master.port", "-volume.port", "-filer.port")
    ports = {name: free_port() for name in names}
    ports |= {f"{n}.grpc": free_port() for n in ("-master.port", "-volume.port", "-filer.port")}
    ports |= {"-s3.port.grpc": free_port(), "-s3.port.iceberg": 0, "-s3.port.lance": 0}
    weed = Path(sys.executable).with_name("weed")
    options = [f"{name}={port}" for name, port in ports.items()]
    config = folder / "s3.json"
    key = {"accessKey": _KEY, "secretKey": _SECRET}
    owner = {"name": "owner", "credentials": [key], "actions": ["Admin", "Read", "Write", "List"]}
    config.write_text(json.dumps({"identities": [owner]}))
    command = [str(weed), "server", f"-dir={folder}", "-s3", "-ip=127.0.0.1", *options]
    with (folder / "weed.log").open("w") as log:
        process = subprocess.Popen([*command, f"-s3.config={config}"], stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 60
        while not _answers(ports["-s3.port"]):
            assert process.poll() is None and time.monotonic() < deadline, "SeaweedFS did not start"
            time.sleep(0.3)
        yield ports["-s3.port"]
    finally:
        process.kill()
        process.wait()


def _answers(port: int) -> bool:
    try:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        connection.request("GET", "/")
        return connection.getresponse().status in (200, 403)
    except OSError:
        return False


class _Proxy(ThreadingHTTPServer):
    """Stands before a server and behaves as it is told."""

    def __init__(self, target: int) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.target = target
        self.behaviour = Behaviour()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Proxy

    def log_message(self, *_: Any) -> None:
        pass

    def _serve(self) -> None:
        body, behaviour = self._body(), self.server.behaviour
        behaviour.seen.append(f"{self.command} {self.path}")
        answer = behaviour.next_answers.pop(0) if behaviour.next_answers else behaviour.always
        if behaviour.forbidden is not None and behaviour.forbidden in self.path:
            answer = "forbidden"
        time.sleep(len(body) / behaviour.bytes_per_second)
        if answer == "pass":
            self._forward(body)
        elif answer == "reset":
            self.connection.shutdown(socket.SHUT_RDWR)
        else:
            status = {"500": 500, "503": 503, "expired": 403, "forbidden": 403}[answer]
            bodies = {"503": _SLOW_DOWN, "expired": _EXPIRED, "forbidden": _FORBIDDEN}
            content = bodies.get(answer, b"")
            self._answer(status, {}, content)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _serve  # noqa: N815

    def _body(self) -> bytes:
        """The body as it was framed."""
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        framed = b""
        while True:
            head = self.rfile.readline()
            size = int(head, 16)
            framed += head + self.rfile.read(size + 2)
            if size == 0:
                return framed

    def _forward(self, body: bytes) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.server.target, timeout=60)
        connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            if name.lower() != "expect":
                connection.putheader(name, value)
        connection.endheaders(body)
        answer = connection.getresponse()
        content = answer.read()
        time.sleep(len(content) / self.server.behaviour.bytes_per_second)
        self._answer(answer.status, dict(answer.getheaders()), content)

    def _answer(self, status: int, headers: dict[str, str], content: bytes) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            if name.lower() not in ("transfer-encoding", "content-length", "connection"):
                self.send_header(name, value)
        length = headers.get("Content-Length") if self.command == "HEAD" else None
        self.send_header("Content-Length", length or str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


@contextmanager
def misbehaving(server_port: int) -> Iterator[tuple[int, Behaviour]]:
    """A proxy before the server; yields its port and what it does."""
    proxy = _Proxy(server_port)
    Thread(target=proxy.serve_forever, daemon=True).start()
    try:
        yield proxy.server_address[1], proxy.behaviour
    finally:
        proxy.shutdown()


@contextmanager
def served() -> Iterator[tuple[int, Behaviour]]:
    """SeaweedFS behind the proxy, with its credentials in the environment."""
    with (
        TemporaryDirectory() as folder,
        pytest.MonkeyPatch.context() as patch,
        seaweed(Path(folder)) as server,
        misbehaving(server) as (port, behaviour),
    ):
        for name, value in CREDENTIALS.items():
            patch.setenv(name, value)
        yield port, behaviour


def url(port: int, path: str) -> str:
    """An S3 URL as pyarrow takes it."""
    return (
        f"s3://{path}?scheme=http&endpoint_override=127.0.0.1%3A{port}&allow_bucket_creation=true"
    )
