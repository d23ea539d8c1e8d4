"""Measurements, one file per question: `python -m benchmarks`; README.md explains each."""
