"""Who is not bought from now, and why: a circuit breaker for each provider, and holds for want of money."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

import structlog

from oracle.core.breaker import Breaker, BreakerTerms, Phase
from oracle.core.errors import OracleError
from oracle.core.policy import PROVIDER_PAUSED
from oracle.pipeline.fallback import Next, after, is_providers_fault
from oracle.providers import errors

log = structlog.get_logger(__name__)
_NEVER_ASKED = (errors.NOT_SENT, errors.BUSY, errors.JOB_UNKNOWN)
HOLD_SECONDS = 30.0
"""After this long, who waits for a hold to end asks again."""


class Breakers:
    """Shared by all loops of a daemon, in memory: a daemon that starts tries everybody again.

    `holds` are reasons to buy nothing, by provider; `wallet` is one for all of them.
    """

    def __init__(self, providers: Collection[str], terms: BreakerTerms, clock: Callable[[], float]) -> None:
        self.by_provider = {name: Breaker(terms) for name in providers}
        self.holds: dict[str, OracleError] = {}
        self.wallet: OracleError | None = None
        self._causes: dict[str, OracleError] = {}
        self._clock = clock

    def allows(self, provider: str) -> bool:
        breaker = self.by_provider.get(provider)
        return provider not in self.holds and (breaker is None or breaker.allows(self._clock()))

    def begin(self, provider: str) -> bool:
        """Ask for a purchase; False where none may be made. The one that may be made after a pause is a probe."""
        breaker = self.by_provider.get(provider)
        return provider not in self.holds and (breaker is None or breaker.begin(self._clock()))

    def succeeded(self, provider: str) -> None:
        breaker = self.by_provider.get(provider)
        if breaker is not None and breaker.succeeded():
            self._causes.pop(provider, None)
            log.info("provider resumed", provider=provider)

    def failed(self, provider: str, error: OracleError, whose: str) -> None:
        """An error of a purchase or a job; `whose` request it was."""
        breaker = self.by_provider.get(provider)
        if breaker is None:
            return
        now = self._clock()
        if after(error.error) is Next.PAUSE:
            opened = breaker.trip(now)
        elif is_providers_fault(error.error):
            opened = breaker.failed(now, whose)
        else:
            if breaker.phase is Phase.HALF_OPEN and error.error not in _NEVER_ASKED:
                # It has answered, if only to refuse: it is back.
                self.succeeded(provider)
            return
        if opened:
            self._causes[provider] = error
            log.warning("provider paused", code=PROVIDER_PAUSED.code, detail=str(self.why(provider)))

    def hold(self, provider: str, error: OracleError | None) -> None:
        """Buy nothing there, or again."""
        known = self.holds.pop(provider, None)
        if error is not None:
            self.holds[provider] = error
        if (known is None) != (error is None):
            event = "provider resumed" if error is None else "provider paused"
            log.warning(
                event, provider=provider, **({} if error is None else {"code": error.code, "detail": str(error)})
            )

    def hold_all(self, error: OracleError | None) -> None:
        """Buy nothing anywhere, or again."""
        if (self.wallet is None) != (error is None):
            event = "buying resumed" if error is None else "buying paused"
            log.warning(event, **({} if error is None else {"code": error.code, "detail": str(error)}))
        self.wallet = error

    def why(self, provider: str) -> OracleError | None:
        """Why nothing is bought there now, with how long that lasts; None where it may be bought from."""
        if provider in self.holds:
            return self.holds[provider]
        breaker = self.by_provider.get(provider)
        if breaker is None or breaker.phase is Phase.CLOSED:
            return None
        cause, left = self._causes.get(provider), breaker.seconds_left(self._clock())
        what = f"a probe in {left:.0f} s" if breaker.phase is Phase.OPEN else "a probe is under way"
        return PROVIDER_PAUSED(f"{provider}: {what}; {cause}", retry_after_seconds=max(1.0, left))

    @property
    def paused(self) -> Mapping[str, OracleError]:
        """Every provider that nothing is bought from, with the reason."""
        found = {name: self.why(name) for name in self.by_provider}
        return {name: error for name, error in found.items() if error is not None}

    def seconds_left(self, providers: Collection[str]) -> float:
        """Until one of them may be asked again, as far as is known."""
        now = self._clock()
        return min(
            (HOLD_SECONDS if name in self.holds else self.by_provider[name].seconds_left(now))
            for name in providers
            if name in self.by_provider
        )
