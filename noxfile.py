"""The project's checks. `nox -l` lists them; `nox` runs the ones to run before a commit."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import nox

nox.needs_version = ">=2025.2.9"
nox.options.default_venv_backend = "venv"
nox.options.download_python = "never"
nox.options.error_on_missing_interpreters = False  # a Python that is not installed is skipped, also in CI
nox.options.sessions = ["lint", "typing", "tests"]

ROOT = Path(__file__).parent
PYTHONS = ["3.11", "3.12", "3.13", "3.14"]
# pyenv shows only its current Python, unless told of the others that it has.
if installed := [path.name for path in Path(os.environ.get("PYENV_ROOT", "")).glob("versions/3.1[1234].*")]:
    os.environ.setdefault("PYENV_VERSION", ":".join(installed))
STOCK_TESTS = 467  # as many of ipyparallel's tests as pass with its own controller: 462, and 5 that need MPI
GROUPS = nox.project.load_toml("pyproject.toml")


def install(session: nox.Session, *groups: str) -> None:
    session.install(*nox.project.dependency_groups(GROUPS, *groups), "-e", ".[cluster]")


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """Run the quick tests, which start no other processes."""
    install(session, "test")
    session.run(
        "pytest",
        "-m",
        "not browser and not interop and not slurm and not stress and not crash and not soak",
        *session.posargs,
    )


@nox.session(name="property")
def property_tests(session: nox.Session) -> None:
    """Run the Hypothesis tests, with many more examples than in `tests`."""
    install(session, "test")
    session.run("pytest", "-m", "property", "--hypothesis-profile=thorough", *session.posargs)


@nox.session
def crash(session: nox.Session) -> None:
    """Run the tests that kill strict and relaxed hubs and engines, in 50 rounds or as many as CRASH_ROUNDS says.

    Tests of user code that harms its engine run in full size: it holds Python's lock for a minute, and prints 100 MB.
    """
    install(session, "test")
    env = {"CRASH_ROUNDS": os.environ.get("CRASH_ROUNDS", "50")}
    session.run("pytest", "-m", "crash", "-p", "no:asyncio", *session.posargs, env=env)


@nox.session
def soak(session: nox.Session) -> None:
    """Run a cluster whose engines, connections, clients and hub fail at random, for an hour or for SOAK_MINUTES."""
    install(session, "test")
    env = {"SOAK_MINUTES": os.environ.get("SOAK_MINUTES", "60")}
    timeout = f"faulthandler_timeout={60 * float(env['SOAK_MINUTES']) + 3600:.0f}"
    session.run("pytest", "-m", "soak", "-p", "no:asyncio", "-o", timeout, *session.posargs, env=env)


@nox.session
def browser(session: nox.Session) -> None:
    """Test the dashboard's pages in chromium (`apt-get install chromium`), with a live cluster."""
    install(session, "test")
    session.run("pytest", "-m", "browser", "-p", "no:asyncio", *session.posargs)


@nox.session
def interop(session: nox.Session) -> None:
    """Test our hub with stock clients and engines, and run ipyparallel's own tests with our controller.

    With arguments, only a part of ipyparallel's tests is run, for instance `-- ipyparallel.tests.test_client -k purge`.
    With STOCK_SUITE_CURVE=1 in the environment, every controller encrypts, and only ipyparallel's tests are run. With
    STOCK_SUITE_ENGINES=trio-hub, they use our engines instead of stock ones. With STOCK_SUITE_SLURM=1, they have a
    Slurm and the folder /data, which the 5 tests of ipyparallel.tests.test_slurm need, so they must run as root.
    """
    install(session, "interop")
    suite = ["ipyparallel.tests", f"--at-least={STOCK_TESTS}"]
    encrypted = os.environ.get("STOCK_SUITE_CURVE", "") not in ("", "0")
    if session.posargs:
        suite = list(session.posargs)
    elif not encrypted:
        session.run("pytest", "-m", "interop or slurm", "-p", "no:asyncio")

    harness = ROOT / "tests" / "stock_suite"
    # A process that the tests have told to end may still write there.
    with tempfile.TemporaryDirectory(prefix="stock-suite-", ignore_cleanup_errors=True) as outside:
        for name in ("home", "tmp"):
            Path(outside, name).mkdir()
        env = {
            "HOME": f"{outside}/home",
            "TMPDIR": f"{outside}/tmp",
            "PYTHONPATH": str(harness),
            "STOCK_SUITE_LOG": f"{outside}/controllers",
            "MPLBACKEND": "agg",
            # for Open MPI: as root in a container, and with more processes than cores
            "OMPI_ALLOW_RUN_AS_ROOT": "1",
            "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
            "OMPI_MCA_rmaps_base_oversubscribe": "1",
        }
        if encrypted:
            # All processes of the tests inherit this. With "1", test_curve would expect unsigned messages, but our
            # controller always signs.
            env["IPP_ENABLE_CURVE"] = "true"
        run = ["pytest", "-c", harness / "suite.ini", *suite]
        if os.environ.get("STOCK_SUITE_SLURM", "") not in ("", "0"):
            run = ["python", ROOT / "tests" / "slurm" / "node.py", "--folder=/data", "--", *run]
        with session.chdir(outside):
            session.run(*run, env=env)


