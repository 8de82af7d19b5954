"""What a database URL says."""

from __future__ import annotations

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from oracle.store.errors import URL_REFUSED


def parse(url: str) -> URL:
    """The URL of a supported engine. Raises ORC-STORE-001, without repeating the URL: it may hold a password."""
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError) as error:
        raise URL_REFUSED("it is not of the form ENGINE://…") from error
    if not is_sqlite(parsed) and parsed.get_backend_name() not in ("postgresql", "postgres"):
        raise URL_REFUSED(f"engine {parsed.get_backend_name()!r}")
    return parsed


def is_sqlite(url: URL) -> bool:
    return url.get_backend_name() == "sqlite"
