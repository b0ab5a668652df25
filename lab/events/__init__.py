"""The metadata service: what the core's machine knows of Scheduled Events, over HTTP.

- `service`: a listener for each guest. `protocol`: HTTP/1.1 on it.
- `announcer`: the real `ports.Announcer`.
- `event_operator`: what an operator does with a service that runs alone. `control`: that over a socket,
  whose other end is `client`.
"""
