"""Guests that start from a golden guest's state, which is made once for an image and shape, and cached.

A golden guest boots like any other, and is stopped when everything in it is up. A guest that starts from it
gets its RAM (mapped privately, or copied if another QEMU has to map it as well), a disk on top of its disk,
and its device state; then it gets its own identity and the time. Guests whose golden state fails to load are
cold-booted instead.
"""

from __future__ import annotations

import secrets
import shutil
import socket
import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from lab.core.history.run_events import Timing
from lab.core.plan import GuestSpec, RtcTrack
from lab.core.setup import SetupSpec
from lab.core.units import NS_PER_MS, NS_PER_S, format_size
from lab.errors import FreezelabError, GuestError, ImageError, Interrupted
from lab.guest import identity
from lab.guest.address import Address
from lab.guest.identity import CloneClient, Identity
from lab.guest.probe import GuestProbe, Waiting
from lab.guest.ssh import SSH
from lab.host import facts as host_facts
from lab.hypervisor import golden as states
from lab.hypervisor import memory
from lab.hypervisor.adapter import LibvirtHypervisor
from lab.hypervisor.domain import Accelerator, DomainSpec
from lab.image.golden import Golden, GoldenStore, compact_ram
from lab.image.store import default_cache
from lab.ports import Clock, View
from lab.process.pace import paced
from lab.process.signals import shield
from lab.session.parallel import AT_ONCE
from lab.session.paths import made
from lab.session.settings import PreparedGuest, Settings, StartedGuest

MADE_OF = "golden"
"""The name of golden guests."""

SETTLE_NS = 60 * NS_PER_S
BECOME_NS = 90 * NS_PER_S
"""The longest time until a guest answers: tenths of seconds on an idle host, but many guests share the
host."""

UP_S = 600.0
"""The longest time from SSH's first answer until all services are up."""

TRIES = 4
_GOOD = ("tsc", "kvm-clock")
_CLOCKSOURCE = "/sys/devices/system/clocksource/clocksource0/current_clocksource"


@dataclass(frozen=True)
class Clone:
    """A guest that was started from a golden state. seconds: from its start until it had its own identity.
    clock_ns: its clock was set then, and was behind by at most this much. answered_raw_ns, reached_raw_ns:
    when its probe answered over the serial channel, and over SSH."""

    probe: GuestProbe
    seconds: float
    clock_ns: int
    answered_raw_ns: int
    reached_raw_ns: int = 0

    def timings(self, begun_raw_ns: int) -> dict[str, Timing]:
        """The timings for the journal, of a guest whose start began at CLOCK_MONOTONIC_RAW `begun_raw_ns`.
        to_probe_s: until its probe answered over the serial channel; to_ssh_s: until SSH did as well."""
        return {
            "to_probe_s": round((self.answered_raw_ns - begun_raw_ns) / NS_PER_S, 2),
            "started": "golden",
            "to_ssh_s": round((self.reached_raw_ns - begun_raw_ns) / NS_PER_S, 2),
            "from_golden_s": self.seconds,
            "clock_within_ms": round(self.clock_ns / NS_PER_MS, 2),
        }


def why_not(hypervisor: LibvirtHypervisor, settings: Settings, spec: GuestSpec) -> str:
    """Why a guest has to be booted; "" when it need not."""
    if why := settings.images[spec.image_key].not_golden:
        return why
    if hypervisor.remote:
        return "another libvirt is used"
    if settings.guest_sleep:
        return "it has to support guest-sleep"
    if settings.boots_anew:
        return "its method reboots it"
    if settings.shared_memory and spec.huge_pages:
        return "its RAM is huge pages"
    if spec.kernel_options and settings.furnishing is None:  # a lab host's reserve memory
        return "it has kernel options of its own"
    if spec.watchdog is not None:
        return "it has a watchdog"
    if spec.rtc is RtcTrack.GUEST:
        return "its RTC stops with it"
    return ""


class Launcher(Protocol):
    """Protocol of session.Guests: starts the guests of one run, and removes them at the end."""

    def launch(
        self, guest: PreparedGuest, domain: DomainSpec, start: Callable[[DomainSpec], object]
    ) -> StartedGuest: ...

    def probe(
        self, guest: StartedGuest, waiting: Waiting | None = None, connected: socket.socket | None = None
    ) -> GuestProbe: ...

    def login(self, spec: GuestSpec) -> SSH: ...

    def address(self, name: str) -> Address: ...

    def alive(self, name: str) -> None: ...

    def remove(self, name: str) -> None: ...

    def until_removed(self, undo: Callable[[], object]) -> None: ...

    def call_off(self) -> None: ...

    def apart(self, settings: Settings) -> AbstractContextManager[Launcher]:
        """Guests of another run on the same host, which no view shows and no history records."""


