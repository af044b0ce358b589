"""trio-hub beside `ipcontroller` and beside a bare `zmq_proxy`: one command, and the page that it writes.

    python -m benchmarks.compare --write docs/explanation/performance.md

A *contender* (`contenders`) is a controller and its options. A *line* (`lines`) is one subject that is measured of
several contenders. A *round* measures each contender of each line once, one after the other, so that a machine that is
slow for a while is so for all of them. Each measurement is a process of its own (`worker`), which starts the
controller and plays its client and its engines with bare sockets (`client`, `engines`), so that these take as
little as possible of the time that is measured.
"""
