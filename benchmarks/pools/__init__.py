"""Pools in a simulated cluster: a virtual clock, a batch system with a queue, and loads of several days."""
