"""The host: its facts, patches applied to it, its NTP server, other emulators.

- `network/`: the lab's own network of guests, and the host's place in it.
- `facts`: the host's hardware, kernel and load. `taps`: tap devices of guests' network cards on a host
bridge. - `patches/`: host patches, one module for each kind.
- `night_units`: what has systemd or cron run a night.
- `chronyd`: the guests' NTP server. `ntprelay`: injects faults into its answers. `sntp`: one exchange with
it. - `emulators`: QEMU binaries beside the system's. `emulators_fetch`: fetches and unpacks the QEMU of a
  Debian suite. `emulators_sources`: the machine's package sources. `emulators_apt`: apt in a private folder.
"""
