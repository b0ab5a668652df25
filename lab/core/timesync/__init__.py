"""Forecasts of what a time-sync set-up does after a pause, from its own rules and its configuration in the
guest."""
