"""Takes up the connection files and the engines of an earlier hub, and saves engines and policies for the next hub."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import trio

from ..config import HubConfig
from ..config.connectionfiles import connection_paths, is_private, read_connection_files, write_private_file
from ..errors import ConfigError, ConnectionFileError
from ..hub import Hub
from ..logs import get_logger
from .places import SavedProcess
from .pooling.localgroup import LocalGroup
from .processes import boot_id

__all__ = ["EngineStateFile", "Known", "SavedEngines", "await_hearts", "engine_state_path", "take_up_connection_files"]

log = get_logger("trio_hub.runtime")

MAX_TOLD = 100
"""The maximum number of characters of a wrong entry of a file that are logged."""
WRITE_GAP = 0.05
"""Seconds between two writes of the engine state file, so that a thousand registrations need few writes."""


# Connection files


@dataclass(frozen=True)
class Known:
    """The contents of an earlier hub's connection files. Its clients and engines find this hub by them."""

    client_info: dict[str, Any]
    engine_info: dict[str, Any]
    where: Path
    """The directory of the files."""

    def is_current(self, path: Path, info: dict[str, Any]) -> bool:
        """Return whether the file need not be written: it has this content, and only its owner can read it."""
        return info in (self.client_info, self.engine_info) and is_private(path)

    @property
    def curve_serverkey(self) -> str | None:
        return self.engine_info.get("curve_serverkey") or None


def take_up_connection_files(config: HubConfig) -> tuple[HubConfig, Known | None]:
    """Return the settings, changed to the values in existing connection files, and the contents of the files.

    Without ``reuse``, or without files, return the settings as they are, and None. The files have priority over other
    settings, since clients and engines have read them. A setting that differs from the files causes a warning. Another
    key, or another setting of ``curve``, is an error.

    Raises:
        ConnectionFileError, ConfigError: The files cannot be used. The text names the files and the remedy.
    """
    if not config.reuse or config.profile_dir is None:
        return config, None
    client_file, engine_file = connection_paths(config.profile_dir, config.cluster_id)
    infos = read_connection_files(client_file, engine_file)
    if infos is None:
        return config, None
    client, engine = infos
    known = Known(client, engine, client_file.parent)
    _check_encryption(config, known)
    found: dict[str, Any] = {
        "client_ip": client["interface"].removeprefix("tcp://"),
        "engine_ip": engine["interface"].removeprefix("tcp://"),
        "location": engine["location"],
        "ssh_server": client.get("ssh") or "",
        "engine_ssh_server": engine.get("ssh") or "",
        "broadcast_ports": len(engine["broadcast"]),
        "packer": engine["pack"],
        "signature_scheme": engine["signature_scheme"],
        "key": engine["key"],
        "curve": known.curve_serverkey is not None,
    }
    if config.key not in (None, engine["key"]):
        raise ConfigError(
            f"key is set, but the connection files in {client_file.parent} have another key: unset key, or remove both "
            "files, so that the hub writes new ones"
        )
    try:
        taken_up = replace(config, **found)
    except ConfigError as error:
        raise ConnectionFileError(
            f"the connection files {client_file} and {engine_file} cannot be used again: {error}. Remove both files, "
            "so that the hub writes new ones; clients and engines then need the new files."
        ) from error
    _warn_of_differences(config, taken_up, known)
    for path in (client_file, engine_file):
        if not is_private(path):
            log.warning("others on this machine could read the key in the file; it is made private now", path=path)
    log.info("starting with the key and ports of the connection files", path=known.where)
    return taken_up, known


def _check_encryption(config: HubConfig, known: Known) -> None:
    """Raise `ConfigError` if the setting ``curve`` is on or off, and the files say the opposite."""
    if config.curve in (None, known.curve_serverkey is not None):
        return
    if config.curve:
        raise ConfigError(
            f"curve is on, but the connection files in {known.where}, and the engines that have read them, belong to a "
            "hub with curve off: turn curve off, or remove both files, so that the hub writes new ones"
        )
    raise ConfigError(
        f"curve is off, but the connection files in {known.where} belong to a hub with curve on: turn curve on, or "
        "remove both files, so that the hub writes new ones"
    )


