"""What is printed: values in, text out.

- `terminal`: the report of a run, on one screen (`summary`) or in full, with its `header`. `html`: a page.
- `live`, `live_rollout`, `several_views`: a run in progress; `run_progress`, `run_steps`: how far it is;
    `watching`: one of another process; `screen`, `job_control`: the terminal.
- `junit`, with `junit_properties`; `json_lines`, with `progress_lines`; `metrics` and
    `service_metrics`, with `metric_families`;
    `github`, `gitlab`: for other programs.
- `nights`, `night_junit`: nights, and what failed in one.
- `plan`, with `plan_cells`, `plan_fleet`, `plan_notice`, `plan_words`: `freezelab plan`.
- `comparison`: `freezelab compare`. `trend`: the course of a figure over runs.
- `history`, `listings`, `glossary`, `service`, `drift`, `calibration`: output of other commands.

Sections of the report:
- `cycles`: the table. `cells`, `resync_table`: those of a matrix; `matrix_grid`: many cells in small.
- `rollout`, `notices`: a fleet, announcements.
- `reasons`: why it is not passed. `predictions`: beside what was measured.
- `resyncs`, `curve`: the clock's way back.
- `steps`, `exchange`, `effects`, `claims`: parts of a pause, other QEMUs, the guest, the guest's own claims.
- `workloads`, with `gauges`, `stamps`, `tolerances`: what ran in the guests.
- `sections`: budget, closure, drift. `accuracy`: what the lab is exact to here.
- `statistics`: over repeated cycles.

For all of them:
- `console`: standard output. `files`: files that were asked for. `page`, `table`, `text`: a page, tables with
    ranked columns, safe text.
- `numbers`: in words and bars.
"""
