"""SSH tunnels from an engine to the hub's ports: one ``ssh`` process, which is started again when it ends."""

from __future__ import annotations

import os
import socket as sockets
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from subprocess import PIPE

import trio

from ..errors import HubLostError
from ..logs import get_logger
from .options import EngineOptions

__all__ = ["TunnelFailed", "Tunnels"]

log = get_logger("trio_hub.engine")

OPEN_WITHIN = 30.0
"""Seconds that ``ssh`` has to log in and to open the tunnels."""
ENDS_WITHIN = 2.0
"""Seconds that ``ssh`` has to pass on the last messages, and to end."""
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
"""Seconds until tunnels that have ended are opened again, and the longest pause between two attempts."""
_READY = b"trio-hub: open"
# The command on the server says that the tunnels are open: `ssh` opens them before it runs a command. It ends when the
# engine sends a line. When the engine has died, the tunnels stay long enough for the nanny to tell the hub.
_COMMAND = f"sh -c 'echo {_READY.decode()}; read end || sleep 5'"
_OPTIONS = {
    "BatchMode": "yes",  # an engine may have no terminal at which somebody could answer a question
    "ControlPath": "none",  # otherwise the tunnels might end with another session of the user
    "ExitOnForwardFailure": "yes",
    "ServerAliveInterval": "15",
    "ServerAliveCountMax": "4",
}


class TunnelFailed(HubLostError):
    """The tunnels cannot be opened. The text says why."""


class Tunnels:
    """Tunnels to addresses of the hub. Without a server, there are no tunnels, and each address is used as it is.

    Args:
        options: the file of the SSH key, and whether paramiko makes the tunnels.
        server: the SSH server as ``[USER@]HOST[:PORT]``, or a name in ``~/.ssh/config``; empty for no tunnels.
        urls: the ZeroMQ addresses of the hub, as the server reaches them.
        opened: called each time the tunnels are open.
    """

    def __init__(
        self, options: EngineOptions, server: str, urls: Sequence[str], opened: Callable[[], None] = lambda: None
    ) -> None:
        self._options = options
        self._server = server
        self._urls = list(dict.fromkeys(urls))
        self._opened = opened
        self._local: dict[str, str] = {}
        self._process: trio.Process | None = None
        self._stdin = -1
        self._keeping = trio.CancelScope()
        self._ends: list[Callable[[], None]] = []

    @property
    def pid(self) -> int | None:
        """The process id of ``ssh``; None if there is none."""
        return None if self._process is None else self._process.pid

    def address(self, url: str) -> str:
        """Return the address at which the hub's ``url`` is reached."""
        return self._local.get(url, url)

    async def open(self) -> None:
        """Open the tunnels. Raises `TunnelFailed`."""
        if not self._server:
            return
        if self._options.paramiko:
            await trio.to_thread.run_sync(self._open_with_paramiko)
            return
        self._local = {
            url: f"tcp://127.0.0.1:{port}" for url, port in zip(self._urls, _free_ports(len(self._urls)), strict=True)
        }
        await self._start()

    async def keep(self) -> None:
        """Open the tunnels again whenever they have ended, until `close` is called. ZeroMQ connects again by itself."""
        with self._keeping:
            while (process := self._process) is not None:
                error = await _last_words(process)
                log.warning("the SSH tunnels have ended, and are opened again", server=self._server, error=error)
                pause = FIRST_PAUSE
                while self._process is process:
                    await trio.sleep(pause)
                    pause = min(2 * pause, LONGEST_PAUSE)
                    try:
                        await self._start()
                    except TunnelFailed as failed:
                        log.warning("the SSH tunnels cannot be opened", error=failed)
                log.info("the SSH tunnels are open again", server=self._server)

    async def close(self) -> None:
        """Close the tunnels after they have passed on everything that was sent. The sockets must be closed already."""
        self._keeping.cancel()
        for end in self._ends:
            end()
        if self._process is not None:
            with suppress(BrokenPipeError):  # it has ended
                os.write(self._stdin, b"\n")
            os.close(self._stdin)
            with trio.move_on_after(ENDS_WITHIN, shield=True):
                await self._process.wait()
            if self._process.returncode is None:
                self._process.kill()
            self._process = None

    async def _start(self) -> None:
        """Start ``ssh``, and wait until the tunnels are open. Raises `TunnelFailed`."""
        read, write = os.pipe()
        try:
            # In a session of its own, since signals for the engine and its process group are not for the tunnels.
            process = await trio.lowlevel.open_process(
                self._command(), stdin=read, stdout=PIPE, stderr=PIPE, start_new_session=True
            )
        except OSError as error:
            os.close(write)
            raise TunnelFailed(f"ssh cannot be started: {error.strerror}. Is OpenSSH's client installed?") from error
        finally:
            os.close(read)
        said, opened = b"", False
        try:
            assert process.stdout is not None
            with trio.move_on_after(OPEN_WITHIN) as limit:
                while not opened and (more := await process.stdout.receive_some()):
                    said = said[-len(_READY) :] + more
                    opened = _READY in said
                if not opened:
                    raise TunnelFailed(f"no SSH tunnels through {self._server}: {await _last_words(process)}")
            if limit.cancelled_caught:
                raise TunnelFailed(f"no SSH tunnels through {self._server}: no answer within {OPEN_WITHIN:g} s")
        except BaseException:
            os.close(write)
            process.kill()
            raise
        if self._stdin >= 0:
            os.close(self._stdin)
        self._process, self._stdin = process, write
        self._opened()

    def _command(self) -> list[str]:
        server, colon, port = self._server.rpartition(":")
        if not (colon and port.isdecimal() and ":" not in server):
            server, port = self._server, ""
        command = ["ssh", "-T", *(f"-o{name}={value}" for name, value in _OPTIONS.items())]
        if self._options.ssh_key:
            command += ["-i", self._options.ssh_key]
        if port:
            command += ["-p", port]
        for url, local in self._local.items():
            command += ["-L", f"{local.removeprefix('tcp://')}:{url.partition('://')[2]}"]
        return [*command, "--", server, _COMMAND]

    def _open_with_paramiko(self) -> None:
        from zmq.ssh import tunnel

        for url in self._urls:
            try:
                self._local[url], process = tunnel.open_tunnel(
                    url, self._server, keyfile=self._options.ssh_key or None, paramiko=True
                )
            except Exception as error:  # paramiko has many
                raise TunnelFailed(f"no SSH tunnels through {self._server}: {error}") from error
            self._ends.append(process.terminate)


async def _last_words(process: trio.Process) -> str:
    """Wait until ``ssh`` ends, and return the last line that it has written to stderr, or how it ended."""
    assert process.stderr is not None
    said = b""
    async for more in process.stderr:  # it has to be read, since ssh reports each connection that the hub refuses
        said = (said + more)[-2000:]
    status = await process.wait()
    lines = said.decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else f"ssh has ended with status {status}"


def _free_ports(number: int) -> list[int]:
    """Return different ports of 127.0.0.1 on which nobody listens now."""
    with ExitStack() as stack:
        ports = []
        for _ in range(number):
            socket = stack.enter_context(sockets.socket())
            socket.bind(("127.0.0.1", 0))
            ports.append(int(socket.getsockname()[1]))
        return ports