def _warn_of_differences(config: HubConfig, taken_up: HubConfig, known: Known) -> None:
    """Log a warning for each setting that has no effect, unless it has its default value."""
    default = HubConfig()
    differences = {
        "location": taken_up.location,
        "ssh_server": taken_up.ssh_server,
        "engine_ssh_server": taken_up.engine_ssh_server,
        "broadcast_ports": taken_up.broadcast_ports,
        "packer": taken_up.packer,
        "signature_scheme": taken_up.signature_scheme,
    }
    for name in ("client_ip", "engine_ip"):
        wanted = getattr(config, name) or config.ip
        if wanted not in (default.ip, getattr(taken_up, name), *_interfaces()):
            _tell_difference(known, name if getattr(config, name) else "ip", wanted, getattr(taken_up, name))
    for name, value in differences.items():
        if getattr(config, name) not in (getattr(default, name), value):
            _tell_difference(known, name, getattr(config, name), value)
    for side, info in (("client", known.client_info), ("engine", known.engine_info)):
        pool = (*getattr(config, f"{side}_ports"), *config.ports)
        names = [
            name for name, port in info.items() if type(port) is int and (side == "engine" or name != "registration")
        ]
        outside = sorted({info[name] for name in names} - set(pool)) if pool else []
        if outside:
            _tell_difference(known, f"{side}_ports or ports", "a pool", outside)


def _interfaces() -> list[str]:
    """Return the names of this machine's interfaces. The connection files have addresses instead of these names."""
    return [name for _, name in socket.if_nameindex()]


def _tell_difference(known: Known, setting: str, value: object, found: object) -> None:
    log.warning(
        "a setting has no effect, since the connection files differ from it; to use the setting, remove both files",
        setting=setting,
        value=value,
        found=found,
        path=known.where,
    )


# Engines


@dataclass(frozen=True)
class SavedEngines:
    """The engines of a hub: their uuids by id, the next id, and the engines' hosts and process ids (``places``), by id.

    ``local`` are the processes of local engines, by process id, and ``boot`` is the boot of the system in which they
    run (`trio_hub.runtime.processes.boot_id`).

    ``offers`` are the tags and amounts of engines, by uuid, and ``policies`` those that were added to the running hub.
    ``work`` says which engines are drained, when they leave, and which interrupts they understand
    (`trio_hub.hub.workcontrol.WorkControl.saved`).

    ``gone`` are the uuids, by id, of lost engines that may come back, and of engines that have their ids but whose
    hearts have not been heard yet. Engines that were unregistered are not among them: their ids are free for other
    engines.
    """

    engines: dict[int, str]
    next_id: int
    places: Mapping[int, Sequence[Any]]
    local: dict[int, SavedProcess] = field(default_factory=dict)
    boot: str = ""
    gone: dict[int, str] = field(default_factory=dict)
    offers: dict[str, Any] = field(default_factory=dict)
    policies: list[Any] = field(default_factory=list)
    work: dict[str, Any] = field(default_factory=dict)


def engine_state_path(profile_dir: Path, cluster_id: str) -> Path:
    """Return the path of the engine state file, which is also ipcontroller's path for it."""
    return profile_dir / "log" / f"engines{cluster_id}.json"


def read_engine_state(path: Path) -> SavedEngines | None:
    """Return the content of an engine state file; None if there is no file, or, with a warning, if it is unreadable."""
    try:
        state = json.loads(path.read_bytes())
        engines = dict(_rows(path, state["engines"]))
        gone = dict(_rows(path, state.get("gone", {})))
        places = {engine_id: place for engine_id, place in _rows(path, state.get("places", {})) if _is_place(place)}
        next_id = state["next_id"]
        if type(next_id) is not int or next_id < 0:
            log.warning("the next engine id in the file is not an id", path=path, next_id=next_id)
            next_id = 0
        local = {pid: SavedProcess(**process) for pid, process in _rows(path, state.get("local", {}))}
        offers, policies = dict(state.get("offers", {})), list(state.get("policies", []))
        work = dict(state.get("work", {}))
    except FileNotFoundError:
        return None
    except OSError as error:
        log.warning("no engines are restored: the file cannot be read", path=path, error=error.strerror or error)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        log.warning("no engines are restored: the file is damaged", path=path, error=f"{type(error).__name__}: {error}")
    else:
        return SavedEngines(engines, next_id, places, local, state.get("boot", ""), gone, offers, policies, work)
    return None


def _rows(path: Path, table: dict[str, Any]) -> Iterator[tuple[int, Any]]:
    """Yield the rows of a table of the file, by engine id. Skip a row whose name is not an id, with a warning."""
    for name, value in table.items():
        try:
            yield int(name), value
        except ValueError as error:
            log.warning("an engine is not restored", engine=name[:MAX_TOLD], path=path, error=error)


