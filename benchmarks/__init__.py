"""Measurements, one file per question: `python -m benchmarks`."""
