"""An engine that stock clients cannot tell from theirs: ``trio-hub engine``.

The process that is started is the nanny, which forks the engine before anything heavy is imported. In the engine, user
code runs in the main thread, and one Trio thread owns all sockets. This file imports nothing, so that the nanny stays
small.
"""
