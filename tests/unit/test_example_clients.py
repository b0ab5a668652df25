"""The examples of workloads' clients, as they are, against a real server on this host."""

from __future__ import annotations

import http.server
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.host.workload_client import HostClient
from lab.process.clock import HostClock

EXAMPLES = Path(__file__).parents[2] / "examples" / "workload"


class _Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/" else 404)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def port() -> Iterator[int]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Page) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(("path", "error"), [("/", ""), ("/else", "404")])
def test_the_client_in_python(port: int, path: str, error: str, tmp_path: Path) -> None:
    argv = [str(EXAMPLES / "http_client.py"), "127.0.0.1", str(port), path]
    with HostClient("example", argv, tmp_path / "log", HostClock()) as client:
        time.sleep(1.5)
        told = client.collect(0)
    assert not told.problems
    assert len(told.requests) >= 3
    assert {one.error for one in told.requests} == {error}
    assert all(one.ok is (not error) for one in told.requests)
