"""A kept guest through the command, and a small calibration: two boots, some 100 s."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from lab.core.calibration import calibrate
from lab.core.method import FreezeMethod
from lab.core.patch import HoldPatch
from lab.core.units import NS_PER_MS, NS_PER_S
from lab.host import patches
from lab.hypervisor.domain import Accelerator
from lab.process.pace import paced
from tests.guest.conftest import Cli, Lab
from tests.regimes import slow_host

HOLDER = """
import sys
from pathlib import Path
from lab.process.clock import HostClock
from lab.hypervisor.connection import connect
with connect(None, Path(sys.argv[1]), clock=HostClock()) as hypervisor:
    hypervisor.domains.find("web-0").suspend()
    print("held", flush=True)
    sys.stdin.read()
"""
"""Another process of the lab, which pauses the guest and holds the hypervisor."""


def inside(guest: dict[str, Any], command: str) -> subprocess.CompletedProcess[str]:
    """Run it in the guest, as `list` says how to log in."""
    login = [*guest["login"].split(), "-o", "BatchMode=yes", command]
    return subprocess.run(login, capture_output=True, text=True, timeout=60, check=False)


INSTANCE = "http://169.254.169.254/metadata/instance?api-version=2021-02-01"


def shown(guest: dict[str, Any], command: str) -> str:
    return inside(guest, command).stdout.strip()


def in_and_out(cli: Cli, folder: Path) -> None:
    """The commands that a person uses: ssh, cp and console."""
    asked = cli("ssh", "web-0", "echo $HOSTNAME; echo oh >&2; exit 7")
    assert (asked.returncode, asked.stdout, asked.stderr) == (7, "web-0\n", "oh\n")
    (folder / "sent").mkdir()
    (folder / "sent/a file").write_bytes(bytes(range(256)))
    assert cli("cp", str(folder / "sent"), "web-0:/root/there").returncode == 0
    fetched = cli("cp", "web-0:/root/there/a file", str(folder))
    assert fetched.returncode == 0, fetched.stderr
    assert (folder / "a file").read_bytes() == bytes(range(256))
    assert cli("cp", "web-0:/root/nothing", str(folder)).returncode == 1

    console = cli.start("console", "web-0")
    assert console.stdout is not None
    cli("ssh", "web-0", "printf '\\033[31mred\\033[0m and more\\r\\n' >/dev/ttyS0")
    while (line := console.stdout.readline()) != "red and more\n":
        assert line, "it has ended"
    console.send_signal(signal.SIGINT)
    _, said = console.communicate(timeout=60)
    assert console.returncode == 0
    assert "to be read only" in said
    assert "red and more\n" in cli("console", "web-0", "--no-follow").stdout


def frozen_by_hand(cli: Cli) -> None:
    """Once with an event and a mechanism, once with neither, which leaves the clock behind."""
    announced = ("--announce", "2s", "--resync", "push")
    for length_s, options, good in ((1, announced, "passed"), (2, (), "failed")):
        asked = ("freeze", "web-0", "--for", f"{length_s}s", *options, "--expect-in-time", "2s")
        done = cli(*asked, "--json")
        run = json.loads(done.stdout)
        assert run["outcome"] in (good, "inconclusive"), done.stdout  # that: this host is busy
        assert done.returncode == {"passed": 0, "failed": 1, "inconclusive": 3}[run["outcome"]]
        [frozen] = run["guests"]
        [cycle] = frozen["cycles"]
        assert cycle["pause"]["value_ns"] >= length_s * NS_PER_S
        behind_ns = -cycle["offset"]["final"]["value_ns"]
        assert (behind_ns < NS_PER_S // 2) if options else (behind_ns > 2 * NS_PER_S)
        assert (announced == options) is bool(run["events"])
    assert [g["state"] for g in json.loads(cli("list", "--json").stdout)] == ["running"]


def backed_up_by_hand(cli: Cli) -> None:
    """Its disk is its own again, and nothing is left."""
    done = cli("freeze", "web-0", "--for", "1s", "--method", "snapshot", "--json")
    run = json.loads(done.stdout)
    assert run["outcome"] in ("passed", "inconclusive"), done.stdout
    [cycle] = run["guests"][0]["cycles"]
    assert cycle["regime"] == "running" or (slow_host() and run["outcome"] == "inconclusive")
    assert cycle["stall"]["thawed_inside"] == 0
    assert cycle["stall"]["calls"]["low_ns"] > NS_PER_S
    assert not list(cli.home.rglob("freezelab-*.qcow2"))
    assert "differs" not in done.stderr


def shut_down_inside(cli: Cli) -> None:
    """Nobody uses libvirt when the guest powers itself off."""
    console = cli.start("console", "web-0")
    cli("ssh", "web-0", "systemctl poweroff")
    _, said = console.communicate(timeout=120)
    assert (console.returncode, said.splitlines()[-1]) == (0, "freezelab: guest web-0 has ended")
    (guest,) = json.loads(cli("list", "--json").stdout)
    assert (guest["state"], guest["ended"]) == ("shut off", True)
    for command in (["ssh", "web-0"], ["freeze", "web-0"], ["cp", "web-0:/a", "."]):
        refused = cli(*command)
        assert refused.returncode == 4
        assert refused.stderr == "freezelab: guest web-0: it has shut down\nfreezelab down web-0\n"


def test_a_guest_is_kept_looked_at_and_taken_down(cli: Cli, accelerator: Accelerator, tmp_path: Path) -> None:
    up = cli("up")
    assert up.returncode == 0, up.stderr
    (qemu,) = cli.qemu()
    (guest,) = json.loads(cli("list", "--json").stdout)
    assert (guest["name"], guest["state"], guest["memory_bytes"]) == ("web-0", "running", 512 << 20)
    assert guest["login"] in up.stdout
    said = inside(guest, "hostname")
    assert said.stdout.strip() == "web-0", said.stderr  # its host key is known: nobody is asked

    in_and_out(cli, tmp_path)

    service = cli.start("events", "serve", "--in", "web-0")
    assert service.stdout is not None
    while "in the guest" not in (line := service.stdout.readline()):
        assert line, "it has ended"
    name = "http://169.254.169.254/metadata/instance/compute/name?api-version=2021-02-01&format=text"
    ask = f"curl -s -m 20 -H Metadata:true '{name}'"
    assert inside(guest, ask).stdout == "web-0"
    # All that it is told of its machine is as the machine shows it.
    told = json.loads(inside(guest, f"curl -s -m 20 -H Metadata:true '{INSTANCE}'").stdout)
    assert told["compute"]["vmId"] == shown(guest, "cat /sys/class/dmi/id/product_uuid")
    (card,) = told["network"]["interface"]
    assert card["macAddress"] == shown(guest, "cat /sys/class/net/eth0/address").replace(":", "").upper()
    (address,) = card["ipv4"]["ipAddress"]
    (subnet,) = card["ipv4"]["subnet"]
    assert f" {address['privateIpAddress']}/{subnet['prefix']} " in shown(guest, "ip -o -4 address show eth0")
    assert told["compute"]["publicKeys"][0]["keyData"] == shown(guest, "cat /root/.ssh/authorized_keys")
    service.send_signal(signal.SIGTERM)
    _, trouble = service.communicate(timeout=60)
    assert service.returncode == 0, trouble
    # Nor is the metadata service of a cloud that the host may be in, through the network.
    assert inside(guest, ask).returncode == 7, "curl: failed to connect"
    assert "169.254" not in inside(guest, "ip -o address show lo").stdout

    seen = cli("drift", "web-0", "--for", "5s", "--every", "250ms", "--json")
    assert seen.returncode == 0, seen.stderr
    look = json.loads(seen.stdout)
    assert look["raw"]["drift"]["low"] < look["raw"]["drift"]["high"]
    noise = look["noise"]
    assert noise["drift"]["low"] <= 0 <= noise["drift"]["high"]
    # No guest, no SSH. On KVM the guest's readings may be sharper, by ptp_kvm.
    sharp_ns = NS_PER_MS if accelerator is Accelerator.KVM else 0
    assert noise["width_ns"] < max(look["raw"]["width_ns"], sharp_ns)
    assert look["discipline"]["before"]["held"] is False
    assert "since the beginning" in seen.stderr  # progress, for this is no terminal

    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(cli.home)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        # What needs the hypervisor is told who has it; what does not goes on.
        refused = cli("down", "web-0")
        assert refused.returncode == 4
        assert f"another freezelab (pid {holder.pid})" in refused.stderr
        assert len(refused.stderr.strip().splitlines()) <= 2
        assert [g["state"] for g in json.loads(cli("list", "--json").stdout)] == ["paused"]
    recovered = cli("recover")
    assert "guest web-0 runs again (it was paused)" in recovered.stdout
    assert [g["state"] for g in json.loads(cli("list", "--json").stdout)] == ["running"]
    assert qemu.is_running()
    assert "nothing to recover" in cli("recover").stdout

    frozen_by_hand(cli)
    backed_up_by_hand(cli)
    shut_down_inside(cli)
    down = cli("down", "--all")
    assert "removed guest web-0" in down.stdout, down.stderr
    assert cli.qemu() == []
    assert cli.left() == []
    assert not (cli.home / "kept").exists()


def test_a_small_calibration_covers(lab: Lab) -> None:
    """Pauses of known length: what the guest's side says of them, without the host's stamps, holds them."""
    seen = []
    for method, length_ms in (
        (FreezeMethod.NONE, 300),
        (FreezeMethod.SIGSTOP, 300),
        (FreezeMethod.SUSPEND, 300),
        (FreezeMethod.SIGSTOP, 900),
    ):
        length = round(paced(length_ms) * NS_PER_MS)  # or what scheduling does is as long
        result, _ = lab.cycle(
            patches.make(HoldPatch(length), lab.clock),
            frozen=method.freezes,
            method=method,
            settle_ns=NS_PER_S // 5,
            before_ns=NS_PER_S,
            watch_ns=NS_PER_S,
        )
        seen.append((length, result.observation))
    figures = calibrate(seen)
    assert figures is not None
    everything = figures.all
    assert (everything.count, everything.lost, everything.met) == (3, 0, 3)
    # A hole of 900 ms is told from what scheduling does, if only by its size.
    assert abs(everything.bias_ns) < paced(300 * NS_PER_MS)
    assert figures.noise is not None
    assert figures.noise.cycles == 1
    assert figures.offset_bound_ns is not None
    assert figures.offset_bound_ns > 0
    resumed = next(part for method, _, part in figures.parts if method is FreezeMethod.SUSPEND)
    jumped = next(part for method, _, part in figures.parts if method is FreezeMethod.SIGSTOP)
    assert resumed.width_ns < jumped.width_ns  # a clock tells more than a sampler
