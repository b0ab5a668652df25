"""Scheduled Events as the metadata service of a cloud has them: what is announced, to whom, what becomes of
it, and what a client is answered. Pure; lab.events serves it.

Sources: Azure's public documentation of Scheduled Events and of the Instance Metadata Service. Where no
source settles what the service does, docs/scheduled-events.md says what the lab chose.
"""
