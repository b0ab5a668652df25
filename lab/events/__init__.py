"""The metadata service: serves the Scheduled Events of core.scheduled over HTTP.

- `service`: one listener for each guest. `protocol`: HTTP/1.1 on a listener. `request_counts`: what came.
- `announcer`: the real `ports.Announcer`.
- `event_operator`: an operator's actions on a service that runs without a playbook. `control`: its control
  socket. `openapi`: what that takes and answers. `client`: its client.
"""
