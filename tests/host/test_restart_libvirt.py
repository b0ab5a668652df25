"""libvirt's daemon restarted under a paused guest: a real libvirtd, in namespaces of its own."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from lab.core.patch import RestartLibvirtPatch
from lab.core.units import NS_PER_S
from lab.errors import MachineError
from lab.host import patches
from lab.host.patches import daemon
from lab.ports import HostPatch, PatchResult
from lab.process.clock import HostClock
from tests.host.libvirtd import ROOT, namespaced
from tests.mounts import need_namespaces


@pytest.mark.parametrize("arguments", [(), ("--daemon",)], ids=["in the foreground", "as a daemon"])
def test_another_daemon_serves_and_the_guest_stays(arguments: tuple[str, ...]) -> None:
    seen = namespaced("restart_inside.py", *arguments)
    assert len(seen["emulators"]) == 1
    for each in seen["rounds"]:
        assert each["ok"], each
        assert each["in_time"]
        assert each["steps"] == ["stop libvirtd", "start libvirtd", "reconnect"]
        assert each["verdict"] == ""
        assert each["same"].startswith("the same process still serves it: libvirtd, process ")
        assert each["argv"] == ["/usr/sbin/libvirtd", *arguments]
        assert each["mark"]
        assert each["output"] == ("/dev/null" if arguments else "/run/libvirtd.out")
        assert each["cwd"] == ("/" if arguments else "/tmp")
        assert each["paused"]
        assert each["emulators"] == seen["emulators"]
    assert seen["runs"]
    assert seen["first ended"]
    assert not seen["broken"]["ok"]
    assert seen["broken"]["version"] == ""


SESSION = """
import json, os, signal
import libvirt
from lab.core.patch import RestartLibvirtPatch
from lab.host import patches
from lab.process.clock import HostClock
from lab.host.patches import daemon

uri, clock = "qemu:///session", HostClock()
libvirt.open(uri)  # the client starts the daemon by itself
tools = patches.Tools(uri=uri, reconnect=lambda: libvirt.open(uri))
patch = patches.make(RestartLibvirtPatch(), clock, tools)
patch.check()
before = patch.version("")
result = patch.apply(clock.now().raw_ns + 60 * 10**9)
serving = daemon.find(uri)
os.kill(serving.pid, signal.SIGTERM)
print(json.dumps({
    "ok": result.ok, "why": result.why, "argv": result.facts["argv"], "socket": str(serving.socket),
    "verdict": patch.verify(before, str(serving)),
}))
"""


def test_an_ordinary_users_daemon() -> None:
    """Which libvirt's client started by itself."""
    if not shutil.which("/usr/sbin/libvirtd"):
        pytest.skip("/usr/sbin/libvirtd is not installed")
    with tempfile.TemporaryDirectory(prefix="fl-") as home:
        command, clone = [sys.executable, "-c", SESSION], ROOT
        if os.geteuid() == 0:
            need_namespaces()
            nobody = pwd.getpwnam("nobody")
            os.chown(home, nobody.pw_uid, nobody.pw_gid)
            as_user = ["setpriv", f"--reuid={nobody.pw_uid}", f"--regid={nobody.pw_gid}", "--clear-groups"]
            # The clone and its packages may be below /root, where nobody comes.
            clone, venv = Path(home, "clone"), Path(home, "venv")
            mounts = f"mkdir -p {clone} {venv}; mount --bind {ROOT} {clone}; mount --bind {sys.prefix} {venv}"
            apart = ["unshare", "--mount", "sh", "-ec", f'{mounts}; exec "$@"', "apart", *as_user]
            command = [*apart, f"{venv}/bin/python", "-c", SESSION]
            if subprocess.run([*command[:-1], ""], capture_output=True, check=False).returncode:
                pytest.skip("no Python that an ordinary user may run")
        done = subprocess.run(
            command,
            env={
                "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
                "HOME": home,
                "XDG_RUNTIME_DIR": home,
                "PYTHONPATH": str(clone),
                "PYTHONDONTWRITEBYTECODE": "1",
            },
            cwd="/",
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        seen = json.loads(done.stdout)
        assert seen["ok"], seen
        assert seen["argv"][0] == "/usr/sbin/libvirtd"
        assert any(word.startswith("--timeout") for word in seen["argv"])
        assert seen["socket"].startswith(home)
        assert seen["verdict"] == ""


def test_its_unit_under_systemd(
    expendable: None, clock: HostClock, apply: Callable[[HostPatch, float], PatchResult]
) -> None:
    """Also when systemd listens on its sockets."""
    if not Path("/run/systemd/system").is_dir():
        pytest.skip("systemd is not this machine's init")
    import libvirt

    uri = "qemu:///system"
    connections = [libvirt.open(uri)]
    tools = patches.Tools(uri=uri, reconnect=lambda: connections.append(libvirt.open(uri)))
    patch = patches.make(RestartLibvirtPatch(120 * NS_PER_S), clock, tools)
    patch.check()
    before = patch.version("")
    result = apply(patch, 150)
    assert result.ok, result
    unit = result.facts["unit"]
    assert unit in ("libvirtd.service", "virtqemud.service")
    assert [step.name for step in result.steps] == [f"restart {unit}", "socket", "reconnect"]
    assert patch.verify(before, patch.version("")) == ""
    assert connections[-1].isAlive()


def patch_of(uri: str) -> HostPatch:
    return patches.make(RestartLibvirtPatch(), HostClock(), patches.Tools(uri=uri))


@pytest.mark.parametrize(
    ("uri", "why"),
    [
        ("", "no libvirt connection"),
        ("qemu:///embed?root=/x", "the embedded driver is part of this process"),
        ("qemu+ssh://user@far.example/system", r"not on this host \(far\.example\)"),
        ("qemu+tcp:///system", r"not on this host \(tcp\)"),
        ("test:///default", "no daemon of the QEMU driver"),
        ("qemu:///system?socket=/no/such/socket", "no daemon serves"),
    ],
)
def test_what_has_no_daemon_to_restart(uri: str, why: str) -> None:
    patch = patch_of(uri)
    with pytest.raises(MachineError, match=why):
        patch.check()
    assert patch.version("") == ""
    deadline = HostClock().now().raw_ns + 10**9
    assert not patch.apply(deadline).ok
    assert "no daemon serves" in patch.verify("before", "")


def test_where_the_client_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    system = Path("/run/libvirt")
    assert daemon.sockets("qemu:///system") == [system / "virtqemud-sock", system / "libvirt-sock"]
    assert daemon.sockets("qemu+unix:///system?mode=legacy") == [system / "libvirt-sock"]
    assert daemon.sockets("qemu:///system?mode=direct") == [system / "virtqemud-sock"]
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/7")
    monkeypatch.setattr(os, "geteuid", lambda: 7)
    assert daemon.sockets("qemu:///session")[1] == Path("/run/user/7/libvirt/libvirt-sock")


def test_it_is_not_confused_by_a_name(refusal: Callable[[HostPatch], MachineError], tmp_path: Path) -> None:
    """A file where the socket should be."""
    place = tmp_path / "sock"
    place.write_text("")
    assert refusal(patch_of(f"qemu:///system?socket={place}")).what == "no daemon serves this connection"
