"""What an engine's own exception means: the one place that knows SQLite's error numbers and PostgreSQL's SQLSTATEs."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from sqlalchemy import URL
from sqlalchemy.exc import DBAPIError, IntegrityError, SQLAlchemyError

from oracle.core.errors import ErrorCode, OracleError
from oracle.store.errors import (
    CANNOT_OPEN,
    CONFLICT,
    CONNECTION_LOST,
    DAMAGED,
    DISK_FULL,
    LOCKED,
    REFUSED_BY_SCHEMA,
    STATEMENT_FAILED,
    VALUE_REFUSED,
)

_SQLITE: Final[dict[int, ErrorCode]] = {
    sqlite3.SQLITE_BUSY: LOCKED,
    sqlite3.SQLITE_LOCKED: LOCKED,
    sqlite3.SQLITE_FULL: DISK_FULL,
    sqlite3.SQLITE_IOERR: DAMAGED,
    sqlite3.SQLITE_CORRUPT: DAMAGED,
    sqlite3.SQLITE_NOTADB: DAMAGED,
    sqlite3.SQLITE_CANTOPEN: CANNOT_OPEN,
    sqlite3.SQLITE_READONLY: CANNOT_OPEN,
    sqlite3.SQLITE_PERM: CANNOT_OPEN,
    sqlite3.SQLITE_TOOBIG: VALUE_REFUSED,
}

# By SQLSTATE, or its class: https://www.postgresql.org/docs/current/errcodes-appendix.html
_POSTGRESQL: Final[dict[str, ErrorCode]] = {
    "55P03": LOCKED,  # lock_not_available: our lock_timeout
    "57014": LOCKED,  # query_canceled: a statement_timeout of the server's
    "53100": DISK_FULL,
    "53": CONNECTION_LOST,  # too many connections, out of memory
    "40": CONFLICT,  # deadlock, serialization failure
    "57P": CONNECTION_LOST,  # the server is going down or coming up
    "25P03": CONNECTION_LOST,  # idle_in_transaction_session_timeout: we were stopped in the middle
    "08": CONNECTION_LOST,
    "28": CANNOT_OPEN,
    "3D": CANNOT_OPEN,
    "25006": CANNOT_OPEN,  # read_only_sql_transaction: a standby
    "22": VALUE_REFUSED,
    "23": REFUSED_BY_SCHEMA,
    "58": DAMAGED,
    "XX": DAMAGED,
}


def translate(error: Exception) -> Exception:
    """The coded form of what an engine raised; anything else, such as an `OracleError`, unchanged."""
    if isinstance(error, OracleError):
        return error
    cause = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    code = _code_of(error, cause)
    if code is None:
        return error
    # The first line only: PostgreSQL's DETAIL shows values, and a value can be a prompt.
    coded = code(f"{type(cause).__name__}: {str(cause).partition(chr(10))[0]}")
    coded.__cause__ = error
    return coded


def is_coded(error: BaseException, *codes: ErrorCode) -> bool:
    """Whether `error` is an `OracleError` with one of `codes`."""
    return isinstance(error, OracleError) and error.error in codes


@contextmanager
def translated() -> Iterator[None]:
    """Turn what an engine raises inside into its coded form."""
    try:
        yield
    except Exception as error:
        coded = translate(error)
        if coded is error:
            raise
        raise coded from error


@contextmanager
def opening(url: URL) -> Iterator[None]:
    """As `translated`, while a database is being opened; the URL is told without its password."""
    try:
        with translated():
            yield
    except OracleError as error:
        if error.error not in (CONNECTION_LOST, STATEMENT_FAILED):
            raise
        raise CANNOT_OPEN(f"{url.render_as_string(hide_password=True)}: {error.detail}") from error


def _code_of(error: Exception, cause: BaseException) -> ErrorCode | None:
    if isinstance(error, IntegrityError) or isinstance(cause, sqlite3.IntegrityError):
        return REFUSED_BY_SCHEMA
    if isinstance(cause, sqlite3.Error):
        # The low byte is the primary code: https://www.sqlite.org/rescode.html#pve
        number = getattr(cause, "sqlite_errorcode", None)
        return _SQLITE.get(number & 0xFF, STATEMENT_FAILED) if number is not None else STATEMENT_FAILED
    sqlstate = getattr(cause, "sqlstate", None)
    if isinstance(sqlstate, str):
        return next((_POSTGRESQL[sqlstate[:n]] for n in (5, 3, 2) if sqlstate[:n] in _POSTGRESQL), STATEMENT_FAILED)
    if isinstance(cause, OSError) or (isinstance(error, DBAPIError) and error.connection_invalidated):
        return CONNECTION_LOST
    if isinstance(cause, OverflowError | UnicodeError):
        return VALUE_REFUSED
    return STATEMENT_FAILED if isinstance(error, SQLAlchemyError) else None
