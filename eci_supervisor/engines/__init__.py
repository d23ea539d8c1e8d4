"""Container engines: switching them over and back, and what they run."""
