"""in-place without an overlap: the old process is gone before the patch, the new one comes after it.

For patches during which no hypervisor may run, such as a reload of KVM's modules. During the patch the guest
is a RAM file and some hundred kilobytes of device state, which this process keeps in memory and in a file.
The new process starts during the freeze, so the pause is seconds instead of milliseconds.

Roll-back: until the old process is ended, as in in_place.py. After that, when the new process does not accept
the state, a new process of the old emulator gets it.
"""

from __future__ import annotations

import contextlib
import socket
from dataclasses import replace
from pathlib import Path

from lab.core.clocksource import STATE_OUT
from lab.core.units import NS_PER_S
from lab.errors import FreezelabError, HypervisorError, MachineError
from lab.hypervisor import migration
from lab.hypervisor.context import END_S
from lab.hypervisor.deadman.client import Charge
from lab.hypervisor.deadman.rescue import Relaunch
from lab.hypervisor.domain import DomainSpec, render
from lab.hypervisor.freeze.base import charge
from lab.hypervisor.freeze.in_place import At, Exchange
from lab.hypervisor.rehearsal import rehearse
from lab.hypervisor.successor import asker, offer
from lab.ports import Frozen, Resumed
from lab.threads import Worker

LOAD_NS = 30 * NS_PER_S
"""Time limit for a new process to load the state. It is long, because the budget's guard ends a freeze that
takes too long."""


_START_NS = 2 * NS_PER_S
"""The part of the budget for the start of the new process, which takes 0.6-0.8 s, and twice that on a busy
host."""


class Keeper:
    """Receives a guest's state from a socket. Always close it."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(str(path))
        self._socket.listen(1)
        self._data = b""
        self._thread = Worker(target=self._read, name="state-keeper", daemon=True)
        self._thread.start()

    def _read(self) -> None:
        with contextlib.suppress(OSError):
            connection, _ = self._socket.accept()
            with connection:
                parts = []
                while part := connection.recv(1 << 16):
                    parts.append(part)
                self._data = b"".join(parts)

    def take(self, wait_s: float) -> bytes:
        """The whole state. HypervisorError when the sender has not closed its end within `wait_s` seconds."""
        self._thread.join(wait_s)
        if self._thread.is_alive() or not self._data:
            raise HypervisorError("QEMU did not send its device state in time")
        return self._data

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


class ColdExchange(Exchange):
    """One exchange in which the old process is gone before the new one starts."""

    _keeper: Keeper | None = None
    _state = b""
    _file: Path | None = None
    _ending = False

    def prepare(self) -> None:
        """Check what can be checked before the freeze. The successor itself is not started yet."""
        self._new.spec = self._plan()
        self._context.check_emulator(self._new.spec)
        rehearse(self._context, self._new.spec)
        offer(asker(self._old, self._guest))
        if self._new.socket is not None:
            self._keeper = Keeper(self._new.socket)

    def stop(self, deadline_raw_ns: int) -> Frozen:
        return replace(super().stop(deadline_raw_ns), resume_ns=_START_NS)

    def _hand_over(self, deadline_raw_ns: int) -> None:
        context, guest = self._context, self._guest
        self._prover.look(self._late(deadline_raw_ns))
        with self._steps.step(STATE_OUT):
            self._wait(self._old, "MIGRATION completed", self._leave(), deadline_raw_ns)
            if self._keeper is not None:
                self._state = self._keeper.take(context.left_s(deadline_raw_ns))
            self._file = self._write()
        if not self._token.take():
            raise HypervisorError("the dead-man has resumed it in the old process", where=guest)
        with self._steps.step("end old process"):
            self._ending = True  # before the kill: an interrupt must not roll back to this process
            context.process(guest).kill(END_S)

    def charge(self) -> Charge | None:
        """The dead-man starts a new process of the old emulator if the old one is gone. Its domain XML is
        rendered here."""
        return charge(
            Relaunch,
            self._context,
            self._guest,
            self._token.handle,
            state_file=str(self._state_file),
            memory_file=str(self._new.old.memory_file),
            home=str(self._context.home),
            domain_xml=render(self._new.described(self._new.old.emulator)),
            agents=str(self._context.sockets),
        )

    @property
    def _state_file(self) -> Path:
        return self._context.home / "saved" / f"{self._guest}-{self._new.old.uuid}.state"

    def _write(self) -> Path:
        folder = self._context.home / "saved"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self._state_file
        try:
            path.touch(0o600)
            path.write_bytes(self._state)
        except OSError as error:
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
            raise MachineError(
                f"its device state cannot be saved: {error.strerror}", where=str(path)
            ) from error
        return path

    def resume(self) -> Resumed:
        with self._lock:
            if self._at is At.MOVED and self._new.domain is None:
                why = self._bring_back()
                resumed = super().resume()
                self._done = replace(resumed, why=resumed.why or why)
                return self._done
            return super().resume()

    def _bring_back(self) -> str:
        """Start a new process with the state, under the wanted emulator, or else under the old one. Returns
        why it is the old one; "" otherwise."""
        try:
            self._load(self._new.spec)
        except FreezelabError as error:
            self._new.clear()
            same = self._new.spec is not None and self._new.spec.emulator == self._new.old.emulator
            self._new.spec = replace(self._plan(), emulator=self._new.old.emulator)
            self._load(self._new.spec)
            return f"restarted under the {'same' if same else 'old'} emulator: {error.what}"
        return ""

    def _load(self, spec: DomainSpec | None) -> None:
        if spec is None or self._new.socket is None:
            return
        self._new.socket.unlink(missing_ok=True)
        with self._steps.step("start successor"):
            try:
                with self._context.starting():
                    self._new.start(spec)
            except HypervisorError as error:
                # libvirt may report only that the monitor is gone.
                last_words = self._new.last_words().removeprefix(": ")
                text = error.what if last_words in error.what else f"{error.what}: {last_words}"
                raise HypervisorError(text, where=error.where, hint=error.hint) from error
            self._new.listen(offer)
        with self._steps.step("state in"):
            since = self._context.clock.now().real_ns
            try:
                migration.send_state(self._new.socket, self._state, LOAD_NS / NS_PER_S)
            except OSError as error:
                why = f"{error.strerror or error}{self._new.last_words()}"
                raise HypervisorError(
                    f"the successor does not accept the device state: {why}", where=self._guest
                ) from error
            if self._new.control is not None:
                deadline = self._context.clock.now().raw_ns + LOAD_NS
                self._wait(self._new.control, "MIGRATION completed", since, deadline)
        self._prover.look_again(self._late(self._deadline))

    def _go_back(self, why: str) -> Resumed:
        """Roll back to the old process while it exists, or else to a new one of the old emulator."""
        old = self._context.process(self._guest)
        if not self._state or (old.alive and not self._ending):
            return super()._go_back(why)
        old.kill(END_S)  # an earlier kill may have been interrupted
        self._new.clear()
        self._new.spec = replace(self._plan(), emulator=self._new.old.emulator)
        self._load(self._new.spec)
        call, failed = self._new.run(self._deadline)
        if failed:
            raise HypervisorError(failed, where=self._guest)
        self._over()
        text = f"restarted under the old emulator: {why}"
        self._done = Resumed(call, self._steps.hand_out(), text, not self._new.old.tap, self._prover.result())
        return self._done

    def finish(self) -> None:
        if self._keeper is not None:
            self._keeper.close()
        try:
            super().finish()
        finally:
            if self._file is not None and not self.is_stopped:
                with contextlib.suppress(OSError):
                    self._file.unlink(missing_ok=True)

    def abandon(self) -> None:
        self._at = At.ROLLED_BACK
        self.finish()
