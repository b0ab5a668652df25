"""Workloads: what runs in guests, as a client that is not frozen sees it.

sample      the values that a client reports, and the reader of its lines
spec        a workload in the plan, and what it has to show
ledger      acknowledged, delivered, lost, twice
states      who holds a role, and who held it at the same time
judge       one workload's cycle, from its samples: outage, latency, ledger, states, stamps
prediction  the pause from which a workload's own configuration lets something happen
findings    expectations and predictions against what happened
"""
