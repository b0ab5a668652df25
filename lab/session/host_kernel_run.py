"""A run that replaces the lab host's kernel: `freezelab --on labhost run` of a playbook with the patch
replace-host-kernel. The controller stays on this machine, because the kernel below it there would go.

The guest is on the lab host's network card, by a macvtap, so its frames reach QEMU's user-mode network, which
is this machine's and outlives the lab host's kernel. So do connections to the guest, such as its probe's: the
guest is measured against this machine's clock, as guests of this machine are.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

from lab.controller import Controller, CycleGuest, CycleRunner
from lab.core.history import GuestBooted, Host
from lab.core.patch import ReplaceHostKernelPatch
from lab.core.plan import GuestSpec, Plan
from lab.core.secret_values import SecretValues
from lab.core.units import NS_PER_S
from lab.errors import FreezelabError, GuestError, GuestGone, HypervisorError, MachineError, Refused
from lab.guest import timesync
from lab.guest.address import Address
from lab.guest.connections import GuestConnections
from lab.guest.installer import GuestInstaller
from lab.guest.probe import GuestProbe
from lab.guest.ssh import SSH
from lab.guest.wall_clock import wall_clock_page
from lab.guest.watcher import GuestWatcher
from lab.host import chronyd
from lab.host import facts as host_facts
from lab.host.chronyd import Chronyd
from lab.hypervisor.accelerators import RESULT, take_pace
from lab.hypervisor.domain_status import ENDED
from lab.hypervisor.kexec.line import KernelLine
from lab.hypervisor.kexec.replacement import LabHostGuest, ReplaceHostKernel
from lab.hypervisor.qmp import MonitorError
from lab.image.build import Progress
from lab.image.identity import make_key
from lab.image.seed import Network, make_seed
from lab.image.store import Image
from lab.ports import Journal, View
from lab.process.clock import HostClock
from lab.process.pace import PACE
from lab.process.signals import Teardown
from lab.record.journal import FileJournal
from lab.record.run import Run
from lab.session import kept_guests, lab_host, lab_host_run, paths
from lab.session.guest_host import details_of_lab_host
from lab.session.guest_setup import HOST_IN_GUEST, most_ns
from lab.session.host_kernel_left import (
    ADDRESS,
    KEEPER,
    KernelLock,
    alone,
    ask_monitor,
    close_ports,
    monitor_of,
)
from lab.session.host_kernel_plan import check_plan
from lab.session.images import images_for
from lab.session.kept_guests import KeptGuest
from lab.session.lab_host_shell import PLACE, RUNNING, STATE, LabHostShell
from lab.session.run import RunOptions, recorded, verdict
from lab.session.settings import free_port, lab_key

MAC = "52:54:00:11:22:33"
"""The guest's MAC address, the same for all: the user-mode network remembers whose address it is."""

_BOOT_S, _COMMAND_S, _BACK_S, _AGAIN_S = 600.0, 180.0, 600.0, 1.0
_MACHINE = "pc-i440fx-7.2"


def perform(
    plan: Plan,
    options: RunOptions,
    view: View,
    progress: Progress,
    shield: Callable[[], AbstractContextManager[None]],
    *,
    accept_loss: bool,
) -> tuple[Run, Path]:
    """As session.run.perform(), in the lab host. accept_loss: see check_plan()."""
    check_plan(plan, accept_loss=accept_loss)
    home, clock = paths.home(), HostClock()
    guest = lab_host.find(home)
    shell = lab_host_run.prepare(home, plan, view, progress)
    (image,) = images_for(plan, progress).values()
    with alone(home) as lock:
        kernels = KernelRun(plan, guest, lock, shell, image, clock, view, shield)
        kernels.check()
        course = recorded(plan, options, home, clock, kernels.begin)
    return verdict(course)


