"""host-sleep: the kernel's freezer on the QEMU process, which is what a host's suspend does to it first.

The host itself stays up, so its clocks run on: what a real suspend adds, that they may stand still too, is
not done. See lab.hypervisor.freezer for how this differs from SIGSTOP."""

from __future__ import annotations

from lab.errors import HypervisorError
from lab.hypervisor.freeze.sigstop import Sigstop
from lab.hypervisor.freezer import Freezer
from lab.hypervisor.process import QemuProcess
from lab.ports import Resumed


class HostSleep(Sigstop):
    """Freeze by a cgroup that has only the QEMU process in it."""

    _freezer: Freezer | None = None

    def prepare(self) -> None:
        """Move the process into a cgroup of its own. Refused when that cannot be made."""
        super().prepare()
        self._freezer = Freezer.around(self._context.process(self._guest).pid, self._guest)

    def _order(self, process: QemuProcess) -> None:
        if self._freezer is None:
            self._freezer = Freezer.around(process.pid, self._guest)
        try:
            self._freezer.freeze()
        except FileNotFoundError as error:
            raise ProcessLookupError from error  # with the process
        except OSError as error:
            raise HypervisorError(f"its cgroup cannot be frozen: {error}", where=self._guest) from error

    def _wait(self, process: QemuProcess, deadline_raw_ns: int) -> bool:
        del process
        with self._steps.step(f"freeze {self._freezer.label}" if self._freezer is not None else "freeze"):
            return self._freezer is not None and self._freezer.wait_frozen(
                self._context.clock, deadline_raw_ns
            )

    def resume(self) -> Resumed:
        resumed = super().resume()
        self._leave()
        return resumed

    def finish(self) -> None:
        self._leave()

    def _leave(self) -> None:
        freezer, self._freezer = self._freezer, None
        if freezer is not None:
            freezer.leave()
