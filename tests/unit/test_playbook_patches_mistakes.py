"""Mistakes in patches, methods and guests' attachments. Each is one line that says where it is and what to
do."""

from __future__ import annotations

import pytest

from lab.core.plan import FreezeMethod
from tests.unit.playbooks import mistakes_in

HEAD = "name: a\nresync: agent\n"
CYCLE = HEAD + "cycle:\n"
HOLD = CYCLE + "  patch: {hold: 5s}\n"
OK = HEAD + "cycle: {patch: {hold: 5s}}\n"
NET = OK + "guests: [{name: a, network: "

WRONG: list[tuple[str, str]] = [
    (
        CYCLE + "  patch: restart-libvrt\n",
        "4:10: cycle.patch: 'restart-libvrt' is not a patch; did you mean r",
    ),
    (
        CYCLE + "  patch: Reload_KVM\n",
        "4:10: cycle.patch: 'Reload_KVM' is not a patch; did you mean reload-kvm?",
    ),
    (CYCLE + "  patch: hold\n", "4:10: cycle.patch: keys and values are expected here, not the text 'hold';"),
    (
        CYCLE + "  patch: {replace-host-kernel: six}\n",
        "4:32: cycle.patch.replace-host-kernel.kernels[0]: 'six' is not a kernel's release; write i",
    ),
    (
        CYCLE + "  patch: {replace-host-kernel: {kernels: []}}\n",
        "4:42: cycle.patch.replace-host-kernel.kernels: 1 to 16 kernels are needed here; write",
    ),
    (
        CYCLE + "  method: suspend\n  patch: {replace-host-kernel: 6.12}\n",
        "4:11: cycle: replace-host-kernel cannot be applied under suspend (method: in-place)",
    ),
    (
        CYCLE + "  patch: {replace_hypervisor: same}\n",
        "4:11: cycle.patch: unknown key 'replace_hypervisor'; di",
    ),
    (
        CYCLE + "  patch: {replace-hypervisr: same}\n",
        "4:11: cycle.patch: unknown key 'replace-hypervisr'; did y",
    ),
    (
        CYCLE + "  patch: {replace-hypervisor: }\n",
        "4:30: cycle.patch.replace-hypervisor.emulator: an emulator is expected here, no",
    ),
    (
        CYCLE + "  patch: {replace-hypervisor: {}}\n",
        "4:11: cycle.patch.replace-hypervisor: no emulator is given;",
    ),
    (
        CYCLE + "  patch: {replace-hypervisor: A b}\n",
        "4:31: cycle.patch.replace-hypervisor.emulator: 'A b' is",
    ),
    (
        CYCLE + "  patch: {replace-hypervisor: -x/y}\n",
        "4:31: cycle.patch.replace-hypervisor.emulator: '-x/y' b",
    ),
    (
        CYCLE + "  patch: {replace-hypervisor: {machin: a}}\n",
        "4:32: cycle.patch.replace-hypervisor: unknown key",
    ),
    (
        CYCLE + "  patch: {replace-hypervisor: {cpu: a b}}\n",
        "4:37: cycle.patch.replace-hypervisor.cpu: 'a b' is",
    ),
    (
        CYCLE + "  patch: {replace-hypervisor: same, deadline: 1s}\n",
        "4:47: cycle.patch: deadline does not go wi",
    ),
    (
        CYCLE + "  patch: {microcode: }\n",
        "4:21: cycle.patch.microcode: keys and values are expected here, not n",
    ),
    (
        CYCLE + "  patch: {microcode: {}, deadline: 1s}\n",
        "4:36: cycle.patch: deadline does not go with microcod",
    ),
    (
        CYCLE + "  patch: {microcode: {deadline: 0s}}\n",
        "4:33: cycle.patch.microcode.deadline: zero is not allowed",
    ),
    (
        CYCLE + "  patch: {livepatch: fix.o}\n",
        "4:22: cycle.patch.livepatch: 'fix.o' is not the path of a kern",
    ),
    (
        CYCLE + "  patch: {livepatch: ''}\n",
        "4:22: cycle.patch.livepatch: the path of a kernel module is expected",
    ),
    (
        CYCLE + "  patch: {livepatch: a.ko, impact: none}\n",
        "4:36: cycle.patch: impact does not go with livepatch;",
    ),
    (
        CYCLE + "  patch: {ansible: a.yml}\n",
        "4:20: cycle.patch: an ansible needs a deadline; add deadline: 10s",
    ),
    (
        CYCLE + "  patch: {ansible: a.txt, deadline: 1s}\n",
        "4:20: cycle.patch.ansible: 'a.txt' is not the path of",
    ),
    (
        CYCLE + "  patch: {ansible: -i.yml, deadline: 1s}\n",
        "4:20: cycle.patch.ansible: '-i.yml' begins with a hy",
    ),
    (
        CYCLE + "  patch: {ansible: a.yml, deadline: 1s, undo: [b]}\n",
        "4:47: cycle.patch: undo of ansible has to",
    ),
    (
        CYCLE + "  patch: {command: [a], deadline: 1s, undo: b.yml}\n",
        "4:45: cycle.patch: undo of command has to",
    ),
    (
        CYCLE + "  patch: {command: [a], deadline: 1s, undo: []}\n",
        "4:45: cycle.patch.undo: a command with 0 arguments;",
    ),
    (
        CYCLE + "  patch: {command: [a], deadline: 1s, impact: high}\n",
        "4:47: cycle.patch.impact: 'high' is not",
    ),
    (
        CYCLE + "  patch: {command: [a], deadline: 1s, inventory: x}\n",
        "4:50: cycle.patch: inventory does not go",
    ),
    (
        CYCLE + "  patch: {hold: 1s, microcode: {}}\n",
        "4:21: cycle.patch: a patch has one kind, and hold and micro",
    ),
    (
        HOLD + "  emulator: x\n",
        "5:3: cycle: unknown key 'emulator'; it belongs under guests or under",
    ),
    (
        HOLD + "  prove_memory: yes\n",
        "5:17: cycle.prove_memory: neither true nor false: 'yes'; write true or fa",
    ),
    (
        HOLD + "  prove_memory: 'true'\n",
        "5:17: cycle.prove_memory: neither true nor false: 'true'; write true",
    ),
    (
        HOLD + "  method: save-restore\n  prove_memory: true\n",
        "6:17: cycle: with method save-restore memory does not stay in place, so there is nothing to prove;",
    ),
    (
        HOLD + "  method: none\n  prove_memory: true\n",
        "6:17: cycle: with method none the guest runs on, so its memory changes; set method to suspend,",
    ),
    (
        HOLD + "  save_to: /x\n",
        "5:12: cycle: save_to does not go with method suspend; delete it, or set method to save-resto",
    ),
    (
        HOLD + "  method: save-restore\n  save_to: x\n",
        "6:12: cycle.save_to: 'x' is not the whole path of a fold",
    ),
    (
        HOLD + "  method: save-restore\n  save_to: /x/../y\n",
        "6:12: cycle.save_to: '/x/../y' cannot be used as",
    ),
    (
        HOLD + "  method: save-restore\n  save_to: //\n",
        "6:12: cycle.save_to: '//' cannot be used as a folder for saved guests;",
    ),
    (
        HOLD + "  method: reboot\nexpect: {regime: resumed}\n",
        "6:18: expect: method reboot: the guest is shut do",
    ),
    (
        HOLD + "  method: reboot\nexpect: {pause: {at_least: 1s}}\n",
        "6:10: expect: method reboot: the guest is sh",
    ),
    (
        HOLD + "  method: none\nexpect: {regime: jumped}\n",
        "6:18: expect: method none: the guest runs on, so reg",
    ),
    (
        OK + "guests: [{name: a, fill: 0.75}]\n",
        "4:26: guests[0].fill: a share without %: '0.75'; write it like",
    ),
    (
        OK + "guests: [{name: a, fill: 91%}]\n",
        "4:26: guests[0].fill: '91%' is too large; write it like 75%, at mo",
    ),
    (
        OK + "guests: [{name: a, fill: -5%}]\n",
        "4:26: guests[0].fill: a share cannot be negative: '-5%'; write it",
    ),
    (
        OK + "guests: [{name: a, fill: half}]\n",
        "4:26: guests[0].fill: not a share: 'half'; write it like 75%",
    ),
    (
        OK + "guests: [{name: a, huge_pages: on}]\n",
        "4:32: guests[0].huge_pages: neither true nor false: 'on';",
    ),
    (
        OK + "guests: [{name: a, bridge: br0}]\n",
        "4:20: guests[0]: unknown key 'bridge'; it belongs under guests.n",
    ),
    (
        NET + "br0}]\n",
        "4:29: guests[0].network: keys and values are expected here, not the text 'br0'; write it li",
    ),
    (NET + "{bridge: br0}}]\n", "4:20: guests[0].network: address is missing; add address: 10.7.0.10/24"),
    (
        NET + "{bridge: br/0, address: 10.7.0.9/24}}]\n",
        "4:38: guests[0].network.bridge: 'br/0' is not the name",
    ),
    (
        NET + "{bridge: a, address: 10.7.0.9}}]\n",
        "4:50: guests[0].network.address: an address without a prefix",
    ),
    (
        NET + "{bridge: a, address: 10.7.0.999/24}}]\n",
        "4:50: guests[0].network.address: not an address: '10.7.0",
    ),
    (
        NET + "{bridge: a, address: 10.7.0.9/33}}]\n",
        "4:50: guests[0].network.address: not an address: '10.7.0.9",
    ),
    (
        NET + "{bridge: a, address: 'fe80::1%eth0/64'}}]\n",
        "4:50: guests[0].network.address: not an address: 'fe8",
    ),
    (
        NET + "{bridge: a, address: 10.7.0.0/24}}]\n",
        "4:50: guests[0].network.address: '10.7.0.0/24' is the netw",
    ),
    (
        NET + "{bridge: a, address: 10.7.0.255/24}}]\n",
        "4:50: guests[0].network.address: '10.7.0.255/24' is the",
    ),
    (
        NET + "{bridge: a, address: 127.0.0.1/8}}]\n",
        "4:50: guests[0].network.address: '127.0.0.1/8' cannot",
    ),
    (
        NET + "{bridge: a, address: 10.7.0.250/24}, count: 6}]\n",
        "4:50: guests[0]: 10.7.0.0/24 has no room for 6 guests from 10.7.0.250 on; start at a lower",
    ),
    (
        NET + "{bridge: a, address: 10.7.0.250/24}, count: 9}]\n",
        "4:50: guests[0]: 10.7.0.0/24 has no room for 9",
    ),
    (
        NET + "{bridge: a, address: 255.255.255.250/8}, count: 9}]\n",
        "4:50: guests[0]: 255.0.0.0/8 has no room",
    ),
    (
        NET
        + "{bridge: a, address: 10.7.0.1/24}, count: 9}, {name: b, network: {bridge: a, address: 10.7.0.9/8}}"
        + "]\n",
        "4:115: guests: two guests have the address 10.7.0.9, entries 1 and 2 of the list",
    ),
]


@pytest.mark.parametrize(("data", "answer"), WRONG, ids=lambda value: repr(value[-60:]))
def test_one_mistake_one_line(data: str, answer: str) -> None:
    lines = mistakes_in(data)
    assert len(lines) == 1, lines
    assert lines[0].startswith(answer)
    assert "; " in lines[0] or "?" in lines[0], "says what to do"


def test_methods_that_can_be_proven_are_named() -> None:
    [line] = mistakes_in(HOLD + "  method: save-restore\n  prove_memory: true\n")
    proven = [method for method in FreezeMethod if method.freezes and method.keeps_memory]
    assert {FreezeMethod.SUSPEND, FreezeMethod.IN_PLACE} <= {*proven}
    assert line.endswith(f"; set method to {', '.join(proven[:-1])} or {proven[-1]}")


def test_the_reason_why_a_reboot_is_no_freeze() -> None:
    [line] = mistakes_in(
        f"{HEAD}cycle: {{patch: {{command: [a], deadline: 5s, impact: reboot}}, method: suspend}}\n"
    )
    assert "class reboot: it cannot be applied under a frozen guest" in line
