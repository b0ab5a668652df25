"""Runs inside namespaces of its own: a domain of a user's own on a real libvirt daemon, and runs over it.

    own_inside.py NAME

NAME is a key of SCENES. Prints what it saw as JSON; test_own_domains.py starts it and judges.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import libvirt

from lab.core.own_domain import SshTarget
from lab.guest.ssh import SSH
from lab.guest.ssh_route import SshRoute
from lab.image.identity import make_key
from lab.process.clock import HostClock
from tests.host.own_machine import SECOND_DISK, OwnMachine, daemon, opened

ROOT = Path(__file__).parents[2]
SYSTEM, SESSION = "qemu:///system", "qemu:///session"
PLACE = Path("/run/own")
HOME = PLACE / "fl"
WAIT_S = 90.0

PLAYBOOK = """
name: own
guests: [{entry}]
resync: {resync}
cycle: {{method: {method}, patch: {{hold: {hold}}}, before: 2s, watch: 4s}}
"""
COPY = """
import os, socket, sys, threading
sock = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
def pour():
    while data := os.read(0, 65536):
        sock.sendall(data)
    sock.shutdown(socket.SHUT_WR)
threading.Thread(target=pour, daemon=True).start()
while data := sock.recv(65536):
    os.write(1, data)
"""
"""A ProxyCommand."""


Act = Callable[[subprocess.Popen[str]], object]


class Lab:
    """The command, over one domain."""

    def __init__(self, machine: OwnMachine, uri: str) -> None:
        self.machine, self.uri = machine, uri

    def start(self, *arguments: str, connect: bool = True) -> subprocess.Popen[str]:
        uri = ["--connect", self.uri] if connect else []
        return subprocess.Popen(
            [sys.executable, "-m", "lab.cli.main", *arguments, *uri],
            cwd=ROOT,
            env={**os.environ, "FREEZELAB_HOME": str(HOME), "NO_COLOR": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __call__(self, *arguments: str) -> dict[str, Any]:
        """A command's status, and the last lines that it printed."""
        return self.ended(self.start(*arguments))

    def ended(self, process: subprocess.Popen[str]) -> dict[str, Any]:
        out, err = process.communicate(timeout=WAIT_S * 2)
        said = [line for line in err.splitlines() if not line.startswith("   ")]
        return {"status": process.returncode, "said": said, "out": out}

    def playbook(
        self, method: str = "suspend", resync: str = "none", hold: str = "2s", entry: str = ""
    ) -> str:
        path = PLACE / "own.yaml"
        entry = entry or self.machine.entry()
        path.write_text(PLAYBOOK.format(entry=entry, method=method, resync=resync, hold=hold))
        return str(path)

    def run(self, method: str = "suspend", **more: str) -> dict[str, Any]:
        """One run over the domain, and whether the domain is as before."""
        before = self.machine.look()
        done = self("run", "--json", self.playbook(method, **more))
        after = self.machine.look()
        record = json.loads(done["out"]) if done["out"].startswith("{") else {}
        cycles = [cycle for guest in record.get("guests", []) for cycle in guest["cycles"]]
        return {
            "status": done["status"],
            "said": done["said"],
            "outcome": record.get("outcome"),
            "boot": record["guests"][0]["boot"] if record else {},
            "cycles": cycles,
            "pauses": [cycle["pause"]["value_ns"] for cycle in cycles if cycle.get("pause")],
            "differs": {key: [before[key], after[key]] for key in before if before[key] != after[key]},
            "left": self.left(),
        }

    def left(self) -> list[str]:
        return sorted(str(path) for name in ("own", "saved", "guests") for path in HOME.glob(f"{name}/*"))

    def history(self) -> str:
        """That of the latest run."""
        return "".join(path.read_text() for path in sorted(HOME.glob("runs/*/events.jsonl"))[-1:])

    def during(
        self, kind: str, act: Act, method: str, resync: str = "none", entry: str = ""
    ) -> dict[str, Any]:
        """A run in which something happens a second after its first event of this kind."""
        before = len(list(HOME.glob("runs/*")))
        hold = "6s" if kind == "freeze" else "1s"
        process = self.start("run", self.playbook(method, resync, hold, entry))
        begun = f'"kind":"{kind}"'
        until(
            lambda: (
                process.poll() is not None
                or (len(list(HOME.glob("runs/*"))) > before and begun in self.history())
            )
        )
        if process.poll() is not None:
            raise AssertionError(self.ended(process))
        time.sleep(1)
        act(process)
        return {**self.ended(process), "state": self.machine.state(), "left": self.left()}


