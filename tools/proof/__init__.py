"""Builds with instruments in them, and what is run with them: see HACKING.md, "Proof"."""
