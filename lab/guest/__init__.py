"""Guests from the inside: SSH, and the host's ends of the programs that run in them.

- `ssh`: the one way in, with pinned host keys. `stamped_socket`: its socket, with times of what passes.
  `connections`: what ends all waiting for a guest. `serial`: the virtio-serial channel. `console`: read for
  a kernel that has panicked.
- `inside/`: the programs that run in guests. `program`: how one is sent there. `client`: for all of them.
- `probe`: the clock probe. `probe_channel`: one connection of it. `probe_protocol`: what its answers mean.
  `local`: the same program on this host.
- `watcher`: the guest's claims of its clock, and side effects of a pause. `discipline`: who keeps its clock.
- `timesync/`: what brings its clock back, installed and removed.
- `fill`: memory that cannot be made smaller. `identity`: a guest made ready to be copied, and its copies.
- `forward`: the metadata service's address in a guest. `handler`: a program of the user's for its events.
- `health`: a command or URL of the user's, asked in a guest.
"""
