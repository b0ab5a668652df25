"""libvirt's embedded QEMU driver: its root under the lab's state folder, held by one process at a time.

The driver runs inside this process. Its guests outlive the process, and the next process that opens the same
root finds them again.
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
from xml.etree import ElementTree as ET

from lab.errors import HypervisorError
from lab.hypervisor import shm
from lab.hypervisor.domain import NAMESPACE
from lab.hypervisor.domains import LabDomain
from lab.hypervisor.process import QemuProcess

_SOCKET_PATH_MAX = 107
"""sizeof(sockaddr_un.sun_path) - 1: unix(7)."""

_DEEPEST_SOCKET = "lib/qemu/domain-00000-freezelab-0000000000/monitor.sock"
"""The longest socket path that libvirt 9.0 creates below a root. The agent's channel is not counted: its
path, lib/qemu/channel/target/…/org.qemu.guest_agent.0, would be too long for a home folder, so the template
sets a shorter one (DomainSpec.agent_socket). libvirt cuts names at 20 characters (libvirt,
src/conf/domain_conf.c, VIR_DOMAIN_SHORT_NAME_MAX). The domain's number counts the starts in one process."""

# QEMU runs as the user of this process, so files keep their owners and QEMU needs no private /dev. There are
# no cgroups: as root, libvirt would create one for each guest, which remains when a run is killed, and in
# which QEMU may not open /dev/net/tun (cgroup_device_acl).
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
"""Characters that a path must not contain: in an XML attribute, line feeds and tabs are read as blanks, and
other control characters and invalid UTF-8 are not allowed."""

_PLAIN = re.compile(r"[A-Za-z0-9/._+~:@-]*")
_ELSEWHERE = "set FREEZELAB_HOME to a folder with a plainer path"

_LATE = ("usr/lib/*/libvirt/storage-file/*.so", "usr/lib64/libvirt/storage-file/*.so")

Waiting = Callable[[str], None]
Ends = Callable[[LabDomain], bool]

_END_S = 5.0
"""Time limit for a killed process to be gone."""

_POLL_S = 0.2

_COMPILED_IN_USER = "libvirt-qemu"


_locked_roots: dict[Path, int] = {}
"""The root that this process holds, and its locked file. libvirt cannot close its embedded driver: it keeps
the first root, and a lock in it, until the process ends, and so does the lab."""


class Root:
    """The root folder of an embedded driver. Use `take`."""

    def __init__(self, path: Path) -> None:
        """path: the path that libvirt uses; see _place."""
        self.path = path
        self.ended: list[LabDomain] = []  # by take()

    @property
    def uri(self) -> str:
        """The driver's URI, with the root quoted by RFC 3986; libvirt decodes the query
        (virURIParseParams)."""
        return f"qemu:///embed?root={quote(os.fsencode(self.path))}"

    @classmethod
    def take(cls, state: Path, waiting: Waiting | None = None, ends: Ends | None = None) -> Root:
        """Prepare STATE/libvirt and hold it until the process ends. It may be called repeatedly.
        HypervisorError when the path is too long or not writable, this process holds another root, or another
        process holds this one. With `waiting`, which is called with a line about that process, it waits for
        the process instead. ends: see connection.connect."""
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
        root._settle_guests(str(state.absolute()), ends)
        return root

    def starting(self) -> contextlib.AbstractContextManager[None]:
        """A context for starting a process during a freeze: it frees reserved space for libvirt's files, in
        case /dev/shm is full."""
        return shm.released(self.path / "run")

    def _settle_guests(self, home: str, ends: Ends | None) -> None:
        """End the guests for which `ends` is true. Continue other QEMU processes that a killed process of the
        lab left stopped by a signal; libvirt would wait for their monitors. This is safe because the root was
        just taken, so no controller is freezing them.

        Remove libvirt's records of guests whose process has ended. For a zombie, libvirt would try to connect
        to the monitor for a minute, during which the domain can be neither removed nor restored. And a
        process that becomes a zombie after libvirt has connected to it is one that libvirt cannot kill, and
        for 40 s or more it answers no question about any domain. A killed controller leaves zombies where
        init does not reap orphans, as in many containers."""
        for pidfile in sorted((self.path / "run" / "qemu").glob("*.pid")):
            if pidfile.name == "driver.pid":
                continue
            record = pidfile.with_suffix(".xml")
            with contextlib.suppress(OSError, ValueError, HypervisorError):
                process = QemuProcess.open(int(pidfile.read_text()), f"guest={pidfile.stem},")
                if process is None:
                    self._drop(record, pidfile)
                    continue
                with process:
                    guest = _guest(record, home) if ends is not None else None
                    if ends is not None and guest is not None and ends(guest):
                        process.kill(_END_S)  # what hangs is reported when libvirt cannot end it either
                        self._drop(record, pidfile)
                        self.ended.append(guest)
                    else:
                        if process.is_stopped():
                            process.send_continue()
                        process.leave_freezer()

    def _drop(self, record: Path, pidfile: Path) -> None:
        """Remove libvirt's files of a guest whose process has ended, as libvirt does."""
        for folder in _parsed(record):
            path = folder.get("path", "")
            if folder.tag in ("libDir", "channelTargetDir") and Path(path).is_relative_to(self.path / "lib"):
                shutil.rmtree(path, ignore_errors=True)
        record.unlink(missing_ok=True)
        pidfile.unlink()


