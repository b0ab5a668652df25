"""A reconnect bug that only a freeze shows: `cd examples/pytest && pytest`. It starts one guest. `--runxfail`
shows how HastyClient fails."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from counter_client import CarefulClient, HastyClient

PORT = 7000
START = f"systemd-run --quiet --unit=counter python3 /opt/counter_server.py {PORT}"
STOP = "systemctl stop counter"


@pytest.fixture
def server(freezelab_guests) -> Iterator:
    """The guest with a fresh counter in it."""
    guest = freezelab_guests["counter"]
    guest.put(Path(__file__).with_name("counter_server.py"), "/opt/counter_server.py")
    guest.run(START)
    yield guest
    guest.run(STOP)


@pytest.fixture
def client(request, server) -> HastyClient:
    made = request.param(*server.endpoint(PORT))
    assert made.total() == 0  # waits until the server answers
    return made


both = pytest.mark.parametrize("client", [HastyClient, CarefulClient], indirect=True)
hasty = pytest.param(HastyClient, marks=pytest.mark.xfail(strict=True, reason="adds once for each try"))


@both
def test_adds_once(client):
    assert client.add(1) == 1


@both
def test_adds_once_when_the_server_is_restarted(client, server):
    """The ordinary test of a reconnect, which both clients pass."""
    server.run(STOP)
    with ThreadPoolExecutor() as pool:
        added = pool.submit(client.add, 1)
        threading.Event().wait(2.5)
        server.run(START)
        assert added.result() == 1
    assert client.tries > 1


@pytest.mark.parametrize("client", [hasty, CarefulClient], indirect=True)
def test_adds_once_when_the_server_is_frozen(client: HastyClient, freeze: Callable):
    with ThreadPoolExecutor() as pool:
        with freeze("counter", for_="5s", watch="4s") as frozen:
            added = pool.submit(client.add, 1)
        added.result()
    assert frozen.pause.value_ns > 4.9e9
    assert client.tries > 1
    assert client.total() == 1


def test_the_clock_is_in_time_after_a_freeze(freeze):
    with freeze("counter", for_="3s", watch="6s") as frozen:
        pass
    after_s = frozen.in_time_after()
    assert after_s is not None and after_s < 2
    frozen.check()
