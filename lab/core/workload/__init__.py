"""Workloads: what runs in guests, as a client that is not frozen sees it.

sample      the values that a client reports, and the reader of its lines
spec        a workload in the plan, and what it has to show
numbers     whether a client's request numbers can be believed
outage      how long nothing was answered
latency     histograms of latencies, and several merged into one
ledger      acknowledged, delivered, lost, twice
states      who holds a role, and who held it at the same time
stamps      what guests have dated, and how wrong
gauges      measured values, before and after a pause
judge       one workload's cycle, from its samples: outage, latency, ledger, states, stamps
prediction  the pause from which a workload's own configuration lets something happen
stability   what was wrong before the stop already
findings    expectations and predictions against what happened
tolerance   the search for the shortest pause that a workload fails at
"""
