"""A domain of the user's own, as a playbook names it: libvirt's name, and how its guest is reached."""

from __future__ import annotations

from dataclasses import dataclass

from lab.core.depth import Depth
from lab.core.mechanism import ResyncMechanism
from lab.core.method import FreezeMethod
from lab.core.migration import QEMU_DEFAULTS, MigrationSpec
from lab.core.patch import HoldPatch, Impact, Patch, ReplaceHypervisorPatch


@dataclass(frozen=True)
class SshTarget:
    """A guest's sshd, as ssh(1) is told of it; what is empty or 0 comes from ssh_config(5).

    host: a Host of ssh_config, a host name or an address. key: the path of a private key. known_hosts: the
    file with the guest's host key, in place of the user's. config: the file that is read in place of the
    user's and the system's.
    """

    host: str
    port: int = 0
    user: str = ""
    key: str = ""
    known_hosts: str = ""
    config: str = ""


@dataclass(frozen=True)
class MigrationTarget:
    """Where a domain is migrated to, and back from. uri: the other libvirt, as this program and the domain's
    own daemon reach it. unsafe: also when libvirt takes its disks for unsafe to be used by both.
    """

    uri: str
    unsafe: bool = False


SHARE_MEMORY = "its RAM is not shared with another process (docs/playbooks.md, Domains of your own)"
NO_TARGET = "it has no migrate_to, the URI of another libvirt daemon that it can go to"
AT_ONCE = "it runs on at once in the other daemon, so nothing can be done in its pause (hold: 0s)"
NO_WAY_BACK = "in post-copy its memory is in two processes, and it is lost with either of them"


def refusal(
    method: FreezeMethod,
    patch: Patch,
    target: MigrationTarget | None = None,
    migration: MigrationSpec = QEMU_DEFAULTS,
) -> str:
    """Why a domain of the user's own is not frozen by this method for this patch; "" when it is. What starts
    or ends a QEMU process for good would leave the domain different from how it was found. migration: the
    settings of a live migration."""
    if method.boots_anew or patch.impact is Impact.REBOOT:
        return "it would have to be shut down and started again"
    if method.traits.shares_memory:
        return SHARE_MEMORY
    if isinstance(patch, ReplaceHypervisorPatch):
        return "its emulator is what its XML says"
    if method.traits.overlaps:
        if target is None:
            return NO_TARGET
        if not isinstance(patch, HoldPatch) or patch.duration_ns:
            return AT_ONCE
        if migration.post_copy_ns is not None:
            return NO_WAY_BACK
    return ""


def resync_refusal(mechanism: ResyncMechanism, probe: Depth, *, is_own: bool) -> str:
    """Why a guest with this depth cannot have this mechanism; "" when it can, as far as is known before it is
    looked into. is_own: it is a domain of the user's own."""
    if mechanism.is_of_windows and not (is_own and probe is Depth.AGENT):
        return f"{mechanism} is a part of Windows, which is looked into by its agent alone"
    return ""
