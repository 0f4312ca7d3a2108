"""Benchmarks: speed and quality beside their limits, ceilings and references."""
