"""The `eci` command, for people."""
