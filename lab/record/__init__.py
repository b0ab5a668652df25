"""The on-disk form of a run: an append-only history, and the conclusions from it.

- `journal`: events.jsonl. `events`: a line of it, checked and read back.
- `rebuild`: from a history back to its plan and its observations.
- `run`: run.json, judged from a history. `model`, `model_clock`, `model_events`: its members.
- `cycle`, `cells`, `event_timelines`, `rollout`, `fleet`, `statistics`: its parts, from what was measured to
    its members.
- `follow`, `tail`: a run in progress. `milestones`: when earlier ones reached what.
- `index`: a line about each run. `pruning`: removes old runs. `figures`: what is compared of a run.
    `comparison`: a comparison as JSON. `baselines`: the runs that others are compared with. `nights`: records
    of nights. `state_files`: small JSON files.
"""

EVENTS = "events.jsonl"
"""The file of a run's history, in its folder."""
