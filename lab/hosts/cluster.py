"""A Dask cluster as it is used here: workers that are asked, and one task at a time on each.

Dask distributed carries the tasks. Where they go is decided here: a task names its worker, and a worker gets
the next one when it has ended the one before. So nothing is stolen, and nothing is run again elsewhere,
whatever the settings of a scheduler are.
"""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import socket
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urlsplit

from lab.errors import MachineError, UsageError
from lab.process.runner import quote

RESOURCE = "lab"
"""What a worker says that it has one of. There is one worker with it on a host."""

QUIET = {
    "distributed.worker.profile.enabled": False,
    "distributed.admin.tick.interval": "1s",
    "distributed.admin.system-monitor.interval": "10s",
}
"""Settings of Dask's for what runs beside guests that are measured: by default it looks at itself some 150
times a second, which takes 2.3 % of a CPU in an idle worker; with these, 0.5 %."""

CONNECT_S = 10.0
_LOST = OSError, RuntimeError
"""What Dask raises when the scheduler does not answer, and later, when it has given it up."""

_HOW = f"start one on each host: dask worker ADDRESS --resources {RESOURCE}=1 --nthreads 1 --no-nanny"


@dataclass(frozen=True)
class ClusterWorker:
    """A worker with the resource. address: unique. name: its own, which is its address by default."""

    address: str
    name: str


class Cluster:
    """Workers of a scheduler. client: distributed.Client. is_cut: whether the link to a host, by its name, is
    cut, as far as that is known."""

    def __init__(self, client: Any, where: str, is_cut: Callable[[str], bool] = lambda _name: False) -> None:
        self._client, self.where, self.is_cut = client, where, is_cut

    def workers(self) -> list[ClusterWorker]:
        """Those that have the resource, by name."""
        known = self._known()
        found = [
            ClusterWorker(address, str(one["name"]))
            for address, one in known.items()
            if one.get("resources", {}).get(RESOURCE, 0) >= 1
        ]
        return sorted(found, key=lambda one: (one.name, one.address))

    def check(self) -> None:
        """MachineError when it has no workers with the resource. UsageError when whoever reaches the
        scheduler or a worker over a network could have programs run there."""
        known = self._known()
        for address in [str(self._client.scheduler_info()["address"]), *known]:
            check_closed(address)
        if not self.workers():
            what = (
                f"none of its {len(known)} workers has the resource {RESOURCE}"
                if known
                else "it has no workers"
            )
            raise MachineError(what, where=self.where, hint=_HOW)

    def versions(self) -> dict[str, str]:
        """The scheduler's versions of Python, as major.minor, and distributed."""
        found = self._client.get_versions()["scheduler"]
        python = ".".join(str(found["host"]["python"]).split(".")[:2])
        return {"Python": python, "distributed": str(found["packages"]["distributed"])}

    def ask(self, function: Callable[..., Any], *given: object, workers: Sequence[str]) -> dict[str, Any]:
        """The answer of each worker by its address, or the exception."""
        if not workers:
            return {}
        try:
            found: dict[str, Any] = self._client.run(
                function, *given, workers=list(workers), on_error="return"
            )
        except _LOST as error:
            found = dict.fromkeys(workers, error)
        return found

    def submit(self, function: Callable[..., Any], *given: object, worker: str) -> Any:
        """Have a worker call a function once; returns the task."""
        return self._client.submit(
            function,
            *given,
            workers=[worker],
            allow_other_workers=False,
            resources={RESOURCE: 1},
            retries=0,
            pure=False,
        )

    def ended(self, tasks: Collection[Any], patience_s: float) -> list[Any]:
        """Those of the tasks that have ended, as soon as there is one; [] when there is none in time."""
        from distributed import CancelledError, wait

        with contextlib.suppress(TimeoutError, CancelledError):
            wait(list(tasks), timeout=patience_s, return_when="FIRST_COMPLETED")
        return [task for task in tasks if task.done()]

    def gone(self, workers: Collection[str]) -> list[str]:
        """Those of the workers that the scheduler has lost; all of them when it is lost itself."""
        try:
            known = self._known()
        except _LOST:
            return list(workers)
        return [address for address in workers if address not in known]

    def _known(self) -> Mapping[str, Mapping[str, Any]]:
        """The workers by their addresses. One of _LOST when the scheduler is lost.

        Not Client.scheduler_info: between its answer and its return, the client's periodic look, which asks
        for no workers, may put its own answer in the place of that (distributed 2026.8.0)."""
        scheduler = self._client.scheduler
        if scheduler is None:
            raise ConnectionError("no scheduler")
        known: Mapping[str, Mapping[str, Any]]
        known = self._client.sync(scheduler.identity, n_workers=-1)["workers"]
        return known


