"""Scheduled Events as in a cloud's metadata service: events, delivery groups, the state of each event, and
the answers to clients. Pure; lab.events serves it.

Sources: Azure's public documentation of Scheduled Events and of the Instance Metadata Service.
docs/scheduled-events.md lists the lab's choices where no source is definite.
"""