def until(holds: Callable[[], object], within_s: float = WAIT_S) -> None:
    end = time.monotonic() + within_s
    while not holds():
        if time.monotonic() > end:
            raise AssertionError("it did not come true in time")
        time.sleep(0.02)


def methods(lab: Lab) -> dict[str, Any]:
    """By each method that moves or stops it, and a managed save that is not there before or after."""
    return {method: lab.run(method) for method in ("suspend", "sigstop", "save-restore")}


def killed(lab: Lab) -> dict[str, Any]:
    """The controller is killed, and then its dead-man as well."""
    seen = {}
    for method in ("suspend", "sigstop", "save-restore"):
        lab.during("freeze", subprocess.Popen.kill, method)
        until(lambda: '"act":"resumed"' in lab.history())
        seen[method] = {"state": lab.machine.state(), "left": lab.left(), "recover": lab("recover")}
    for method in ("suspend", "sigstop", "save-restore"):
        lab.during("freeze", kill_both, method)
        state = lab.machine.state()
        seen[f"{method} alone"] = {"state": state, "recover": lab("recover"), "left": lab.left()}
        until(lambda: lab.machine.state() == libvirt.VIR_DOMAIN_RUNNING, 10)
        lab.machine.answers()
    lab.machine.domain.suspend()
    seen["somebody's"] = {**lab("recover"), "state": lab.machine.state()}
    lab.machine.domain.resume()
    return seen


def kill_both(controller: subprocess.Popen[str]) -> None:
    """The dead-man first, without giving the controller time to notice."""
    for place in Path("/proc").iterdir():
        if place.name.isdigit() and b"lab.hypervisor.deadman" in (place / "cmdline").read_bytes():
            os.kill(controller.pid, 19)
            os.kill(int(place.name), 9)
    controller.kill()


def meddled(lab: Lab) -> dict[str, Any]:
    """Somebody else stops, resumes, pauses or destroys it; a second lab wants it as well."""
    machine = lab.machine
    seen = {}
    machine.domain.suspend()
    seen["paused before"] = {**lab("run", lab.playbook()), "state": machine.state()}
    machine.domain.resume()
    seen["resumed"] = lab.during("freeze", lambda _: machine.domain.resume(), "suspend")
    seen["second lab"] = {}

    def second(_process: subprocess.Popen[str]) -> None:
        global HOME  # noqa: PLW0603 - the second lab's
        HOME, first = PLACE / "other", HOME
        seen["second lab"] = lab("run", lab.playbook())
        HOME = first

    seen["first lab"] = lab.during("cycle", second, "suspend")
    seen["paused in the watch"] = lab.during("resume", lambda _: machine.domain.suspend(), "suspend")
    machine.domain.resume()
    seen["destroyed"] = lab.during("freeze", lambda _: machine.domain.destroy(), "suspend")
    seen["shut off"] = lab("run", lab.playbook())
    return seen


def reached(lab: Lab) -> dict[str, Any]:
    """Over jump hosts and a command, and host keys that are not the known one."""
    machine = lab.machine
    known = machine.known_hosts.read_text()
    kind, key = machine.host_key.split()[:2]
    seen: dict[str, Any] = {}
    for name, lines in (
        ("unknown", ""),
        ("changed", " ".join([known.split()[0], *make_key("x")[1].split()[:2]])),
        ("revoked", f"{known}@revoked {known}"),
    ):
        machine.known_hosts.write_text(f"{lines}\n")
        seen[name] = lab("run", lab.playbook())
    machine.known_hosts.write_text(f"{known}127.0.0.1 {kind} {key}\n")
    last = f"HostName 127.0.0.1\nIdentityFile {machine.key}\nUserKnownHostsFile {machine.known_hosts}\n"
    own = machine.config.read_text()
    machine.config.write_text(
        own.replace(f"Host {machine.name}-host", "Host gate")
        + f"Host second\n{last}User root\nProxyJump gate\n"
        + f"Host {machine.name}-host\n{last}User root\nProxyJump second\n"
    )
    seen["jumps"] = lab.run("save-restore")  # which cuts all of them
    copy = PLACE / "copy.py"
    copy.write_text(COPY)
    command = f"{sys.executable} {copy} {machine.port}"
    machine.config.write_text(f"Host {machine.name}-host\n{last}User root\nProxyCommand {command}\n")
    seen["command"] = lab.run()
    seen["commands left"] = [
        place.name
        for place in Path("/proc").iterdir()
        if place.name.isdigit() and str(copy).encode() in (place / "cmdline").read_bytes()
    ]
    machine.config.write_text(own.replace(str(machine.key), "/nowhere"))
    seen["no key"] = lab("run", lab.playbook())
    return seen


