"""Secrets of providers: given in the configuration, or read from a file (a systemd credential) or the environment."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pydantic import SecretStr

from oracle.providers import errors


def read_secret(
    what: str,
    value: SecretStr | None,
    file: Path | None,
    variable: str | None,
    environ: Mapping[str, str],
) -> str | None:
    """The secret, without the line end an editor leaves behind; None where none of the three options is set.

    Raises ORC-PROVIDER-021 where it is named and not there, ORC-PROVIDER-022 where it is named twice.
    """
    named = [option for option in (value, file, variable) if option is not None]
    if not named:
        return None
    if len(named) > 1:
        raise errors.SETTINGS_INVALID(f"set only one of {what}, {what}_file and {what}_env")
    if value is not None:
        secret = value.get_secret_value()
    elif file is not None:
        try:
            secret = file.read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise errors.SECRET_MISSING(f"{what}_file {file}: {type(error).__name__}") from None
    else:
        secret = environ.get(variable or "", "")
    secret = secret.strip()
    # A key with a line break or another script inside is no HTTP header, and the error of httpx would show it.
    if not secret or not secret.isascii() or not secret.isprintable():
        raise errors.SECRET_MISSING(f"{what}: empty, or not printable ASCII")
    return secret
