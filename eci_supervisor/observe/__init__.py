"""What can be seen of what the supervisor does: audit log, counts, events."""