def depths(lab: Lab) -> dict[str, Any]:
    """By a shell: as it was asked for, and because there is no Python; with and without bash."""
    seen = {"asked for": lab.run(entry=lab.machine.entry(", probe: shell"))}
    lab.machine.inside("chmod a-x $(readlink -f /usr/bin/python3)")
    seen["refused"] = lab.run(entry=lab.machine.entry(", probe: python"))
    seen["agent sets it"] = lab.run(resync="agent")
    lab.machine.inside("chsh -s /bin/sh; mv /bin/bash /bin/bash.not")
    seen["cut"] = lab.run("save-restore")
    seen["no bash"] = lab.run("sigstop", hold="5s")
    seen["report"] = lab.ended(lab.start("report", connect=False))
    return seen


LOOK = """
cd /; find etc/chrony var/lib/chrony etc/systemd/system/multi-user.target.wants -type f -o -type l | sort |
while read -r f; do [ "$f" = var/lib/chrony/chrony.drift ] || { echo "$f"; cat "$f" | md5sum; }; done
for u in chrony systemd-timesyncd ntpsec; do
    echo $u $(systemctl is-active $u) $(systemctl is-enabled $u)
done
ls /var/lib | grep freezelab; grep -c ^ptp_kvm /proc/modules
"""
"""What a time-sync set-up may change in a guest. chronyd writes its drift file when it ends."""

CHRONY = """
printf 'pool ntp.example.org iburst\\nmakestep 1 3\\n' >/etc/chrony/chrony.conf
ln -sf /lib/systemd/system/chrony.service /etc/systemd/system/multi-user.target.wants/chrony.service
systemctl start chrony
"""


def put_back(lab: Lab) -> dict[str, Any]:
    """A guest that has chrony of its own, with other mechanisms for a while; and a run that is killed."""
    target = SshTarget(f"{lab.machine.name}-host", config=str(lab.machine.config))
    seen: dict[str, Any] = {}
    with SSH.connect(SshRoute("db", target), HostClock(), WAIT_S) as ssh:
        ssh.check(CHRONY)
        before = ssh.run(LOOK).out
        seen["before"] = before
        for mechanism in ("none", "chrony"):
            seen[mechanism] = {
                **lab.run(resync=mechanism),
                "differs inside": _differ(before, ssh.run(LOOK).out),
            }
        lab.during("freeze", subprocess.Popen.kill, "suspend", resync="chrony")
        until(lambda: '"act":"resumed"' in lab.history())
        seen["killed"] = _differ(before, ssh.run(LOOK).out)
        seen["next"] = {**lab.run(resync="push"), "differs inside": _differ(before, ssh.run(LOOK).out)}
        seen["timesyncd"] = lab("run", lab.playbook(resync="timesyncd"))
    return seen


def _differ(before: str, after: str) -> list[str]:
    return sorted(set(before.splitlines()) ^ set(after.splitlines()))


