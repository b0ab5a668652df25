"""Patches, methods, guests' attachments and what goes with what, as people write them. Mistakes in them are
in test_playbook_patches_mistakes.py."""

from __future__ import annotations

import pytest
import yaml
from jsonschema import Draft202012Validator

from lab.core.patch import (
    AnsiblePatch,
    CommandPatch,
    HoldPatch,
    Impact,
    LivepatchPatch,
    MicrocodePatch,
    Patch,
    ReloadKvmPatch,
    ReplaceHostKernelPatch,
    ReplaceHypervisorPatch,
    RestartLibvirtPatch,
    RestartServicePatch,
    UnitScope,
    conflict,
)
from lab.core.plan import FreezeMethod, GuestSpec
from lab.core.units import NS_PER_S
from lab.errors import PlaybookError
from lab.playbook import parse, schema
from tests.unit.playbooks import mistakes_in

HEAD = "name: a\nresync: agent\n"

PATCHES: list[tuple[str, Patch]] = [
    ("{hold: 0s}", HoldPatch(0)),
    ("{command: [a], deadline: 5s}", CommandPatch(("a",), 5 * NS_PER_S)),
    (
        "{command: [a, b], deadline: 5s, impact: reboot, undo: [c, 5]}",
        CommandPatch(("a", "b"), 5 * NS_PER_S, Impact.REBOOT, ("c", "5")),
    ),
    ("{command: [a], deadline: 5s, impact: none}", CommandPatch(("a",), 5 * NS_PER_S, Impact.NONE)),
    ("{replace-hypervisor: same}", ReplaceHypervisorPatch()),
    ("{replace-hypervisor: backports}", ReplaceHypervisorPatch("backports")),
    ("{replace-hypervisor: ./qemu}", ReplaceHypervisorPatch("./qemu")),
    ("{replace-hypervisor: {emulator: /opt/q}}", ReplaceHypervisorPatch("/opt/q")),
    (
        "{replace-hypervisor: {emulator: same, machine: pc-q35-7.2, cpu: 'qemu64,+svm'}}",
        ReplaceHypervisorPatch("", "pc-q35-7.2", "qemu64,+svm"),
    ),
    ("{replace-hypervisor: {cpu: max}}", ReplaceHypervisorPatch("", "", "max")),
    ("restart-libvirt", RestartLibvirtPatch()),
    ("{restart-libvirt: {}}", RestartLibvirtPatch()),
    ("{restart-libvirt: {deadline: 40s}}", RestartLibvirtPatch(40 * NS_PER_S)),
    ("{restart-service: nginx}", RestartServicePatch("nginx.service")),
    ("{restart-service: dbus-broker.service}", RestartServicePatch("dbus-broker.service")),
    ("{restart-service: {unit: getty@tty1}}", RestartServicePatch("getty@tty1.service")),
    (
        "{restart-service: {unit: a.b, scope: user, deadline: 3s, impact: none}}",
        RestartServicePatch("a.b.service", UnitScope.USER, 3 * NS_PER_S, Impact.NONE),
    ),
    ("{replace-host-kernel: 6.12}", ReplaceHostKernelPatch(("6.12",))),
    (
        "{replace-host-kernel: {kernels: [6.12, 6.1], deadline: 40s}}",
        ReplaceHostKernelPatch(("6.12", "6.1"), 40 * NS_PER_S),
    ),
    ("{replace-host-kernel: {kernels: 6.1.0-57}}", ReplaceHostKernelPatch(("6.1.0-57",))),
    ("reload-kvm", ReloadKvmPatch()),
    ("{reload-kvm: {deadline: 1s}}", ReloadKvmPatch(NS_PER_S)),
    ("'microcode'", MicrocodePatch()),
    ("{microcode: {deadline: 1s}}", MicrocodePatch(NS_PER_S)),
    ("{livepatch: ./fix.ko}", LivepatchPatch("./fix.ko")),
    ("{livepatch: /lib/fix.ko.xz, deadline: 1min}", LivepatchPatch("/lib/fix.ko.xz", 60 * NS_PER_S)),
    ("{ansible: site.yml, deadline: 1min}", AnsiblePatch("site.yml", 60 * NS_PER_S)),
    (
        "{ansible: a/b.yaml, deadline: 1min, inventory: 'lab,', impact: none, undo: c.yml}",
        AnsiblePatch("a/b.yaml", 60 * NS_PER_S, "lab,", Impact.NONE, "c.yml"),
    ),
]


