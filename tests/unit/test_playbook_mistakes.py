"""Playbooks that are wrong: each mistake is answered at its place, in words, with a way out."""

from __future__ import annotations

import time

import pytest

from tests.unit.playbooks import mistakes_in

OK = "name: a\nresync: agent\ncycle: {patch: {hold: 5s}}\n"
CYCLE = "name: a\nresync: agent\ncycle:\n"
PATCH = CYCLE + "  patch: {hold: 5s}\n"


SYNTAX: list[tuple[str | bytes, str]] = [
    ("", "1:1: the playbook is empty; begin with a copy of first-freeze.yaml"),
    ("# only a comment\n", "1:1: the playbook is empty; begin with a copy of first-freeze.yaml"),
    ("- a\n", "1:1: keys and values are expected here, not a list; begin with a line like name: "),
    ("hello\n", "1:1: keys and values are expected here, not the text 'hello'; begin with"),
    ("name: a\n\tresync: agent\n", "2:1: a tab; YAML wants spaces here; replace each tab by spaces"),
    ("name: a\ncycle:\n  \tpatch: x\n", "3:3: a tab; YAML wants spaces here; replace each tab by"),
    ("cycle:\n\tpatch: x\n", "2:1: a tab; YAML wants spaces here; replace each tab by spaces"),
    ("name: a\t# x\n", "1:8: a tab; YAML wants spaces here; replace each tab by spaces"),
    (OK + "---\n" + OK, "4:1: a second document begins here (---); write one playbook per file"),
    (OK + "x: &a [1]\ny: *a\n", "4:4: anchors and aliases (&a) are not part of a playbook; write the"),
    (OK + "x: *a\n", "4:4: anchors and aliases (*a) are not part of a playbook; write the value where"),
    ("name: 'abc\nresync: none\n", "1:7: a quote that is opened and never closed; add the closing quote"),
    ("name: {a: b\n", "1:7: a { is opened and not closed, or a comma is missing; add the } or comma"),
    ("name: [a, b\n", "1:7: a [ is opened and not closed, or a comma is missing; add the ] or comma"),
    ("name: a: b\n", "1:8: an unexpected colon; give the keys of one mapping the same"),
    ("name: a\n  resync: b\n", "2:9: an unexpected colon; give the keys of one mapping"),
    ("name: @x\n", "1:7: a text that begins with '@'; put quotes around it"),
    ("name: %x\n", "1:7: a text that begins with '%'; put quotes around it"),
    ("name: *\n", "1:8: a text that begins with *; put quotes around it"),
    ("a:\n  b: 1\n c: 2\n", "3:2: this line does not fit the lines above it; give the keys of one"),
    ("a: - b\n", "1:4: a list cannot begin here; begin it on a line of its own"),
    ('name: "\\q"\n', r"1:9: an unknown escape in double quotes; write \\ for a backslash, or use"),
    ('name: "\\UFFFFFFFF"\n', "1:10: an escape for a code that is not a character; delete it"),
    ("%YAML 9.9\n---\na: 1\n", "1:1: not valid YAML: found incompatible YAML document"),
    ("[" * 10_000, "1:33: nested deeper than 32 levels; a playbook needs at most five"),
    ("{a: " * 10_000, "1:129: nested deeper than 32 levels; a playbook needs at most five"),
    ("- " * 10_000, "1:65: nested deeper than 32 levels; a playbook needs at most five"),
    ("".join(f"{' ' * n}a:\n" for n in range(500)), "33:33: nested deeper than 32 levels; a playbook"),
    ("".join(f"k{n}: 1\n" for n in range(20_000)), "101:1: more than 100 keys in one mapping; check that"),
    (b"\x7fELF\x02\x01\x00\x00", "1:7: a binary file (it holds a zero byte); give a YAML file"),
    (b"name: a\nabout: \xff\n", "2:8: not UTF-8 text (byte 0xff); give a YAML file saved as UTF-8"),
    (OK.encode("utf-16"), "1:1: the text is UTF-16; save it as UTF-8"),
    (b"name: a\x07\n", "1:8: an invisible character, U+0007; delete it"),
    ("name: a\nabout: x\u202e\n", "2:9: an invisible character, U+202E; delete it"),
]

