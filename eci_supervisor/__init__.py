"""Enhanced container isolation for Linux hosts and container engines."""
