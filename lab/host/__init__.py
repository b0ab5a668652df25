"""The host: its clocks, its facts, programs run on it, patches applied to it, its NTP server."""
