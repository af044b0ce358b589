"""ipyparallel's own test suite, with our controller wherever it starts one; `nox -s interop` runs it.

`sitecustomize` turns every controller process into ours, and `our_controller`, a pytest plugin, judges the run.
Nothing of the suite and of ipyparallel is changed: tests, fixtures, launchers, clients and engines are the stock ones.
"""
