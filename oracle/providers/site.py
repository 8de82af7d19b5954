"""What every provider is put together from besides its own settings: its name, prices, secrets, and the way out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import httpx
from pydantic import BaseModel

from oracle.core.purchase import ChainAccess
from oracle.providers import errors
from oracle.providers.failures import OPENAI_DIALECT, Dialect
from oracle.providers.http import Http, Timeouts
from oracle.providers.pace import Pace
from oracle.providers.pricing import Rates
from oracle.providers.secrets import read_secret
from oracle.providers.settings import ChattingSettings, HttpSettings, RentedSettings


@dataclass(frozen=True, slots=True)
class Site:
    """`chain` is for those that are paid on it; `transport` replaces the network in tests."""

    name: str
    rates: Rates
    chain: ChainAccess | None
    transport: httpx.AsyncBaseTransport | None
    environ: Mapping[str, str]

    def secret(self, settings: BaseModel, option: str) -> str | None:
        """What `option`, `option_file` or `option_env` holds; None where none is set. Raises ORC-PROVIDER-021."""
        direct, file, variable = (getattr(settings, option + how, None) for how in ("", "_file", "_env"))
        return read_secret(option, direct, file, variable, self.environ)

    def needed_secret(self, settings: BaseModel, option: str, who: str) -> str:
        """Raises ORC-PROVIDER-022 where none is set: `who` cannot do without."""
        if (secret := self.secret(settings, option)) is None:
            raise errors.SETTINGS_INVALID(f"{self.name}: {who} needs {'an' if option[0] in 'aeiou' else 'a'} {option}")
        return secret

    def http(
        self,
        base_url: str,
        settings: HttpSettings,
        headers: Mapping[str, str | None],
        key: str | None,
        dialect: Dialect = OPENAI_DIALECT,
    ) -> Http:
        return Http(
            self.name,
            base_url,
            pace=Pace(per_second=settings.requests_per_second, at_once=_calls_at_once(settings)),
            headers={header: value for header, value in headers.items() if value},
            secrets=(key,) if key else (),
            timeouts=Timeouts(connect=settings.connect_seconds, silence=settings.silence_seconds),
            max_answer_bytes=settings.max_answer_bytes,
            dialect=dialect,
            transport=self.transport,
        )


def bearer(key: str | None) -> dict[str, str | None]:
    return {"Authorization": f"Bearer {key}" if key else None}


def _calls_at_once(settings: HttpSettings) -> int:
    """A few more than jobs, so that a long job does not keep a question about models or balance waiting."""
    return settings.max_concurrent_jobs + 4 if isinstance(settings, ChattingSettings | RentedSettings) else 8
