"""Programs on the host, and the host's clocks. Nothing else in `lab` starts a process on the host.

- `runner`: starts programs, either to their end with a deadline, or to stay.
- `child`: reads a running program's output, waits for its end, and kills its process group.
- `scope`: finds and kills everything that a program has started.
- `packages`: what freezelab needs of a distribution (packages.txt), and how to get it.
- `requirements`: what of that is missing.
- `replacement`: a program in place of this process.
- `signals`: the first signal becomes an exception; what takes something down is not interrupted.
- `clock`: `HostClock`, the real `ports.Clock`.
"""
