"""The checks of ``trio-hub doctor`` and ``trio-hub report``: what they find, and what to do about it."""

from __future__ import annotations

import os
import shutil
import socket
import stat
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import trio

from ...config import HubConfig
from ...config.connectionfiles import CLIENT_CHANNELS, ENGINE_CHANNELS, is_private
from ...databases.filesystems import file_system_of, is_on_the_network
from ...runtime.about import versions
from ...transport.location import is_here
from ..before import memory_available, nearest_existing
from ..limits import engines_within, open_files_limit

__all__ = [
    "OK",
    "PROBLEM",
    "WARNING",
    "Finding",
    "check_about",
    "check_machine",
    "check_own_ports",
    "check_profile",
    "knock_at_ports",
]

OK, WARNING, PROBLEM = "ok", "warning", "problem"
FEW_ENGINES = 100
"""A limit on open files that allows fewer engines than this gets a warning."""
LITTLE_SPACE, NO_SPACE = 1 << 30, 50 << 20
"""Bytes of free disk space below which there is a warning, and a problem."""
KNOCK_LIMIT = 3.0
"""Seconds for the answer of a port. Packets that a firewall drops get no answer."""
CLOCKS_APART, CLOCKS_FAR_APART = timedelta(seconds=1), timedelta(minutes=1)
"""Differences between two clocks. Above the first, the times of tasks mislead, which gets a warning. Above the second,
the hub looks up each request of a client whose clock is ahead (`trio_hub.hub.admission.AHEAD`), which is a problem.
"""
STOCK = "9.2."
"""The versions of ipyparallel for which the hub is made begin with this."""
_WILDCARDS = ("*", "0.0.0.0", "[::]")


class Finding(NamedTuple):
    """The result of one check: ``state`` is `OK`, `WARNING` or `PROBLEM`, and ``text`` says what to do."""

    topic: str
    state: str
    text: str


def check_machine() -> Iterator[Finding]:
    """Check the versions and the limits of this machine."""
    have = versions()
    known = ", ".join(f"{name} {have[name]}" for name in ("python", "trio", "pyzmq") if have[name])
    yield Finding("versions", OK, f"{known}, ZeroMQ {have['zeromq']}")
    if "without" in str(have["zeromq"]):
        text = "this build of ZeroMQ cannot encrypt: pip install --force-reinstall pyzmq, which has a build that can"
        yield Finding("encryption", WARNING, text)
    stock = have["ipyparallel"]
    if stock is None:
        text = "ipyparallel is not installed here: only stock clients and engines need it (pip install ipyparallel)"
        yield Finding("ipyparallel", OK, text)
    elif stock.startswith(STOCK):
        yield Finding("ipyparallel", OK, stock)
    else:
        text = (
            f"{stock}: the hub is made for version 9.2, other versions are not tested (pip install ipyparallel==9.2.*)"
        )
        yield Finding("ipyparallel", WARNING, text)
    files = open_files_limit()
    if files is None:
        yield Finding("open files", OK, "no limit")
    else:
        engines = engines_within(files)
        text = f"a limit of {files:,}, enough for a hub with about {engines:,} engines"
        if engines < FEW_ENGINES:
            text += "; raise the hard limit (ulimit -Hn, /etc/security/limits.conf, or LimitNOFILE= of a service)"
        yield Finding("open files", OK if engines >= FEW_ENGINES else WARNING, text)
    if (memory := memory_available()) is not None:
        state = OK if memory > LITTLE_SPACE else WARNING
        yield Finding("memory", state, f"{memory >> 20:,} MiB available")


def check_profile(directory: Path) -> Iterator[Finding]:
    """Check the profile directory: whether it can be used, its file system, and the free space."""
    place = nearest_existing(directory)
    if not os.path.isdir(place):
        yield Finding("profile", PROBLEM, f"{place} is not a directory: choose another profile with --profile-dir")
        return
    if not os.access(place, os.W_OK | os.X_OK):
        text = f"this user may not write to {place}: a hub needs a profile that it can write, see --profile-dir"
        yield Finding("profile", WARNING, text)
    else:
        what = "" if place == directory else ", which does not exist yet; `trio-hub serve` creates it"
        yield Finding("profile", OK, f"{directory}{what}")
    kind = file_system_of(directory)
    if is_on_the_network(kind):
        text = (
            f"{directory} is on a network file system ({kind}), which may lack locks or lose data: use a profile, or a "
            "database (--db sqlite:///PATH), on a local disk"
        )
        yield Finding("file system", WARNING, text)
    else:
        yield Finding("file system", OK, kind or "unknown")
    free = shutil.disk_usage(place).free
    state = PROBLEM if free < NO_SPACE else WARNING if free < LITTLE_SPACE else OK
    advice = "" if state == OK else ": delete what is not needed, or limit the database (--keep, --db-max-bytes)"
    yield Finding("disk space", state, f"{free >> 20:,} MiB free{advice}")


def check_own_ports(config: HubConfig) -> Iterator[Finding]:
    """Check whether a hub with these settings could listen, while no hub runs."""
    ports = [*config.ports, *config.client_ports, *config.engine_ports]
    if config.dashboard is not None and not config.dashboard.endswith(":0"):
        ports.append(int(config.dashboard.rpartition(":")[2]))
    taken = [port for port in ports if not _is_free(port)]
    if taken:
        text = f"in use by other programs: {', '.join(map(str, taken))}. Choose others with --ports or --dashboard"
        yield Finding("ports", PROBLEM, text)
    elif ports:
        yield Finding("ports", OK, f"{len(ports)} ports in the settings are free")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True


