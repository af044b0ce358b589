"""The sizes of pools: how many engines the hub asks for, and which it gives back.

Everything here is a rule without a clock, a socket or a file: the time is an argument, and what a rule has to remember
is a value that is passed in and returned.
"""
