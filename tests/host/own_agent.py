"""Scenes of own_inside.py: a domain that is looked into by its agent alone, and what agents do wrong."""

from __future__ import annotations

import json
from typing import Any

from tests.host.own_lab import Lab

AGENT = "qemu-guest-agent"
BARE = """
<domain type='qemu'>
  <name>bare</name><memory unit='MiB'>32</memory><os><type arch='x86_64' machine='q35'>hvm</type></os>
  <devices><emulator>/usr/bin/qemu-system-x86_64</emulator></devices>
</domain>
"""
"""A machine without a channel for an agent, and without anything to boot."""

WINDOWS = "sed -i 's/^ID=.*/ID=mswindows/; s/^PRETTY_NAME=.*/PRETTY_NAME=\"Windows 11\"/' /etc/os-release"
"""What a real qemu-ga says of the system is what this file says."""


def by_agent(lab: Lab) -> dict[str, Any]:
    """By its agent alone: there is neither sshd nor Python."""
    machine = lab.machine
    entry = f"{{domain: {machine.name}}}"
    seen = agent_trouble(lab, entry)
    machine.inside(
        "chmod a-x $(readlink -f /usr/bin/python3); systemctl stop --no-block ssh.service ssh.socket"
    )
    seen |= {
        "suspend": lab.run(resync="agent", entry=entry),
        "report": lab.ended(lab.start("report", connect=False)),
        "save-restore": lab.run("save-restore", resync="agent", entry=entry),
        "sigstop": lab.run("sigstop", entry=entry),
        "agent-rtc": lab.run(resync="agent-rtc", entry=entry),
        "by hand": lab("freeze", machine.name, "--probe", "agent", "--for", "1s", "--announce", "0s"),
    }
    seen["destroyed"] = lab.during("resume", lambda _: machine.domain.destroy(), "suspend", entry=entry)
    return seen


def agent_trouble(lab: Lab, entry: str) -> dict[str, Any]:
    """An agent that hangs, restarts, answers late, or may not do what is asked of it; and one that calls its
    system Windows, as it does afterwards."""
    machine = lab.machine

    def blocking(commands: str) -> None:
        """Let it refuse these commands."""
        lines = f"[Service]\\nExecStart=\\nExecStart=/usr/sbin/qemu-ga {commands and f'-b {commands}'}\\n"
        folder = f"/run/systemd/system/{AGENT}.service.d"
        machine.inside(f"mkdir -p {folder}; printf '{lines}' >{folder}/block.conf")
        machine.inside(f"systemctl daemon-reload; systemctl restart {AGENT}")

    def during(kind: str, command: str) -> dict[str, Any]:
        before = machine.look()
        done = lab.during(kind, lambda _: machine.inside(command), "suspend", "none", entry)
        return {**done, "same": machine.look() == before, "problems": problems(lab.history())}

    bare = machine.connection.createXML(BARE)
    none = {"no channel": lab.run(entry="{domain: bare}"), "state": bare.state()[0]}
    bare.destroy()
    hang, go_on = (f"systemctl kill -s {signal} {AGENT}" for signal in ("STOP", "CONT"))
    seen: dict[str, Any] = {**none, "w32time of Debian": lab.run(resync="w32time", entry=entry)}
    machine.inside(hang)
    seen["hangs"] = lab.run(entry=entry)
    machine.inside(go_on)
    seen["hangs in the watch"] = during("resume", hang)
    machine.inside(go_on)
    seen["late"] = during("resume", f"{hang}; sleep 3; {go_on}")
    seen["restarts"] = during("resume", f"systemctl restart {AGENT}")
    blocking("guest-get-time")
    seen["no get-time"] = lab.run(entry=entry)
    blocking("guest-set-time")
    seen["no set-time"] = lab.run(resync="agent", entry=entry)
    seen["no set-time, report"] = lab.ended(lab.start("report", connect=False))
    blocking("")
    machine.inside(WINDOWS)
    seen["w32time"] = lab.run(resync="w32time", entry=entry)
    seen["w32time, report"] = lab.ended(lab.start("report", "-v", connect=False))
    seen["Windows"] = lab.run(resync="agent", entry=entry)
    machine.inside("ln -sf ../usr/lib/os-release /etc/os-release")
    return seen


def problems(history: str) -> list[str]:
    events = [json.loads(line) for line in history.splitlines()]
    return [event["text"] for event in events if event["kind"] == "problem"]