VALUES: list[tuple[str | bytes, str]] = [
    (OK + "name: b\n", "4:1: the key 'name' is given twice, first in line 1; delete one of the two"),
    (OK + "<<: {a: 1}\n", "4:1: merge keys (<<) are not part of a playbook; write the keys themselves"),
    (OK + "nsme: b\n", "4:1: unknown key 'nsme'; did you mean name?"),
    (OK + "budget: 3s\n", "4:1: unknown key 'budget'; it belongs under cycle"),
    (OK + "hold: 3s\n", "4:1: unknown key 'hold'; it belongs under cycle.patch or under expect.in_time"),
    (PATCH + "  repeat: 3\n", "5:3: cycle: unknown key 'repeat'; it belongs at the top level"),
    (OK + "zzz: 3s\n", "4:1: unknown key 'zzz'; known: name, about, guests, hosts, fleet, network, start,"),
    (OK + "1: x\n", "4:1: unknown key '1'; known: name, about,"),
    (OK + "on: x\n", "4:1: unknown key 'on'; it belongs under workload or under rollout.gates"),
    (OK + "about: !!str x\n", "4:8: tags ('!!str') are not part of a playbook; delete the tag"),
    (OK + "about: !ruby/object x\n", "4:8: tags ('!ruby/object') are not part of a playbook; delete"),
    (OK + "about: 2024\n", "4:8: about: a text is expected here, not the number 2024; write it in quotes"),
    (OK + 'about: "\\e[31m"\n', "4:8: the text holds a control character, U+001B; delete its escape"),
    (OK + 'about: "\\ud800"\n', "4:8: the text holds a control character, U+D800; delete its escape"),
    (OK.replace("a\n", "A b\n", 1), "1:7: name: 'A b' is not a name; use small letters, digits and hyphens"),
    (OK.replace("agent", "no"), "2:9: resync: 'no' is not a resync mechanism; did you mean none?"),
    (OK.replace("agent", "ntp"), "2:9: resync: 'ntp' is not a resync mechanism; did you mean ntpd?"),
    (OK.replace("agent", "~"), "2:9: resync: a resync mechanism is expected here, not nothing; write none,"),
    ("resync: agent\ncycle: {patch: {hold: 5s}}\n", "1:1: name is missing; add name: first-freeze"),
    (CYCLE + "  budget: 3s\n", "3:1: cycle: patch is missing; add patch: {hold: 5s}"),
    (CYCLE, "3:7: cycle: keys and values are expected here, not nothing; write it like {patch: {hold: 5s}}"),
    # guests
    (OK + "guests: 10000\n", "4:9: guests: a list is expected here, not the number 10000; begin each"),
    (OK + "guests: []\n", "4:9: guests: the list of guests is empty; add one, or delete the key for one"),
    (OK + "guests: [web-0]\n", "4:10: guests[0]: keys and values are expected here, not the text 'web-0'"),
    (OK + "guests: [{}]\n", "4:10: guests[0]: name is missing; add name: web-0"),
    (
        OK + "guests:\n  - name: web\n    count: 10000\n",
        "6:12: guests[0].count: 10000 guests are too many; write a whole number from 1 to 64",
    ),
    (OK + "guests:\n" + "  - name: x\n" * 10_000, "5:3: guests: 10000 guests are too many; ask for at"),
    (
        OK + "guests: [{name: a, count: 40}, {name: b, count: 40}]\n",
        "4:9: 80 guests are too many; ask for at most 64",
    ),
    (
        OK + "guests: [{name: web, count: 2}, {name: web-1}]\n",
        "4:40: guests: two guests are named web-1, entries 1 and 2 of the list; rename one of them",
    ),
    (
        OK + f"guests: [{{name: {'a' * 39}, count: 12}}]\n",
        f"4:17: guests[0]: {'a' * 39}-11 is longer than 40 characters; shorten name to 37 characters",
    ),
    (OK + "guests: [{name: 12}]\n", "4:17: guests[0].name: YAML reads 12 as a number or as yes or no,"),
    (OK + "guests: [{name: a-}]\n", "4:17: guests[0].name: 'a-' is not a name; use small letters, digits"),
    (OK + "guests: [{name: a, image: X}]\n", "4:27: guests[0].image: 'X' is not the name of an image; use"),
    (OK + 'guests: [{name: a, image: "./\\t"}]\n', "4:27: guests[0].image: './\\t' is not the path of an"),
    (OK + "guests: [{name: a, memory: 512}]\n", "4:28: guests[0].memory: size without a unit: '512'; write"),
    (OK + "guests: [{name: a, memory: 1GB}]\n", "4:28: guests[0].memory: unknown unit 'GB' in '1GB'; known"),
    (OK + "guests: [{name: a, memory: 64MiB}]\n", "4:28: guests[0].memory: '64MiB' is too small; write at"),
    (OK + "guests: [{name: a, memory: -1GiB}]\n", "4:28: guests[0].memory: a size cannot be negative:"),
    (OK + "guests: [{name: a, memory: 1.0001GiB}]\n", "4:28: guests[0].memory: '1.0001GiB' is not a whole"),
    (OK + "guests: [{name: a, vcpus: 0}]\n", "4:27: guests[0].vcpus: 0 vCPUs are too few; write a whole"),
    (OK + "guests: [{name: a, vcpus: 65}]\n", "4:27: guests[0].vcpus: 65 vCPUs are too many; write a"),
    (OK + "guests: [{name: a, vcpus: 010}]\n", "4:27: guests[0].vcpus: '010' is a different number to some"),
    (OK + "guests: [{name: a, vcpus: '2'}]\n", "4:27: guests[0].vcpus: a number in quotes: '2'; write it"),
    # whole numbers
    (OK + "repeat: 0\n", "4:9: repeat: 0 cycles are too few; write a whole number from 1 to 10000"),
    (OK + "control: -1\n", "4:10: control: -1 cycles are too few; write a whole number from 0 to 10000"),
    (OK + f"repeat: {'9' * 9000}\n", f"4:9: repeat: {'9' * 20} cycles are too many; write a whole number"),
    (OK + "repeat: 1.0\n", "4:9: repeat: not a whole number: '1.0'; write a whole number from 1 to 10000"),
    (OK + "repeat: 0x10\n", "4:9: repeat: not a whole number: '0x10'; write a whole number from 1"),
    (OK + "repeat: 1_000\n", "4:9: repeat: not a whole number: '1_000'; write a whole number from 1"),
    (OK + "repeat: yes\n", "4:9: repeat: not a whole number: 'yes'; write a whole number from 1 to 10000"),
    # durations
    (OK.replace("5s", "5"), "3:23: cycle.patch.hold: duration without a unit: '5'; write it like 5s, 250ms"),
    (OK.replace("5s", "-5s"), "3:23: cycle.patch.hold: a duration cannot be negative: '-5s'; write it"),
    (OK.replace("5s", "1:30"), "3:23: cycle.patch.hold: not a duration: '1:30'; write it with a unit, like"),
    (OK.replace("5s", "5 sec"), "3:23: cycle.patch.hold: unknown unit 'sec' in '5 sec'; known: ns, us,"),
    (OK.replace("5s", "five"), "3:23: cycle.patch.hold: not a duration: 'five'; write it like 5s, 250ms"),
    (OK.replace("5s", "1e3s"), "3:23: cycle.patch.hold: not a duration: '1e3s'; write it like 5s, 250ms"),
    (OK.replace("5s", ".inf"), "3:23: cycle.patch.hold: not a duration: '.inf'; write it like 5s, 250ms"),
    (OK.replace("5s", "9" * 9000 + "s"), "3:23: cycle.patch.hold: not a duration: '9999"),
    (OK.replace("5s", "25h"), "3:23: cycle.patch.hold: '25h' is too long; write at most 24 h"),
    (OK.replace("5s", "[5s]"), "3:23: cycle.patch.hold: a duration is expected here, not a list; write it"),
    (OK.replace("hold: 5s", "hold: "), "3:22: cycle.patch.hold: a duration is expected here, not nothing;"),
    (
        OK.replace("agent", "ntpd") + "guests: [{name: b, network: {bridge: br0, address: 10.7.0.10/24}}]\n",
        "2:9: resync ntpd uses the host's NTP server, which b cannot reach from bridge br0; delete its",
    ),
    (PATCH + "  budget: 0\n", "5:11: cycle.budget: duration without a unit: '0'; write it like 5s, 250ms"),
    (PATCH + "  budget: 0s\n", "5:11: cycle.budget: zero is not allowed here; write a longer duration"),
    (PATCH + "  budget: 61min\n", "5:11: cycle.budget: '61min' is too long; write at most 1 h"),
    (PATCH + "  watch: 0 s\n", "5:10: cycle.watch: zero is not allowed here; write a longer duration"),
    (PATCH + "  method: pause\n", "5:11: cycle.method: 'pause' is not a freeze method; write suspend,"),
    # patches
    (CYCLE + "  patch: {}\n", "4:3: cycle.patch: the patch is empty; write {hold: 5s}, or a command"),
    (CYCLE + "  patch: 5s\n", "4:10: cycle.patch: keys and values are expected here, not the text '5s';"),
    (
        CYCLE + "  patch: {hold: 5s, command: [a], deadline: 5s}\n",
        "4:30: cycle.patch: a patch has one kind, and hold and command are two; keep one of them",
    ),
    (
        CYCLE + "  patch: {hold: 5s, deadline: 5s}\n",
        "4:31: cycle.patch: deadline does not go with hold; delete it; the cycle's budget ends a long hold",
    ),
    (CYCLE + "  patch: {command: [a]}\n", "4:20: cycle.patch: a command needs a deadline; add deadline:"),
    (
        CYCLE + "  patch: {command: systemctl restart 'a b', deadline: 5s}\n",
        "4:20: cycle.patch.command: a command is a list of arguments, run without a shell; write [systemctl,",
    ),
    (
        CYCLE + "  patch: {command: [], deadline: 5s}\n",
        "4:20: cycle.patch.command: a command with 0 arguments;",
    ),
    (
        CYCLE + "  patch: {command: [a, [b]], deadline: 5s}\n",
        "4:24: cycle.patch.command: an argument is expected here, not a list; put quotes around it",
    ),
    (CYCLE + "  patch: {command: [''], deadline: 5s}\n", "4:21: cycle.patch.command: the program has no"),
    # expectations
    (
        OK + "expect:\n  pause: {at_least: 5s, at_most: 3s}\n",
        "5:34: expect.pause: at_most (3 s) is less than at_least (5 s), so every pause would fail; raise it",
    ),
    (
        OK + "expect: {stall: {at_most: 3s}}\n",
        "4:10: expect: method suspend freezes no file systems, so stall has no meaning; delete it",
    ),
    (OK + "expect: {pause: {}}\n", "4:10: expect.pause: no limit is given; write at_least, at_most or both"),
    (
        OK + "expect:\n  in_time: {within: 20s}\n",
        "5:21: expect: in_time needs 22 s after the resume (within + hold), but cycle.watch ends after 8 s,",
    ),
    (OK + "expect: {in_time: {hold: 2s}}\n", "4:10: expect.in_time: within is missing; add within: 5s"),
    (OK + "expect: {final_offset: 5ms}\n", "4:24: expect.final_offset: keys and values are expected here,"),
    (OK + "expect: {drift: {within: 200}}\n", "4:26: expect.drift.within: a rate without a unit: '200';"),
    (OK + "expect: {drift: {within: 2 ppb}}\n", "4:26: expect.drift.within: unknown unit 'ppb'; write it"),
    (
        OK + "expect: {drift: {within: 0 ppm}}\n",
        "4:26: expect.drift.within: zero is not allowed here: no clock is free of drift",
    ),
    (OK + "expect: {drift: {within: -2 ppm}}\n", "4:26: expect.drift.within: a rate cannot be negative:"),
    (OK + "expect: {kernel_log: dirty}\n", "4:22: expect.kernel_log: 'dirty' is not a state of the kernel"),
    (
        OK.replace("resync: agent\n", "") + "matrix: {resync: [agent], side_by_side: 2}\n",
        "3:41: matrix: only cells that differ in their resync run side by side; add the axis resync,",
    ),
    (OK + "expect: {regime: running}\n", "4:18: expect.regime: 'running' is not a regime; write resumed,"),
]


