"""Programs of the host, and the host's clocks. Nothing else in `lab` starts a process of the host.

- `runner`: the one place where programs are started: to their end with a deadline, or to stay.
- `child`: a running program: its output as it comes, its end, and that nothing of it is left.
- `scope`: everything that a program has started, wherever it has hidden.
- `clock`: `HostClock`, the real `ports.Clock`.
"""
