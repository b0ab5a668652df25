"""What the clients need: root for namespaces of their own, some programs, Debian's packages, and the service.
What is missing skips on a laptop and fails where CI declares it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from lab.errors import MachineError
from lab.host.emulators_sources import Archive, read_archive
from lab.image.store import default_cache
from tests.host.clients import packages
from tests.host.clients.cluster import Cluster
from tests.host.clients.namespaces import Namespace, namespace, sweep
from tests.host.clients.packages import Clients
from tests.host.clients.service import MATE, Service, relayed, served
from tests.mounts import need_namespaces

PROGRAMS = ("ip", "unshare", "setpriv", "curl")


def missing(why: str) -> NoReturn:
    if os.environ.get("CI") == "true":
        pytest.fail(f"{why}, and it is required here", pytrace=False)
    pytest.skip(why)


@pytest.fixture(scope="session")
def able() -> None:
    if os.geteuid() != 0:
        missing("only root can make network namespaces")
    for program in PROGRAMS:
        if not shutil.which(program):
            missing(f"{program} is not installed")
    need_namespaces()
    sweep()


@pytest.fixture(scope="session")
def archive() -> Archive:
    try:
        return read_archive()
    except MachineError as error:
        pytest.skip(error.what)


@pytest.fixture(scope="session", params=("bookworm", "trixie"))
def clients(request: pytest.FixtureRequest, archive: Archive) -> Clients:
    """The clients of a Debian, whichever this one is."""
    try:
        return packages.fetch(request.param, archive, default_cache())
    except MachineError as error:
        missing(error.what)


@pytest.fixture(scope="session")
def inside(able: None) -> Iterator[Namespace]:
    """Where web-0's programs run, and the service."""
    with namespace() as made:
        yield made


@pytest.fixture(scope="session")
def one_service(inside: Namespace, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with served(inside, tmp_path_factory.mktemp("home")) as running:
        yield running


@pytest.fixture
def service(one_service: Service) -> Iterator[Service]:
    """Without events, before and after."""
    yield one_service
    one_service.clear()


@pytest.fixture
def troubled(able: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Service, Namespace]]:
    """A service of the test's own, for one that makes it answer with errors: these wait for whoever asks."""
    with namespace() as made, served(made, tmp_path_factory.mktemp("home")) as running:
        yield running, made


@pytest.fixture(scope="session")
def beside(inside: Namespace, one_service: Service) -> Iterator[Namespace]:
    """Where web-1's programs run: the same service, by its own door, at the same address."""
    with namespace() as made, relayed(made, inside, MATE):
        yield made


@pytest.fixture
def cluster(clients: Clients, tmp_path: Path) -> Callable[..., Cluster]:
    """A cluster of web-0, web-1 and one more, for the suite's agent: of two it lets one node stand by at
    most, and has the other one hold on to its event."""

    def make(**settings: str) -> Cluster:
        return Cluster(tmp_path / "cluster", ("web-0", "web-1", "web-2"), clients, settings)

    return make
