"""Domains of the user's own, written by hand, on real libvirt daemons: frozen, and left as they were."""

from __future__ import annotations

from tests.host.libvirtd import namespaced


def test_a_domain_is_frozen_and_left_as_it_was() -> None:
    seen = namespaced("own_inside.py", "methods")
    assert set(seen) == {"suspend", "save-restore"}
    for method, one in seen.items():
        assert (method, one["outcome"], one["status"]) == (method, "passed", 0), one
        assert one["differs"] == {}
        assert not any("differs" in line for line in one["notes"])
        assert one["boot"]["started"] == "own"
        assert (one["boot"]["domain"], one["boot"]["vcpus"]) == ("my-vm", 1)
        [pause] = one["pauses"]
        assert 2e9 < pause < 29e9
        assert one["left"] == []
