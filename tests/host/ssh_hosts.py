"""Hosts without machines: each is a set of namespaces with its own sshd, ids and state folder.

All of them share this machine's kernel, so their REALTIME is this machine's: the true offset is zero, or the
seconds by which realtime_ahead.c has it ahead for all that SSH starts on a host. Their MONOTONIC clocks may
differ (time_namespaces(7)). The controller has a network namespace as well. Frames go between the two through
this process, which delays them (the kernel may have no netem) or drops them.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import queue
import random
import select
import shlex
import shutil
import struct
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import pytest

from lab.hypervisor import memory
from lab.image.identity import make_key, write_key
from lab.image.store import ImageStore, default_cache
from lab.session import paths
from tests.mounts import need_namespaces

ROOT = Path(__file__).parents[2]
NEWNET = 0x40000000  # linux/sched.h
TUNSETIFF, TAP = 0x400454CA, 0x1002  # linux/if_tun.h: IFF_TAP | IFF_NO_PI
READY_S, LOOK_S = 30.0, 0.1

INSIDE = """
set -e
folder=$1 sshd=$2 lab=${1%/*}
mount -t tmpfs none /run
mkdir -p /run/sshd /run/lock /run/lab
# A /tmp of its own, in which the lab's folder stays where it is.
mount --bind "$lab" /run/lab
mount -t tmpfs -o mode=1777 none /tmp
mkdir -p "$lab"
mount --move /run/lab "$lab"
mount --bind "$folder/machine-id" /etc/machine-id
mount --bind "$folder/boot-id" /proc/sys/kernel/random/boot_id
mount --bind "$folder/passwd" /etc/passwd
ip link set lo up
LD_LIBRARY_PATH=$folder/.. "$sshd" -D -e -f "$folder/sshd_config" 2>"$folder/sshd.log" &
touch "$folder/ready"
# Not exec: the shell is this namespace's init and reaps.
wait
"""

CONFIG = """
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/authorized_keys
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
LogLevel VERBOSE
"""


def sshd_program(folder: Path) -> str:
    """The path of an sshd: this machine's, or that of the lab's Debian image, taken out into `folder`."""
    if found := shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin"):
        return found
    if not shutil.which("debugfs", path=f"{os.environ['PATH']}:/usr/sbin"):
        pytest.skip("there is no sshd, and no debugfs to take it out of the image debian with")
    image = ImageStore(paths.RECIPES, default_cache()).build("debian", lambda *_: None)
    disk = next(image.folder.glob("disk-*.img"))
    for there in ("/usr/sbin/sshd", "/usr/lib/x86_64-linux-gnu/libwrap.so.0.7.6"):
        name = Path(there).name.replace(".0.7.6", ".0")
        subprocess.run(
            ["/usr/sbin/debugfs", "-R", f"dump {there} {folder / name}", disk],
            check=True,
            capture_output=True,
        )
    (folder / "sshd").chmod(0o755)
    return str(folder / "sshd")


def realtime_ahead(seconds: int, folder: Path) -> Path:
    """The library that has REALTIME so many seconds ahead, built in `folder`."""
    made, source = folder / "realtime_ahead.so", Path(__file__).with_name("realtime_ahead.c")
    if not (compiler := shutil.which("cc") or shutil.which("gcc")):
        pytest.skip("there is no C compiler")
    argv = [compiler, "-shared", "-fPIC", "-O2", f"-DAHEAD_S={seconds}", "-o", str(made), str(source)]
    subprocess.run(argv, check=True, capture_output=True)
    return made


def in_namespace(process: int) -> list[str]:
    """The beginning of a command in this process's network namespace, which ends with this process."""
    return ["setpriv", "--pdeathsig", "KILL", "nsenter", f"--net=/proc/{process}/ns/net", "--"]


def tap_in(process: int, name: str) -> int:
    """A tap in the network namespace of a process. Its descriptor."""
    made: queue.SimpleQueue[int | OSError] = queue.SimpleQueue()

    def make() -> None:  # setns(2) moves a thread alone
        try:
            with Path(f"/proc/{process}/ns/net").open() as there:
                if ctypes.CDLL(None, use_errno=True).setns(there.fileno(), NEWNET):
                    raise OSError(ctypes.get_errno(), "setns")
            tap = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
            fcntl.ioctl(tap, TUNSETIFF, struct.pack("16sH22x", name.encode(), TAP))
            made.put(tap)
        except OSError as error:
            made.put(error)

    threading.Thread(target=make).start()
    tap = made.get()
    if isinstance(tap, OSError):
        raise tap
    return tap


class HostWire:
    """Moves frames between two taps, which are its own. there_s, back_s: the delay of each way. is_cut: all
    are dropped. loss: the share that is dropped, 0 to 1."""

    def __init__(self, near: int, far: int) -> None:
        self.there_s = self.back_s = self.loss = 0.0
        self.is_cut = self._over = False
        self._taps = (near, far)
        self._threads: list[threading.Thread] = []
        for source, to, delay in ((near, far, lambda: self.there_s), (far, near, lambda: self.back_s)):
            waiting: queue.SimpleQueue[tuple[float, bytes]] = queue.SimpleQueue()
            for work in (self._read, self._write):
                descriptor = source if work == self._read else to
                thread = threading.Thread(target=work, args=(descriptor, waiting, delay), daemon=True)
                thread.start()
                self._threads.append(thread)

    def close(self) -> None:
        """End, and only then close the taps: their numbers are soon those of other files."""
        self._over = True
        for thread in self._threads:
            thread.join()
        for tap in self._taps:
            os.close(tap)

    def _read(
        self, tap: int, waiting: queue.SimpleQueue[tuple[float, bytes]], delay: Callable[[], float]
    ) -> None:
        with contextlib.suppress(OSError):
            while not self._over:
                if not select.select([tap], [], [], LOOK_S)[0]:
                    continue
                frame = os.read(tap, 1 << 16)
                if not self.is_cut and random.random() >= self.loss:
                    waiting.put((time.monotonic() + delay(), frame))
        waiting.put((0.0, b""))

    def _write(
        self, tap: int, waiting: queue.SimpleQueue[tuple[float, bytes]], delay: Callable[[], float]
    ) -> None:
        while True:
            due, frame = waiting.get()
            if not frame:
                return
            time.sleep(max(0.0, due - time.monotonic()))
            if not self.is_cut:
                with contextlib.suppress(OSError):  # an interface that is down
                    os.write(tap, frame)


class NamespaceHost:
    """A host. address: of its sshd, port 22. wire: to the controller. real_ahead_ns: its REALTIME minus this
    machine's."""

    def __init__(
        self,
        name: str,
        address: str,
        folder: Path,
        process: subprocess.Popen[bytes],
        wire: HostWire,
        real_ahead_ns: int = 0,
    ) -> None:
        self.name, self.address, self.folder, self.process, self.wire = name, address, folder, process, wire
        self.real_ahead_ns = real_ahead_ns
        self.cut_ns = self.healed_ns = 0

    @property
    def state(self) -> Path:
        """Its FREEZELAB_HOME."""
        return self.folder / "state"

    @property
    def tmp(self) -> Path:
        """Its /tmp."""
        return Path(f"/proc/{self.process.pid}/root/tmp")

    def inside(self) -> list[str]:
        """The beginning of a command that is run on it, as root."""
        of = f"/proc/{self.process.pid}/ns"
        spaces = [f"--net={of}/net", f"--mount={of}/mnt", f"--pid={of}/pid_for_children"]
        return ["setpriv", "--pdeathsig", "KILL", "nsenter", *spaces, "--"]

    def cut_in_a_command(self) -> None:
        """Cut its link as soon as the controller has started a command there."""
        log, end = self.folder / "sshd.log", time.monotonic() + READY_S
        while b"Starting session: command" not in log.read_bytes() and time.monotonic() < end:
            time.sleep(0.01)
        self.wire.is_cut = True

    def told(self, kind: str) -> list[dict[str, Any]]:
        """The events of this kind in the histories of its runs."""
        lines = [line for path in self.state.glob("runs/*/events.jsonl") for line in path.open()]
        return [json.loads(line) for line in lines if f'"kind":"{kind}"' in line]

    def cut_in_a_freeze(self, for_s: float) -> None:
        """Cut its link as soon as its guests are frozen, and heal it. cut_ns, healed_ns: when, REALTIME."""
        end = time.monotonic() + 200
        while not self.told("freeze") and time.monotonic() < end:
            time.sleep(0.02)
        self.wire.is_cut, self.cut_ns = True, time.time_ns()
        time.sleep(for_s)
        self.wire.is_cut, self.healed_ns = False, time.time_ns()

    def switch_off(self) -> None:
        """All that runs there ends at once."""
        self.process.kill()
        self.process.wait()


class SshHosts:
    """The controller's namespace, and hosts. A context manager. controller: the process of that namespace."""

    def __init__(self, folder: Path) -> None:
        if os.geteuid() != 0:
            pytest.skip("only root can make the namespaces")
        need_namespaces()
        self.folder, self.hosts = folder, list[NamespaceHost]()
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        self._sshd = sshd_program(self.folder)
        ready = self.folder / "controller"
        begin = "ip link set lo up; ip link add hosts0 type bridge; ip address add 10.77.0.1/24 dev hosts0; "
        begin += f"ip link set hosts0 up; touch {ready}; exec sleep infinity"
        self._controller = self._start(["unshare", "--net", "sh", "-c", begin], ready)
        self.controller = self._controller.pid
        write_key(self.folder / "key", *make_key("controller"))
        (self.folder / "known_hosts").touch()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()
        for host in self.hosts:  # what is on this machine's /dev/shm: libvirt's run folder, and guests' RAM
            shutil.rmtree((host.state / "libvirt" / "run").resolve(), ignore_errors=True)
            memory.drop(host.state)

    def _start(self, argv: Sequence[str], ready: Path) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", *argv], stdin=subprocess.DEVNULL)
        self._stack.callback(process.wait)
        self._stack.callback(process.kill)
        end = time.monotonic() + READY_S
        while not ready.exists():
            assert process.poll() is None and time.monotonic() < end, f"{argv} does not begin"
            time.sleep(0.01)
        return process

    def add(
        self, name: str, boot: str = "", ahead_s: int = 0, real_ahead_s: int = 0, more: str = ""
    ) -> NamespaceHost:
        """A host. boot: its boot id, which no kernel gives it, one of its own by default. ahead_s: of its
        MONOTONIC clocks. real_ahead_s: of its REALTIME. more: lines of its sshd_config."""
        number = len(self.hosts) + 2
        folder = self.folder / name
        (folder / "state").mkdir(parents=True)
        write_key(folder / "host_key", *make_key(name))
        shutil.copy(self.folder / "key.pub", folder / "authorized_keys")
        (folder / "machine-id").write_text(f"{number:032x}\n")
        (folder / "boot-id").write_text((boot or str(uuid.uuid4())) + "\n")
        users = [
            line for line in Path("/etc/passwd").read_text().splitlines() if not line.startswith("sshd:")
        ]
        (folder / "passwd").write_text(
            "\n".join([*users, "sshd:x:100:65534::/run/sshd:/usr/sbin/nologin"]) + "\n"
        )
        if real_ahead_s:
            more += f"SetEnv LD_PRELOAD={realtime_ahead(real_ahead_s, folder)}\n"
        (folder / "sshd_config").write_text(CONFIG.format(folder=folder) + more)
        later = ["--time", "--monotonic", str(ahead_s), "--boottime", str(ahead_s)] if ahead_s else []
        apart = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", *later]
        argv = [*apart, "sh", "-c", INSIDE, "host", str(folder), self._sshd]
        process = self._start(argv, folder / "ready")
        near, far = tap_in(self._controller.pid, f"to-{number}"), tap_in(process.pid, "eth0")
        wire = HostWire(near, far)
        self._stack.callback(wire.close)
        address = f"10.77.0.{number}"
        self._ip(self._controller, "link", "set", f"to-{number}", "master", "hosts0", "up")
        self._ip(process, "address", "add", f"{address}/24", "dev", "eth0")
        self._ip(process, "link", "set", "eth0", "up")
        public = " ".join((folder / "host_key.pub").read_text().split()[:2])
        with (self.folder / "known_hosts").open("a") as known:
            known.write(f"{address} {public}\n")
        real_ahead_ns = real_ahead_s * 1_000_000_000
        self.hosts.append(NamespaceHost(name, address, folder, process, wire, real_ahead_ns))
        return self.hosts[-1]

    def _ip(self, process: subprocess.Popen[bytes], *words: str) -> None:
        subprocess.run([*in_namespace(process.pid), "ip", *words], check=True, capture_output=True)

    def entry(self, host: NamespaceHost) -> str:
        """The host in a hosts file."""
        program = (
            f"[env, PYTHONPATH={ROOT}, PYTHONDONTWRITEBYTECODE=1, {sys.executable}, -P, -m, lab.cli.main]"
        )
        ssh = f"{{host: {host.address}, user: root, key: key, known_hosts: known_hosts}}"
        return f"  - {{name: {host.name}, ssh: {ssh}, state: {host.state}, freezelab: {program}}}\n"

    def file(self, text: str = "", name: str = "hosts.yaml") -> Path:
        """A hosts file; by default with all hosts."""
        path = self.folder / name
        path.write_text(text or "hosts:\n" + "".join(map(self.entry, self.hosts)))
        return path

    def told(self, kind: str, guest: str) -> list[dict[str, Any]]:
        """The events of this kind and guest in the histories of the controller's runs."""
        state = Path(self.environment()["FREEZELAB_HOME"])
        lines = [line for path in state.glob("runs/*/events.jsonl") for line in path.open()]
        found = [json.loads(line) for line in lines if f'"kind":"{kind}"' in line]
        return [event for event in found if event["guest"] == guest]

    def there(self, host: NamespaceHost, *arguments: str, timeout_s: float = 120) -> str:
        """What freezelab prints on a host, by ssh(1) from the controller's namespace."""
        words = ["env", f"PYTHONPATH={ROOT}", f"FREEZELAB_HOME={host.state}", sys.executable]
        command = shlex.join([*words, "-P", "-m", "lab.cli.main", *arguments])
        ssh = ["ssh", "-F", "none", "-i", "key", "-o", "UserKnownHostsFile=known_hosts"]
        done = subprocess.run(
            [*in_namespace(self._controller.pid), *ssh, f"root@{host.address}", command],
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        assert done.returncode == 0, (done.stdout, done.stderr)
        return done.stdout

    def argv(self, *arguments: str) -> list[str]:
        """freezelab in the controller's namespace."""
        return [*in_namespace(self._controller.pid), sys.executable, "-P", "-m", "lab.cli.main", *arguments]

    def environment(self, **more: str) -> Mapping[str, str]:
        home = self.folder / "controller-state"
        return {**os.environ, "PYTHONPATH": str(ROOT), "FREEZELAB_HOME": str(home), **more}

    def run(self, *arguments: str, timeout_s: float = 120, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.argv(*arguments),
            env=self.environment(**more),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )


@contextlib.contextmanager
def ssh_hosts(*names: str) -> Iterator[SshHosts]:
    """Hosts of these names, in a folder with a short name, as libvirt's sockets need it."""
    with tempfile.TemporaryDirectory(prefix="fl-h-") as folder, SshHosts(Path(folder)) as made:
        for name in names:
            made.add(name)
        yield made
