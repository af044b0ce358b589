"""`serve_hub`: runs a hub as a Trio task."""

from __future__ import annotations

import random
import secrets
from collections import Counter
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial

import trio

from ..config import HubConfig
from ..config.connectionfiles import ENGINE_CHANNELS, remove_connection_file, write_connection_file
from ..databases.filesystems import warn_of_network_file_systems
from ..databases.sentresults import SentResultsFile
from ..errors import ConfigError, HubError, StoreError, WireError
from ..hub import Hub
from ..hub.events import HubStopping
from ..logs import get_logger
from ..records import Store
from ..services import Failures, going_on, keep_running
from ..wire.messages import Session
from .about import about_request
from .connections import WATCHER, Connections
from .curvekeys import keep_key, remove_key
from .dask import DaskSupervisor
from .database import open_database, open_sent_results
from .descriptors import DescriptorGuard
from .factory import HubFactory
from .heartbeat import HEART_ANSWER, Heartbeat
from .host import RuntimeHost, carry_out
from .localmaking import local_engines
from .pooling import HubPools
from .profilelock import ProfileLock, lock_profile
from .reach import warn_of_pools_out_of_reach
from .restore import EngineStateFile, Known, await_hearts, engine_state_path, take_up_connection_files
from .running import RunningHub
from .security import secure
from .seen import SeenMessages, open_seen

__all__ = ["RunningHub", "serve_hub"]

log = get_logger("trio_hub.runtime")

USAGE_PERIOD = 10.0
"""Seconds between the reports of what engines use, for which a hub with a dashboard asks."""
STATE_FILE = "engine state file"
"""The name of the service that writes the engine state file."""
LAST_WORDS = 1.0 + 2 * HEART_ANSWER
"""Seconds for which the hub waits for nannies to report the end of local engines, and asks the engines' hearts."""
LINGER = 1000
"""Milliseconds within which the last replies must leave when the hub stops."""
RELEASE_LIMIT = 15.0
"""Seconds within which ZeroMQ must then release its connections."""


async def serve_hub(
    config: HubConfig | None = None, *, task_status: trio.TaskStatus[RunningHub] = trio.TASK_STATUS_IGNORED
) -> None:
    """Run a hub until it is asked to stop, or cancelled.

    ``hub = await nursery.start(serve_hub, HubConfig(...))`` returns a `RunningHub` when all sockets are bound and the
    connection files are written. Several hubs can run in one process. However the hub ends, it leaves no task, thread,
    socket, descriptor or file behind, except, with ``reuse``, the files for the next hub. When the hub is asked to stop
    or is cancelled, it first answers the clients that still wait.

    Raises:
        ConfigError: An address, port, key, database or other setting cannot be used.
        ConnectionFileError: The connection files cannot be written, or cannot be used again.
        HubError: The hub failed. Its cause is the error, or the group of errors.
    """
    config = config or HubConfig()
    try:
        await _serve(config, task_status)
    except BaseExceptionGroup as group:
        error = _single_cause(group) or group
        if isinstance(error, HubError):
            raise error from error.__cause__
        if isinstance(error, Exception):
            raise _failure(error) from error
        raise  # the group contains a cancellation or a KeyboardInterrupt
    except HubError:
        raise
    except Exception as error:
        raise _failure(error) from error


def _failure(error: Exception) -> HubError:
    return HubError(f"the hub failed: {type(error).__name__}: {error}")


def _single_cause(group: BaseExceptionGroup[BaseException]) -> BaseException | None:
    """Return the only error in a group, at any depth; None if the group has several exceptions."""
    if len(group.exceptions) != 1:
        return None
    error = group.exceptions[0]
    return _single_cause(error) if isinstance(error, BaseExceptionGroup) else error


async def _serve(config: HubConfig, task_status: trio.TaskStatus[RunningHub]) -> None:
    lock = await lock_profile(config)  # before anything is read or written there
    try:
        await _serve_profile(config, lock, task_status)
    finally:
        if lock is not None:
            lock.release()


