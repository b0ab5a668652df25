"""Runs inside namespaces of its own: a domain of a user's own on a real libvirt daemon, and runs over it.

    own_inside.py NAME [BUSYBOX]

NAME is a key of SCENES. BUSYBOX: a static one, for `depths`. Prints what it saw as JSON; test_own_domains.py
and test_own_snapshots.py start it and judge.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import libvirt

from lab.core.own_domain import SshTarget
from lab.guest.ssh import SSH
from lab.guest.ssh_route import SshRoute
from lab.image.identity import make_key
from lab.process.clock import HostClock
from tests.host.libvirtd import ROOT
from tests.host.own_agent import by_agent
from tests.host.own_backups import backups, cut_off, interrupted, troubled
from tests.host.own_lab import PLACE, SESSION, SYSTEM, WAIT_S, Lab, until
from tests.host.own_machine import OF_QCOW2, RANDOM, SECOND_DISK, OwnMachine, daemon, opened
from tests.host.own_meddling import has_more, meddled, migrated, vanishes

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


def methods(lab: Lab) -> dict[str, Any]:
    """By each method that moves or stops it, and a managed save that is not there before or after."""
    return {method: lab.run(method) for method in ("suspend", "sigstop", "save-restore")}


def killed(lab: Lab) -> dict[str, Any]:
    """The controller is killed, and then its dead-man as well."""
    seen = {}
    for method in ("suspend", "sigstop", "save-restore"):
        lab.during("freeze", subprocess.Popen.kill, method)
        until(lambda: '"act":"resumed"' in lab.history(), told=lab.history)
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
    for busybox in map(Path, sys.argv[2:]):
        put_busybox(lab.machine, busybox, "date")
        seen["whole seconds"] = lab.run()
        seen["whole seconds, report"] = lab.ended(lab.start("report", connect=False))
        put_busybox(lab.machine, busybox, "sh", *BUSYBOX)
        seen["busybox"] = lab.run()
    return seen


BUSYBOX = ("sleep", "dmesg", "sed", "grep", "head", "tr", "uname", "wc")


def put_busybox(machine: OwnMachine, program: Path, *names: str) -> None:
    """Let these programs of the guest be those of a static busybox."""
    folder = "/usr/local/bin"
    links = "; ".join(f"ln -sf busybox {name}" for name in names)
    command = f"cd {folder}; cat >new; chmod 755 new; mv new busybox; {links}"
    machine.inside(command, program.read_bytes())


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
        for mechanism, probe in (("none", "python"), ("chrony", "shell")):
            seen[mechanism] = {
                **lab.run(resync=mechanism, entry=lab.machine.entry(f", probe: {probe}")),
                "differs inside": _differ(before, ssh.run(LOOK).out),
            }
        lab.during("freeze", subprocess.Popen.kill, "suspend", resync="chrony")
        until(lambda: '"act":"resumed"' in lab.history(), told=lab.history)
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


USERS = """
useradd -m -s /bin/sh me && usermod -p '*' me && mkdir -m 700 ~me/.ssh
cp ~/.ssh/authorized_keys ~me/.ssh/ && chown -R me: ~me/.ssh
[ ! -d /etc/sudoers.d ] || echo 'me ALL=(ALL) NOPASSWD: ALL' >/etc/sudoers.d/me
"""
ANNOUNCED = "announce: {notice: 0s}\n"


def users(lab: Lab) -> dict[str, Any]:
    """Who logs in is not root, with sudo where the image has it; and an sshd that forwards nothing."""
    machine = lab.machine
    machine.inside(USERS)
    machine.write_config(user="me")
    seen = {
        "suspend": lab.run(),
        "save-restore": lab.run("save-restore"),
        "push": lab.run(resync="push"),
        "announced": lab("run", lab.playbook(more=ANNOUNCED)),
    }
    machine.write_config()
    machine.inside("printf '%s no\\n' AllowTcpForwarding AllowStreamLocalForwarding >>/etc/ssh/sshd_config")
    machine.inside("systemctl reload ssh")
    seen["forwards nothing"] = lab.run()
    seen["forwards nothing, save-restore"] = lab.run("save-restore")
    seen["forwards nothing, announced"] = lab("run", lab.playbook(more=ANNOUNCED))
    return seen


def sleeps(lab: Lab) -> dict[str, Any]:
    """A machine that QEMU can wake, and one that it cannot."""
    return {"guest-sleep": lab.run("guest-sleep"), "plan": lab("plan", lab.playbook())}


SCENES: dict[str, Callable[[Lab], dict[str, Any]]] = {
    "methods": methods,
    "depths": depths,
    "agent": by_agent,
    "backups": backups,
    "cut_off": cut_off,
    "interrupted": interrupted,
    "troubled": troubled,
    "killed": killed,
    "meddled": meddled,
    "reached": reached,
    "put_back": put_back,
    "by_hand": by_hand,
    "session": methods,
    "has_more": has_more,
    "vanishes": vanishes,
    "migrated": migrated,
    "users": users,
    "sudo": users,
    "sleeps": sleeps,
}
S3 = "<pm><suspend-to-mem enabled='yes'/></pm>"
MACHINES: dict[str, dict[str, Any]] = {
    "has_more": {"devices": OF_QCOW2 + RANDOM},
    "sudo": {"packages": ("sudo",)},
    "sleeps": {"machine": "pc", "more": S3, "devices": SECOND_DISK.replace("sata", "ide")},
}
"""What differs from the usual one."""
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
        machine = OwnMachine(connection, PLACE / "mine", **{"devices": SECOND_DISK} | MACHINES.get(scene, {}))
        try:
            machine.answers()
            seen = SCENES[scene](Lab(machine, uri))
        finally:
            with contextlib.suppress(libvirt.libvirtError):
                machine.domain.destroy()
    json.dump(seen, sys.stdout)


def as_user() -> None:
    """Go on as an ordinary user, who has a session daemon and may read the image, the clone and its packages,
    all of which may be below /root."""
    cache = Path(os.environ.get("FREEZELAB_CACHE", Path.home() / ".cache" / "freezelab"))
    clone, venv = PLACE / "clone", PLACE / "venv"
    for there, here in ((cache / "images", PLACE / "cache" / "images"), (ROOT, clone), (sys.prefix, venv)):
        here.mkdir(parents=True)
        subprocess.run(["mount", "--bind", str(there), str(here)], check=True)
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
        "PYTHONPATH": str(clone),
    }
    become = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups"]
    again = [str(venv / "bin" / "python"), str(clone / Path(__file__).relative_to(ROOT)), "session"]
    os.execvpe("setpriv", [*become, *again], environment)  # noqa: S606


if __name__ == "__main__":
    main()
