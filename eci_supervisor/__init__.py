"""Enhanced container isolation for Linux hosts and container engines."""

__version__ = "0.1.0"
