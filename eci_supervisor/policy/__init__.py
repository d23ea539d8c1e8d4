"""Pure decisions: settings, grants and the table that the worker reads."""