def _is_place(place: Any) -> bool:
    match place:
        case [str() | None, int() | None]:
            return True
    return False


class EngineStateFile:
    """Keeps a hub's engines, what they offer, and the policies that were added, in a file, for the next hub.

    Args:
        path: the path of the file.
        hub: the hub.
        changed: returns the event that is set when an engine next comes or goes.
        local: the hub's local engines.
        returning: whether engines of an earlier hub can work for this one.
    """

    def __init__(
        self, path: Path, hub: Hub, changed: Callable[[], trio.Event], local: LocalGroup, *, returning: bool
    ) -> None:
        self.path = path
        self._hub = hub
        self._changed = changed
        self._local = local
        self._returning = returning
        self._boot = boot_id()
        self._is_read = False
        self._left: SavedEngines | None = None
        self._written = self._now()  # the earlier hub's file stays until the engines change

    def _now(self) -> SavedEngines:
        engines = {engine.id: engine.uuid for engine in self._hub.engines.alive.values()}
        places = {engine.id: (engine.host, engine.pid) for engine in self._hub.engines.alive.values()}
        gone = {
            engine.id: engine.uuid
            for engine in self._hub.engines.gone
            if engine.may_return and engine.loss not in ("request", "died")
        }
        # Engines that know their ids and whose hearts the next hub will be the first to hear.
        gone |= {engine.id: engine.uuid for engine in self._hub.engines.incoming_registrations.values()}
        return SavedEngines(
            engines,
            self._hub.engines.next_engine_id,
            places,
            self._local.saved,
            self._boot,
            gone,
            self._hub.parts.offers.saved(),
            self._hub.parts.policies.added,
            self._hub.work.saved(),
        )

    def adopt(self) -> None:
        """Supervise the previous hub's local engines that still run, or end them, see `LocalGroup.adopt`."""
        state = self._before()
        if state is not None and state.boot == self._boot:
            self._local.adopt(state.local, returning=self._returning)

    def _before(self) -> SavedEngines | None:
        """Return the state that the previous hub has left. The file is read once."""
        if not self._is_read:
            self._is_read = True
            self._left = read_engine_state(self.path)
        return self._left

    def restore(self, *, expect: bool) -> None:
        """Take up the engines that the file names: at once if they are expected, else when their hearts are heard.

        An engine that has unfinished requests is expected in any case, see `trio_hub.hub.recovery`.
        """
        state = self._before()
        if state is None:
            return
        if expect:
            self._hub.restore_engines(state.engines, state.next_id)
        else:
            self._hub.remember_engines(state.engines)
        self._hub.remember_engines(state.gone)
        known = self._hub.engines
        engines = [*known.alive.values(), *known.gone]
        for engine in engines:
            engine.host, engine.pid = state.places.get(engine.id, (None, None))
        self._hub.parts.offers.restore(state.offers)
        self._hub.parts.policies.restore(state.policies)
        self._hub.work.restore(state.work)
        log.info("restored engines; their hearts are awaited", engines=len(engines), path=self.path)

    async def keep(self) -> None:
        """Write the file when engines come or go, at most once in `WRITE_GAP` seconds. Runs for ever."""
        while True:
            changed = self._changed()  # before reading the state: later changes set this event
            state = self._now()
            if state == self._written:
                await changed.wait()
                continue
            await trio.to_thread.run_sync(self._write, state)
            await trio.sleep(WRITE_GAP)

    def write(self) -> None:
        """Write the file if the engines have changed since it was written."""
        state = self._now()
        if state != self._written:
            self._write(state)

    def _write(self, state: SavedEngines) -> None:
        told = asdict(state)
        if not state.local:
            del told["local"], told["boot"]
        for name in ("gone", "offers", "policies", "work"):
            if not told[name]:
                del told[name]
        try:
            write_private_file(self.path, json.dumps(told))
        except OSError as error:  # the next change of the engines causes another attempt
            log.warning(
                "cannot write the engine state file, without which engines cannot be restored",
                kind="engine_state",
                path=self.path,
                error=error.strerror or error,
            )
        self._written = state

    def remove(self) -> None:
        """Remove the file, since no later hub will take over these engines."""
        with contextlib.suppress(OSError):
            self.path.unlink()


async def await_hearts(hub: Hub, config: HubConfig, drain_pongs: Callable[[], object]) -> None:
    """Lose the restored engines whose hearts were not heard within the registration timeout."""
    await trio.sleep(config.registration_timeout_seconds)
    drain_pongs()  # a heartbeat may be waiting to be handled
    hub.purge_unheard()
