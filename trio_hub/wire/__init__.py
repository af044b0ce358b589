"""Bytes: frames in, typed messages out, and back.

Pure functions and small objects: no Trio, no ZeroMQ, no clock. What cannot be read raises
`trio_hub.errors.WireError`, whatever the bytes were.
"""