async def _serve_profile(config: HubConfig, lock: ProfileLock | None, task_status: trio.TaskStatus[RunningHub]) -> None:
    warn_of_network_file_systems(config)
    config, known = take_up_connection_files(config)
    warn_of_pools_out_of_reach(config)
    key = config.key if config.key is not None else secrets.token_hex(16)
    security = secure(config, known)
    factory = HubFactory(config, key, security, known)
    failures: Failures = Counter()
    try:
        store = await open_database(config, _now, failures)
    except BaseException:
        factory.release()  # the factory has no sockets yet, so this does not wait
        raise
    running: RunningHub | None = None
    host: RuntimeHost | None = None
    state_file: EngineStateFile | None = None
    sent_results: SentResultsFile | None = None
    seen: SeenMessages | None = None
    session = Session(
        key.encode(),
        session_id=secrets.token_hex(16),
        now=_now,
        packer=config.packer,
        scheme=config.signature_scheme,
    )
    try:
        sent_results = open_sent_results(config, store)
        factory.bind()
        started = _now()
        seen = open_seen(config, session, started)  # after binding: a hub that has the ports may be using it
        # Services outlive their users: local engines are stopped before the channels that they use are closed.
        async with trio.open_nursery() as services:
            host = RuntimeHost(config, factory.channels, factory.receiver, services, failures)
            host.hub = hub = Hub(
                host,
                session,
                store,
                random.Random(),
                now=_now,
                heart_token=secrets.token_hex(8).encode(),
                hwm=config.hwm,
                scheme=config.scheme,
                unmet_timeout=config.unmet_timeout,
                policies=config.policies,
                max_heartmonitor_misses=config.max_heartmonitor_misses,
                hb_period=round(1000 * config.ping),
                # only the addresses, not the key: these messages may not be encrypted
                engine_info={name: factory.engine_info[name] for name in ("interface", *ENGINE_CHANNELS)},
                usage_period=USAGE_PERIOD if config.dashboard is not None else 0.0,
                broadcast_channels=factory.broadcast_channels,
                strict=config.durability == "strict",
                queue_memory=config.queue_memory,
                sent_results=sent_results,
                forgotten=seen.forgotten if seen is not None else None if config.key is None else started,
            )
            factory.publishers["notification"].greet = hub.engines.changes.client_subscribed
            host.connections = Connections(
                {name: factory.channels[name] for name in factory.monitors},
                factory.monitors,
                host.connection_lost,
                failures,
            )
            host.local_engines = local = local_engines(host, factory, security, config)
            host.pools = HubPools(
                config,
                hub,
                local,
                engine_info=factory.engine_info,
                failures=failures,
                tell=host.tell,
                changed=host.tell_change,
            )
            if seen is not None:
                seen.follow(hub.admission.freshness.latest)
            running = RunningHub(config, factory, host)
            hub.query_handlers["about_request"] = partial(about_request, running)
            services.start_soon(store.run, name="task database")
            keep_key(config, security.hub_keys)  # before the connection files, which have its public key
            _write_connection_files(running, known)
            try:
                state_file = await _take_over(services, host, factory, config)
            except StoreError as error:  # at the start, the user has to change the setting
                raise ConfigError(f"db: {error}") from error
            _start_services(services, host, factory, config)
            async with trio.open_nursery() as users:
                host.dask = DaskSupervisor(users, factory.bound_config, host.hurried, failures=failures)
                services.start_soon(_hurry, host)  # a service, since it is needed while engines are stopped
                users.start_soon(local.run, name="local engines")
                users.start_soon(host.pools.run, name="pools")
                log.info("hub is listening", address=factory.client_url("registration"))
                task_status.started(running)
                await host.stop_requested.wait()
                log.info("hub stops", reason=host.stop_reason)
                leaving = host.pools.leaving()
                staying = len(hub.engines.alive) - local.registered - len(leaving)
                _stop_serving(host, config)
                users.cancel_scope.cancel()
            if config.reuse:
                await _hear_last_words(host, staying)
                for engine in leaving:
                    hub.lose_engine(engine, "ended", "its block was cancelled, since the hub stops")
            services.cancel_scope.cancel()
    finally:
        with trio.CancelScope(shield=True):
            try:
                await _close(config, factory, store, running, host, state_file, seen, lock)
            finally:
                if seen is not None:
                    seen.close()
                if sent_results is not None:
                    sent_results.close()


async def _take_over(
    services: trio.Nursery, host: RuntimeHost, factory: HubFactory, config: HubConfig
) -> EngineStateFile | None:
    """Take over the engines and requests of the previous hub, with ``reuse``, and keep the engine state file."""
    hub = host.hub
    state_file = None
    if config.profile_dir is not None:
        path = engine_state_path(config.profile_dir, config.cluster_id)
        state_file = EngineStateFile(
            path, hub, lambda: host.engines_changed, host.local_engines, returning=config.reuse
        )
        state_file.adopt()
        if config.reuse:
            state_file.restore(expect=config.restore)
    host.pools.restore()
    if hub.store.durable:
        if config.reuse:
            taken_over = await carry_out(hub.recovery.take_over())
            if taken_over:
                log.info("carrying on with unfinished requests of the previous hub", requests=taken_over)
        else:
            written_off = await carry_out(hub.recovery.write_off())
            if written_off:
                log.error(
                    "unfinished requests of the previous hub have failed: this hub was not started with restore or "
                    "reuse",
                    requests=written_off,
                )
    if hub.engines.alive:
        services.start_soon(await_hearts, hub, config, partial(factory.channels["hb_pong"].drain, held=True))
    if state_file is not None:
        services.start_soon(keep_running, STATE_FILE, state_file.keep, host.failures, name=STATE_FILE)
    return state_file


async def _hurry(host: RuntimeHost) -> None:
    await host.hurried.wait()
    host.local_engines.hurry()
    host.pools.hurry()


async def _hear_last_words(host: RuntimeHost, left: int) -> None:
    """Wait until the nannies of the ended local engines have unregistered them, and only ``left`` engines remain.

    Otherwise the next hub would expect these engines; or it would get the nannies' messages, and could unregister its
    own engines with the same ids.
    """
    with trio.move_on_after(LAST_WORDS):
        while len(host.hub.engines.alive) > left:
            await host.engines_changed.wait()


