"""A domain of the user's own, as a playbook names it: libvirt's name, and how its guest is reached."""

from __future__ import annotations

from dataclasses import dataclass

from lab.core.depth import Depth
from lab.core.mechanism import ResyncMechanism
from lab.core.method import FreezeMethod
from lab.core.patch import Impact, Patch, ReplaceHypervisorPatch


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


SHARE_MEMORY = "its RAM is not shared with another process (docs/playbooks.md, Domains of your own)"
MIGRATES = "it would be in another libvirt daemon afterwards, and the lab has a connection to one"


def refusal(method: FreezeMethod, patch: Patch) -> str:
    """Why a domain of the user's own is not frozen by this method for this patch; "" when it is. What starts
    or ends a QEMU process for good would leave the domain different from how it was found."""
    if method.boots_anew or patch.impact is Impact.REBOOT:
        return "it would have to be shut down and started again"
    if method.traits.shares_memory:
        return SHARE_MEMORY
    if method.traits.overlaps:
        return MIGRATES
    if isinstance(patch, ReplaceHypervisorPatch):
        return "its emulator is what its XML says"
    return ""


def resync_refusal(mechanism: ResyncMechanism, probe: Depth, *, is_own: bool) -> str:
    """Why a guest with this depth cannot have this mechanism; "" when it can, as far as is known before it is
    looked into. is_own: it is a domain of the user's own."""
    if mechanism.is_of_windows and not (is_own and probe is Depth.AGENT):
        return f"{mechanism} is a part of Windows, which is looked into by its agent alone"
    return ""
