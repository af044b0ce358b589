"""What trio_hub costs: scripts that measure one part of it each, and `benchmarks.compare` for the whole of it."""
