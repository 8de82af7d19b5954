"""The daemon's configuration: one TOML file, every option with its meaning and default, secrets from elsewhere.

`oracle.example.toml` is checked against these models by a test, so an option cannot be left undocumented.
"""

from __future__ import annotations

import os
import tomllib
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator, model_validator
from solders.pubkey import Pubkey

from oracle.core.errors import ErrorCode
from oracle.core.policy import Terms
from oracle.core.routing import ModelRoutes, Route, Strategy
from oracle.providers.pricing import Rates
from oracle.providers.registry import ProviderSettings

CONFIG_MISSING = ErrorCode(
    "ORC-CONFIG-001",
    "No configuration file",
    "The file does not exist or cannot be read.",
    "Write one with `oracle config init`, or name it with --config or ORACLE_CONFIG.",
)
CONFIG_NOT_TOML = ErrorCode(
    "ORC-CONFIG-002",
    "Configuration is not TOML",
    "The file has a syntax error at the place shown.",
    "Mend the line; `oracle.example.toml` shows every option.",
)
CONFIG_INVALID = ErrorCode(
    "ORC-CONFIG-003",
    "Configuration is not valid",
    "An option is unknown, missing, of the wrong type or contradicts another.",
    "Mend the options that are listed; `oracle.example.toml` shows each with its default.",
)
DEFAULT_PATH = Path("oracle.toml")


def _pubkey(value: str) -> str:
    try:
        return str(Pubkey.from_string(value))
    except ValueError:
        raise ValueError("not a base58 address of 32 bytes") from None


class _Section(BaseModel):
    # An unknown option is an error: a misspelt spending cap would otherwise be no cap at all.
    model_config = ConfigDict(extra="forbid", frozen=True)


class Cluster(_Section):
    rpc: Annotated[list[SecretStr], Field(min_length=1)] = [SecretStr("http://127.0.0.1:8899")]
    """RPC endpoints, best first; they may carry an API key and are never logged whole."""
    websocket: SecretStr | None = None
    """WebSocket endpoint; by default derived from the first RPC endpoint (port + 1 where a port is given)."""
    program_id: str | None = None
    """Address of the inference_oracle program; by default the one that the shipped IDL names."""
    genesis_hash: str | None = None
    """Refuse endpoints of any other cluster; by default the first answer is kept in the database."""
    requests_per_10_seconds: Annotated[int, Field(ge=1)] = 90
    """Per endpoint. The public endpoints allow 100, and 40 of one method."""
    requests_per_method_per_10_seconds: Annotated[int, Field(ge=1)] = 36
    scan_interval_seconds: Annotated[float, Field(gt=0)] = 15.0
    """How often the program's accounts are read for truth, besides at start and after each reconnect."""

    _check_program = field_validator("program_id")(lambda value: value if value is None else _pubkey(value))


class Operator(_Section):
    keypair: Path | None = None
    """Keypair file of the Solana CLI (JSON array of 64 numbers), readable by its owner only."""
    keypair_env: str | None = None
    """Name of an environment variable that holds the same JSON array, or the base58 secret key."""
    keypair_credential: str | None = None
    """Name of a systemd credential (`LoadCredential=`) that holds the same."""
    queues: list[str] = []
    """Addresses of the queues to serve."""
    base_uri: str = "http://127.0.0.1:8787"
    """Public URI under which outputs and receipts are served; must equal the one registered on chain."""

    _check_queues = field_validator("queues")(lambda values: [_pubkey(value) for value in values])

    @model_validator(mode="after")
    def _one_key(self) -> Operator:
        if sum(x is not None for x in (self.keypair, self.keypair_env, self.keypair_credential)) > 1:
            raise ValueError("set only one of keypair, keypair_env and keypair_credential")
        return self


class Database(_Section):
    url: str = "sqlite:///oracle.sqlite"
    """`sqlite:///PATH`, or `postgresql+asyncpg://…` (extra `postgres`)."""


class Api(_Section):
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8787
    """0 takes any free port."""
    retention_days: Annotated[float, Field(gt=0)] = 30.0
    """How long outputs and receipts are served after the settlement."""


