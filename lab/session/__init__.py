"""Guests and runs, below the command line: combines the other parts, and writes to no terminal.

A run:
- `run`: from a plan to its verdict. `run_folders`: new and old runs' folders.
- `rendezvous`: what a host of a fleet agrees on with the controller. `fleet_service`: the controller's
  metadata service, as such a host has it.
- `cells`: a plan's cells, one after another.
- `guests`: guests brought up and taken down. `clones`: guests that begin with a golden guest's state.
- `guest_setup`: what repairs a guest's clock, put into it. `guest_monitor`: ends all waiting for a guest
  that has gone.
- `announcer`: the metadata service and handlers of a cell that announces.
- `settings`: what all guests of a run are made with. `images`: the images that a plan needs.

Beside runs:
- `kept_guests`: guests that outlive a command. `kept_guest_metadata`: the metadata service inside them.
- `drift_study`: a long look at a kept guest's clocks.
- `calibration_run`: pauses of known length. `calibration`: what they came to, on disk.
- `comparing`: runs to compare, by their names.
- `recovery`: what killed runs left. `checks`: what this machine has of what a run needs.
- `plan_checks`: what prevents one plan here. `emulators`: fetched QEMU versions.
- `nights`: playbooks that are run at night. `night_baseline`: what they are compared with. `night_timer`: has
  them run every night.
- `events_service`: a metadata service without a run. `listeners`: its addresses and guests. `play`: a
  playbook's announcements without its guests.
- `live_state`: the run in progress and the services of a state folder, for `metrics serve`.

For all of them:
- `parallel`: work for several guests at once. `paths`: folders. `views`: how a view is passed in.
"""
