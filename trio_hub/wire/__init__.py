"""Bytes: frames in, typed messages out, and back.

Pure functions and small objects: no Trio, no ZeroMQ, no clock. Bytes that are not a valid message raise
`trio_hub.errors.WireError` and no other exception.
"""
