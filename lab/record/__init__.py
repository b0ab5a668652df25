"""The on-disk form of a run: an append-only history, and what was concluded from it."""
