"""Guests' hypervisor: libvirt's QEMU driver behind one adapter.

Start at `connect.connect()`; the adapter itself is `adapter.LibvirtHypervisor`. Nothing outside this
package imports libvirt. This module imports nothing, so that `freezelab --help` stays fast.
"""