@pytest.mark.parametrize(("data", "answer"), SYNTAX + VALUES, ids=lambda value: repr(value[:60]))
def test_one_mistake_one_line(data: str | bytes, answer: str) -> None:
    lines = mistakes_in(data)
    assert len(lines) == 1, lines
    assert lines[0].startswith(answer)
    assert "; " in lines[0] or "?" in lines[0], "says what to do"


def test_all_mistakes_at_once_in_the_order_of_the_file() -> None:
    text = """\
name: My Playbook
guests:
  - {name: web, memory: 512}
  - {name: web, vcpus: lots}
cycle:
  method: stop
  patch: {hold: 5}
  bugdet: 3s
  settle: 1s
  settle: 2s
expect:
  pause: {at-least: 5s}
"""
    assert [line.split(": ", 1)[0] for line in mistakes_in(text)] == [
        "1:1",  # resync is missing
        "1:7",
        "3:25",
        "4:24",
        "6:11",
        "7:17",
        "8:3",
        "10:3",
        "12:11",
    ]


def test_at_most_twenty_lines_and_how_many_more() -> None:
    lines = mistakes_in(OK + "".join(f"zzz{n}: 1\n" for n in range(30)))
    assert len(lines) == 21
    assert lines[-1] == " and 10 more"


def test_a_bomb_of_aliases_is_answered_at_once() -> None:
    rows = ["a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]"]
    rows += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 60)]
    started = time.monotonic()
    lines = mistakes_in("\n".join(rows))
    assert lines == [
        "1:5: anchors and aliases (&a0) are not part of a playbook; write the value where it is used"
    ]
    assert time.monotonic() - started < 1


def test_commands_as_one_text_are_split_like_a_shell_would() -> None:
    [line] = mistakes_in(OK.replace("hold: 5s", """command: "systemctl restart 'a b'", deadline: 5s"""))
    assert line.endswith("; write [systemctl, restart, 'a b']")


def test_templates_are_named() -> None:
    assert any("there are no {{ templates }}" in line for line in mistakes_in(OK.replace("5s", "{{ time }}")))


def test_answers_disturb_no_terminal() -> None:
    for text in (OK + '"\\e[2J": 1\n', OK.replace("agent", '"\\a\\u202e"')):
        assert all(line.isprintable() for line in mistakes_in(text))
