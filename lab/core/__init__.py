"""The pure part of the lab: functions from values to values, without a clock and without I/O.

Values:
- `units`: durations and sizes as people write them. `quantities`: measured ones in words.
- `clock`: stamps and intervals. `timeline`: readings, heartbeats, samples, calls.
  `packed`: many readings in little memory.
- `network`: the lab's own network, its limits and counts. `time_fault`: a fault of the host's NTP server.
- `plan`, `expectations`, `parallel_cells`: what a run will do, and what it has to show.
  `plan_warnings`: what its numbers already say.
- `method`, `patch`, `mechanism`, `announcement`: how guests are frozen, what is done to the host, what brings
  a clock back, what is announced.
- `history/`: the events of a run, a dataclass for each kind.

Measuring:
- `offsets`, `drift`, `rates`: from readings to an offset, its slope, and what is known of a guest's rate.
- `witnesses`, `pause`, `steps`: a pause, and its parts. `reboot`: an outage in its place.
- `resync`: how the clock came back. `drift_study`: clocks over minutes.
- `calibration`: the lab's own accuracy.
- `boots`, `rescue`: what belongs to another boot; a guest that the controller did not resume.
- `clock_disturbance`, `clocksource`: moved clocks; counters that are too narrow for a pause.
- `claims`, `audit`, `effects`, `kernel_log`: what the guest itself says of its clock, its timers, its kernel.
- `stats`, `benchmark`, `repeatability`: several cycles. `result`, `judge`: one guest's cycle.
- `comparison`: runs beside each other. `shift`: what is more than noise.

Judging:
- `verdict`: passed, failed, inconclusive. `findings`: expectations compared with measurements, by
  `pause_findings`, `resync_findings`, `guest_findings`, `event_findings`; `cycle_findings`: what they share.
- `predictions`: a method's rules compared with the result.
- `timesync_setup`, `timesync/`: a mechanism's forecast.
- `workload/`: what runs in the guests, as a client sees it.
- `expected_failure`: negative controls. `machine_check`: one check of `doctor`. `watchdog`: a guest's own.

Scheduled Events and fleets:
- `scheduled/`: the service's state machine, documents and answers. `handlers`: how a guest's handler ended.
- `event_timeline`: one timeline for each event. `played_events`: of one that is played without guests.
- `rollout`, `rollout_result`: a fleet's waves, planned and run.
- `one_at_a_time`: the proof that one domain was down at a time.
"""
