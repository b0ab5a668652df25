"""Access to guests: SSH, and the host's ends of the programs that run in them.

- `ssh`: SSH with pinned host keys. `banner`: waits for sshd. `stamped_socket`: its socket, which stamps what
  passes. `connections`: cuts a guest's connections when the guest is gone. `serial`: the virtio-serial
  channel. `console`: finds kernel panics.
- `inside/`: the programs that run in guests. `program`: sends one to a guest. `client`: the common host's
  end.
- `probe`: the clock probe. `probe_channel`: one connection to it. `probe_protocol`: its requests and answers.
  `local`: the same program on this host.
- `watcher`: the guest's claims about its clock, and side effects of a pause. `discipline`: what keeps its
clock. - `timesync/`: installs and removes resync mechanisms.
- `fill`: fills memory with incompressible pages. `identity`: prepares a guest for copying, and its copies.
- `forward`: the metadata service's address in a guest, over a `channel_relay`.
- `handler`: a user's program for Scheduled Events.
- `health`: checks a user's command or URL in a guest.
"""
