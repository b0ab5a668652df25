"""Words that are changed by who quotes them wrongly: for systemd, cron and the shell."""

HOSTILE = (
    "/tmp/50% off/a b.yaml", "%h", "%%", "$HOME", "${HOME}", "$$", 'a "quote"', "it's", "back\\slash\\", ";",
    "\\;", "#", "tab\tline\nfeed\rbell\x07delete\x7f", "", " ", "ünï\u202e\u2028\u0085", "-x", "a=b", "*?[x]",
    "~", "x\\x41",
)  # fmt: skip