class RateSettings(_Section):
    """What providers charge is turned into lamports with these; without them only free providers can be quoted."""

    sol_usd: Annotated[Decimal, Field(gt=0)] | None = None
    """USD for one SOL."""
    nos_usd: Annotated[Decimal, Field(gt=0)] | None = None
    """USD for one NOS."""

    def of(self) -> Rates:
        return Rates(self.sol_usd, self.nos_usd)


class RouteSettings(_Section):
    provider: str
    """Name of a `[providers.NAME]` section."""
    model: str
    """The provider's own name of the model."""
    max_cost_lamports: Annotated[int, Field(ge=0)] | None = None
    """Never buy a job that is quoted higher."""
    timeout_seconds: Annotated[float, Field(gt=0)] = 120.0
    """A job that takes longer is given up and cancelled."""
    max_attempts: Annotated[int, Field(ge=1)] = 2
    """Purchases on this route before the next one is tried."""
    substitute: bool = False
    """This is another model than the one asked for: used only where the request allows any model."""


class ModelSettings(_Section):
    strategy: Strategy = Strategy.ORDERED
    """`ordered`, `cheapest` or `fastest`."""
    routes: Annotated[list[RouteSettings], Field(min_length=1)]


class Policy(_Section):
    min_fee_lamports: Annotated[int, Field(ge=0)] = 10_000
    """Requests that pay less are declined. A settlement of one costs 5,000 lamports and more."""
    check_fee: bool = True
    """Decline where the fee does not cover quote, margin and settlement."""
    margin: float = 0.1
    """Profit asked on top of the costs, as a share of them."""
    settlement_lamports: Annotated[int, Field(ge=0)] = 7_000
    """What one settlement is reckoned to cost when a fee is judged."""
    max_output_tokens: Annotated[int, Field(ge=1)] = 4_096
    max_open_per_requester: Annotated[int, Field(ge=1)] | None = 1_000
    """Open requests of one requester beyond this are declined."""
    allow_requesters: list[str] | None = None
    """Serve only these, where set."""
    deny_requesters: list[str] = []
    deadline_margin_seconds: Annotated[float, Field(ge=0)] = 10.0
    """Nothing is bought, and nothing signed, closer to a deadline than this."""
    max_unconfirmed_purchases: Annotated[int, Field(ge=0)] = 1
    """How often an interrupted purchase is repeated where the provider allows no look-up."""
    max_retries: Annotated[int, Field(ge=0)] = 8
    """Failures of one step, each after a longer wait, before a request is rejected."""
    finalize_claims_above_lamports: Annotated[int, Field(ge=0)] = 50_000_000
    """On queues with claims: where the fee is higher, nothing is bought before the claim is finalized."""
    simulate_before_buying: bool = True
    """Simulate the settlement before anything is bought."""
    daily_budget_lamports: Annotated[int, Field(ge=0)] | None = None
    """Stop buying when the jobs of the last 24 hours have cost this much."""

    _check_lists = field_validator("allow_requesters", "deny_requesters")(
        lambda values: None if values is None else [_pubkey(value) for value in values]
    )


class InputFetch(_Section):
    max_bytes: Annotated[int, Field(ge=1)] = 262_144
    timeout_seconds: Annotated[float, Field(gt=0)] = 10.0
    max_redirects: Annotated[int, Field(ge=0)] = 3