def _parsed(record: Path) -> ET.Element:
    """libvirt's record of a domain: <domstatus> around its XML. An empty element when it cannot be read."""
    try:
        return ET.fromstring(record.read_text(encoding="utf-8"))  # noqa: S314 - libvirt's own file
    except (OSError, UnicodeDecodeError, ET.ParseError):
        return ET.Element("domstatus")


def _guest(record: Path, home: str) -> LabDomain | None:
    """The guest of a record; None when it is not of the lab in this home, or cannot be read."""
    status = _parsed(record)
    domain = status.find("domain")
    mark = domain.find(f"metadata/{{{NAMESPACE}}}guest") if domain is not None else None
    if domain is None or mark is None or mark.get("home") != home:
        return None
    name, uuid = domain.findtext("name", ""), domain.findtext("uuid", "")
    return LabDomain.of_mark(mark, name, uuid, status.get("state", ""))


def _load_late_modules() -> None:
    """Set libvirt's own time stamp before it loads its disk-image module. libvirt caches QEMU's capabilities
    together with the time stamp of the newest of its loaded files (virGetSelfLastChanged). The module for
    disk images is loaded at the first start of a domain. When it was installed later than the other files,
    the cache becomes invalid, and libvirt probes QEMU again in every process, which takes 4 s. Nothing
    happens when libvirt lacks the function."""
    with contextlib.suppress(OSError, AttributeError):
        library = ctypes.CDLL("libvirt.so.0")
        for module in chain.from_iterable(Path("/").glob(pattern) for pattern in _LATE):
            library.virUpdateSelfLastChanged(os.fsencode(module))


def _qemu_conf() -> str:
    return _QEMU_CONF + (_QEMU_CONF_ROOT if os.geteuid() == 0 else "")


def _run_in_memory(root: Path) -> None:
    """Put ROOT/run on /dev/shm, as a daemon's /run/libvirt is on a tmpfs. libvirt writes a domain's state
    there with fsync(2) during every suspend and resume, which takes 10 ms on a disk, and more on a busy one.
    The files vanish with the guests at a reboot. When no private folder on /dev/shm can be created, ROOT/run
    stays on disk."""
    run = root / "run"
    if run.is_dir() and not run.is_symlink():
        if any(run.rglob("*.xml")):
            return  # guests of an older version of the lab still use it
        shutil.rmtree(run)
    try:
        shm.reserve(shm.folder(run))
    except OSError:
        run.unlink(missing_ok=True)


def _place(root: Path) -> Path:
    """The root's path for libvirt. To probe a QEMU's capabilities, libvirt starts it with `-qmp
    unix:ROOT/…,server=on` without doubling commas (libvirt 9.0), and QEMU takes a "=" before the first comma
    for the end of an option's name. For a root with such characters, this is a link in its folder on
    /dev/shm. HypervisorError when there is no such folder."""
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
    # As root, libvirt looks up its compiled-in QEMU user before it reads qemu.conf. Without that user, which
    # Debian's libvirt-daemon-system creates, the driver does not start.
    if os.geteuid() != 0:
        return
    try:
        pwd.getpwnam(_COMPILED_IN_USER)
    except KeyError:
        if not Path("/etc/debian_version").exists():
            return  # other distributions compile in other names; libvirt reports them
        raise HypervisorError(
            f"as root, libvirt needs the system user {_COMPILED_IN_USER}, which does not exist",
            hint="adduser --system --ingroup kvm --no-create-home --home /var/lib/libvirt "
            f"{_COMPILED_IN_USER} && addgroup --system {_COMPILED_IN_USER}",
        ) from None


def _lock(path: Path, state: Path, waiting: Waiting | None) -> int:
    """Lock the file and write the process's id into it. A record lock (fcntl(2)) ends with this process; a
    lock by flock(2) would be inherited by forked children that live on."""
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
            time.sleep(_POLL_S)  # not a blocking lock: each later holder is reported, too
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
    """The pid of the lock's holder; None when it has just ended, or is in another pid namespace."""
    asked = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)  # struct flock, of 64 bits
    kind, _, _, _, pid = struct.unpack("hhqqi4x", fcntl.fcntl(handle, fcntl.F_GETLK, asked))
    return pid if kind != fcntl.F_UNLCK and pid > 0 else None


def _is_dead_man(pid: int | None) -> bool:
    """Whether a process is a dead-man, which restores a dead controller's guests within seconds."""
    try:
        return b"lab.hypervisor.deadman" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def _described(pid: int | None) -> str:
    """A process as text: "pid 17: freezelab run first-freeze, stopped"."""
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
