"""structlog, set up once a process: key-values for people, JSON for machines, secrets for nobody."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any, TextIO

import structlog

from oracle.config import Log

# A last line of defence: names under which a secret could slip into an event.
_SECRET_NAMES = re.compile(r"(api_?key|secret|password|authorization|private_?key|keypair|jwt)", re.IGNORECASE)
# Keys ride in URLs, as a path segment or in the query: of a URL only scheme and host are ever shown.
_URL = re.compile(r"\b((?:https?|wss?|postgresql[+\w]*)://)(?:[^/\s@]*@)?([^/\s?#]+)[^\s]*")


def set_up(settings: Log, stream: TextIO | None = None) -> None:
    """Log to stderr: stdout belongs to what a command prints."""
    stream = stream or sys.stderr
    as_json = settings.format == "json" or (settings.format == "auto" and not stream.isatty())
    renderer: Any = structlog.processors.JSONRenderer() if as_json else structlog.dev.ConsoleRenderer()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            redact,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, settings.level.upper())),
        logger_factory=structlog.PrintLoggerFactory(file=stream),
        cache_logger_on_first_use=True,
    )
    # Libraries log by the standard module: warnings only, and httpx never, for it logs whole URLs.
    logging.basicConfig(stream=stream, level=logging.WARNING, format="%(levelname)s %(name)s %(message)s", force=True)
    logging.getLogger("httpx").setLevel(logging.CRITICAL)


def redact(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Hide values whose name speaks of a secret, and everything of a URL but scheme and host."""
    for name, value in event.items():
        if _SECRET_NAMES.search(name) and value is not None:
            event[name] = "***"
        elif isinstance(value, str) and "://" in value and name != "base_uri":
            event[name] = _URL.sub(r"\1\2/…", value)
    return event