class KernelRun:
    """The run's cycles, with one guest in the lab host: session.run.RunWork. image: the guest's."""

    def __init__(
        self,
        plan: Plan,
        guest: KeptGuest,
        lock: KernelLock,
        shell: LabHostShell,
        image: Image,
        clock: HostClock,
        view: View,
        shield: Callable[[], AbstractContextManager[None]],
    ) -> None:
        patch = plan.cycle.patch
        if not isinstance(patch, ReplaceHostKernelPatch):
            raise TypeError(patch)
        self._plan, self._lab_host, self._shell, self._image = plan, guest, shell, image
        self._clock, self._view, self._shield, self._spec = clock, view, shield, patch
        self._lock, self._run_id = lock, ""
        self._stack = Teardown(view.note, "freezelab labhost down")
        self._journal: Journal | None = None
        self._folder = paths.home()
        self._key, self._public = lab_key(paths.home())
        self._started = 0
        self.measured = False

    def check(self) -> None:
        """Refused, with the reason, when the lab host's kernel cannot be replaced under the guest. Changes
        nothing there; limits become multiples of a kernel's boot on its KVM."""
        if self._shell.run(RUNNING).strip():
            raise Refused("a run goes on in it", where="lab host", hint="wait for its end")
        self._view.phase("check")
        take_pace(self._shell.run(f"cat {STATE}/{RESULT} 2>/dev/null || true"))
        for release in dict.fromkeys(self._spec.kernels):
            self._ask("check", release, str(self._guest.memory_bytes))

    def begin(self, run_id: str, folder: Path, journal: FileJournal) -> tuple[Host, KernelRun]:
        """See recorded()."""
        self._run_id, self._folder, self._journal = run_id, folder, journal
        facts, below = host_facts.look(), host_facts.machine_id()
        name = {"name": self._lab_host.name, "accelerator": self._shell.accelerator, "machine": below}
        host = Host(
            kernel=self._shell.run("uname -r").strip(),
            cpu=facts.cpu,
            memory_bytes=self._lab_host.memory_bytes,
            qemu=self._shell.run("qemu-system-x86_64 --version | head -n 1").strip().split("version ")[-1],
            accelerator="kvm",
            accelerator_reason=f"in the lab host {self._lab_host.name} on {self._shell.accelerator.upper()}",
            details={**asdict(facts), **details_of_lab_host({**name, **asdict(facts)})},
        )
        return host, self

    def __enter__(self) -> KernelRun:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._view.phase("remove guests")
        self._stack.__exit__(kind, value, trace)

    @property
    def _guest(self) -> GuestSpec:
        return self._plan.guests[0]

    def run(self) -> None:
        """Start the guest, and run all cycles."""
        journal = self._journal
        assert journal is not None  # noqa: S101 - begin() comes first
        spec, (cell,) = self._guest, self._plan.parts
        line = self._stack.enter_context(KernelLine(Path(self._lab_host.sockets[2]), self._clock))
        hypervisor = LabHostGuest(line, self._clock, self._prepare, self._alive, self._resets, self._reset)
        patch = ReplaceHostKernel(self._spec, self._clock, hypervisor, self.check, self._version)
        begun = self._clock.now().raw_ns
        probe = self._booted(spec, lambda: hypervisor.look(spec.name))
        seconds = round((self._clock.now().raw_ns - begun) / NS_PER_S, 2)
        if spec.setup.in_guest:
            told = partial(self._view.phase, "set up")
            GuestInstaller(spec.name, lambda: probe.ssh, self._clock, SecretValues({}), told).install(
                spec.setup
            )
        if cell.cycle.prove_memory:
            hypervisor.wall_clock = wall_clock_page(probe.ssh)
        journal.append(GuestBooted(spec.name, {"to_probe_s": seconds, "started": "cold"}, cell.id))
        subject = self._equipped(spec, probe)
        controller = Controller(self._clock, hypervisor, journal, self._view, self._shield, pace=PACE.factor)
        runner = CycleRunner(controller, self._clock, journal, self._view, cell, patch)
        total = cell.control + cell.repeat
        for index in range(total):
            self._view.cycle(index + 1, total)
            if index < cell.control:
                controller.run_cycle(index, {spec.name: subject}, cell.cycle, patch, frozen=False)
            else:
                runner.run(index, {spec.name: subject})
        self.measured = True

    def _booted(self, spec: GuestSpec, look: Callable[[], None]) -> GuestProbe:
        """Start the guest in the lab host, and open its probe."""
        self._view.phase("boot", guest=spec.name)
        private, public = make_key(spec.name)
        network = Network(f"{ADDRESS}/24")
        seed = make_seed(
            name=spec.name,
            host_key=private,
            host_key_public=public,
            authorized_keys=[self._public],
            network=network,
        )
        there = f"{PLACE}/seed"
        kept = {
            "name": spec.name,
            "image": f"{lab_host.IMAGES}/{self._image.label}",
            "memory_bytes": spec.memory_bytes,
            "vcpus": spec.vcpus,
            "mac": MAC,
            "cmdline": " ".join((self._image.cmdline, *spec.kernel_options)),
            "seed": there,
            "machine": _MACHINE,
        }
        self._stack.callback(self._stop)
        self._send(seed, f"umask 077; cat >{there}")
        self._ask("stop")
        close_ports(self._lab_host)  # of a controller that was killed
        self._lock.note(self._run_id, self._lab_host)
        self._ask("start", stdin=json.dumps(kept).encode())
        port = self._forwarded()
        address = Address(spec.name, "127.0.0.1", port, self._image.user, self._key, public)
        connect = partial(SSH.connect, address, self._clock, _BOOT_S, GuestConnections(look))
        return self._stack.enter_context(GuestProbe(spec.name, connect, wanted=self._image.depth))

    def _equipped(self, spec: GuestSpec, probe: GuestProbe) -> CycleGuest:
        """The guest with its resync mechanism, and with programs that watch it."""
        mechanism, cycle = self._plan.resync, self._plan.cycle
        self._view.phase("time sync", guest=mechanism)
        server: Chronyd | None = None
        if mechanism.uses_ntp:
            program = chronyd.find(paths.home(), paths.default_home())
            offset_ns = self._plan.ntp_offset_ns
            server = self._stack.enter_context(
                Chronyd(program, self._folder / "chronyd", self._clock, offset_ns=offset_ns)
            )
        access = timesync.GuestAccess(
            guest=spec.name,
            ssh=lambda: probe.ssh,
            clock=self._clock,
            server=HOST_IN_GUEST if server is not None else "",
            port=server.port if server is not None else 0,
            untouched=True,
        )
        resync = timesync.install(mechanism, access)
        self._stack.callback(_removed, resync.remove)
        watcher = None
        if mechanism.is_daemon or cycle.effects or cycle.load:
            asked = mechanism, cycle.effects, cycle.load, spec.vcpus, most_ns(cycle)
            watcher = self._stack.enter_context(GuestWatcher(spec.name, lambda: probe.ssh, *asked))
        return CycleGuest(spec.name, probe, resync, watcher)

    def _prepare(self) -> None:
        """Load the kernel of the next cycle, and start the keeper, while the guest runs."""
        release = self._spec.kernels[self._started % len(self._spec.kernels)]
        self._started += 1
        self._view.phase(f"load Linux {release}", guest=self._guest.name)
        self._ask("load", release)
        self._shell.run(f"( {KEEPER} keep ) </dev/null >/run/freezelab-keeper.log 2>&1 &")

    def _version(self) -> str:
        """The lab host's kernel and boot, as soon as it answers."""
        look = "uname -r; cut -c 1-8 /proc/sys/kernel/random/boot_id"
        until = time.monotonic() + _BACK_S
        while True:
            try:
                kernel, boot = self._shell.run(look).split()
            except GuestError:
                self._alive()
                if time.monotonic() > until:
                    raise
                time.sleep(_AGAIN_S)
            else:
                return f"Linux {kernel}, boot {boot}"

    def _alive(self) -> None:
        if kept_guests.state(paths.home(), self._lab_host) in ENDED:
            raise GuestGone("the lab host has ended", where=f"guest {self._guest.name}", ended=True)

    @contextmanager
    def _resets(self) -> Iterator[Callable[[], bool]]:
        """A context that tells whether the lab host was reset since its begin. kexec resets nothing."""
        with monitor_of(self._lab_host) as monitor:

            def reset() -> bool:
                monitor.drain()
                return bool(monitor.last(["RESET"]))

            yield reset

    def _reset(self) -> None:
        """Reset the lab host, whose new kernel hangs. It boots its first one."""
        self._view.note("the lab host is reset")
        with suppress(HypervisorError, MonitorError), monitor_of(self._lab_host) as monitor:
            monitor.execute("system_reset")

    def _forwarded(self) -> int:
        """A port of this machine's loopback that leads to the guest's SSH, until the end of the run."""
        port = free_port()
        rule = f"lab0 tcp:127.0.0.1:{port}"
        if why := ask_monitor(self._lab_host, f"hostfwd_add {rule}-{ADDRESS}:22"):
            raise MachineError(why, where=f"TCP port {port}")
        self._stack.callback(ask_monitor, self._lab_host, f"hostfwd_remove {rule}")
        return port

    def _stop(self) -> None:
        """End the guest. The lab host may be booting."""
        self._version()
        self._ask("stop")
        self._lock.clear()

    def _send(self, data: bytes, command: str) -> None:
        path = self._folder / f"sent-{os.getpid()}"
        path.touch(0o600)
        path.write_bytes(data)
        try:
            self._shell.send(["cat", str(path)], command)
        finally:
            path.unlink()

    def _ask(self, *words: str, stdin: bytes = b"") -> str:
        """Run the keeper in the lab host; its output. Refused or HypervisorError with its reason."""
        command = " ".join((KEEPER, *words))
        there = f"{PLACE}/asked"
        if stdin:
            self._send(stdin, f"cat >{there}")
        answer = self._shell.run(f"{command} <{there if stdin else '/dev/null'} 2>&1 || true", _COMMAND_S)
        last = (answer.strip().splitlines() or [""])[-1]
        found: dict[str, Any] = {}
        with suppress(ValueError):
            found = json.loads(last) if last.startswith('{"refused"') else {}
        if found:
            kind = Refused if found["refused"] else HypervisorError
            raise kind(found["what"], where="lab host", hint=found["hint"])
        if "Traceback" in answer:
            raise HypervisorError(last, where="lab host")
        return answer


def _removed(remove: Callable[[], object]) -> None:
    """Remove a mechanism from a guest that may be lost."""
    with suppress(FreezelabError):
        remove()
