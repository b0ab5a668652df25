"""libvirt's embedded QEMU driver: its root under the lab's state folder, held by one process at a time.

The driver runs inside this process; its guests outlive it, and the next process that opens the same root
finds them again.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import pwd
import re
import shutil
import struct
import time
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from urllib.parse import quote

from lab.errors import HypervisorError
from lab.hypervisor import shm
from lab.hypervisor.process import QemuProcess

_SOCKET_PATH_MAX = 107
"""sizeof(sockaddr_un.sun_path) - 1: unix(7)."""

_DEEPEST_SOCKET = "lib/qemu/domain-00000-freezelab-0000000000/monitor.sock"
"""The longest socket path libvirt 9.0 makes below a root, the agent's channel aside: its path would be
lib/qemu/channel/target/…/org.qemu.guest_agent.0, too long for a home folder, so the template names a
shorter one (DomainSpec.agent_socket). libvirt cuts names at 20 characters
(VIR_DOMAIN_SHORT_NAME_MAX, libvirt's src/conf/domain_conf.c); the domain's number counts the starts in
one process."""

# QEMU runs as the user we are: no file needs another owner, no device a private /dev. No cgroups either: as
# root libvirt would make one for each guest, which stays when a run is killed, and in which QEMU may not open
# /dev/net/tun (cgroup_device_acl).
_QEMU_CONF = """\
# Written by freezelab at every start.
stdio_handler = "file"
security_driver = "none"
namespaces = []
dynamic_ownership = 0
remember_owner = 0
cgroup_controllers = []
"""
_QEMU_CONF_ROOT = 'user = "root"\ngroup = "root"\n'

_NOT_IN_XML = re.compile("[\x00-\x1f\x7f\ud800-\udfff\ufffe\uffff]")
"""In an attribute XML reads a line feed or a tab as a blank, other control characters not at all, nor what is
not UTF-8."""

_PLAIN = re.compile(r"[A-Za-z0-9/._+~:@-]*")
_ELSEWHERE = "set FREEZELAB_HOME to a folder with a plainer path"

_LATE = ("usr/lib/*/libvirt/storage-file/*.so", "usr/lib64/libvirt/storage-file/*.so")

Waiting = Callable[[str], None]

_POLL_S = 0.2

_COMPILED_IN_USER = "libvirt-qemu"


_locked_roots: dict[Path, int] = {}
"""The root this process holds, and the locked file. libvirt cannot close its embedded driver again: it keeps
the first root, and a lock of its own in it, until the process ends. So do we."""


class Root:
    """The folder that an embedded driver lives in. Use `take`."""

    def __init__(self, path: Path) -> None:
        """path: as libvirt is told it, see _place."""
        self.path = path

    @property
    def uri(self) -> str:
        """libvirt splits a URI by RFC 3986 and decodes its query (virURIParseParams)."""
        return f"qemu:///embed?root={quote(os.fsencode(self.path))}"

    @classmethod
    def take(cls, state: Path, waiting: Waiting | None = None) -> Root:
        """Make STATE/libvirt ready and hold it until the process ends; again is fine. waiting: is told who
        holds it, and then that is waited for; without it another process is a HypervisorError, as is a path
        that is too long or not writable, or another root of this process's."""
        path = state.absolute() / "libvirt"
        if path in _locked_roots:
            return cls(_place(path))
        if _locked_roots:
            raise HypervisorError(
                "libvirt allows one state folder for each process, and this one uses another already",
                where=str(state),
            )
        _check_path(path)
        _check_user()
        try:
            (path / "etc").mkdir(parents=True, exist_ok=True)
            (path / "etc" / "qemu.conf").write_text(_qemu_conf(), encoding="utf-8")
            _locked_roots[path] = _lock(path / "lock", state, waiting)
            _run_in_memory(path)
        except OSError as error:
            raise HypervisorError(
                f"the state folder cannot be used: {error.strerror}",
                where=str(error.filename or path),
                hint="set FREEZELAB_HOME to a folder you can write to",
            ) from error
        _load_late_modules()
        root = cls(_place(path))
        root._settle_guests()
        return root

    def starting(self) -> contextlib.AbstractContextManager[None]:
        """While libvirt starts a process inside a freeze: there is room for what it writes, also when the
        file system in memory has been filled meanwhile."""
        return shm.released(self.path / "run")

    def _settle_guests(self) -> None:
        """Continue QEMU processes that a killed process of the lab left stopped by a signal: libvirt would
        wait for their monitors. Right only because the root has just been taken: nobody freezes them.

        Remove libvirt's records of guests whose process has ended. It would connect to the monitors of those
        that nobody has waited for yet (zombies), for a minute, in which the domain can be neither removed nor
        restored. A killed controller leaves such where init does not wait for orphans, as in many
        containers."""
        for pidfile in sorted((self.path / "run" / "qemu").glob("*.pid")):
            if pidfile.name == "driver.pid":
                continue
            with contextlib.suppress(OSError, ValueError):
                process = QemuProcess.open(int(pidfile.read_text()), f"guest={pidfile.stem},")
                if process is None:
                    pidfile.with_suffix(".xml").unlink(missing_ok=True)
                    pidfile.unlink()
                    continue
                with process:
                    if process.is_stopped():
                        process.send_continue()


def _load_late_modules() -> None:
    """libvirt's age is that of the youngest of its files that it has loaded (virGetSelfLastChanged), and
    what it knows of QEMU is kept for that age. At the first start of a domain it loads one more, for disk
    images: if that was installed a second after the others, it asks QEMU for everything again, 4 s, in every
    process. So it is told of it beforehand. Where libvirt has no such function nothing is gained or lost."""
    with contextlib.suppress(OSError, AttributeError):
        library = ctypes.CDLL("libvirt.so.0")
        for module in chain.from_iterable(Path("/").glob(pattern) for pattern in _LATE):
            library.virUpdateSelfLastChanged(os.fsencode(module))


def _qemu_conf() -> str:
    return _QEMU_CONF + (_QEMU_CONF_ROOT if os.geteuid() == 0 else "")


def _run_in_memory(root: Path) -> None:
    """Have ROOT/run in memory, as a daemon's /run/libvirt is. libvirt writes a domain's state there, and
    waits for the disk (fsync), within every suspend and resume: 10 ms more each, or whatever a busy disk
    takes. The files die with the guests at a reboot. Without a memory folder of our own it stays on disk."""
    run = root / "run"
    if run.is_dir() and not run.is_symlink():
        if any(run.rglob("*.xml")):
            return  # an older lab's guests still run from there
        shutil.rmtree(run)
    try:
        shm.reserve(shm.folder(run))
    except OSError:
        run.unlink(missing_ok=True)


def _place(root: Path) -> Path:
    """The root by the name that libvirt is told. It starts a QEMU whose abilities it wants to know with
    `-qmp unix:ROOT/…,server=on` and doubles no comma (seen with 9.0), and for QEMU a "=" before the first
    comma ends an option's name: such a root is named by a link in its folder in memory. HypervisorError when
    there is none."""
    if _PLAIN.fullmatch(str(root)):
        return root
    try:
        link = (root / "run").readlink() / "root"
        if not link.is_symlink() or link.readlink() != root:
            link.unlink(missing_ok=True)
            link.symlink_to(root)
    except OSError as error:
        raise HypervisorError(
            "without /dev/shm, libvirt accepts only plain characters in a state folder's path",
            where=str(root),
            hint=_ELSEWHERE,
        ) from error
    return link


def _check_path(path: Path) -> None:
    longest = len(os.fsencode(path)) + 1 + len(_DEEPEST_SOCKET)
    if longest > _SOCKET_PATH_MAX:
        raise HypervisorError(
            f"the path is {longest - _SOCKET_PATH_MAX} bytes too long for the sockets below it",
            where=str(path),
            hint="set FREEZELAB_HOME to a folder with a shorter path",
        )
    if _NOT_IN_XML.search(str(path)):
        raise HypervisorError(
            "libvirt takes no control characters and nothing but UTF-8 in a path",
            where=ascii(str(path)),
            hint=_ELSEWHERE,
        )


def _check_user() -> None:
    # As root, libvirt looks its compiled-in QEMU user up before it reads qemu.conf; without that user
    # (Debian's libvirt-daemon-system makes it) the driver does not start at all.
    if os.geteuid() != 0:
        return
    try:
        pwd.getpwnam(_COMPILED_IN_USER)
    except KeyError:
        if not Path("/etc/debian_version").exists():
            return  # other distributions compile in other names; libvirt will say
        raise HypervisorError(
            f"as root, libvirt needs the system user {_COMPILED_IN_USER}, which does not exist",
            hint="run ./freezelab, which makes it, or: adduser --system --ingroup kvm --no-create-home "
            f"--home /var/lib/libvirt {_COMPILED_IN_USER} && addgroup --system {_COMPILED_IN_USER}",
        ) from None


def _lock(path: Path, state: Path, waiting: Waiting | None) -> int:
    """Hold the file, and the process's id in it. A record lock (fcntl(2)) is the process's own: it ends with
    the process, and no child that was forked and lives on has it, as it would have flock(2)'s."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        reported: int | None = None
        while not _locked(handle):
            holder = _holder(handle)
            if waiting is None and not _is_dead_man(holder):
                raise HypervisorError(
                    f"another freezelab ({_described(holder)}) uses {state}",
                    hint="wait until it ends (freezelab run --wait), or set FREEZELAB_HOME to another folder",
                )
            if waiting is not None and holder not in (None, reported):
                reported = holder
                waiting(f"{state} is used by {_described(holder)}")
            time.sleep(_POLL_S)  # not a blocking lock: the next holder is to be told, too
        os.ftruncate(handle, 0)
        os.pwrite(handle, b"%d\n" % os.getpid(), 0)
    except BaseException:
        os.close(handle)
        raise
    return handle


def _locked(handle: int) -> bool:
    try:
        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.EAGAIN, errno.EACCES):
            raise
        return False
    return True


def _holder(handle: int) -> int | None:
    """The process that holds the lock; None when it has just ended, or is out of sight (in a container)."""
    asked = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)  # struct flock, of 64 bits
    kind, _, _, _, pid = struct.unpack("hhqqi4x", fcntl.fcntl(handle, fcntl.F_GETLK, asked))
    return pid if kind != fcntl.F_UNLCK and pid > 0 else None


def _is_dead_man(pid: int | None) -> bool:
    """Whether a process is one that restores a dead controller's guests, which takes it seconds."""
    try:
        return b"lab.hypervisor.deadman" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def _described(pid: int | None) -> str:
    """ "pid 17: freezelab run first-freeze, stopped"."""
    if pid is None:
        return "of unknown pid"
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode("utf-8", "replace").split("\0")
        stopped = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()[0] == "T"
    except (OSError, IndexError):
        return f"pid {pid}"
    names = [word.rsplit("/", 1)[-1] for word in words]
    own = " ".join(names[names.index("freezelab") :]).strip() if "freezelab" in names else ""
    return f"pid {pid}{f': {own}' if own else ''}{', stopped' if stopped else ''}"
