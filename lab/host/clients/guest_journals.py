"""Asks the state server of a guest a period, and reports what its journals show.

restarts: starts of the service but the first. A job that is due at times of the wall clock, as its own guest
has it, either runs once for each of them, or is reported: "timer skipped" for each time without a run,
"timer twice" for each further run for the same time; likewise for cron.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial

from lab.core.units import NS_PER_S
from lab.core.workload.shipped.journal_server import JOURNAL_PORT
from lab.core.workload.shipped.systemd_watchdog import CRON_NS, every_ns
from lab.host.clients.base import ClientArguments, arguments, hello, print_sample, raw_ns
from lab.host.clients.wire import ClientLoop, ClientPort

GIVE_UP_NS = NS_PER_S


class PeriodicJob:
    """The runs of a job that is due each period_ns of the guest's CLOCK_REALTIME."""

    def __init__(self, name: str, period_ns: int) -> None:
        self._name, self._period, self._last = name, period_ns, -1
        self._began = -1

    def begin(self, now_ns: int) -> None:
        """The guest's CLOCK_REALTIME when its journal was read first: after the next due time, each without a
        run is left out. Whether there was a run for the one before, nobody knows."""
        if self._began < 0:
            self._began = now_ns // self._period

    def runs(self, times: Sequence[int]) -> list[str]:
        """What further runs show: an event for each time that was left out, and for each one too many. A run
        is for the last time that was due before it."""
        found = []
        for time_ns in times:
            slot = time_ns // self._period
            if self._last >= 0:
                found += [f"{self._name} skipped"] * min(1000, slot - self._last - 1)
                if slot <= self._last:
                    found.append(f"{self._name} twice")
            elif self._began >= 0:
                found += [f"{self._name} skipped"] * min(1000, slot - self._began - 1)
            self._last = max(slot, self._last)
        return found


class GuestJournalsClient:
    """Asks one guest's state server. journals: their names; jobs: those whose runs are looked at."""

    def __init__(self, loop: ClientLoop, given: ClientArguments, jobs: Mapping[str, PeriodicJob]) -> None:
        ((self._name, address),) = given.guests.items()
        self._loop, self._jobs = loop, jobs
        self._have = dict.fromkeys(("starts", *jobs) if jobs else (), 0)
        self._waiting: dict[int, tuple[int, int]] = {}
        self._port = ClientPort(loop, (address, JOURNAL_PORT), self._answered)

    def ask(self, number: int, due_ns: int) -> None:
        """Send a request."""
        self._waiting[number] = due_ns, raw_ns()
        self._port.send(json.dumps({"number": number, "have": self._have}).encode())
        self._loop.after(GIVE_UP_NS, partial(self._expired, number))

    def _expired(self, number: int) -> None:
        if number in self._waiting:
            due, sent = self._waiting.pop(number)
            print_sample(seq=number, due=due, sent=sent, done=raw_ns(), ok=False, error="no answer")

    def _answered(self, data: bytes) -> None:
        done, answer = raw_ns(), json.loads(data)
        number, asked = answer["asked"]["number"], answer["asked"]["have"]
        for name, job in self._jobs.items():
            job.begin(answer["now"])
            new = answer["lines"][name][max(0, self._have[name] - asked[name]) :]
            for event in job.runs(new):
                print_sample(event=event, at=done, by=self._name)
        for name, lines in answer["lines"].items():
            self._have[name] = max(self._have[name], asked[name] + len(lines))
        if number in self._waiting:
            due, sent = self._waiting.pop(number)
            state = {"boot": answer["boot"]}
            if "starts" in self._have:
                state["restarts"] = max(0, self._have["starts"] - 1)
            times = {"due": due, "sent": sent, "done": done}
            print_sample(seq=number, ok=True, by=self._name, stamp=answer["now"], state=state, **times)


def main() -> None:
    given = arguments()
    hello(given.period_ns)
    loop = ClientLoop()
    jobs = {}
    if "every" in given.options:
        jobs = {"timer": PeriodicJob("timer", every_ns(given.options)), "cron": PeriodicJob("cron", CRON_NS)}
    loop.each(given.period_ns, GuestJournalsClient(loop, given, jobs).ask)
    loop.run()


if __name__ == "__main__":
    main()
