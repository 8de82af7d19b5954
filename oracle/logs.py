"""structlog, set up once a process: key-values for people, JSON for machines, secrets for nobody.

What libraries log through the standard module goes the same way, so that a log is one format and one rule throughout.
"""

from __future__ import annotations

import contextlib
import logging
import re
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any, Final, TextIO, cast

import structlog
from solders.keypair import Keypair

from oracle.config import Log
from oracle.core.text import harmless

HIDDEN: Final = "***"

# A last line of defence: names under which a secret could slip into an event.
_SECRET_NAMES = re.compile(
    r"(api_?key|secret|password|passphrase|authorization|private_?key|keypair|mnemonic|jwt)", re.IGNORECASE
)
# Keys ride in URLs, as a path segment, in the query or before the host: only scheme and host are ever shown. Whatever
# stands before the last @ is dropped, since a password may hold any character.
_URL = re.compile(r"\b([a-z][a-z0-9+.-]{0,20}://)(?:\S*@)?([^/\s?#@]+)(\S*)", re.IGNORECASE)
_BEARER = re.compile(r"\b(Bearer|Basic) +[^\s'\"]+", re.IGNORECASE)
_MANY_LINES: Final = ("exception", "stack")
_PLAIN: Final = (bool, int, float, type(None))


def set_up(settings: Log, stream: TextIO | None = None) -> None:
    """Log to stderr: stdout belongs to what a command prints."""
    stream = cast("TextIO", _Unfailing(stream or sys.stderr))
    stamp = structlog.processors.TimeStamper(fmt="iso", utc=True)
    last = [structlog.processors.format_exc_info, redact, _renderer(settings, stream)]
    structlog.configure(
        processors=[structlog.contextvars.merge_contextvars, structlog.processors.add_log_level, stamp, *last],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, settings.level.upper())),
        logger_factory=structlog.PrintLoggerFactory(file=stream),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_log_level, structlog.stdlib.add_logger_name, stamp],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    # Of libraries warnings only, and of httpx nothing: it logs whole URLs.
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.getLogger("httpx").setLevel(logging.CRITICAL)


class _Unfailing:
    """A stream that loses what it cannot write. The work must go on without its log: a full disk, or a reader that has
    left, would else end one loop of the daemon after the other, and nothing could tell of it."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            self._stream.flush()


def redact(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Hide values whose name speaks of a secret, and everything of a URL but scheme and host; however deep."""
    return {name: _cleaned(name, value) for name, value in event.items()}


def _cleaned(name: str, value: Any) -> Any:
    if value is not None and _SECRET_NAMES.search(name):
        return HIDDEN
    match value:
        case str():
            return _cleaned_text(name, value)
        case Keypair():
            return HIDDEN  # both its str and its repr are the secret key
        case bytes() | bytearray() | memoryview():
            return f"<{len(value)} bytes>"
        case Mapping():
            return {str(key): _cleaned(str(key), item) for key, item in value.items()}
        case list() | tuple() | set() | frozenset():
            return [_cleaned(name, item) for item in value]
        case _:
            return value if isinstance(value, _PLAIN) else _cleaned_text(name, str(value))


def _cleaned_text(name: str, text: str) -> str:
    if "://" in text and name != "base_uri":
        text = _URL.sub(lambda url: f"{url[1]}{url[2]}{'/…' if url[3] not in ('', '/') else url[3]}", text)
    text = _BEARER.sub(rf"\1 {HIDDEN}", text)
    return harmless(text, keep="\n\t" if name in _MANY_LINES else "")


def _renderer(settings: Log, stream: TextIO) -> Any:
    if settings.format == "json" or (settings.format == "auto" and not stream.isatty()):
        return structlog.processors.JSONRenderer(ensure_ascii=False)
    # The default would print the locals of every frame with an exception, keys among them.
    return structlog.dev.ConsoleRenderer(colors=stream.isatty(), exception_formatter=structlog.dev.plain_traceback)
