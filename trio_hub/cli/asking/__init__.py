"""Commands that ask a running hub, of either kind, and print what it says."""
