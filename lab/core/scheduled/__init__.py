"""Events as in a cloud's metadata service: delivery groups, the state of each event, the answers to clients.
Pure; lab.events serves it.

- `machine` on `model` and `group`: the states. All clouds answer from it.
- Azure's Scheduled Events: `requests`, `documents`, `instance`. Sources: Azure's public documentation of
  Scheduled Events and of the Instance Metadata Service; docs/scheduled-events.md has the lab's choices.
- Compute Engine: `gce`, `gce_instance`. EC2: `ec2`, `ec2_instance`. Sources and choices: docs/notices.md.
- `cloud`: where clouds differ. `cloud_answers`: the answers of one of them. `wrong_answers`: deliberate ones.
"""