def _start_services(services: trio.Nursery, host: RuntimeHost, factory: HubFactory, config: HubConfig) -> None:
    """Start the hub's own tasks: the receiver of messages, the heartbeat, and the watchers of connections."""
    hub, channels = host.hub, factory.channels
    channels["query"].handle = hub.dispatch_query
    for name in hub.monitor_handlers:
        channels[name].handle = partial(hub.dispatch_monitor_traffic, name)
    for name, channel in channels.items():
        channel.refused = partial(_refused, hub, name)
    host.heartbeat = heartbeat = Heartbeat(hub, channels["hb_ping"], channels["hb_pong"], config.ping, host.connections)
    for gatekeeper in factory.gatekeepers:
        gatekeeper.counts = hub.notices.ignored
    receiving = [gatekeeper.channel for gatekeeper in factory.gatekeepers]
    receiving += [monitor.channel for monitor in factory.monitors.values()]
    receiving += [channel for channel in channels.values() if channel.handle is not None]
    for name, publisher in factory.publishers.items():
        publisher.counts = hub.notices.ignored
        receiving.append(publisher.monitor.channel)
        services.start_soon(publisher.keep_sending, name=f"{name}: what waits")
    for channel in receiving:
        host.receiver.add(channel)
    services.start_soon(host.receiver.run, name="messages")
    services.start_soon(heartbeat.beat, name="heartbeat")
    services.start_soon(heartbeat.keep_asking, name="questions to hearts")
    descriptors = DescriptorGuard(factory.ports)
    services.start_soon(keep_running, "file descriptors", descriptors.run, host.failures, name="file descriptors")
    for watcher in (host.connections.tell, host.connections.release):
        services.start_soon(keep_running, WATCHER, watcher, host.failures, name=WATCHER)


def _refused(hub: Hub, channel: str, frames: int) -> None:
    hub.notices.unreadable(channel, WireError("too_many_frames", f"a message of {frames} frames"))


def _write_connection_files(running: RunningHub, known: Known | None) -> None:
    for path, info in ((running.client_file, running.client_info), (running.engine_file, running.engine_info)):
        if path is not None and (known is None or not known.is_current(path, info)):
            write_connection_file(path, info)


async def _close(
    config: HubConfig,
    factory: HubFactory,
    store: Store,
    running: RunningHub | None,
    host: RuntimeHost | None,
    state_file: EngineStateFile | None,
    seen: SeenMessages | None,
    lock: ProfileLock | None,
) -> None:
    """Answer waiting clients, flush the records, and release everything, within the grace."""
    try:
        if running is not None and host is not None:
            _take_leave(running, host, state_file)
            with trio.move_on_after(config.stop_grace), suppress(StoreError):
                # after each commit, a strict hub sends answers, which change further records
                await store.flush_all()
    finally:
        factory.close_sockets(LINGER)
        if seen is not None:  # no more messages are read, and the next hub may start as soon as this one has stopped
            seen.close(keep=running is None or config.reuse or config.key is not None)
        try:
            with trio.move_on_after(config.stop_grace):
                await store.aclose()
        finally:
            await _release(factory)
            if lock is not None:  # before this hub counts as stopped, since the next hub may start then
                lock.release()
            if running is not None:
                running.mark_stopped()


async def _release(factory: HubFactory) -> None:
    """Release ZeroMQ's threads, in a thread: this blocks until the last replies have left, at most `LINGER` ms.

    If it blocks for longer than `RELEASE_LIMIT`, ZeroMQ's threads stay until the process ends. A hub that does not end
    would be worse.
    """
    with trio.move_on_after(RELEASE_LIMIT) as limit:
        await trio.to_thread.run_sync(factory.release, abandon_on_cancel=True)
    if limit.cancelled_caught:
        log.error("ZeroMQ has not released its connections in time: they end with this process", seconds=RELEASE_LIMIT)


def _take_leave(running: RunningHub, host: RuntimeHost, state_file: EngineStateFile | None) -> None:
    """Remove the files, unless the next hub uses them, answer clients, and end the streams of events."""
    host.stop(host.stop_reason or "cancelled")
    with going_on("removal of files", host.failures):  # after an error, clients must still be answered
        if running.config.reuse:
            if state_file is not None:
                state_file.write()
        elif running.client_file is not None and running.engine_file is not None:
            remove_connection_file(running.client_file, running.client_info)
            remove_connection_file(running.engine_file, running.engine_info)
            remove_key(running.config, running.client_info["curve_serverkey"])
            if state_file is not None:
                state_file.remove()
    try:
        _stop_serving(host, running.config)
    finally:
        host.emit(HubStopping(host.stop_reason))
        host.end_events()
        host.tell_change()


def _stop_serving(host: RuntimeHost, config: HubConfig) -> None:
    """Answer the clients that wait, or leave that to the next hub, if one will carry on."""
    host.hub.stop_serving(carried_on=config.reuse and host.hub.store.durable and not host.for_good)


_now = partial(datetime.now, UTC)
