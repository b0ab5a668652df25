"""A host's kernel replaced by kexec, while its guest's memory stays in RAM (docs/kexec.md).

In the lab host:
- `keeper`: starts the guest in reserved memory, stops and saves it, and leaves for the next kernel.
- `restorer`: the next kernel's initramfs, of busybox, modules and `restore.sh`, and its loading by kexec.
- `vmlinux`: a kernel that need not unpack itself.

In the controller:
- `line`: the channel to both, a serial port of the lab host's. `replacement`: the guest's hypervisor and the
  host patch of a cycle, by orders over it.
"""
