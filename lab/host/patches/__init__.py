"""Host patches: changes to the host while the guests are frozen, or while they run on.

`make` creates the patch of a plan. base.py has the common parts; each kind of patch has its own module.
"""

from __future__ import annotations

from lab.core import patch as plan
from lab.host.patches.ansible import Ansible
from lab.host.patches.base import Base as Base
from lab.host.patches.base import Tools as Tools
from lab.host.patches.daemon import RestartLibvirt
from lab.host.patches.hypervisor import ReplaceHypervisor
from lab.host.patches.kvm import ReloadKvm
from lab.host.patches.livepatch import Livepatch
from lab.host.patches.microcode import Microcode
from lab.host.patches.service import RestartService
from lab.host.patches.simple import Command as Command
from lab.host.patches.simple import Hold as Hold
from lab.host.patches.simple import OfLabHost
from lab.ports import Clock, HostPatch

_NO_TOOLS = Tools()


def make(spec: plan.Patch, clock: Clock, tools: Tools = _NO_TOOLS) -> HostPatch:
    """The patch of a plan. It does not read anything from the host before its check()."""
    match spec:
        case plan.HoldPatch():
            return Hold(spec, clock)
        case plan.CommandPatch():
            return Command(spec, clock)
        case plan.ReplaceHypervisorPatch():
            return ReplaceHypervisor(spec, clock, tools)
        case plan.RestartLibvirtPatch():
            return RestartLibvirt(spec, clock, tools)
        case plan.RestartServicePatch():
            return RestartService(spec, clock, tools)
        case plan.ReloadKvmPatch():
            return ReloadKvm(spec, clock, tools)
        case plan.ReplaceHostKernelPatch():
            return OfLabHost(spec)
        case plan.MicrocodePatch():
            return Microcode(spec, clock)
        case plan.LivepatchPatch():
            return Livepatch(spec, clock)
        case plan.AnsiblePatch():
            return Ansible(spec, clock)
