"""freezelab: freeze real guests the way a cloud does, and measure what they felt."""

__version__ = "0.1.0"
