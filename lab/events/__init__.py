"""The metadata service: what the core's machine knows of Scheduled Events, over HTTP."""
