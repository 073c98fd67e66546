"""Metadata services of three clouds on loopback, as their manuals describe them."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Cloud(ThreadingHTTPServer):
    """Tells the machine nothing until `ends_in` is called."""

    def __init__(self, kind: str) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.kind = kind
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.ends_at: float | None = None
        self.maintenance = False
        """Whether the end is announced as maintenance of the host, where that differs."""
        self.fails_once: set[str] = set()
        """Paths that are answered with an error, once each."""

    def ends_in(self, seconds: float) -> None:
        """Give notice."""
        self.ends_at = time.time() + seconds


class _Answers(BaseHTTPRequestHandler):
    server: Cloud

    def do_PUT(self) -> None:
        asked = self.headers["X-aws-ec2-metadata-token-ttl-seconds"]
        is_token = self.server.kind == "ec2" and self.path == "/latest/api/token" and asked
        self._answer("a-token" if is_token else None)

    def do_GET(self) -> None:
        if self.server.kind == "ec2" and self.headers["X-aws-ec2-metadata-token"] != "a-token":
            self.send_response(401)  # as machines that require IMDSv2 do
            self.end_headers()
            return
        self._answer(getattr(self, f"_{self.server.kind}")())

    def _answer(self, text: str | None) -> None:
        code = 404 if text is None else 200
        if self.path in self.server.fails_once:
            self.server.fails_once.remove(self.path)
            code, text = 500, "broken"
        self.send_response(code)
        self.end_headers()
        self.wfile.write((text or "").encode())

    def _ec2(self) -> str | None:
        asked = self.path == "/latest/meta-data/spot/instance-action"
        if not asked or self.server.ends_at is None:
            return None
        ends = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self.server.ends_at))
        return json.dumps({"action": "terminate", "time": ends})

    def _compute_engine(self) -> str | None:
        ends = self.server.ends_at is not None
        preempted = ends and not self.server.maintenance
        values = {
            "/computeMetadata/v1/instance/id": "8087716956832600000",
            "/computeMetadata/v1/instance/preempted": "TRUE" if preempted else "FALSE",
            "/computeMetadata/v1/instance/maintenance-event": (
                "TERMINATE_ON_HOST_MAINTENANCE" if ends and self.server.maintenance else "NONE"
            ),
        }
        return values.get(self.path) if self.headers["Metadata-Flavor"] == "Google" else None

    def _azure(self) -> str | None:
        if self.headers["Metadata"] != "true":
            return None
        path, _, query = self.path.partition("?")
        if path == "/metadata/instance/compute/name" and "format=text" in query:
            return "vm_1"
        if path != "/metadata/scheduledevents":
            return None
        reboot = {"EventType": "Reboot", "Resources": ["vm_0"], "NotBefore": ""}
        events = [reboot]
        if self.server.ends_at is not None:
            begins = formatdate(self.server.ends_at, usegmt=True)
            events += [{"EventType": "Preempt", "Resources": ["vm_1"], "NotBefore": begins}]
        return json.dumps({"DocumentIncarnation": 1, "Events": events})

    def log_message(self, *_: object) -> None:
        """Be quiet."""


@contextmanager
def metadata_service(kind: str) -> Iterator[Cloud]:
    """Serve the metadata of "ec2", "compute_engine" or "azure"."""
    cloud = Cloud(kind)
    thread = threading.Thread(target=cloud.serve_forever, daemon=True)
    thread.start()
    try:
        yield cloud
    finally:
        cloud.shutdown()
        cloud.server_close()
        thread.join()
