"""The host: its facts, patches applied to it, its NTP server, other emulators.

- `facts`: what the host is, and how busy. `taps`: ends of guests' network cards on a bridge of the host's.
- `patches/`: what is done to the host under the guests, a module for each kind.
- `chronyd`: the guests' NTP server. `ntprelay`: spoils its answers on purpose. `sntp`: one exchange with it.
- `emulators`: QEMU binaries beside the system's. `emulators_fetch`: a suite's QEMU, fetched and unpacked;
  `emulators_sources`: where packages come from; `emulators_apt`: apt in a folder of its own.
"""
