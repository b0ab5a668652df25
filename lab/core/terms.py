"""The glossary: each word of the reports and of the documentation, in one line.

`freezelab explain` prints it, docs/terms.md is made from it. Freeze methods, resync mechanisms and their
words are in `method` and `mechanism`; here they are only listed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache

from lab.core.mechanism import ResyncMechanism
from lab.core.method import FreezeMethod

_THINGS = """
host: the machine that runs the lab
lab host: a guest that runs guests itself, on KVM: freezelab labhost
guest, guests: a virtual machine of the lab's: one QEMU process, or one after another
peer, peers: a guest that takes part in a workload and is not frozen
controller: the process that runs a playbook
dead-man: the process beside the controller that resumes guests when it cannot
playbook: a YAML file that says what is done and what is expected; a plan is what is read from it
freeze: the maintenance: a guest is stopped by a method, and resumed
method: how a guest is frozen: suspend, host-sleep, save-restore, live-migrate, snapshot and others
patch: what is done to the host meanwhile
file systems, stall: how long a snapshot's file systems stood still, by two witnesses: calls and a writer
budget: how long a guest may stand still; used is the time until it was resumed, an upper limit
cycle, cycles: one freeze with all that is measured before and after
control, control cycle: a cycle without a freeze: it shows the noise
matrix: a playbook with axes; each combination of their values is a cell
cell, cells: one combination of a matrix's values, with cycles of its own
part: a run of some of a matrix's cells, from which a record was merged; with the host that it ran on
hosts: guests of one run on several hosts: how far apart they were frozen, and which hosts were cut off
doctor: what freezelab doctor found on a host: ok, with its notes, or how many of its checks failed
round trip: the median time of a reading of a host's clock, there and back
freezelab, QEMU, libvirt, kernel, Python: their versions on a host; other: other files than those here
calibrated: the day of a host's calibration, and whether it is stale or rough
left out: a combination of the matrix that cannot be, or was not wanted, with the reason
golden guest: a guest whose state was saved once; new guests start from it instead of booting
boot: how long each guest took to start: to its probe, to SSH, to its identity, for its set-up
probe, depth: what looks into a guest: python, shell or agent; each bounds other things
history: a run's events.jsonl, which everything is made from; the record is run.json
run: the execution of a playbook, or its record
outcome: passed, failed or inconclusive
night, nights: playbooks that are run one after another with nobody there; it has a verdict of its own
baseline: the runs that a run is compared with: those that were chosen, or the last that passed
network: the lab's own network between guests, and what passed it
queue: how many frames the lab's network holds back for a guest before it drops some
moved: an address that moved to another port of the bridge, or to another guest, and by which frame
"""

_MEASURING = """
reading: one exchange of time stamps between host and guest
±: a bound that contains the true value, not a standard deviation
pause: the time in which no instruction of the guest ran, as four independent measurements bound it
down: a reboot's outage, from the shutdown to the first heartbeat
no freeze: the guest ran on while the host was patched
called off: an announced freeze that did not take place
witness, witnesses: one independent measurement of a pause: hypervisor, lag, gap, silence
hypervisor: the witness of the calls that stopped and resumed the guest
lag: the witness of the guest's clock: how long its MONOTONIC_RAW stood still
gap: the witness of a sampler inside the guest: the hole in its record
silence: the witness of the guest's heartbeats, which the host misses
closure, |closure|: what the witnesses leave unexplained: hypervisor minus lag minus gap, which should be 0
migration: a live migration: how long it took, and the downtime that QEMU or libvirt reports beside the pause
brown-out: a guest works more slowly while it is live-migrated, as loops in it are counted
stamps: QEMU's own stamps of STOP and RESUME beside the pause, which they are within
pause - stamps: how much longer the pause is than QEMU's own stamps say
regime: the guest's clocks during the pause: resumed means that they stood still, jumped that they ran on
resumed: the regime of clocks that stood still with the guest; in a timeline: when the guest ran again
jumped: the regime of clocks that ran on, so that the guest sees a hole
mixed: a regime between the two
running: the regime of a guest that was not frozen; of a run: it has not ended
offset, |offset|: guest clock minus host clock; positive: the guest is ahead
behind at resume: the error of the guest's wall clock at the resume, before any correction
behind: the guest's clock is late by this much
ahead: the guest's clock is early by this much
final offset, |final offset|: guest clock minus host clock at the end of the watch
offset bound: how well offsets are known before the freeze, in the median
pause bound: how well pauses are known, in the median
in time, in time after, in time by: the time from the resume until the clock was correct and stayed so, and \
whether a step or a slew corrected it
time to sync: the same time, an upper limit, as a statistic
never: the clock did not come back while it was watched
undecided: the bounds do not decide
not measured: there is no measurement, so there is no number
tolerance: how small the offset has to be to be in time; of a workload: the longest pause that it stands
hold: how long a freeze lasts, with nothing done to the host; of a clock: for how long it has to stay in time
watch: the time after the resume in which the clocks are read
drift: the offset's change over time, in ppm; positive: the guest's clock gains
ppm: millionths: 1 ppm is 1 µs in each second
resync: the guest's clock coming back to the host's, and what does it
mechanism: what corrects the guest's clock after a pause
clock: a single cycle's way back: from the offset at the resume to the final one
step: a correction at once
slew: a correction at a rate
overshoot: how far a correction went past the right time
curve: the offset over the time since the resume
reached: when the clock was within 1 s, 100 ms, 10 ms and 1 ms, and stayed there
forecast, predicted: what the rules of a mechanism, a method or a workload say before the freeze
measured: what was measured beside what was predicted
as predicted: whether the measurement agrees with the prediction: yes, NO, or ? where it does not decide
not yet: the watch ended before the time that was predicted: no contradiction, and not passed
surprise: a result that contradicts the rules of a program or of a method, expected or not
claim, claims: what the guest says of its own clock, beside the truth
wrong claims: claims of guests to be more accurate than they certainly were
noise: what cycles without a freeze show: the lag that is none, and how well offsets are known
busy host: QEMU waited for a CPU for a notable share of the time, which delays corrections
clocksource: what the guest's kernel reads the time from
note: what else happened that nobody judged
calibration: the lab's own error on this machine, from pauses of known length: freezelab calibrate
bias: the median error of a calibration's pauses
spread: the range of a calibration's errors
covered: how many of a calibration's intervals contain the true pause
rough: a calibration from few pauses, or made under load
out of date: a calibration that no longer holds: the machine or the lab has changed since
load: the host's load average when the run began
median: half of the values are below it
p95: 95 of 100 values are at most this
p99: 99 of 100 values are at most this
max: the largest value
95 % limits, 95 %: the limits of the true quantile at 95 %, from order statistics; – with too few cycles
ms: milliseconds
"""

_PARTS = """
parts of the pause: what the time of a pause went to, from the call that stopped the guest on
from: when a part began, in milliseconds since the guest was to be stopped
a full bar: the length that a bar of full width stands for
total: all parts together
rest: the shorter parts together
fall asleep, shut down: the part in which the guest was stopped
save, restore: the parts in which a guest was written to a file and read from it
save and snapshot: the step of snapshot-state in which RAM is saved and an overlay put over the disks
freeze files, thaw files: the steps in which a guest's agent freezes and thaws its file systems
freeze cgroup v1, freeze cgroup v2: the step of host-sleep from the order to the last thread that is frozen
state out, state in: the parts in which the devices' state left the old QEMU and reached the new one
prove memory, prove memory again: the digests of the guest's memory before and after, no part of the pause
start: the part in which a guest that was shut down was started
start successor, end old process: the parts in which the new QEMU was started, and the old one ended
put back: the part in which a guest that was called off came back
resume: the call that let the guest run again, and the moment when it ran
first heartbeat: from the resume until the guest sends its first heartbeat, or answer
first packet: from there to its arrival at the host
between: the time between two parts
memory: the proof that the guest's memory is the same after a hand-over
backward: whether a clock of the guest went backward, in how many checks
boottime: CLOCK_BOOTTIME of the guest beside MONOTONIC; only a sleep of its own sets them apart
wall clock: the guest's REALTIME
rtc: the guest's real-time clock beside its REALTIME, before and after
timers, timers, late by: how late the guest's timers fired, by their own clock
worst: the largest of them
at once: how many timers fired in the same instant after the resume
early: timers that fired too early
kernel log: lines of the guest's kernel that tell of the pause
"""

_FLEETS = """
event, events: a Scheduled Event, which the metadata service announces; of a workload: what its client reports
announcements, announced: what was announced, and what came true of it
cloud: in whose words the metadata service answers: azure, gce (Compute Engine) or ec2
maintenance-event: the key that tells guests on Compute Engine of maintenance: NONE, or what comes in 60 s
session token: what EC2's instance metadata gives for a time and wants with each request (IMDSv2)
incident: a playbook of something that goes wrong with an announcement, such as a short notice
play: a playbook's announcements without its guests, for clients on this machine: freezelab events play
client: a program that asks the metadata service, in a guest or in its place; of a workload: what judges it
notice: how long before the freeze it was announced; of a wave: until it was acknowledged
NotBefore: the time before which an event that nobody acknowledges does not start
published: when the event was first in the document that guests ask for
seen: when a guest first read the announcement, in seconds since its publication
approved: when it was acknowledged, and by whom
started: when the event started
frozen: when its guests were stopped
gone: when the guests no longer saw the event
fault domain: guests that fail together; a freeze takes one after another
update domain, update domains, domain, domains: guests that are updated together, one domain after another
rollout: a fleet that is patched one domain after another
wave: an update domain's turn in a rollout
gate, gates: what is asked after a wave; the rollout goes on when all of it holds
skew, skew stop/resume: how far apart the guests of a domain were stopped, and resumed
proof: that two domains of a set were never down at the same time
stands: where a rollout has stopped, and why
handler: a program in the guest that answers events
"""

_WORKLOADS = """
workload: what runs in the guests, judged by a client that is not frozen
requests: how many requests the client made
failed: requests without a success; of a search: the shortest pause that failed
outage, longest outage: the longest time without a success
beyond pause: the part of the outage that is not the pause
back after: from the resume to the first success of what was asked after the stop
without a freeze: the longest outage of control cycles, an upper limit
lost: acknowledged and never delivered
twice: delivered more than once
recovery, asked for: a workload's cycles by the pause that was asked for
at most: the longest of the cycles of a pause
longest RTO: the longest that TCP's retransmission timer was, from the stop on
retransmits: segments that TCP sent again from the stop on, the most in one cycle
connections lost: connections that ended and were made anew
dated: what guests wrote with a time from their clocks
in time again: from the resume until the guests' clocks were in time
until then: how many stamps were made before that
wrong: how many of the stamps were certainly wrong
by: the largest error of a stamp
until: when the last wrong stamp was made
out of order: stamps that are earlier than the one before
wrong stamps: answers whose time stamp was certainly wrong, and by how much
state: values that guests share, and whether they changed
change: a value that changed, and when
both: two guests that claimed the same role at the same time
problem: what is wrong with a client's own output
lowest after, highest after, as before after, before: what a client measured itself, before and after the stop
passed: all that was expected certainly holds; of a search: the longest pause that passed
tries: the pauses of a search for the tolerance, and the time that they took
"""

_VERDICTS = """
finding: one expectation compared with what was measured
check, checks: findings; those of a matrix's cell together
verdict: inconclusive means that the measurement does not decide; it never counts as passed
inconclusive: the measurement does not decide; it never counts as passed
as expected: a check that had to fail, and did
interrupted: the run was ended by a signal; guests were resumed first
cut off: the run's process ended without an end on record
refused: the guest or the host cannot do it here
stopped: the rollout, or the search, ended early
not run, not begun: it was not this one's turn
missing: a measurement that is not there; it never counts as passed
more: the command that shows all sections of the report
words: the command that explains a word of the report
folder: where the run's history, record and consoles are
go on: the command that continues an interrupted search
ratio, save-restore / in-place: the ratio of the median pauses of two methods, with its limits
pause over memory, ms/GiB: how the pause grows with the guest's memory, a slope with its limits
"""

_COMPARISONS = """
figure: a magnitude that runs are compared by, with one value for each cycle, the worst guest's
machine: the host of a run: the CPU, their number, the memory, and a digest of its id
id, when: a run's name, and when it began (UTC)
before, after: the median over the baseline's cycles, and over the run's
difference: the median difference of all pairs of cycles, with its 95 % limits; × is a factor
p: the probability that chance alone makes such a difference, corrected for the number of figures
worse, better: a difference that is more than noise, or a verdict that changed
within bounds: the values differ by more than noise, but not once their bounds count
within runs: a run of the baseline was as far off, so the difference is no more than that of two days
too few: so few cycles cannot show any difference, however large
all cells: the cells of a matrix together: by which factor a figure changed in all of them
verdict of: whose verdict changed: a guest's or a workload's, or the run's
differs: what else is another one than the baseline's: kernel, QEMU, accelerator
gone, new: cells that only one of the two runs has
oldest first: a figure's course over the runs, a bar for each; all alike where bounds have a value in common
last: the figure's median in the latest run
tag, tags: a name that was given to a run: run --tag NAME
"""

_PATCHES = """
command: a command that is run on the host
replace-hypervisor: the guests go on in another QEMU process, of the same or another version
restart-libvirt: libvirt's daemon is restarted
restart-service: a systemd service is restarted
reload-kvm: KVM's kernel modules are unloaded and loaded again
replace-host-kernel: the lab host's kernel is replaced by kexec, while the guest's memory stays in RAM
microcode: the CPUs' microcode is loaded
livepatch: a live patch is loaded into the host's kernel
ansible: an Ansible playbook is run
"""


@dataclass(frozen=True)
class Term:
    """names: the word itself first, then others that it is found by. text: one line."""

    names: tuple[str, ...]
    text: str

    @property
    def name(self) -> str:
        return self.names[0]


def _parsed(block: str) -> list[Term]:
    terms = []
    for line in block.replace("\\\n", "").strip().splitlines():
        names, text = line.split(": ", 1)
        terms.append(Term(tuple(_names(names)), text))
    return terms


def _names(given: str) -> list[str]:
    return re.split(r", (?!late by)", given)  # "timers, late by" is the head of a column


@cache
def glossary() -> Mapping[str, tuple[Term, ...]]:
    """All terms, by the title of their group."""
    return {
        "What there is": tuple(_parsed(_THINGS)),
        "What is measured": tuple(_parsed(_MEASURING)),
        "Parts of a pause, and its effects": tuple(_parsed(_PARTS)),
        "Announcements and fleets": tuple(_parsed(_FLEETS)),
        "Workloads": tuple(_parsed(_WORKLOADS)),
        "Verdicts": tuple(_parsed(_VERDICTS)),
        "Comparisons": tuple(_parsed(_COMPARISONS)),
        "Freeze methods": tuple(Term((one.value,), one.traits.about) for one in FreezeMethod),
        "Host patches": tuple(_parsed(_PATCHES)),
        "Resync mechanisms": tuple(Term((one.value,), one.about) for one in ResyncMechanism),
    }


_LIMITS = " 95 % limits"
"""Below a head on a narrow page."""
_UNIT = re.compile(r",? ms\b")


def normalised(word: str) -> str:
    """As words are compared: on one line, in lower case, without a unit."""
    return _UNIT.sub("", " ".join(word.lower().split())) or word.lower().strip()


@cache
def _by_name() -> Mapping[str, tuple[Term, ...]]:
    found: dict[str, tuple[Term, ...]] = {}
    for terms in glossary().values():
        for term in terms:
            for name in dict.fromkeys(map(normalised, term.names)):
                found[name] = (*found.get(name, ()), term)
    return found


def find(word: str) -> tuple[Term, ...]:
    """The terms with this name, in the forms that a report has for it, such as "pause, ms"; none: unknown."""
    known, asked = _by_name(), normalised(word).removesuffix(_LIMITS)
    return known.get(asked) or known.get(asked.removesuffix("s"), ())


def near(word: str) -> list[str]:
    """The names that look most like it, best first, and those that it is a part of."""
    asked = normalised(word)
    close = get_close_matches(asked, _by_name(), n=4, cutoff=0.7)
    within = [name for name in _by_name() if len(asked) > 2 and asked in name]
    found = [term.name for name in [*close, *within] for term in _by_name()[name]]
    return [*dict.fromkeys(found)][:6]