def check_privacy(path: Path) -> Iterator[Finding]:
    """Check whether only the owner of a connection file can read it."""
    if not is_private(path):
        mode = stat.S_IMODE(path.stat().st_mode)
        text = f"others on this machine can read the key in {path} (mode {mode:o}): chmod 600 {path}"
        yield Finding("connection file", WARNING, text)


async def knock_at_ports(path: Path, info: Mapping[str, Any]) -> list[Finding]:
    """Check from here each port that a connection file names. Run this where clients or engines run."""
    side = "engines" if "hb_ping" in info else "clients"
    topic = f"ports for {side}"
    findings = list(check_privacy(path))
    host = str(info.get("interface", "")).removeprefix("tcp://")
    location = str(info.get("location") or "")
    here = await is_here(location)
    if info.get("ssh") and not here:
        text = f"the hub is reached by SSH, through {info['ssh']}: the ports are not tried from here"
        return [*findings, Finding(topic, OK, text)]
    if host in _WILDCARDS:
        host = "127.0.0.1" if here else location
    elif host.startswith("127.") and not here:
        text = (
            f"the hub is on {location}, and listens only to programs on its own machine ({host}): start it with "
            "--ip '*', or use an SSH tunnel"
        )
        return [*findings, Finding(topic, PROBLEM, text)]
    channels = ENGINE_CHANNELS if side == "engines" else CLIENT_CHANNELS
    ports: dict[int, str] = {}
    for name in channels:
        value = info.get(name)
        for port in value if isinstance(value, list) else [value]:
            if isinstance(port, int):
                ports[port] = name
    answers: dict[int, str] = {}
    async with trio.open_nursery() as nursery:
        for port in ports:
            nursery.start_soon(_knock, host.strip("[]"), port, answers)
    bad = {port: answer for port, answer in answers.items() if answer}
    if not bad:
        findings.append(Finding(topic, OK, f"all {len(ports)} answer at {host}"))
    for answer in dict.fromkeys(bad.values()):
        those = ", ".join(f"{port} ({ports[port]})" for port in sorted(bad) if bad[port] == answer)
        findings.append(Finding(topic, PROBLEM, f"{host}, {those}: {answer}"))
    return findings


async def _knock(host: str, port: int, answers: dict[int, str]) -> None:
    """Note what is wrong with a port; an empty text if ZeroMQ answers there."""
    answers[port] = (
        f"no answer within {KNOCK_LIMIT:g} s: a firewall drops the packets, or the machine is off. Start the hub with "
        "fixed --ports, and open these in the firewall"
    )
    with trio.move_on_after(KNOCK_LIMIT):
        try:
            async with await trio.open_tcp_stream(host, port) as stream:
                greeting = await stream.receive_some(10)
        except socket.gaierror as error:
            answers[port] = f"the name cannot be resolved ({error.strerror}): start the hub with --location ADDRESS"
            return
        except OSError:
            answers[port] = "nothing listens: the hub has ended, or the file is of another hub"
            return
        # Each peer of ZeroMQ begins with these bytes.
        is_zeromq = greeting[:1] == b"\xff"
        answers[port] = "" if is_zeromq else "another program listens there: the file is of a hub that has ended"


def check_about(about: Mapping[str, Any], asked: datetime, answered: datetime) -> Iterator[Finding]:
    """Check what a hub has told about itself.

    Args:
        about: The hub's answer, see `trio_hub.client.Client.about`.
        asked, answered: The times of the question and of the answer, by the clock of this machine.
    """
    theirs = datetime.fromisoformat(about["time"])
    apart = max(theirs - answered, asked - theirs, timedelta(0))
    if apart < CLOCKS_APART:
        yield Finding("clock", OK, "as the hub's clock")
    else:
        text = f"{apart.total_seconds():.1f} s from the hub's clock: set both with NTP (chrony, systemd-timesyncd)"
        yield Finding("clock", PROBLEM if apart > CLOCKS_FAR_APART else WARNING, text)
    here, there = versions(), about["versions"]
    if here["trio-hub"] != there["trio-hub"]:
        text = f"the hub is trio-hub {there['trio-hub']}, this command {here['trio-hub']}: install the same version"
        yield Finding("hub's version", WARNING, text)
    numbers = about["statistics"]
    yield Finding("engines", OK, f"{numbers['engines']} registered")
    for sentence in numbers["local_engines_missing"]:
        yield Finding("engines", WARNING, f"{sentence}; see the file of its output in the profile's log directory")
    if numbers["database"]["last_error"]:
        yield Finding("database", PROBLEM, f"cannot be written: {numbers['database']['last_error']}")
    for topic, name in (("hub's errors", "internal_errors"), ("services", "service_failures")):
        if numbers[name]:
            told = ", ".join(f"{number} at {place}" for place, number in numbers[name].items())
            yield Finding(topic, WARNING, f"{told}: send a report (trio-hub report)")


def now() -> datetime:
    return datetime.now(UTC)