@contextlib.contextmanager
def connected(address: str) -> Iterator[Cluster]:
    """A scheduler that somebody has started. address: tcp:// or tls://. UsageError for an address that is
    none, MachineError when no scheduler answers."""
    distributed = imported()
    parts = check_address(address)
    try:
        # Dask would try for as long as this even where nothing listens.
        socket.create_connection((parts.hostname or "", parts.port or 0), CONNECT_S).close()
        client = distributed.Client(address, timeout=CONNECT_S)
    except (OSError, ValueError, TypeError, RuntimeError) as error:
        raise MachineError(_why(error, address), where=address, hint=_hint(address)) from None
    try:
        yield Cluster(client, address)
    finally:
        client.close()


def imported() -> Any:
    """Dask distributed, which writes nothing to stderr then. MachineError when it is not installed."""
    try:
        import distributed
    except ImportError:
        prefix = Path(sys.prefix)
        injects = (prefix / "pipx_metadata.json").is_file()
        install = "pipx inject freezelab" if injects else f"{quote([str(prefix / 'bin/pip')])} install"
        raise MachineError(
            "--hosts needs Dask distributed, which is not installed", hint=f"{install} distributed"
        ) from None
    for name in list(logging.root.manager.loggerDict):
        if name.partition(".")[0] in ("distributed", "tornado"):
            logger = logging.getLogger(name)
            logger.handlers, logger.propagate = [logging.NullHandler()], False
    return distributed


def is_address(text: str) -> bool:
    """Whether --hosts has a scheduler's address, and not a file."""
    return "://" in text


def check_address(address: str) -> SplitResult:
    """The parts of a scheduler's address. UsageError for one that is none, or an open one."""
    try:
        parts = urlsplit(address)
        whole = bool(parts.hostname and parts.port) and not parts.path.strip("/")
    except ValueError:
        whole = False
    if not whole or parts.scheme not in ("tcp", "tls"):
        hint = "such as tls://scheduler:8786, or a hosts file"
        raise UsageError("not a scheduler's address", where=f"--hosts {address}", hint=hint)
    check_closed(address)
    return parts


def check_closed(address: str) -> None:
    """UsageError for an address that others than this machine reach without TLS."""
    parts = urlsplit(address)
    if parts.scheme != "tcp" or _is_loopback(parts.hostname or ""):
        return
    raise UsageError(
        "it is open: without TLS, whoever reaches it can have programs run on the hosts",
        where=address,
        hint="use tls://, bind it to 127.0.0.1, or name the hosts in a file: freezelab reaches them by SSH",
    )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _why(error: Exception, address: str) -> str:
    first = str(error).split("\n")[0]
    if isinstance(error, OSError):
        return "no scheduler answers there"
    return f"no connection: {first or type(error).__name__}" if address else first


def _hint(address: str) -> str:
    if address.startswith("tls"):
        return "certificates: DASK_DISTRIBUTED__COMM__TLS__CA_FILE, …__CLIENT__CERT and …__CLIENT__KEY"
    return "dask scheduler --host 127.0.0.1"
