"""Domains of the user's own on one connection: taken into a run, and given back as they were found."""

from __future__ import annotations

from collections.abc import Container
from contextlib import suppress
from pathlib import Path

from lab.core.method import FreezeMethod
from lab.core.own_domain import MigrationTarget
from lab.errors import HypervisorError, Refused
from lab.hypervisor import agent, freezer, overlays, own_domain, own_lease
from lab.hypervisor.context import LibvirtContext
from lab.hypervisor.own_domain import OwnDomain
from lab.hypervisor.own_lease import OwnLease, OwnRecord
from lab.hypervisor.process import QemuProcess
from lab.ports import Call, Clock, Freezing


class OwnDomains:
    """See LibvirtContext.own. stopped: the guests that this lab has stopped and not yet resumed."""

    def __init__(self, context: LibvirtContext, stopped: Container[str]) -> None:
        self._context, self._stopped = context, stopped

    def look(self, name: str) -> OwnDomain:
        """What libvirt says of a domain that runs; errors as take(), but for the lease."""
        domain = own_domain.look_up(self._context.connection, name)
        found = own_domain.read(domain)
        own_lease.check_free(found.uuid, found.where)  # first: another lab's freeze looks like a pause
        own_domain.check_runs(domain, name)
        return found

    def take(
        self, guest: str, name: str, run: str, history: Path | None, target: MigrationTarget | None = None
    ) -> OwnDomain:
        """Make the guest's name mean the domain `name`, until give_back(). UsageError when there is no such
        domain. Refused when it does not run, is a lab's guest, or its QEMU process is not on this host.
        HypervisorError when another lab uses it."""
        context = self._context
        domain = own_domain.look_up(context.connection, name)
        own = own_domain.read(domain)
        to, unsafe = (target.uri, target.unsafe) if target is not None else ("", False)
        record = OwnRecord(context.uri, own.uuid, own.name, guest, run, str(history or ""), to, unsafe)
        lease = OwnLease(record, context.home)
        try:
            own_domain.check_runs(domain, name)
            context.domains.now(guest, domain)
            context.own[guest], context.leases[guest] = own, lease
            if target is not None:
                context.targets[guest] = target
            context.process(guest)
        except HypervisorError as error:
            self._drop(guest)
            lease.close()
            if isinstance(error, Refused):
                raise
            hint = "run the lab on that host: without the process, nothing could resume it in an emergency"
            raise Refused(error.what, where=own.where, hint=hint) from error
        except BaseException:
            self._drop(guest)
            lease.close()
            raise
        return own

    def give_back(self, guest: str) -> list[str]:
        """Give the domain back. Returns how it differs from how it was found, one line each. HypervisorError
        when it is gone, or stands still by the lab's doing; the record stays then."""
        context = self._context
        own, lease = context.own.get(guest), context.leases.get(guest)
        if own is None or lease is None:
            return []
        away = context.away.get(guest)
        frozen = away is None and guest in self._stopped and self._is_frozen(guest, own)
        unfinished = False  # it has ended, or an overlay could not be written back
        with suppress(HypervisorError):
            unfinished = bool(overlays.left(context.domain(guest)[0], own.where))
        try:
            if away is not None:
                raise HypervisorError(f"runs on {away}", where=own.where, hint=context.recover_command)
            if frozen:
                raise HypervisorError("is still frozen", where=own.where, hint=context.recover_command)
            return own_domain.compare(context.domain(guest)[0], own)
        finally:
            self._drop(guest)
            lease.close(keep_record=frozen or unfinished or away is not None)

    def obstacle(self, own: OwnDomain, method: FreezeMethod) -> str:
        """Why this user cannot freeze a domain by a method, beside what its XML says; "" when he can."""
        try:
            with QemuProcess.find(own.uuid, own.where) as process:
                if not method.traits.monitor_answers and not process.may_signal():
                    return f"you may not stop its QEMU process, which runs as {process.owner()}"
                if method.traits.in_cgroup:
                    return freezer.obstacle(process.pid)
        except HypervisorError as error:
            return error.what
        return ""

    def facts(self, guest: str) -> OwnDomain | None:
        """What was found of a domain that was taken; None for other guests."""
        return self._context.own.get(guest)

    def agent_time(self, guest: str, clock: Clock) -> tuple[Call, int]:
        """See agent.get_time."""
        return agent.get_time(self._context.domain(guest)[0], guest, clock)

    def system(self, guest: str) -> dict[str, str]:
        """See agent.system."""
        return agent.system(self._context.domain(guest)[0], guest)

    def begin(self, guest: str, freezing: Freezing) -> None:
        """Record that the guest is about to be frozen. Refused when its domain does not allow the method."""
        own, method = self._context.own.get(guest), freezing.method
        if own is None or not method.needs_resume:
            return
        if why := own.refusal(method):
            raise Refused(why, where=own.where)
        pid = self._context.process(guest).pid
        self._context.leases[guest].freezes(method, pid, freezing.save_to)

    def end(self, guest: str) -> None:
        """Record that the guest runs, if it does, and not elsewhere."""
        if guest in self._stopped or guest in self._context.away:
            return
        if (lease := self._context.leases.get(guest)) is not None:
            lease.runs()

    def _is_frozen(self, guest: str, own: OwnDomain) -> bool:
        """False when it has ended in its freeze, or another program has started it while it was saved."""
        state = self._context.state(guest)
        if state in ("shut off", "crashed"):
            return (self._context.home / "saved" / f"{own.uuid}.save").exists()
        if state == "running":
            with suppress(HypervisorError):  # its process is gone, and libvirt does not know yet
                return self._context.process(guest).is_stopped()
            return False
        return True

    def _drop(self, guest: str) -> None:
        self._context.own.pop(guest, None)
        self._context.leases.pop(guest, None)
        self._context.targets.pop(guest, None)
        self._context.away.pop(guest, None)
        self._context.forget(guest)
        self._context.domains.drop(guest)
