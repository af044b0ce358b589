"""Benchmarks: scripts that each measure one part of trio_hub, and `benchmarks.compare`, which measures all of it."""
