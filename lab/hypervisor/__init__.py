"""Guests' hypervisor: libvirt's QEMU driver behind one adapter.

Start at `connect.connect()`; the adapter itself is `adapter.LibvirtHypervisor`. Nothing outside this
package imports libvirt. This module imports nothing, so that `freezelab --help` stays fast.

libvirt:
- `connection`: a URI or no daemon. `embed`: the driver without a daemon.
- `binding`: the import of libvirt. `loop`: the thread of its event loop. `events`: libvirt's and QEMU's
events. - `domain`: a guest's domain as a value. `domains`: starts, finds and lists domains.
- `facts`, `accelerators`: versions, and whether KVM works. `agent`: qemu-guest-agent. `logs`: QEMU's logs.

Freezing:
- `freeze/`: one module for each method, from prepare to finish.
- `context`: the connection, domains and processes that all methods use.
- `handover_check`, `rehearsal`: check before the freeze what the guest would lose under its successor.
- `memory_proof`: the proof that RAM is unchanged.
- `successor`: the process that takes a guest over. `migration`: the state of a QEMU migration.
- `process`: a QEMU process, its pidfd and CPU time. `qmp`: the lab's own QMP monitor.
- `libvirt_qmp`: QMP through libvirt.
- `guard`: a thread of the controller that resumes guests in time. `deadman/`: a process that does so when the
  controller cannot.

Guests' states:
- `memory`, `shm`: RAM in files, and folders on /dev/shm. `golden`: saves a device state, and starts guests
from it. - `unreachable`: why a guest cannot answer. `domain_status`: a domain's state without libvirt.
- `recovery`: recovers the guests of a killed run.
"""
