"""One look at a provider or a data network: whether it is there and takes the key, what it offers, costs and has left,
and what its jobs have come to. Everything is asked at once, within a time, and nothing is bought or changed.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Final, TypeVar

import httpx

from oracle.config import Config
from oracle.config.sections import RouteSettings
from oracle.core.compute import Compute, Message, Money, Quote, Source, Task
from oracle.core.errors import OracleError
from oracle.core.purchase import ChainAccess
from oracle.pipeline import charter, daemon, price_checks
from oracle.pipeline.chain_view import RpcView
from oracle.pipeline.clock import Clock
from oracle.pipeline.errors import PROVIDER_SILENT, UNEXPECTED
from oracle.pipeline.fees import Fees
from oracle.pipeline.orders import Orders
from oracle.pipeline.trial import Tell
from oracle.pipeline.trial_purchases import TrialPurchases
from oracle.providers import errors, registry
from oracle.providers.nosana.compute import NosanaCompute
from oracle.providers.nosana.landlord import NosanaLandlord
from oracle.providers.nosana.markets import Listing
from oracle.providers.nosana.onchain import NosanaOnChain
from oracle.providers.nosana.onchain_funds import Holdings
from oracle.providers.offers import Allowance, Describing, Offer, Probing
from oracle.providers.price_feed import LiveRates
from oracle.providers.rented.compute import RentedCompute
from oracle.providers.rented.landlord import Rental
from oracle.providers.settings import NosanaOnChainSettings, OpenAISettings, RemoteSettings, RenderSettings
from oracle.providers.sources import registry as source_registry
from oracle.store import experience
from oracle.store.engine import Store
from oracle.store.experience import Experience

SECONDS: Final = 20.0
"""For each question."""

DAEMON_SECONDS: Final = 3.0
PROMPT: Final = (Message("user", "Is this thing on?"),)
MAX_OUTPUT_TOKENS: Final = 256

T = TypeVar("T")
Outcome = Quote | OracleError

_NOBODY: Final = (
    errors.UNREACHABLE,
    errors.NO_ANSWER,
    errors.WRONG_ADDRESS,
    errors.UNREADABLE_ANSWER,
    PROVIDER_SILENT,
)
_SOMEBODY: Final = (errors.UNAVAILABLE, errors.RATE_LIMITED, errors.ANSWER_TOO_LARGE, errors.REQUEST_REFUSED)
_KEY_TAKEN: Final = (errors.NOT_PERMITTED, errors.OUT_OF_CREDIT, errors.NO_MARKET)
# These serve their list of models to whoever asks.
_OPEN_LISTS: Final = ("llamacpp", "ollama")


@dataclass(frozen=True, slots=True)
class Survey:
    """What was found. None is what nobody told; `error` is the first that was met, and `said` is in a data network's
    own words. `is_authenticated` is None also where no key is needed, or none was checked.
    """

    name: str
    kind: str
    is_source: bool = False
    is_reachable: bool | None = None
    is_authenticated: bool | None = None
    error: OracleError | None = None
    paused: str = ""
    balance: Money | None = None
    holdings: Holdings | None = None
    allowance: Allowance | None = None
    offers: tuple[Offer, ...] = ()
    quotes: Mapping[RouteSettings, Outcome] = field(default_factory=dict)
    markets: tuple[Listing, ...] = ()
    rentals: tuple[Rental, ...] = ()
    experience: tuple[Experience, ...] = ()
    said: str = ""

    @property
    def market(self) -> Listing | None:
        """The one that would be used now."""
        return next((one for one in self.markets if one.is_chosen), None)


@dataclass(frozen=True, slots=True)
class Ground:
    """What surveys stand on besides the configuration. Whatever of it is not there is done without."""

    config: Config
    rates: LiveRates
    orders: Orders | OracleError | None
    """None where nobody is paid on chain; an error is why nobody can be."""

    store: Store | None
    experience: Mapping[str, tuple[Experience, ...]]
    paused: Mapping[str, str] | None
    """None where no daemon answers."""

    def provider(self, name: str, tell: Tell = lambda *_: None) -> Compute:
        """Built anew; close it. `tell` hears of its transactions. Raises what speaks against it."""
        settings = self.config.providers[name]
        chain = self._chain(tell) if isinstance(settings, NosanaOnChainSettings) else None
        return registry.build(name, settings, rates=self.rates, chain=chain)

    def _chain(self, tell: Tell) -> ChainAccess | None:
        if isinstance(self.orders, OracleError):
            raise self.orders
        if self.orders is None or self.store is None:
            return None
        return ChainAccess(TrialPurchases(self.orders, self.store, tell), self.orders.view)


@asynccontextmanager
async def ground(config: Config) -> AsyncIterator[Ground]:
    async with AsyncExitStack() as stack:
        opened = await _store(stack, config)
        store = opened if isinstance(opened, Store) else None
        known = await _experience(store)
        rates = await stack.enter_async_context(price_checks.read_once(config))
        yield Ground(config, rates, await _orders(stack, config, opened), store, known, await _paused(config))


async def everybody(ground: Ground) -> list[Survey]:
    """Of all that is configured: providers first, then data networks."""
    config = ground.config
    return await asyncio.gather(
        *(of_provider(ground, name) for name in config.providers), *(of_source(ground, name) for name in config.sources)
    )


async def of_provider(ground: Ground, name: str) -> Survey:
    config = ground.config
    settings = config.providers[name]
    blank = Survey(
        name, settings.kind, paused=(ground.paused or {}).get(name, ""), experience=ground.experience.get(name, ())
    )
    routes = [route for model in config.models.values() for route in model.routes if route.provider == name]
    try:
        provider = ground.provider(name)
    except OracleError as error:
        return replace(blank, error=error, quotes=dict.fromkeys(routes, error))
    try:
        return await _asked_all(blank, provider, routes, keyed=_shows_a_key(settings))
    finally:
        await provider.close()


async def of_source(ground: Ground, name: str) -> Survey:
    """Whether a data network answers and takes the key."""
    settings = ground.config.sources[name]
    blank = Survey(name, settings.kind, is_source=True)
    try:
        source: Source = source_registry.build(name, settings, rates=ground.rates)
    except OracleError as error:
        return replace(blank, error=error)
    try:
        said = await _asked(name, source.probe)
    finally:
        await source.close()
    there, let_in = standing(said if isinstance(said, OracleError) else None, keyed=_has(settings, "api_key"))
    if isinstance(said, OracleError):
        return replace(blank, error=said, is_reachable=there, is_authenticated=let_in)
    return replace(blank, said=said, is_reachable=there, is_authenticated=let_in)


def standing(error: OracleError | None, *, keyed: bool) -> tuple[bool | None, bool | None]:
    """Whether somebody is there, and whether the key was taken, by what became of a question that shows it."""
    if error is None:
        return True, True if keyed else None
    if error.error in _NOBODY:
        return False, None
    if error.error is errors.CREDENTIALS_REFUSED:
        return True, False
    if error.error in _KEY_TAKEN:
        return True, True if keyed else None
    return (True, None) if error.error in _SOMEBODY else (None, None)


async def _asked_all(blank: Survey, provider: Compute, routes: Sequence[RouteSettings], *, keyed: bool) -> Survey:
    name = blank.name
    probe = provider.probe if isinstance(provider, Probing) else provider.models
    seller = provider.landlord if isinstance(provider, RentedCompute) else provider
    probed, offers, balance, holdings, markets, rentals = await asyncio.gather(
        _asked(name, probe),
        _asked(name, lambda: _offers(provider)),
        _asked(name, provider.balance),
        _asked(name, seller.holdings if isinstance(seller, NosanaOnChain) else _nothing),
        _asked(
            name, seller.markets if isinstance(seller, NosanaCompute | NosanaOnChain | NosanaLandlord) else _nothing
        ),
        _asked(name, provider.server.live if isinstance(provider, RentedCompute) else _nothing),
    )
    found = (probed, offers, balance, holdings, markets, rentals)
    error = next((one for one in found if isinstance(one, OracleError)), None)
    there, let_in = standing(probed if isinstance(probed, OracleError) else None, keyed=keyed)
    survey = replace(
        blank,
        is_reachable=there,
        is_authenticated=let_in,
        error=error,
        offers=_or((), offers),
        balance=_or(None, balance),
        holdings=_or(None, holdings),
        markets=tuple(_or(None, markets) or ()),
        rentals=tuple(_or(None, rentals) or ()),
    )
    if error is not None:
        return replace(survey, quotes=dict.fromkeys(routes, error))
    # After the others, whose answers tell what is left of the rate.
    allowance = await _asked(name, provider.allowance) if isinstance(provider, Describing) else None
    asked = routes or [RouteSettings(provider=name, model=offer.model) for offer in survey.offers[:1]]
    quotes = await asyncio.gather(*(_asked(name, partial(provider.quote, task_of(route))) for route in asked))
    return replace(survey, allowance=_or(None, allowance), quotes=dict(zip(asked, quotes, strict=True)))


def task_of(route: RouteSettings) -> Task:
    """A small one, as it is quoted and tried."""
    return Task(route.model, PROMPT, max_output_tokens=MAX_OUTPUT_TOKENS, timeout_seconds=route.timeout_seconds)


async def _offers(provider: Compute) -> tuple[Offer, ...]:
    if isinstance(provider, Describing):
        return tuple(await provider.offers())
    return tuple(Offer(model) for model in await provider.models())


async def _nothing() -> None:
    return None


async def _asked(name: str, question: Callable[[], Awaitable[T]]) -> T | OracleError:
    try:
        async with asyncio.timeout(SECONDS):
            return await question()
    except OracleError as error:
        return error
    except TimeoutError:
        return PROVIDER_SILENT(f"{name}: nothing in {SECONDS:.0f} s")
    except Exception as error:
        # A mistake of ours about one provider must not hide the others.
        return UNEXPECTED(f"{name}: {type(error).__name__}")


def _or(default: Any, found: Any) -> Any:
    return default if isinstance(found, OracleError) else found


def _shows_a_key(settings: registry.ProviderSettings) -> bool:
    """Whether a good answer to a probe says that the key is right."""
    if isinstance(settings, OpenAISettings) and settings.server in _OPEN_LISTS:
        return False
    return isinstance(settings, RenderSettings) or (isinstance(settings, RemoteSettings) and _has(settings, "api_key"))


def _has(settings: object, option: str) -> bool:
    return any(getattr(settings, option + how, None) is not None for how in ("", "_file", "_env"))


async def _store(stack: AsyncExitStack, config: Config) -> Store | OracleError:
    try:
        store = await Store.open(config.database.url)
    except OracleError as error:
        return error
    stack.push_async_callback(store.close)
    return store


async def _experience(store: Store | None) -> Mapping[str, tuple[Experience, ...]]:
    try:
        return {} if store is None else await store.read(experience.of_all)
    except OracleError:
        return {}


async def _orders(stack: AsyncExitStack, config: Config, store: Store | OracleError) -> Orders | OracleError | None:
    """What buying by transaction takes: a database, in which the spend policy counts, a key and a cluster."""
    if not registry.nosana_clusters(config.providers.values()):
        return None
    if isinstance(store, OracleError):
        return store
    clock = Clock()
    try:
        key = await daemon.open_signer(config.operator)
        stack.push_async_callback(key.close)
        pool = daemon.pool_of(config)
        stack.push_async_callback(pool.close)
        await pool.check()
    except OracleError as error:
        return error
    signer = charter.guarded(key, charter.operator_charter(config), config.spending, store, clock)
    fees = Fees(pool.client, signer.public_key, config.settlement, clock)
    return Orders(pool.client, signer, RpcView(pool.client), fees, config.settlement, clock)


async def _paused(config: Config) -> dict[str, str] | None:
    """Whom a running daemon buys nothing from now, and why: its breakers are in its memory, and it tells of them."""
    host = f"[{config.api.host}]" if ":" in config.api.host else config.api.host
    try:
        async with httpx.AsyncClient(timeout=DAEMON_SECONDS, trust_env=False) as http:
            notices = (await http.get(f"http://{host}:{config.api.port}/readyz")).json()["notices"]
        return {str(name).removeprefix("provider "): str(why) for name, why in notices.items()}
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, KeyError, TypeError, AttributeError):
        return None