class Settlement(_Section):
    flush_window_seconds: Annotated[float, Field(ge=0)] = 0.25
    """How long prepared results wait for company."""
    poll_interval_seconds: Annotated[float, Field(gt=0)] = 0.5
    """How often the status of open signatures is asked."""
    resend_interval_seconds: Annotated[float, Field(gt=0)] = 2.0
    priority_percentile: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Of the recent fees of the written accounts."""
    max_priority_micro_lamports: Annotated[int, Field(ge=0)] = 200_000
    """Cap of the price per compute unit. At 20,000 units this is 4,000 lamports for a pack of eight."""
    compute_margin: Annotated[float, Field(ge=0)] = 0.1
    """Added to the compute units that the simulation took."""


class Daemon(_Section):
    concurrency: Annotated[int, Field(ge=1)] = 64
    """Purchases and fetches under way at once."""
    poll_interval_seconds: Annotated[float, Field(gt=0)] = 0.5
    """How often running jobs are polled, in bulk per provider."""
    drain_seconds: Annotated[float, Field(ge=0)] = 20.0
    """On SIGTERM: how long calls under way may still take."""
    lease_seconds: Annotated[float, Field(gt=0)] = 180.0
    """How long a row is held for a step. Must outlive the time-out of any call made under it."""
    close_ended: bool = True
    """Close ended requests after their retention, which returns fee and rent to their payer."""
    expire_overdue: bool = True


class Log(_Section):
    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "console", "json"] = "auto"
    """`auto`: console on a terminal, JSON elsewhere."""
    show_content: bool = False
    """Log prompts and outputs. Off: they appear by hash only."""


class Config(_Section):
    cluster: Cluster = Cluster()
    operator: Operator = Operator()
    database: Database = Database()
    api: Api = Api()
    rates: RateSettings = RateSettings()
    providers: dict[str, ProviderSettings] = {}
    models: dict[str, ModelSettings] = {}
    policy: Policy = Policy()
    input: InputFetch = InputFetch()
    settlement: Settlement = Settlement()
    daemon: Daemon = Daemon()
    log: Log = Log()

    @model_validator(mode="after")
    def _routes_name_providers(self) -> Config:
        for name, model in self.models.items():
            for route in model.routes:
                if route.provider not in self.providers:
                    raise ValueError(f"models.{name}: no [providers.{route.provider}] section")
                if route.timeout_seconds >= self.daemon.lease_seconds and route.timeout_seconds > 3600:
                    raise ValueError(f"models.{name}: a job may take an hour at most")
        return self

    def routes(self) -> dict[str, ModelRoutes]:
        """The routing table as the core wants it."""
        return {
            name: ModelRoutes(tuple(Route(**route.model_dump()) for route in model.routes), model.strategy)
            for name, model in self.models.items()
        }

    def terms(self, seconds_per_slot: float) -> Terms:
        """The policy with its margins in slots."""
        policy = self.policy
        return Terms(
            min_fee_lamports=policy.min_fee_lamports,
            max_output_tokens=policy.max_output_tokens,
            max_open_per_requester=policy.max_open_per_requester,
            allow_requesters=None if policy.allow_requesters is None else frozenset(policy.allow_requesters),
            deny_requesters=frozenset(policy.deny_requesters),
            deadline_margin_slots=max(1, round(policy.deadline_margin_seconds / seconds_per_slot)),
            margin=policy.margin,
        )


def load(path: Path) -> Config:
    """Read and check a configuration file. Relative paths in it are relative to the file.

    Raises ORC-CONFIG-001 … 003, the last with one line per wrong option.
    """
    try:
        text = path.read_bytes().decode()
    except OSError as error:
        raise CONFIG_MISSING(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise CONFIG_NOT_TOML(f"{path}: not UTF-8") from None
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise CONFIG_NOT_TOML(f"{path}: {error}") from None
    return parse(document, base=path.parent)


def parse(document: dict[str, object], *, base: Path = Path()) -> Config:
    """Check a configuration that is already decoded. Values are never repeated in errors: one may be a secret."""
    try:
        config = Config.model_validate(document)
    except ValidationError as error:
        lines = (f"{'.'.join(map(str, item['loc'])) or 'file'}: {item['msg']}" for item in error.errors())
        raise CONFIG_INVALID("\n  " + "\n  ".join(lines)) from None
    return _anchored(config, base)


def _anchored(config: Config, base: Path) -> Config:
    operator, database = config.operator, config.database
    if operator.keypair is not None:
        expanded = Path(os.path.expandvars(operator.keypair)).expanduser()
        operator = operator.model_copy(update={"keypair": base / expanded})
    prefix = "sqlite:///"
    if database.url.startswith(prefix):
        database = Database(url=prefix + str((base / database.url.removeprefix(prefix)).absolute()))
    return config.model_copy(update={"operator": operator, "database": database})