class Clones:
    """Starts guests from golden states for `guests`, which owns and removes them."""

    def __init__(
        self, guests: Launcher, hypervisor: LibvirtHypervisor, settings: Settings, clock: Clock, view: View
    ) -> None:
        self._guests, self._hypervisor, self._settings = guests, hypervisor, settings
        self._clock, self._view = clock, view
        self._store = GoldenStore(default_cache())
        self._sockets = made(settings.home / "agents")
        self._stopped = threading.Event()
        self._refused: dict[GuestSpec, tuple[Golden, FreezelabError]] = {}
        self._left_out: dict[GuestSpec, str] = {}
        self._uses: dict[Path, ExitStack] = {}
        self._began: set[Path] = set()

    def start(self, wanted: Sequence[PreparedGuest]) -> Generator[tuple[GuestSpec, Clone]]:
        """Start the guests that can start from a golden state, several at once, and yield each when it is
        ready. The others are left out, and the reason is reported."""
        golden = {guest.spec: found for guest in wanted if (found := self._golden(guest)) is not None}
        for each in golden.values():
            if each.folder not in self._uses:
                self._uses[each.folder] = stack = ExitStack()
                stack.enter_context(self._store.in_use(each))
                self._guests.until_removed(stack.close)
        if self._settings.shared_memory:
            memory.folder(self._settings.home)  # one that was just made may have taken it along
        self._view.phase("start from the golden guest", guest=", ".join(spec.name for spec in golden))
        pool = ThreadPoolExecutor(min(AT_ONCE, len(golden) or 1), thread_name_prefix="clone")
        try:
            begun = [
                (guest, pool.submit(self._clone, guest, golden[guest.spec]))
                for guest in wanted
                if guest.spec in golden
            ]
            for guest, clone in begun:
                if (made := self._come_of(guest, golden[guest.spec], clone)) is not None:
                    yield guest.spec, made
        except BaseException:
            self._guests.call_off()
            raise
        finally:
            # Who is interrupted waits for those that are at work, which see it soon: a domain that was
            # started after its guests were removed would stay.
            with shield():
                self._stopped.set()
                pool.shutdown(cancel_futures=True)

    def _come_of(self, guest: PreparedGuest, golden: Golden, clone: Future[Clone]) -> Clone | None:
        """The clone; None when it failed to start and was removed."""
        try:
            made = clone.result()
            made.probe.connected()
        except Interrupted:
            raise
        except FreezelabError as error:
            self._refused[guest.spec] = golden, error
            self._guests.remove(guest.spec.name)
            return None
        self._began.add(golden.folder)
        self._store.served(golden)
        return replace(made, reached_raw_ns=self._clock.now().raw_ns)

    def booted(self, spec: GuestSpec) -> str:
        """Called after a cold boot of a guest that was left out; returns the reason. If its golden state
        failed to load, that state may be at fault."""
        if spec not in self._refused:
            return self._left_out.get(spec, "")
        golden, error = self._refused.pop(spec)
        if golden.folder not in self._began:
            self._uses[golden.folder].close()  # no guest of ours runs from it
        gone = self._store.failed(golden, refused=isinstance(error, states.StateRefused | ImageError))
        fault = f"{golden.label} failed{' and is removed' if gone else ''}: {str(error).splitlines()[0]}"
        self._view.note(f"guest {spec.name}: booted; {fault}")
        return fault

    # -- one guest -----------------------------------------------------------------------------------

    def _clone(self, guest: PreparedGuest, golden: Golden) -> Clone:
        began = self._clock.now().raw_ns
        domain = replace(guest.domain, incoming=True)
        golden.overlay(guest.folder / "disk.qcow2")
        if domain.memory_file is not None:
            golden.copy_ram(domain.memory_file)
        else:
            domain = replace(domain, memory_base=golden.ram)
        state = golden.state()
        started = self._guests.launch(
            guest, domain, lambda to_start: states.start(self._hypervisor, to_start, state, self._sockets)
        )
        behind_ns, connected = self._personalise(guest, domain)
        seconds = (self._clock.now().raw_ns - began) / NS_PER_S
        waiting = Waiting(str(golden.report["probe_path"]), int(golden.report["resolution_ns"]))
        probe = self._guests.probe(started, waiting, connected)
        return Clone(probe, round(seconds, 2), behind_ns, self._clock.now().raw_ns)

    def _personalise(self, guest: PreparedGuest, domain: DomainSpec) -> tuple[int, socket.socket]:
        """Give the guest its identity. Returns by how many ns its clock may be behind, and the socket of its
        serial channel. GuestError when that fails."""
        name, network = guest.spec.name, guest.seed.network
        files = {path: (file.content, file.mode) for path, file in guest.seed.files.items()}
        order = Identity(name, domain.machine_uuid, network.address or "", network.gateway or "", files)
        with self._orders(name, domain, BECOME_NS) as orders:
            became = orders.personalise(order)
            if became.mac != domain.mac:
                raise GuestError(
                    f"its network card has the address {became.mac}, not {domain.mac}", where=f"guest {name}"
                )
            return became.clock_ns, orders.hand_over()

    def _orders(self, name: str, domain: DomainSpec, within_ns: int) -> CloneClient:
        def alive() -> None:
            if self._stopped.is_set():
                raise GuestError("called off", where=f"guest {name}")
            self._guests.alive(name)

        if domain.probe_socket is None:
            raise GuestError("it has no serial channel", where=f"guest {name}")
        return CloneClient(
            name, domain.probe_socket, self._clock, self._clock.now().raw_ns + round(paced(within_ns)), alive
        )

    # -- the golden one ------------------------------------------------------------------------------

    def _golden(self, guest: PreparedGuest) -> Golden | None:
        """The golden state for a guest, made if there is none; None when it has to be booted."""
        name = guest.spec.name
        if why := why_not(self._hypervisor, self._settings, guest.spec):
            self._left_out[guest.spec] = why
            return None
        facts = self._facts(guest)
        if (found := self._store.find(guest.image, facts)) is not None:
            return found
        size = format_size(guest.spec.memory_bytes)
        self._view.note(
            f"no golden guest of image {guest.image.name} with {size} yet: one is booted and saved"
        )
        self._view.phase("make the golden guest")
        try:
            return self._store.make(
                guest.image,
                facts,
                lambda folder: self._make(guest, folder),
                lambda: self._view.note("another process is creating it: waiting"),
            )
        except Interrupted:
            raise
        except FreezelabError as error:
            self._left_out[guest.spec] = why = f"there is no golden guest: {str(error).splitlines()[0]}"
            self._view.note(f"guest {name} is booted, because {why}")
            return None

    def _facts(self, guest: PreparedGuest) -> dict[str, Any]:
        """The facts that decide whether a guest can start from a state."""
        emulator = guest.domain.emulator
        file = emulator.stat()
        report: dict[str, Any] = {
            "image": guest.image.digest,
            "image_folder": str(guest.image.folder),
            "emulator": str(emulator),
            "emulator_file": [file.st_size, file.st_mtime_ns],
            "qemu": self._hypervisor.facts().qemu,
            "shape": _digest(states.shape(guest.domain).encode()),
            "programs": _digest(identity.source()),
            "memory_bytes": guest.spec.memory_bytes,
            "vcpus": guest.spec.vcpus,
            "machine": guest.domain.machine,
            "kernel_options": list(guest.spec.kernel_options),
            "rtc": guest.spec.rtc.value,
            "accelerator": guest.domain.accelerator.value,
        }
        if self._settings.furnishing is not None:
            report |= {"furnishing": self._settings.furnishing.digest}
        if guest.domain.accelerator is Accelerator.KVM:  # its guests see the host's CPU
            host = host_facts.look()
            report |= {"host_kernel": host.kernel, "host_cpu": host.cpu}
        return report

    def _make(self, guest: PreparedGuest, folder: Path) -> tuple[bytes, Mapping[str, Any]]:
        """Boot a golden guest and save its state. On a busy host Linux may find the TSC unstable during the
        boot, and all of its clones would inherit that: then it is repeated."""
        for _ in range(TRIES):
            state, report = self._try_to_make(guest, folder)
            if report["clocksource"] in _GOOD:
                break
        return state, report

    def _try_to_make(self, guest: PreparedGuest, folder: Path) -> tuple[bytes, dict[str, Any]]:
        hypervisor, clock = self._hypervisor, self._clock
        run = f"golden-{secrets.token_hex(3)}"
        alone = replace(
            self._settings,
            run=run,
            shared_memory=True,
            golden=False,
            kept_guest=False,
            network=None,
            devices={MADE_OF: self._settings.devices.get(guest.spec.name, "")},
        )
        packages = SetupSpec(packages=guest.spec.setup.packages)  # those are in its image
        spec = replace(_PLAIN, setup=packages, **{name: getattr(guest.spec, name) for name in _SAME})
        with self._guests.apart(alone) as guests:
            with guests.login(spec) as ssh:
                ssh.run("systemctl is-system-running --wait", UP_S)  # degraded will do
                source = ssh.check(f"cat {_CLOCKSOURCE}").strip()
                if guest.image.has_agent:
                    hypervisor.agent_ready(spec.name, clock.now().raw_ns + SETTLE_NS)
                if alone.furnishing is not None:
                    alone.furnishing.furnish(guests.address(spec.name), alone.folder, self._view.note)
                waiting = identity.wait_inside(ssh)
            domain = hypervisor.spec(spec.name)
            if domain is None or domain.memory_file is None or domain.disk is None:
                raise ImageError("its golden guest is gone", where=str(folder))
            with self._orders(spec.name, domain, SETTLE_NS) as orders:
                orders.settle()
            state = states.take(hypervisor, spec.name, self._sockets, clock)
            hypervisor.destroy(spec.name)
            compact_ram(domain.memory_file, folder / "ram")
            shutil.copyfile(domain.disk.path, folder / "disk.qcow2")
        return state, {
            "probe_path": waiting.path,
            "resolution_ns": waiting.resolution_ns,
            "clocksource": source,
        }


_SAME = ("image", "emulator", "vcpus", "memory_bytes", "kernel_options", "rtc", "lab")
_PLAIN = GuestSpec(MADE_OF)


def _digest(data: bytes) -> str:
    import hashlib

    return hashlib.sha256(data).hexdigest()