def good(text: str) -> bool:
    return Draft202012Validator(schema()).is_valid(yaml.safe_load(text))


@pytest.mark.parametrize(("written", "meant"), PATCHES)
def test_every_patch(written: str, meant: Patch) -> None:
    text = f"{HEAD}cycle: {{patch: {written}}}\n"
    plan = parse(text.encode(), "p.yaml")
    assert plan.cycle.patch == meant
    assert plan.cycle.method is meant.methods[0]
    assert good(text)


@pytest.mark.parametrize("method", FreezeMethod)
@pytest.mark.parametrize(("written", "meant"), PATCHES)
def test_a_method_that_does_not_go_with_the_patch(written: str, meant: Patch, method: FreezeMethod) -> None:
    text = f"{HEAD}cycle:\n  patch: {written}\n  method: {method}\n"
    if method in meant.methods:
        assert parse(text.encode(), "p.yaml").cycle.method is method
    else:
        why = conflict(meant, method)
        assert mistakes_in(text) == [f"5:11: cycle: {why}; leave method out for {meant.methods[0]}"]


def test_guests_that_are_filled_bridged_and_in_huge_pages() -> None:
    text = (
        HEAD + "cycle: {patch: {hold: 5s}, method: save-restore, save_to: /var//tmp/x/}\n"
        "guests:\n"
        "  - {name: a, count: 2, fill: 75%, network: {bridge: br0, address: 10.7.0.253/24}}\n"
        "  - {name: b, huge_pages: true, network: {bridge: br-1.x_y, address: 'fd00::10/64'}}\n"
        "  - {name: c, network: {bridge: br1, address: 10.7.0.253/255.255.255.0}}\n"
    )
    plan = parse(text.encode(), "p.yaml")
    assert plan.guests == (
        GuestSpec("a-0", fill=0.75, bridge="br0", address="10.7.0.253/24"),
        GuestSpec("a-1", fill=0.75, bridge="br0", address="10.7.0.254/24"),
        GuestSpec("b", bridge="br-1.x_y", address="fd00::10/64", huge_pages=True),
        GuestSpec("c", bridge="br1", address="10.7.0.253/24"),
    )
    assert plan.cycle.save_to == "/var/tmp/x"
    assert good(text)


def test_a_regime_may_be_expected_that_is_not_the_methods_own() -> None:
    text = HEAD + "cycle: {patch: {hold: 5s}, method: suspend}\nexpect: {regime: jumped}\n"
    assert parse(text.encode(), "p.yaml").expectations.regime == "jumped"


@pytest.mark.parametrize(
    "patch",
    [
        "{hold: 5s, impact: none}",
        "{hold: 1s, microcode: {}}",
        "{ansible: a.yml}",
        "{livepatch: a.o}",
        "{microcode: {deadlin: 5s}}",
        "{replace-hypervisor: {}}",
        "{replace-hypervisor: ''}",
        "{restart-libvirt: 5s}",
        "{restart-service: {}}",
        "{restart-service: -x}",
        "{restart-service: {unit: x, impact: reboot}}",
        "{restart-service: x, deadline: 5s}",
        "{command: [a], deadline: 5s, undo: {}}",
        "hold",
    ],
)
def test_the_schema_refuses_what_is_refused(patch: str) -> None:
    text = f"{HEAD}cycle: {{patch: {patch}}}\n"
    assert not good(text)
    with pytest.raises(PlaybookError):
        parse(text.encode(), "p.yaml")
