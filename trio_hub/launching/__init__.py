"""Launching blocks of engines: on batch systems, on other machines, and with commands of the user.

The hub itself starts only local engines. A process beside the hub, the launching agent, does everything else, since
ipyparallel's launchers need an event loop of their own, and since their faults must not harm the hub.
"""
