"""Compares trio-hub with `ipcontroller` and with a bare `zmq_proxy`, and writes the page of the results.

    python -m benchmarks.compare --write docs/explanation/performance.md

A *contender* (`contenders`) is a controller and its options. A *line* (`lines`) is one subject that is measured for
several contenders. A *round* measures each contender of each line once, one after the other, so that a machine that is
slow for a while is slow for all of them. Each measurement runs in a separate process (`worker`). It starts the
controller, and plays its client and its engines with bare sockets (`client`, `engines`), so that these take as little
as possible of the measured time.
"""
