"""Connections to a PostgreSQL server: addresses, connecting again, and errors with their remedies."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeAlias

from ...errors import ConfigError, StoreError
from ..columns import text_column

if TYPE_CHECKING:
    import psycopg

__all__ = ["Address", "Connection", "LastingConnection", "reason"]

Connection: TypeAlias = "psycopg.Connection[tuple[Any, ...]]"

_FORM = "postgresql://USER:PASSWORD@HOST:PORT/DATABASE"
# Settings of the client's side. A cut network is noticed within a minute, not after the system's two hours.
_DEFAULTS = {
    "connect_timeout": 10,
    "keepalives": 1,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,
}
# Settings of the server's side, so that a dead connection does not keep its locks, for which later ones would wait.
_SETTINGS = {
    "timezone": "UTC",
    "client_min_messages": "warning",
    "jit": "off",
    "tcp_keepalives_idle": "30",
    "tcp_keepalives_interval": "10",
    "tcp_keepalives_count": "3",
}


class Address:
    """The address of a database, from its URL.

    ``str`` returns the URL without password and parameters.

    Raises:
        ConfigError: The URL cannot be read, or psycopg is not installed.
    """

    def __init__(self, url: str, *, application: str) -> None:
        try:
            import psycopg
            from psycopg.conninfo import conninfo_to_dict
        except ImportError as error:
            raise ConfigError(
                f"a task database in PostgreSQL needs psycopg, which cannot be loaded ({error}); "
                "install it with: pip install 'psycopg[binary]'"
            ) from error
        if not url.startswith(("postgresql://", "postgres://")):
            raise _unreadable(url)
        try:
            named = conninfo_to_dict(url)
        except psycopg.Error:
            raise _unreadable(url) from None  # the error quotes parts of the URL, perhaps of the password
        host, database = str(named.get("host") or ""), str(named.get("dbname") or "")
        ports = str(named.get("port") or "").split(",")
        # An unescaped @, / or ? ends the password, and the rest of the password is taken for another part of the URL.
        stray = "@" in host or ("@" in database and not named.get("user"))
        if stray or any(port and not port.isdecimal() for port in ports):
            raise _unreadable(url)
        # PostgreSQL keeps 63 bytes of an application's name.
        name = text_column(application).encode("ascii", "replace").decode()[:63]
        self.parameters: dict[str, Any] = {**_DEFAULTS, "application_name": name, **named, "client_encoding": "UTF8"}
        user = f"{named['user']}@" if named.get("user") else ""
        port_text = f":{named['port']}" if named.get("port") else ""
        self._shown = f"postgresql://{user}{host}{port_text}/{database}"

    def __str__(self) -> str:
        return self._shown


def _unreadable(url: str) -> ConfigError:
    shown = re.sub(r"(://).*@", r"\1…@", url, flags=re.DOTALL)
    shown = re.sub(r"(password=)[^&]*", r"\1…", shown)
    return ConfigError(
        f"{shown!r} is no URL of a PostgreSQL database; write it like {_FORM}, with special characters of the password "
        "as %40 (@), %3A (:), %2F (/), %3F (?), %25 (%)"
    )


class LastingConnection:
    """A connection to the server that is opened when it is needed, and opened again after it was lost.

    Args:
        address: The address of the database.
        settings: Settings of the session, besides those of all connections.
        prepare: Called with each new connection, in a separate transaction.
        snapshot: Whether each transaction is read-only, and sees the database as it was at its first query.
    """

    def __init__(
        self,
        address: Address,
        settings: dict[str, str],
        prepare: Callable[[Connection], None],
        *,
        snapshot: bool = False,
    ) -> None:
        self.address = address
        self._settings = _SETTINGS | settings
        self._prepare = prepare
        self._snapshot = snapshot
        self._connection: Connection | None = None

    @property
    def is_open(self) -> bool:
        return self._connection is not None

    def open(self) -> Connection:
        """Return the connection, outside of a transaction. Raises `psycopg.Error`, and the errors of ``prepare``."""
        if self._connection is not None:
            return self._connection
        import psycopg

        connection = psycopg.connect(**self.address.parameters, autocommit=True)
        try:
            chosen = ", ".join("set_config(%s, %s, false)" for _ in self._settings)
            values = [text for setting in self._settings.items() for text in setting]
            connection.execute(f"SELECT {chosen}".encode(), values)
            connection.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
            connection.autocommit = False
            self._prepare(connection)
            connection.commit()
            if self._snapshot:
                connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
                connection.read_only = True
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        return connection

    @contextmanager
    def call(self, *, ends: bool = True, writes: bool = False) -> Iterator[Connection]:
        """Give the connection for one call. Uncommitted changes are rolled back at its end, unless ``ends`` is false.

        Raises:
            ValueError: Instead of a `psycopg.Error`: the call ``writes``, and a value can never be written.
            StoreError: Instead of any other `psycopg.Error`.
        """
        import psycopg

        try:
            connection = self.open()
            yield connection
            if ends:
                connection.rollback()
        except psycopg.Error as error:
            # psycopg may not have noticed yet that a connection broke. If the server accepts no writes, another server
            # may have taken over.
            broken = isinstance(error, psycopg.OperationalError | psycopg.InterfaceError) and (
                error.sqlstate is None or error.sqlstate.startswith(("08", "57P"))
            )
            if broken or isinstance(error, psycopg.errors.ReadOnlySqlTransaction):
                self.close()
            else:
                self.rollback()
            if writes and _is_fault_of_a_value(error):
                raise ValueError(f"the database {self.address} refuses the value: {reason(error)}") from error
            raise StoreError(told(error, self.address)) from error
        except Exception:
            self.rollback()
            raise
        except BaseException:
            # An interruption, perhaps in the middle of an exchange with the server.
            self.close()
            raise

    def rollback(self) -> None:
        """End the transaction. Never raises."""
        import psycopg

        if self._connection is None:
            return
        try:
            self._connection.rollback()
        except psycopg.Error:
            self.close()
        else:
            if self._connection.closed:
                self.close()

    def interrupt(self) -> None:
        """Make another thread's use of the connection end soon, with an error. Never raises."""
        import psycopg

        connection = self._connection
        if connection is not None:
            with suppress(psycopg.Error, OSError):
                connection.cancel()

    def close(self) -> None:
        """Close the connection; the next call opens another. Never raises."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


def told(error: psycopg.Error, address: Address) -> str:
    """Return the text of the error for a failed call, with the reason and the remedy."""
    from psycopg import errors

    if error.sqlstate is None or isinstance(
        error, errors.AdminShutdown | errors.CrashShutdown | errors.CannotConnectNow
    ):
        remedy = "check that it runs and can be reached"
    elif isinstance(error, errors.QueryCanceled):
        remedy = "the hub or somebody else has interrupted it"
    elif isinstance(error, errors.DiskFull | errors.OutOfMemory):
        remedy = "free some space or memory on the server"
    elif isinstance(error, errors.InsufficientPrivilege):
        remedy = "give its user the right to read and write the tables in the schema trio_hub"
    elif isinstance(error, errors.UndefinedTable | errors.UndefinedColumn | errors.InvalidSchemaName):
        remedy = "somebody removed or changed the tables in the schema trio_hub: restart the hub, which creates them"
    elif isinstance(error, errors.ReadOnlySqlTransaction):
        remedy = "the server must accept writes: point the hub at the primary server"
    else:
        remedy = "see its log"
    return (
        f"the database {address} cannot be used now: {reason(error)} ({remedy}; "
        "until then the hub keeps the records in memory, and tries again)"
    )


def _is_fault_of_a_value(error: psycopg.Error) -> bool:
    import psycopg
    from psycopg import errors

    too_large = errors.ProgramLimitExceeded | errors.InternalError_  # for a row, or the server's memory management
    by_the_server = isinstance(error, psycopg.DataError | errors.CannotCoerce | errors.DatatypeMismatch | too_large)
    by_the_driver = isinstance(error, psycopg.ProgrammingError | psycopg.NotSupportedError) and error.sqlstate is None
    return by_the_server or by_the_driver


def reason(error: Exception) -> str:
    """Return the message of the server, or of the client's library, in one line."""
    primary = getattr(getattr(error, "diag", None), "message_primary", None)
    return " ".join(str(primary or error).split())
