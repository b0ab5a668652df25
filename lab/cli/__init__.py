"""The command line: arguments in, text out. What is done is `lab.session`'s.

- `main`: the commands for runs. `kept_guests`: `freezelab up` and the like. `upkeep`: `doctor` and the like.
- `past_runs`: `freezelab history` and `compare`.
- `nights`: `freezelab nightly …` and `baseline …`. `events`: `freezelab events …`.
- `stores`: `freezelab image …` and `emulator …`.
- `metrics`: `freezelab metrics serve`. `live_outputs`: what a run writes for programs as it goes on. `ci`:
    what it writes for GitHub.
- `cell_children`: where the cells of a run over hosts are forked on a host.
- `options`: values that are more than text, and shared options. `completion`: what a shell is offered.
- `views`: the view for this stderr. `streams`: output that cannot be delivered.

This module imports nothing, so that `freezelab --help` stays fast.
"""
