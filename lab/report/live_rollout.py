"""The progress of a rollout: a bar of its waves, and a line for each domain of the current one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from rich.cells import cell_len
from rich.text import Text

from lab.core.quantities import format_seconds
from lab.report.numbers import bar
from lab.report.text import shortened

NAME = 13
"""The width of a line's first column."""

STATES = ("waiting", "announced", "started", "frozen", "resyncing", "gate", "done")
"""The states of a domain in a rollout, in their order. It may be stopped in any of them."""

_STYLES = {"done": "green", "stopped": "bold yellow", "frozen": "bold blue", "waiting": "dim"}
MOST_DOMAINS = 5
"""The most domains of a wave with a line of their own."""


@dataclass(frozen=True)
class DomainProgress:
    """A domain of a rollout. number: that of its wave."""

    label: str
    state: str
    number: int
    since_raw_ns: int

    @property
    def is_under_way(self) -> bool:
        return self.state not in ("waiting", "done")

    @property
    def share(self) -> float:
        """Its progress from 0 to 1."""
        return STATES.index(self.state) / (len(STATES) - 1) if self.state in STATES else 0.0


@dataclass(frozen=True)
class RolloutProgress:
    """The progress of a rollout. of: the number of waves. at: the number of the current one. domains: by
    label."""

    of: int
    at: int
    domains: Mapping[str, DomainProgress]

    def progress_of(self, domain: DomainProgress, of: int) -> RolloutProgress:
        """The progress after `domain` has reached its state."""
        begun = domain.state != "waiting"
        return RolloutProgress(
            of, domain.number if begun else self.at, {**self.domains, domain.label: domain}
        )

    @property
    def at_hand(self) -> list[DomainProgress]:
        return [domain for domain in self.domains.values() if domain.number == self.at]

    @property
    def done(self) -> int:
        """The number of waves of which every domain is done."""
        left = {domain.number for domain in self.domains.values() if domain.state != "done"}
        return len({domain.number for domain in self.domains.values()} - left)

    @property
    def share(self) -> float:
        """The progress from 0 to 1, by waves and by the states of the current wave's domains."""
        here = [domain.share for domain in self.at_hand if domain.is_under_way]
        return min(1.0, (self.done + (min(here) if here else 0.0)) / max(1, self.of))


def barred(name: str, share: float, style: str, text: str, width: int) -> Text:
    full, free = bar(share, max(4, width - NAME - 2 - 2 - len(text)))
    line = Text(no_wrap=True, overflow="crop")
    line.append(name.ljust(NAME) + "  ")
    line.append(full, style)
    line.append(free, "dim")
    line.append(f"  {text}")
    return line


def domain_lines(rollout: RolloutProgress, now: int, width: int) -> list[Text]:
    """A bar of waves, and a line for each domain of the current one:

    rollout        █████░░░░░░░░░░  wave 2 of 4, 1 done
      web UD 1     resyncing                      2.1 s
    """
    text = f"wave {rollout.at} of {rollout.of}, {rollout.done} done"
    lines = [barred("rollout", rollout.share, "green", text, width)]
    here = sorted(rollout.at_hand, key=lambda domain: domain.state == "done")
    shown = here if len(here) <= MOST_DOMAINS else here[: MOST_DOMAINS - 1]
    room = max(NAME, min(24, max((cell_len(d.label) + 2 for d in shown), default=0)))
    for domain in shown:
        line = Text(no_wrap=True, overflow="crop")
        name = "  " + shortened(domain.label, room - 2)
        time = format_seconds(now - domain.since_raw_ns, 1) if domain.is_under_way else ""
        line.append(name + " " * max(0, room - cell_len(name)) + "  ")
        line.append(domain.state, _STYLES.get(domain.state, "cyan"))
        line.append(" " * max(1, width - room - 2 - cell_len(domain.state) - len(time)))
        line.append(time, "dim")
        lines.append(line)
    if len(here) > len(shown):
        rest = here[len(shown) :]
        states: dict[str, int] = {}
        for domain in rest:
            states[domain.state] = states.get(domain.state, 0) + 1
        counts = ", ".join(f"{many} {state}" for state, many in states.items())
        lines.append(Text(f"  and {len(rest)} more: {counts}", "dim", no_wrap=True, overflow="crop"))
    return lines


def domain_line(before: RolloutProgress | None, after: RolloutProgress) -> str:
    """ "web UD 0: frozen (wave 1 of 4)", for the domain that has come to another state; nothing of one that
    only waits."""
    known = before.domains if before is not None else {}
    for label, domain in after.domains.items():
        was = known.get(label)
        same = was is not None and (was.state, was.number) == (domain.state, domain.number)
        if domain.state != "waiting" and not same:
            return f"{label}: {domain.state} (wave {domain.number} of {after.of})"
    return ""