def by_hand(lab: Lab) -> dict[str, Any]:
    """`freezelab plan` and `freezelab freeze` over the domain."""
    machine = lab.machine
    os.environ["HOME"] = str(PLACE)  # the command's, from now on
    folder = PLACE / ".ssh"
    folder.mkdir(mode=0o700, exist_ok=True)
    (folder / "config").write_text(machine.config.read_text())
    before = machine.look()
    host = f"{machine.name}-host"
    seen = {
        "plan": lab("plan", lab.playbook()),
        "freeze": lab("freeze", machine.name, "--ssh", host, "--for", "1s"),
        "announced": lab(
            *("freeze", machine.name, "--ssh", host, "--for", "1s", "--announce", "0s"),
            *("--resync", "push", "--expect-in-time", "5s"),
        ),
        "late": lab("freeze", machine.name, "--ssh", host, "--for", "1s", "--expect-in-time", "1s"),
        "in-place": lab("freeze", machine.name, "--ssh", host, "--method", "in-place"),
    }
    seen["differs"] = {key: value for key, value in machine.look().items() if before[key] != value}
    return seen


def by_agent(lab: Lab) -> dict[str, Any]:
    """By its agent alone: there is neither sshd nor Python."""
    machine = lab.machine
    entry = f"{{domain: {machine.name}}}"
    machine.inside(
        "chmod a-x $(readlink -f /usr/bin/python3); systemctl stop --no-block ssh.service ssh.socket"
    )
    seen = {
        "suspend": lab.run(resync="agent", entry=entry),
        "report": lab.ended(lab.start("report", connect=False)),
        "save-restore": lab.run("save-restore", resync="agent", entry=entry),
        "sigstop": lab.run("sigstop", entry=entry),
        "agent-rtc": lab.run(resync="agent-rtc", entry=entry),
        "by hand": lab("freeze", machine.name, "--probe", "agent", "--for", "1s", "--announce", "0s"),
    }
    seen["destroyed"] = lab.during("resume", lambda _: machine.domain.destroy(), "suspend", entry=entry)
    return seen


SCENES: dict[str, Callable[[Lab], dict[str, Any]]] = {
    "methods": methods,
    "depths": depths,
    "agent": by_agent,
    "killed": killed,
    "meddled": meddled,
    "reached": reached,
    "put_back": put_back,
    "by_hand": by_hand,
    "session": methods,
}
USER = "4242"


def main() -> None:
    scene = sys.argv[1]
    libvirt.registerErrorHandler(lambda *_: None, None)
    if os.geteuid() == 0:
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        Path("/run/lock").mkdir()
        Path("/run/lock").chmod(0o1777)
        PLACE.mkdir()
        if scene == "session":
            as_user()
    uri, log = (SESSION if scene == "session" else SYSTEM), PLACE / "libvirtd.out"
    with daemon("/usr/sbin/libvirtd", log=log):
        connection = opened(uri)
        machine = OwnMachine(connection, PLACE / "mine", devices=SECOND_DISK)
        try:
            machine.answers()
            seen = SCENES[scene](Lab(machine, uri))
        finally:
            if machine.domain.isActive():
                machine.domain.destroy()
    json.dump(seen, sys.stdout)


def as_user() -> None:
    """Go on as an ordinary user, who has a session daemon and may read the image."""
    cache = Path(os.environ.get("FREEZELAB_CACHE", Path.home() / ".cache" / "freezelab"))
    (PLACE / "cache" / "images").mkdir(parents=True)
    subprocess.run(["mount", "--bind", str(cache / "images"), str(PLACE / "cache" / "images")], check=True)
    # libvirt looks up its user and group.
    for file, more in (("passwd", f"own:x:{USER}:{USER}::{PLACE}:/bin/sh"), ("group", f"own:x:{USER}:")):
        known = PLACE / file
        known.write_text(f"{Path('/etc', file).read_text()}{more}\n")
        subprocess.run(["mount", "--bind", str(known), f"/etc/{file}"], check=True)
    for folder in (PLACE, PLACE / "cache", PLACE / "runtime"):
        folder.mkdir(exist_ok=True, mode=0o700)
        os.chown(folder, int(USER), int(USER))
    environment = {
        **os.environ,
        "HOME": str(PLACE),
        "XDG_RUNTIME_DIR": str(PLACE / "runtime"),
        "FREEZELAB_CACHE": str(PLACE / "cache"),
    }
    become = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups"]
    os.execvpe("setpriv", [*become, sys.executable, __file__, "session"], environment)  # noqa: S606


if __name__ == "__main__":
    main()
