"""`freezelab metrics serve`: what goes on in this state folder, for Prometheus to scrape."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING, Annotated, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import typer

from lab.cli.commands import Commands
from lab.errors import Interrupted, MachineError
from lab.threads import Worker

if TYPE_CHECKING:
    from prometheus_client.core import Metric

    from lab.session.live_state import LiveState

metrics = Commands(no_args_is_help=True, help="Metrics for Prometheus.")

PORT = 9169
PATH = "/metrics"
PATIENCE_S = 30.0
"""How long a request may take to arrive."""


@metrics.command()
def serve(
    port: Annotated[int, typer.Option(metavar="N", min=0, max=65535, help="0: any that is free.")] = PORT,
    address: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Where to listen; others can read it there.")
    ] = "127.0.0.1",
) -> None:
    """Serve the metrics of the run in progress, or the last one, and of metadata services, until Ctrl-C."""
    from lab.process.signals import Signals
    from lab.session.live_state import LiveState
    from lab.session.paths import home

    state = LiveState(home())
    state.run()  # the first look at a long run takes a while
    try:
        with Signals(), served(state, address, port) as url:
            typer.echo(f"metrics at {url}; Ctrl-C ends it")
            threading.Event().wait()
    except Interrupted:
        typer.echo("the metrics are no longer served")


@contextmanager
def served(state: LiveState, address: str, port: int) -> Iterator[str]:
    """Serve the metrics from a thread, until the context is left; their URL. MachineError when it cannot
    listen there."""
    from prometheus_client import CollectorRegistry, make_wsgi_app

    registry = CollectorRegistry()
    registry.register(LiveCollector(state))
    app = _at_its_path(make_wsgi_app(registry))
    where = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
    kind: type[_Server] = _Server6 if ":" in address else _Server
    try:
        server = make_server(address, port, app, kind, _QuietHandler)
    except (OSError, OverflowError) as error:
        why = (getattr(error, "strerror", None) or str(error)).lower()
        raise MachineError(
            f"cannot listen here: {why}", where=where, hint="choose another: --port, --address"
        ) from None
    thread = Worker(target=server.serve_forever, name="metrics", daemon=True)
    thread.start()
    try:
        bound = where.rpartition(":")[0]
        yield f"http://{bound}:{server.server_port}{PATH}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class LiveCollector:
    """A collector for prometheus_client: each scrape looks anew."""

    def __init__(self, state: LiveState) -> None:
        self._state = state

    def describe(self) -> Iterable[Metric]:
        """The families that there can be, without samples."""
        from lab.report.metric_families import MetricSamples
        from lab.report.metrics import RUN_METRICS
        from lab.report.service_metrics import SERVICE_METRICS

        return MetricSamples((*RUN_METRICS, *SERVICE_METRICS)).describe()

    def collect(self) -> Iterator[Metric]:
        """The samples."""
        from lab.report.metrics import run_samples
        from lab.report.service_metrics import service_samples

        run = self._state.run()
        if run is not None:
            yield from run_samples(run.run, in_progress=run.in_progress, frozen=run.frozen).collect()
        yield from service_samples(self._state.services()).collect()


_App = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


def _at_its_path(app: _App) -> _App:
    """The application at PATH, and nothing elsewhere."""

    def choose(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        if environ.get("PATH_INFO") == PATH:
            return app(environ, start)
        start("404 Not Found", [("Content-Type", "text/plain; charset=utf-8")])
        return [f"freezelab's metrics are at {PATH}\n".encode()]

    return choose


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True

    def server_bind(self) -> None:
        """Bind without a look-up of the host's name, which may take long."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])
        self.setup_environ()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that has left is no news."""


class _Server6(_Server):
    address_family = socket.AF_INET6


class _QuietHandler(WSGIRequestHandler):
    timeout = PATIENCE_S

    def log_message(self, format: str, *args: Any) -> None:
        """No line for each scrape."""
