"""Mistakes in fleets, announcements and rollouts. Each is one line that says where it is and what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.fleet_playbooks import FLEET, HANDLED, HEAD, SCALE, SET, SETS, answer, filled


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return filled(tmp_path)


MISTAKES = [
    # fleets
    (FLEET + "guests: [{name: a}]", "4:1: fleet: guests and fleet cannot both be given; move"),
    (SET + "{name: w, guests: [web], update_domains: 4}", "7:48: fleet: 4 update domains for 3 guests, so"),
    (SET + "{name: w, guests: [db], fault_domains: 2}", "7:46: fleet: 2 fault domains for 1 guest, so some"),
    (SET + "{name: w, guests: [web], update_domains: 21}", "7:48: fleet.availability_sets[0].update_domains"),
    (SET + "{name: w, guests: [web], fault_domains: 4}", "7:47: fleet.availability_sets[0].fault_domains: 4"),
    (SET + "{name: w, guests: [wob]}", "7:26: fleet: no guest and no entry of guests is named 'wob'; did"),
    (SET + "{name: w, guests: [x]}", "7:26: fleet: no guest and no entry of guests is named 'x'; there ar"),
    (SET + "{name: w, guests: []}", "7:25: fleet.availability_sets[0].guests: the list of guests is empty;"),
    (SET + "{name: w}", "7:7: fleet.availability_sets[0]: guests is missing; add guests: [web]"),
    (SET + "{name: w, guests: [db]}\n    - {name: w, guests: [web]}", "8:14: fleet: two sets are named w, e"),
    (SET + "{name: w, guests: [web]}\n    - {name: x, guests: [web-1]}", "8:26: fleet: web-1 is already in"),
    (FLEET + "  boot: warm", "6:9: fleet.boot: 'warm' is not a kind of boot; write golden or cold"),
    # scale sets, names and metadata
    (SCALE + "{name: web, update_domains: 2}", "6:35: fleet.scale_sets[0]: 2 update domains for 1 guest, s"),
    (SCALE + "{name: web, fault_domains: 6}", "6:34: fleet.scale_sets[0].fault_domains: 6 domains are too"),
    (SCALE + "{name: web, compute_name: x}", "6:33: fleet.scale_sets[0]: the instances of a scale set are"),
    (SCALE + "{name: web}\n    - {name: web}", "7:14: fleet: two guests are named web000000, entries 1 and"),
    (SCALE + "{name: web}\n  guests: [{name: web000000}]", "6:14: fleet: two guests are named web000000, en"),
    (
        SCALE + "{name: web}\n  guests: [{name: db}]\n  availability_sets: [{name: web, guests: [db]}]",
        "6:14: fleet: two sets are named web, entry 1 of availability_sets and entry 1 of scale_sets; rename",
    ),
    (
        SCALE + "{name: web}\n  availability_sets: [{name: w, guests: [web]}]",
        "7:42: fleet: web000000 is already in the set web; a guest belongs to one set; delete it here or the",
    ),
    ("guests: [{name: a, compute_name: _x}]", "4:34: guests[0].compute_name: '_x' is not a valid compute.na"),
    ("guests: [{name: a}, {name: b, compute_name: a}]", "4:45: guests: two guests are named a in events, en"),
    ("guests: [{name: a, instance: x}]", "4:30: guests[0].instance: a mapping is expected here, not the"),
    (
        "announce: {instance: {compute: {zones: 1}}}",
        "4:40: announce.instance: compute.zones: the documentation has no such field; did you mean zone?",
    ),
    ("announce: {instance: {compute: {name: x}}}", "4:39: announce.instance: compute.name: it is given by"),
    ("announce: {instance: {compute: {zone: }}}", "4:38: announce.instance: a value is expected here, not"),
    ("announce: {instance: {compute: x}}", "4:32: announce.instance: compute: it has parts: give these"),
    # rollouts
    (SET + "{name: w, guests: [web]}\nrollout: {}", "5:35: fleet.guests[1]: db is in no availability set, s"),
    ("rollout: {}", "4:1: rollout: there are no availability sets; add fleet, with availability_sets"),
    (FLEET + "rollout: {}", "6:1: rollout: the fleet has no availability sets; add fleet.availability_sets"),
    (SETS + "rollout: {}\nmatrix: {memory: [1 GiB]}", "9:1: matrix: a rollout cannot have a matrix; delete"),
    (SETS + "rollout: {by: rack}", "8:15: rollout.by: 'rack' is not a unit of a rollout; write upda"),
    (SETS + "rollout: {seed: 5}", "8:17: rollout: a seed has no meaning without a shuffled order; set order"),
    (SETS + "rollout: {order: shuffled, seed: -1}", "8:34: rollout.seed: a seed is a whole number, not the"),
    (SETS + "rollout: {gates: [{clok: in-time}]}", "8:20: rollout.gates[0]: unknown key 'clok'; did you mea"),
    (SETS + "rollout: {gates: [{}]}", "8:19: rollout.gates[0]: the gate has no condition; write {clock: in-"),
    (SETS + "rollout: {gates: [{clock: in-time, members: healthy}]}", "8:45: rollout.gates[0]: a gate has o"),
    (SETS + "rollout: {gates: [{command: [a]}]}", "8:29: rollout.gates[0].command: a command is expected he"),
    (SETS + "rollout: {gates: [{http: 127.0.0.1/x}]}", "8:26: rollout.gates[0].http: '127.0.0.1/x' is not t"),
    (SETS + "rollout: {gates: [{http: 'http://a:99999/'}]}", "8:26: rollout.gates[0].http: 'http://a:99999/"),
    (SETS + "rollout: {gates: [{clock: in-time, on: [wbe]}]}", "8:41: rollout: no guest and no entry of gue"),
    ("expect: {rollout: stopped}", "4:19: expect: there is no rollout to check; add rollout:"),
    (SETS + "rollout: {}\nexpect: {rollout: stopped}", "9:19: expect: a rollout without gates never stops;"),
    # announcements
    ("announce:", "4:10: announce: keys and values are expected here, not nothing; write it like {notice: 1"),
    ("announce: {notice: 5min, cancel_after: 5min}", "4:40: announce: the event cannot be called off after"),
    ("announce: {notice: 0s, cancel_after: 1s}", "4:38: announce: the event cannot be called off after 1 s:"),
    ("announce: {type: preempt, cancel_after: 1min}", "4:41: announce: the event cannot be called off after"),
    ("announce: {duration: 2500ms}", "4:22: announce.duration: announced durations are whole seconds; wr"),
    ("announce: {type: Freeze}", "4:18: announce.type: 'Freeze' is not a type of event; did you mean freeze"),
    ("announce: {type: reboot, duration: 5s}", "4:36: announce: a reboot is announced without"),
    ("announce: {time_factor: 0}", "4:25: announce.time_factor: the service's time cannot pass 0 times as f"),
    ("announce: {time_factor: -5}", "4:25: announce.time_factor: the service's time cannot pass -5 times as"),
    ("announce: {time_factor: 99999}", "4:25: announce.time_factor: 99999 times as fast leaves no time to o"),
    ("announce: {time_factor: 1e2}", "4:25: announce.time_factor: not a factor: '1e2'; write a number from"),
    ("announce: {cloud: aws}", "4:19: announce.cloud: 'aws' is not a cloud; write azure, gce or ec2"),
    ("announce: {cloud: gce, instance: {compute: {zone: 1}}}", "4:24: announce: only Azure's service has t"),
    ("announce: {cloud: gce, service: {answers: [404, no-events]}}", "4:49: announce: only Azure's serv"),
    ("announce: {cloud: ec2, service: {restart_incarnation: true}}", "4:55: announce: only Azure's serv"),
    ("announce: {imdsv1: false}", "4:20: announce: only EC2's service has tokens, and the guests a"),
    (
        "announce: {cloud: gce, handler: [handler.py]}\nexpect: {notice: {acknowledged: true}}",
        "5:33: expect: acknowledged: guests cannot approve in gce; delete it, or set announce.cloud to azure",
    ),
    ("announce: {handler: ./handler.py}", "4:21: announce.handler: a command is a list of arguments, run wi"),
    ("announce: {handler: [./nope.py]}", "4:22: announce.handler: no file './nope.py' in the playbook's"),
    ("announce: {handler: [.]}", "4:22: announce.handler: no file '.' in the playbook's folder; write"),
    (f"announce: {{handler: [{'x' * 999}]}}", "4:22: announce.handler: no file 'xxx"),
    ("announce: {service: {answers: [410, 418]}}", "4:37: announce.service.answers[1]: '418' is not an answ"),
    ("announce: {service: {answers: [late 0s]}}", "4:32: announce.service.answers[0]: zero is not allowed"),
    ("announce: {service: {answers: [late 5]}}", "4:32: announce.service.answers[0]: 'late 5' is not an a"),
    ("announce: {service: {answers: [200, document no]}}", "4:37: announce.service.answers: no file 'no' in"),
    ("announce: {service: {answers: [document binary]}}", "4:32: announce.service.answers: 'binary' is no"),
    ("announce: {others: [{notice: 1h}]}", "4:21: announce.others[0]: type is missing; add type: reboot"),
    ("announce: {others: {type: reboot}}", "4:12: announce.others: a list of events is expected here; wri"),
    ("announce: {service: {answers: 410}}", "4:31: announce.service.answers: a list of answers is expected"),
    # what is expected of them
    ("expect: {notice: {seen: true}}", "4:10: expect: nothing is announced, so there is no notice to check;"),
    ("announce: {}\nexpect: {notice: {acknowledged: true}}", "5:33: expect: acknowledged: announce has no h"),
    ("announce: {}\nexpect: {notice: {}}", "5:10: expect.notice: no expectation is given; writ"),
    ("announce: {}\nexpect: {notice: {cancelled: true}}", "5:30: expect: announce has no cancel_after; add"),
    ("announce: {}\nexpect: {notice: {at_least: 16s}}", "5:29: expect: the notice is 15 s of real time (ann"),
    (HANDLED + "expect: {notice: {at_least: 9s, at_most: 5s}}", "5:42: expect.notice: at_most (5 s) is less"),
    (HANDLED + "expect: {notice: {seen: false, acknowledged: true}}", "5:46: expect.notice: an event that n"),
    ("announce: {duration: unknown}\nexpect: {notice: {kept: true}}", "5:25: expect: an unknown duration is"),
    ("announce: {type: preempt}\nexpect: {notice: {kept: true}}", "5:25: expect: only a freeze has an annou"),
    (
        "announce: {duration: 2s}\nexpect: {notice: {kept: true}}",
        "5:25: expect: the patch alone takes 2 s, and 2 s are announced, so it could never pass; set announ",
    ),
    (
        "announce: {duration: 30s}\nexpect: {notice: {kept: false}}",
        "5:25: expect: cycle.budget ends every pause after 30 s, and 30 s are announced, so it could never",
    ),
    ("expect: {pause: {at_most: 2s}}", "4:27: expect: the patch alone takes 2 s, so every pause would"),
    ("expect: {pause: {at_least: 31s}}", "4:28: expect: cycle.budget ends every pause after 30 s, so"),
    (
        "announce: {cancel_after: 5min}\nexpect: {notice: {cancelled: true}, pause: {at_least: 2s}}",
        "5:37: expect: when the event is called off no guest is frozen, so pause has no meaning; delete it,",
    ),
    (
        "announce: {cancel_after: 5min}\nexpect: {notice: {cancelled: true, kept: true}}",
        "5:42: expect.notice: an event that is called off never starts, so kept has no meaning beside cancel",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("text", "said"), MISTAKES, ids=lambda value: repr(value[-50:]))
def test_one_mistake_one_line(text: str, said: str, folder: Path) -> None:
    [line] = answer(f"{HEAD}{text}\n", folder).splitlines()
    assert line.removeprefix("p:").startswith(said)
    assert "; " in line or "?" in line, "says what to do"


def test_a_reboot_is_announced_without_a_duration(folder: Path) -> None:
    patch = "{command: [flash], deadline: 1min, impact: reboot}"
    text = HEAD.replace("{hold: 2s}", patch) + "announce: {duration: 5s}\n"
    assert answer(text, folder).startswith(
        "p:4:22: announce: the patch is announced as a reboot; only a freeze"
    )
