"""corosync and pacemaker: what their configuration lets one expect, and which options are refused."""

from __future__ import annotations

from xml.etree import ElementTree as ET

import pytest

from lab.core.method import Regime
from tests.unit.playbooks import mistakes_in
from tests.unit.shipped_workloads import file_of, guests_of, ms, predicted

NODE_CMAP = """\
runtime.config.totem.consensus (u32) = {consensus}
runtime.config.totem.hold (u32) = 561
runtime.config.totem.interface.0.knet_ping_interval (u32) = 750
runtime.config.totem.interface.0.knet_ping_timeout (u32) = 1500
runtime.config.totem.token (u32) = {token}
totem.token (str) = 3000
"""


def test_corosync_by_the_timers_that_it_has_computed() -> None:
    cmap = NODE_CMAP.format(token=3000, consensus=3600)
    found = predicted("corosync", {"corosync-0": "", "corosync-1": cmap}, Regime.JUMPED)
    assert found["members"].pause == ms(3789, 6600)
    assert found["two running"].pause == found["would-fence"].pause == ms(3789, 26_600)
    cmap = NODE_CMAP.format(token=3650, consensus=4380)
    found = predicted("corosync", {"corosync-1": cmap, "corosync-2": cmap}, Regime.RESUMED)
    assert found["members"].pause == ms(8030 - 561 - 3 * 750, 8030)
    assert predicted("corosync", {"corosync-1": "nothing"}, Regime.RESUMED) == {}


def test_corosyncs_configuration_by_its_options() -> None:
    two, three = guests_of("corosync"), guests_of("corosync", nodes="3", token="30000")
    assert [guest.is_peer for guest in three.values()] == [False, True, True]
    text = file_of(two["corosync-1"], "/etc/corosync/corosync.conf")
    assert "token: 3000\n" in text
    assert "two_node: 1" in text
    assert text.count("ring0_addr") == 2
    text = file_of(three["corosync-0"], "/etc/corosync/corosync.conf")
    assert "token: 30000\n" in text
    assert "two_node" not in text
    assert text.count("ring0_addr") == 3
    cib = ET.fromstring(file_of(two["corosync-0"], "/var/lib/pacemaker/cib/cib.xml"))  # noqa: S314 - our own
    assert [one.get("node") for one in cib.iter("rsc_location")] == ["corosync-0"]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("{nodes: 4}", "nodes is 2 or 3, not 4"),
        ("{token: 3s}", "token is a whole number of milliseconds"),
    ],
)
def test_options_that_cannot_be_are_told(options: str, says: str) -> None:
    text = "name: a\nresync: agent\ncycle: {patch: {hold: 5s}}\n"
    assert says in " ".join(mistakes_in(f"{text}workload: {{name: corosync, options: {options}}}\n"))
