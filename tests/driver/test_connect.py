"""Opening: what is not there, what is held by another process, what has too long a path."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lab.errors import HypervisorError
from lab.hypervisor.connection import connect
from lab.hypervisor.domain import Console
from lab.process.clock import HostClock
from tests.driver.kernels import suspending_to_ram
from tests.driver.programs import ROOT, embedded, source_of
from tests.mounts import need_namespaces

CLOCK = HostClock()


@pytest.mark.parametrize(
    "uri",
    [
        "nonsense",
        "qemu+unix:///system?socket=/no/such/socket",
        "no-such-driver:///x",
        "::",
    ],
)
def test_connect_to_nothing(uri: str, home: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(HypervisorError) as caught:
        connect(uri, home, clock=CLOCK)
    assert str(caught.value).count("\n") <= 1
    assert "cannot connect" in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_the_embedded_driver_opens_and_closes(home: Path) -> None:
    again = """
        with connect(None, home, clock=HostClock()) as first:
            assert first.list_lab_domains() == []
    """
    done = embedded(home, "print(lab.uri, lab.list_lab_domains())", before=again)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"qemu:///embed?root={home}/libvirt []\n"


def test_who_opens_it_too_often_is_told(home: Path) -> None:
    """findings/libvirt-embed-opens.sh; also that the lab lets it go again each time."""
    often = """
        opened = 0
        try:
            for _ in range(40):
                with connect(None, home, clock=HostClock()):
                    opened += 1
        except HypervisorError as error:
            print(opened, error)
        sys.exit()
    """
    done = embedded(home, "pass", before=often)
    opened, _, said = done.stdout.partition(" ")
    assert int(opened) > 5, done.stderr
    assert said.endswith("only some sixteen times: start a new process\n")
    assert embedded(home, "pass").returncode == 0


def test_what_is_written_while_guests_freeze_is_in_memory(home: Path) -> None:
    run = home / "libvirt" / "run"
    (run / "qemu").mkdir(parents=True)
    assert embedded(home, "pass").returncode == 0
    memory = run.resolve()
    assert memory.parent == Path("/dev/shm")
    assert memory.stat().st_mode & 0o777 == 0o700
    shutil.rmtree(memory)  # as after a reboot
    assert embedded(home, "pass").returncode == 0
    assert run.resolve() == memory


def test_a_memory_folder_that_is_not_ours_is_not_used(home: Path) -> None:
    assert embedded(home, "pass").returncode == 0
    run = home / "libvirt" / "run"
    memory = run.resolve()
    memory.chmod(0o777)
    done = embedded(home, "pass")
    assert (done.returncode, done.stderr) == (0, "")
    assert not run.is_symlink()
    shutil.rmtree(memory)


RECORD = """<!-- WARNING: THIS IS AN AUTO-GENERATED FILE. -->
<domstatus state='paused' reason='restored' pid='{pid}'>
  <libDir path='{home}/libvirt/lib/qemu/domain-1-freezelab-z'/>
  <domain type='qemu'>
    <name>freezelab-z</name>
    <uuid>0c2cd3ef-6ab3-4eff-9d8c-bb2b5b5f3b5b</uuid>
    <metadata>
      <lab:guest xmlns:lab="urn:freezelab:domain:1" name="web-0" run="r1" home="{home}"/>
    </metadata>
  </domain>
</domstatus>
"""
TAKE = """
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from lab.hypervisor.embed import Root
root = Root.take(Path(sys.argv[1]), ends={ends})
print(*((ended.guest, ended.run) for ended in root.ended))
"""


@contextmanager
def recorded(home: Path) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """A QEMU that is left, and libvirt's record of it."""
    assert embedded(home, "pass").returncode == 0
    record = home / "libvirt" / "run" / "qemu" / "freezelab-z.xml"
    (home / "libvirt/lib/qemu/domain-1-freezelab-z").mkdir()
    command = (
        "qemu-system-x86_64 -machine none -S -nodefaults -display none -name guest=freezelab-z,process=z"
    )
    with subprocess.Popen(command.split()) as qemu:
        record.write_text(RECORD.format(pid=qemu.pid, home=home))
        record.with_suffix(".pid").write_text(f"{qemu.pid}\n")
        yield qemu, record
        qemu.kill()


