"""Guests' hypervisor: libvirt's QEMU driver behind one adapter.

Start at `connect.connect()`; the adapter itself is `adapter.LibvirtHypervisor`. Nothing outside this
package imports libvirt. This module imports nothing, so that `freezelab --help` stays fast.

libvirt:
- `connection`: a URI or no daemon. `embed`: the driver without a daemon.
- `binding`: the import of libvirt. `loop`: the thread of its events. `events`: what libvirt and QEMU report.
- `domain`: a guest's domain as a value. `domains`: started, found, ended.
- `facts`, `accelerators`: what is here, and whether KVM works. `agent`: qemu-guest-agent. `logs`: QEMU's own.

Freezing:
- `freeze/`: one module a method, from prepare to finish.
- `context`: the connection, domains and processes that all of them work with.
- `handover_check`, `rehearsal`: what the successor would take from the guest, checked before the freeze.
- `memory_proof`: the proof that RAM is unchanged.
- `successor`: the process that takes a guest over. `migration`: what QEMU says of a migration.
- `process`: a QEMU process, its pidfd and CPU time. `qmp`: a monitor of the lab's own.
- `libvirt_qmp`: the monitor through libvirt.
- `guard`: resumes in time, inside the controller. `deadman/`: from outside, when the controller cannot.

Guests' states:
- `memory`, `shm`: RAM that is a file, and folders on /dev/shm. `golden`: a state in bytes, to begin with.
- `unreachable`: what libvirt knows of a guest that cannot answer. `domain_status`: a domain's state, without
  libvirt.
- `recovery`: what a killed run left.
"""
