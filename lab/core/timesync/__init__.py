"""What a time-sync set-up will do after a pause, from its own rules and its actual configuration."""
