"""resource-agents' azure-events-az, as Pacemaker would run it on web-0 and web-1. It handles an event in
steps, one a monitor action: stand by; when nothing runs here any more, approve; when the event is gone, come
back. crm.py stands in for Pacemaker."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.host.clients.cluster import HEALTH, PENDING, STATE, Cluster
from tests.host.clients.namespaces import Namespace
from tests.host.clients.service import Service

Make = Callable[..., Cluster]
Troubled = tuple[Service, Namespace]

STANDBY, ONLINE = "-1000000", "0"

# Its two versions differ where the last tests look; the rest of what they do is tried with one of them.
bookworm = pytest.mark.parametrize("clients", ["bookworm"], indirect=True)
trixie = pytest.mark.parametrize("clients", ["trixie"], indirect=True)


def test_it_stands_by_approves_and_comes_back(service: Service, inside: Namespace, cluster: Make) -> None:
    nodes = cluster(eventTypes="Freeze")
    nodes.monitor("web-0", inside)
    assert nodes.attribute("hostName_web_0") == "web-0"
    event = service.announce("web-0")
    nodes.busy("web-0", True)
    nodes.monitor("web-0", inside)
    assert nodes.attribute(STATE, "web-0") == "STOPPING"
    assert nodes.updates("web-0", HEALTH) == []  # a resource of its is being started still
    nodes.busy("web-0", False)
    nodes.monitor("web-0", inside)
    assert nodes.updates("web-0", HEALTH) == [STANDBY]
    assert nodes.attribute(PENDING, "web-0") == event
    assert service.state(event) == "scheduled"
    nodes.monitor("web-0", inside)
    assert service.state(event) == "started"
    assert service.approved_by(event) == ["web-0"]
    nodes.monitor("web-0", inside)  # under way: nothing to do
    assert nodes.updates("web-0", HEALTH) == [STANDBY]
    service.finish(event)
    nodes.monitor("web-0", inside)
    assert nodes.updates("web-0", HEALTH) == [STANDBY, ONLINE]
    assert nodes.updates("web-0", STATE) == ["STOPPING", "IN_EVENT", "AVAILABLE"]
    assert nodes.attribute(PENDING, "web-0") == ""


@bookworm
def test_an_event_of_another_node_is_left_alone(service: Service, inside: Namespace, cluster: Make) -> None:
    nodes = cluster(eventTypes="Freeze")
    nodes.monitor("web-0", inside)
    event = service.announce("web-1")
    for _ in range(2):
        nodes.monitor("web-0", inside)
    assert service.seen_by(event) == ["web-0"]
    assert nodes.updates("web-0", STATE) == []
    assert nodes.updates("web-0", HEALTH) == []
    assert service.state(event) == "scheduled"


@bookworm
def test_a_freeze_is_not_its_business_by_default(service: Service, inside: Namespace, cluster: Make) -> None:
    nodes = cluster()
    nodes.monitor("web-0", inside)
    service.announce("web-0")
    nodes.monitor("web-0", inside)
    assert nodes.updates("web-0", STATE) == []
    service.announce("web-0", kind="Reboot")
    nodes.monitor("web-0", inside)
    assert nodes.updates("web-0", STATE) == ["STOPPING"]


@bookworm
def test_cancelled_while_it_stands_by(service: Service, inside: Namespace, cluster: Make) -> None:
    nodes = cluster(eventTypes="Freeze")
    nodes.monitor("web-0", inside)
    event = service.announce("web-0")
    nodes.monitor("web-0", inside)
    service.cancel(event)
    nodes.monitor("web-0", inside)
    assert nodes.updates("web-0", HEALTH) == [STANDBY, ONLINE]
    assert nodes.updates("web-0", STATE) == ["STOPPING", "AVAILABLE"]
    assert service.approved_by(event) == []


def test_one_event_for_both_waits_for_both(
    service: Service, inside: Namespace, beside: Namespace, cluster: Make
) -> None:
    """One approves for all, so the agents agree first; they ask by the cluster's own names of the nodes,
    which are not those of the event."""
    nodes = cluster(eventTypes="Freeze")
    both = {"web-0": inside, "web-1": beside}
    for node, where in both.items():
        nodes.monitor(node, where)
    event = service.announce("web-0", "web-1")
    for _ in range(2):
        nodes.monitor("web-0", inside)
    assert nodes.attribute(STATE, "web-0") == "STOPPING"
    assert service.state(event) == "scheduled"  # web-1 has not stood by
    for _ in range(2):
        nodes.monitor("web-1", beside)
    assert service.state(event) == "started"
    assert service.approved_by(event) == ["web-1"]
    assert {nodes.attribute(STATE, node) for node in both} == {"IN_EVENT"}
    service.finish(event)
    for node, where in both.items():
        nodes.monitor(node, where)
        assert nodes.updates(node, HEALTH) == [STANDBY, ONLINE]


@bookworm
def test_an_error_fails_one_monitor_action(troubled: Troubled, cluster: Make) -> None:
    service, inside = troubled
    nodes = cluster(eventTypes="Freeze")
    nodes.monitor("web-0", inside)
    service.announce("web-0", answers=["500"])
    assert nodes.agent("monitor", "web-0", inside).returncode == 1
    assert nodes.attribute(STATE, "web-0") == ""
    nodes.monitor("web-0", inside)
    assert nodes.attribute(STATE, "web-0") == "STOPPING"


@trixie
def test_errors_are_tried_again(troubled: Troubled, cluster: Make) -> None:
    service, inside = troubled
    nodes = cluster(eventTypes="Freeze", retry_wait="0")
    nodes.monitor("web-0", inside)
    service.announce("web-0", answers=["410", "429", "500"])
    nodes.monitor("web-0", inside)
    assert nodes.attribute(STATE, "web-0") == "STOPPING"
    assert "retry (3/3)" in nodes.log("web-0")