def taken(home: Path, ends: str = "None") -> str:
    """Which guests a process has ended that takes the root."""
    argv = [sys.executable, "-c", TAKE.format(ends=ends), str(home)]
    return subprocess.run(argv, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


def records_of(record: Path) -> set[str]:
    return {each.name for each in record.parent.glob("freezelab-z.*")}


def test_the_record_of_a_guest_goes_when_its_process_has_ended(home: Path) -> None:
    """Also while nobody has waited for that: libvirt would connect to a zombie's monitor for a minute."""
    with recorded(home) as (qemu, record):
        taken(home)
        assert records_of(record) == {"freezelab-z.xml", "freezelab-z.pid"}
        qemu.kill()
        os.waitid(os.P_PID, qemu.pid, os.WEXITED | os.WNOWAIT)  # ended, and still there
        taken(home)
        assert not records_of(record)
        assert not list((home / "libvirt/lib/qemu").glob("domain-*"))


def test_a_guest_that_is_to_end_does_so_before_libvirt_knows_it(home: Path) -> None:
    """libvirt cannot kill what becomes a zombie, and meanwhile answers nothing."""
    with recorded(home) as (qemu, record):
        assert taken(home, 'lambda guest: guest.run == "r2"') == ""
        assert qemu.poll() is None
        assert taken(home, 'lambda guest: guest.run == "r1"') == "('web-0', 'r1')"
        assert os.waitid(os.P_PID, qemu.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG)
        assert not records_of(record)


CONTAINER = """
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from lab.hypervisor import memory
from lab.hypervisor.embed import Root
home = Path(sys.argv[1])
Root.take(home)
print((home / "libvirt" / "run").resolve(), memory.folder(home))
"""


def folders_in_memory(home: Path, image: Path | None = None) -> list[Path]:
    """Of a state folder: libvirt's, and that of guests' RAM. image: a container begins with this copy of it,
    and has a file system of its own."""
    command = f"exec {sys.executable} -c '{CONTAINER}' {home}"
    if image is not None:
        need_namespaces()
        command = f"mount -t tmpfs own {home} && cp -a {image}/. {home} && {command}"
    done = subprocess.run(
        [*(["unshare", "--mount"] if image is not None else []), "sh", "-c", command],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    return [Path(name) for name in done.stdout.split()]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a file system of its own")
def test_containers_of_an_image_with_a_used_state_folder_share_nothing(home: Path, tmp_path: Path) -> None:
    """They share /dev/shm, the path, and the links that came with the image; guests run in the first."""
    used = folders_in_memory(home)
    (used[0] / "guest.xml").touch()
    (used[1] / "run-web-0").touch()
    image = tmp_path / "image"
    shutil.copytree(home, image, symlinks=True)
    others = [folders_in_memory(home, image) for _ in range(2)]
    try:
        assert folders_in_memory(home) == used
        assert len({path for folders in (used, *others) for path in folders}) == 6
    finally:
        for path in {path for folders in (used, *others) for path in folders} - {used[0]}:
            shutil.rmtree(path)


SLEEPING = """
    import time
    from lab.errors import GuestGone
    from lab.hypervisor.domain import Accelerator
    from tests.driver.conftest import spec_of
    emulator = lab.emulator(Accelerator.TCG, "pc")
    spec = dataclasses.replace(
        spec_of("web-0", home), emulator=emulator.path, machine=emulator.machine, kernel=home / "kernel",
        guest_sleep=True, ssh_port=None,
    )
    lab.define_and_start(spec)
    try:
        end = time.monotonic() + 60
        while time.monotonic() < end:
            lab.look("web-0")
            time.sleep(0.05)
        print("does not sleep; it is", lab.state("web-0"))
    except GuestGone as gone:
        print(gone, gone.ended)
        lab.wake("web-0")
        lab.look("web-0")
        print(lab.state("web-0"))
    finally:
        lab.destroy("web-0")
"""


def test_a_guest_is_woken_out_of_s3(home: Path) -> None:
    (home / "kernel").write_bytes(suspending_to_ram())
    done = embedded(home, SLEEPING)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "guest web-0: is asleep: it suspended itself to RAM False",
        "running",
    ]


def test_one_state_folder_a_process(home: Path) -> None:
    done = embedded(home, "connect(None, home / 'other', clock=HostClock())")
    assert "libvirt allows one state folder for each process" in done.stderr


def test_two_processes_one_state_folder(home: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", source_of(home, "print('held', flush=True); sys.stdin.read()")],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as other:  # fmt: skip
        assert other.stdin is not None
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(HypervisorError, match=rf"another freezelab \(pid {other.pid}\) uses {home}"):
            connect(None, home, clock=CLOCK)
        other.stdin.close()
        assert other.wait(30) == 0
    assert embedded(home, "pass").returncode == 0


def test_a_holder_is_waited_for_and_told(home: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", source_of(home, "print('held', flush=True); sys.stdin.read()")],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as other:  # fmt: skip
        assert other.stdin is not None
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        os.kill(other.pid, signal.SIGSTOP)
        wanting = source_of(home, "print('had', flush=True)").replace(
            "clock=HostClock()", "clock=HostClock(), waiting=lambda who: print(who, flush=True)"
        )
        with subprocess.Popen(
            [sys.executable, "-c", wanting], cwd=ROOT, stdout=subprocess.PIPE, text=True
        ) as second:
            assert second.stdout is not None
            assert second.stdout.readline() == f"{home} is used by pid {other.pid}, stopped\n"
            os.kill(other.pid, signal.SIGCONT)
            other.stdin.close()
            assert second.stdout.readline() == "had\n"
            assert second.wait(30) == 0


def test_a_lock_ends_with_its_process_whatever_it_has_forked(home: Path) -> None:
    """libvirt forks children that do not always come as far as to exec something else."""
    body = """
        import os, signal, time
        if os.fork() == 0:
            print(os.getpid(), flush=True)
            time.sleep(60)
        time.sleep(60)
    """
    with subprocess.Popen(
        [sys.executable, "-c", source_of(home, body)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        child = int(other.stdout.readline())
        other.kill()
        other.wait(30)
        try:
            os.kill(child, 0)
            assert embedded(home, "print('had')").stdout == "had\n"
        finally:
            os.kill(child, signal.SIGKILL)


def test_a_path_too_long_for_sockets(home: Path) -> None:
    with pytest.raises(HypervisorError, match="bytes too long") as caught:
        connect(None, home / ("x" * 80), clock=CLOCK)
    assert "FREEZELAB_HOME" in caught.value.hint
    assert list(home.iterdir()) == []


@pytest.mark.parametrize("name", ["a b", "ü", "a,b", "a=b", "a%20b", "a?b#c&d;e+f", "a'b\"c\\d:e$(f)|g"])
def test_any_name_of_a_state_folder(home: Path, name: str) -> None:
    """libvirt starts QEMU there to see what it can do."""
    again = "lab.list_lab_domains()\nprint(lab.emulator(Accelerator.TCG).machine)"
    made = "from lab.hypervisor.domain import Accelerator"
    for _ in range(2):
        done = embedded(home / name, again, before=made)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith("pc-q35-")
    shutil.rmtree((home / name / "libvirt" / "run").resolve())


@pytest.mark.parametrize("name", ["a\nb", "a\x7fb", os.fsdecode(b"a\xff")])
def test_names_that_libvirt_cannot_be_told(home: Path, name: str) -> None:
    with pytest.raises(HypervisorError, match="control characters and nothing but UTF-8") as caught:
        connect(None, home / name, clock=CLOCK)
    assert str(caught.value).isascii()


def test_a_state_folder_that_cannot_be_written(home: Path) -> None:
    (home / "file").write_text("")
    with pytest.raises(HypervisorError, match="cannot be used") as caught:
        connect(None, home / "file", clock=CLOCK)
    assert "FREEZELAB_HOME" in caught.value.hint


NATIVE = """
    from lab.hypervisor.binding import libvirt
    from lab.hypervisor.domain import Accelerator, Console, render
    from tests.driver.conftest import spec_of
    emulator = lab.emulator(Accelerator.TCG)
    for console in Console:
        spec = dataclasses.replace(
            spec_of("web-0", home), console=console, emulator=emulator.path, machine=emulator.machine
        )
        xml = render(spec)
        lab._context.connection.defineXMLFlags(xml, libvirt.VIR_DOMAIN_DEFINE_VALIDATE).undefine()
        argv = lab._context.connection.domainXMLToNative("qemu-argv", xml, 0)
        print(argv.replace("'", "").replace(chr(92) + chr(10), ""))
"""


def test_libvirt_makes_of_the_template_what_is_meant(home: Path) -> None:
    """QEMU's command line as libvirt writes it, without starting anything."""
    done = embedded(home, NATIVE)
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if "-machine" in line]
    assert len(lines) == len(Console)
    for console, argv in zip(Console, lines, strict=True):
        for words in (
            "-machine pc-q35-",
            "-rtc base=utc,clock=host,driftfix=slew",
            "-global kvm-pit.lost_tick_policy=delay",
            "-accel tcg",
            "-cpu EPYC,",
            "-append console=ttyS0",
            "hostfwd=tcp:127.0.0.1:22022-:22",
            "org.qemu.guest_agent.0",
            "-display none",
            "usb=off",
        ):
            assert words in argv
        assert "pcie-root-port" not in argv
        assert "balloon" not in argv
        assert ("virtconsole" in argv) == (console is Console.VIRTIO)