@nox.session
def bench(session: nox.Session) -> None:
    """Compare trio-hub with ipcontroller and zmq_proxy, for instance `-- --rounds 3 --only task --write PAGE.md`."""
    install(session, "test")
    session.run("python", "-m", "benchmarks.compare", *session.posargs)


@nox.session(name="bench-end-to-end")
def bench_end_to_end(session: nox.Session) -> None:
    """Compare whole clusters with Dask, Parsl, Ray and process pools, for instance `-- --rounds 3 --write PAGE.md`."""
    install(session, "peers")
    session.run("python", "-m", "benchmarks.end_to_end", *session.posargs)


@nox.session
def typing(session: nox.Session) -> None:
    """Check the types with mypy --strict."""
    install(session, "test", "typing")
    session.run("mypy", *session.posargs)


@nox.session(name="typing-compat")
def typing_compat(session: nox.Session) -> None:
    """Run the package beside the obsolete trio-typing, and check its types without the stubs of trio-typing."""
    session.install(".[postgres]", *nox.project.dependency_groups(GROUPS, "typing", "typing-compat"))
    program = ROOT / "tests" / "typing_compat.py"
    session.chdir(session.create_tmp())  # outside the tree, so that the installed package is tested
    session.run("python", program)

    mypy = ("mypy", "--strict", "--no-incremental", "--config-file=", program)
    out = session.run(*mypy, silent=True, success_codes=[0, 1, 2]) or ""
    session.log(f"with trio-typing's stubs in place, mypy says: {out.strip().splitlines()[-1]}")

    (site_packages,) = Path(session.virtualenv.location).glob("lib/python*/site-packages")
    with tempfile.TemporaryDirectory(dir=site_packages.parent) as aside:
        stubs = {path: Path(aside, path.name) for path in site_packages.glob("*-stubs")}
        for place, elsewhere in stubs.items():
            place.rename(elsewhere)
        try:
            session.run(*mypy)
        finally:
            for place, elsewhere in stubs.items():
                elsewhere.rename(place)


@nox.session
def lint(session: nox.Session) -> None:
    """Check the rules and the format with ruff."""
    session.install(*nox.project.dependency_groups(GROUPS, "lint"))
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation as a site in docs/_build/html, with warnings as errors."""
    install(session, "docs")
    session.run("sphinx-build", "-W", "--keep-going", "-n", "-q", "docs", "docs/_build/html", *session.posargs)


@nox.session
def build(session: nox.Session) -> None:
    """Build the wheel and the sdist, and install and run each in a clean environment outside the tree."""
    session.install("build")
    with tempfile.TemporaryDirectory(prefix="trio-hub-build-") as outside:
        session.run("python", "-m", "build", "--outdir", outside)
        session.chdir(outside)
        for number, archive in enumerate(sorted(Path(outside).iterdir())):
            bin_dir = Path(outside, f"venv{number}", "bin")
            session.run("python", "-m", "venv", bin_dir.parent)
            session.run(bin_dir / "pip", "install", "-q", archive, external=True)
            session.run(bin_dir / "trio-hub", "--version", external=True)
            session.run(bin_dir / "python", "-m", "trio_hub", "--help", external=True)
        session.chdir(ROOT)
