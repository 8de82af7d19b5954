"""Every option, with its meaning and its default.

`oracle.example.toml` is written from these models by `scripts/example_config.py`: what stands under an option here is
what a reader finds above it there.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, Field, SecretStr, model_validator

from oracle.config.gateway import Gateway
from oracle.config.rates import RateSettings
from oracle.config.section import STRICT
from oracle.config.sources import Sources
from oracle.config.values import Address, Addresses, BaseUri, DatabaseUrl, GenesisHash, SocketUrl, WebUrl
from oracle.core.breaker import BreakerTerms
from oracle.core.policy import Terms
from oracle.core.routing import ModelRoutes, Route, Strategy
from oracle.providers.registry import ProviderSettings


class _Section(BaseModel):
    model_config = STRICT


class Cluster(_Section):
    """The Solana cluster, and how hard its endpoints may be worked."""

    rpc: Annotated[list[WebUrl], Field(min_length=1)] = [SecretStr("http://127.0.0.1:8899")]
    """RPC endpoints, best first. Never logged but for the host; `${NAME}` takes an API key from the environment."""
    websocket: SocketUrl | None = None
    """WebSocket endpoint; by default that of the first RPC endpoint (port 8900 beside 8899, else the same port)."""
    program_id: Address | None = None
    """Address of the inference_oracle program; by default the one that the shipped IDL names."""
    genesis_hash: GenesisHash | None = None
    """Refuse endpoints of any other cluster; by default the first endpoint that answers says which is meant."""
    requests_per_10_seconds: Annotated[int, Field(ge=1)] = 90
    """Calls to each endpoint that is not on this machine. The public ones allow 100; one a second is left to spare."""
    requests_per_method_per_10_seconds: Annotated[int, Field(ge=1)] = 30
    """Calls of one method to each such endpoint. The public ones allow 40; one a second is left to spare."""
    scan_interval_seconds: Annotated[float, Field(gt=0)] = 15.0
    """How often the program's accounts are read for truth, besides at start and after each reconnect."""


class Operator(_Section):
    """Who answers: the key that signs settlements and is paid, and the queues it serves."""

    keypair: Annotated[Path | None, Field(strict=False)] = None
    """Keypair file of the Solana CLI (JSON array of 64 numbers), readable by its owner only."""
    keypair_env: str | None = None
    """Name of an environment variable that holds the same JSON array, or the base58 secret key."""
    keypair_credential: str | None = None
    """Name of a systemd credential (`LoadCredential=`) that holds the same."""
    aws_kms_key: str | None = None
    """Id, ARN or `alias/NAME` of an Ed25519 key in AWS KMS (extra `aws`). boto3 finds region and credentials."""
    gcp_kms_key: str | None = None
    """`projects/…/cryptoKeyVersions/N` of an Ed25519 key in Google Cloud KMS (extra `gcp`)."""
    gcp_kms_endpoint: WebUrl = SecretStr("https://cloudkms.googleapis.com")
    """Where Google Cloud KMS is; another one for a private endpoint."""
    socket: Annotated[Path | None, Field(strict=False)] = None
    """Unix socket of `oracle signer serve`, which holds the key as another user."""
    queues: Addresses = []
    """Addresses of the queues to serve."""
    base_uri: BaseUri = "http://127.0.0.1:8787"
    """Public URI under which outputs and receipts are served; must equal the one registered on chain."""

    @model_validator(mode="after")
    def _one_key(self) -> Operator:
        local = (self.keypair, self.keypair_env, self.keypair_credential)
        if sum(x is not None for x in (*local, self.aws_kms_key, self.gcp_kms_key, self.socket)) > 1:
            raise ValueError(
                "set only one of keypair, keypair_env, keypair_credential, aws_kms_key, gcp_kms_key and socket"
            )
        return self


class Spending(_Section):
    """The most that each key signs for: fees, and whatever the instructions can move out of its wallet."""

    max_lamports_per_transaction: Annotated[int, Field(ge=5_000)] = 20_000_000
    """A transaction that can cost more is not signed. A job on Nosana's chain puts down 4,300,000 lamports."""
    max_lamports_per_day: Annotated[int, Field(ge=5_000)] = 2_000_000_000
    """Nothing more is signed on a day (UTC) that has cost this much: 3 million settlements, or 460 jobs on chain."""
    max_micro_nos_per_transaction: Annotated[int, Field(ge=0)] = 20_000_000
    """A job on Nosana's chain that is dearer is not bought, in millionths of a NOS."""
    max_micro_nos_per_day: Annotated[int, Field(ge=0)] = 500_000_000
    """Nothing more is bought on Nosana's chain on a day (UTC) that has cost this much, in millionths of a NOS."""


class Database(_Section):
    """The daemon's memory. `oracle db upgrade` makes its schema."""

    url: Annotated[DatabaseUrl, Field(repr=False)] = "sqlite:///oracle.sqlite"
    """`sqlite:///PATH`, or `postgresql+asyncpg://…` (extra `postgres`). `${NAME}` takes a password from elsewhere."""


class Api(_Section):
    """The daemon's HTTP server. Let a reverse proxy pass only `/v1/` to the public: the rest is for you."""

    host: str = "127.0.0.1"
    """Address to listen on; `0.0.0.0` or `::` for all of them."""
    port: Annotated[int, Field(ge=0, le=65535)] = 8787
    """Port to listen on; 0 takes any free one."""
    retention_days: Annotated[float, Field(gt=0)] = 30.0
    """How long outputs and receipts are served after the settlement."""


class RouteSettings(_Section):
    """One way to get an answer of the model."""

    provider: str
    """Name of a `[providers.NAME]` section."""
    model: str
    """The provider's own name of the model."""
    max_cost_lamports: Annotated[int, Field(ge=0)] | None = None
    """Never buy a job that is quoted higher."""
    timeout_seconds: Annotated[float, Field(gt=0, le=90_000)] = 120.0
    """A job that takes some seconds longer is given up and cancelled; at most 25 hours, which a batch needs."""
    max_attempts: Annotated[int, Field(ge=1)] = 2
    """Purchases on this route before the next one is tried."""
    substitute: bool = False
    """This is another model than the one asked for: used only where the request allows any model."""
    max_parallel_jobs: Annotated[int, Field(ge=1, le=4)] = 1
    """Paid jobs of one request that may run at once. With 2 a slow job gets a rival; both are paid, the first wins."""
    hedge_percentile: Annotated[float, Field(gt=0, lt=1)] = 0.95
    """A job is slow when it has taken longer than this share of the newest hundred on its route."""
    hedge_after_seconds: Annotated[float, Field(gt=0)] | None = None
    """When it is slow as long as fewer than five jobs are measured; none means that it gets no rival until then."""


class ModelSettings(_Section):
    """A model that requests may ask for, by the name in `[models.NAME]`, and who runs it."""

    strategy: Annotated[Strategy, Field(strict=False)] = Strategy.ORDERED
    """Which route is tried first: `ordered` as they stand here, `cheapest` by quote, `fastest` as measured."""
    routes: Annotated[list[RouteSettings], Field(min_length=1)]
    """The routes, as `[[models.NAME.routes]]` tables."""


class Policy(_Section):
    """What is worth doing, for whom, and at what risk."""

    min_fee_lamports: Annotated[int, Field(ge=0)] = 10_000
    """Requests that pay less are declined. A settlement of one costs 5,000 lamports and more."""
    check_fee: bool = True
    """Decline where the fee does not cover quote, margin and settlement."""
    margin: Annotated[float, Field(gt=-1)] = 0.1
    """Profit asked on top of the costs, as a share of them; negative sells below cost."""
    settlement_lamports: Annotated[int, Field(ge=0)] = 7_000
    """What one settlement is reckoned to cost when a fee is judged."""
    max_output_tokens: Annotated[int, Field(ge=1)] = 4_096
    """Requests that allow longer answers are declined."""
    max_open_per_requester: Annotated[int, Field(ge=1)] = 1_000
    """Open requests of one requester beyond this are declined."""
    allow_requesters: Addresses | None = None
    """Serve only these, where set."""
    deny_requesters: Addresses = []
    """Decline whatever these ask."""
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
    """Most that the jobs of a day (UTC) may cost; requests then wait for the next. A provider may have a budget too."""
    requester_daily_budget_lamports: Annotated[int, Field(ge=0)] | None = None
    """Most that the jobs of one requester may cost in a day."""
    request_budget_lamports: Annotated[int, Field(ge=0)] | None = None
    """Most that all jobs of one request may cost, those that failed included; it is then rejected."""

    min_wallet_lamports: Annotated[int, Field(ge=0)] = 1_000_000
    """Claim and buy nothing while the operator's key holds less; what was bought is still settled."""

    @model_validator(mode="after")
    def _allowed_or_denied(self) -> Policy:
        if set(self.allow_requesters or ()) & set(self.deny_requesters):
            raise ValueError("a requester is both in allow_requesters and in deny_requesters")
        return self


class BreakerSettings(_Section):
    """When a provider that fails is left alone, and for how long. Then a single job is its probe."""

    failures_in_a_row: Annotated[int, Field(ge=1)] = 5
    """Failures of the provider, of different requests and without a success between them, that open its breaker."""
    window: Annotated[int, Field(ge=1, le=10_000)] = 20
    """Outcomes that are looked back upon."""
    failure_share: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Share of failures among them that opens the breaker."""
    open_seconds: Annotated[float, Field(gt=0)] = 30.0
    """How long nothing is bought. Doubled each time the probe fails."""
    longest_open_seconds: Annotated[float, Field(gt=0)] = 600.0
    """Longest that it becomes."""

    @model_validator(mode="after")
    def _grows(self) -> BreakerSettings:
        if self.longest_open_seconds < self.open_seconds:
            raise ValueError("longest_open_seconds must not be less than open_seconds")
        return self

    def of(self) -> BreakerTerms:
        return BreakerTerms(**self.model_dump())


class InputFetch(_Section):
    """Inputs that requests name by URI. Only https is fetched, and never from a private address."""

    max_bytes: Annotated[int, Field(ge=1)] = 262_144
    """A larger input is declined."""
    timeout_seconds: Annotated[float, Field(gt=0)] = 10.0
    """Time for one fetch with all its redirects."""
    max_redirects: Annotated[int, Field(ge=0)] = 3
    """An input that is redirected more often is declined."""


class Settlement(_Section):
    """Results on their way into the chain."""

    flush_window_seconds: Annotated[float, Field(ge=0)] = 0.25
    """How long prepared results wait for company."""
    poll_interval_seconds: Annotated[float, Field(gt=0)] = 0.5
    """How often the status of open signatures is asked."""
    resend_interval_seconds: Annotated[float, Field(gt=0)] = 2.0
    """How often the same signed bytes are sent again until they land or expire."""
    priority_percentile: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Which of the recent priority fees of the written accounts is paid: 0.5 is the median."""
    max_priority_micro_lamports: Annotated[int, Field(ge=0)] = 200_000
    """Cap of the price per compute unit. At 20,000 units this is 4,000 lamports for a pack of eight."""
    compute_margin: Annotated[float, Field(ge=0)] = 0.1
    """Added to the compute units that the simulation took."""


class Daemon(_Section):
    """The loops."""

    concurrency: Annotated[int, Field(ge=1)] = 64
    """Purchases and fetches under way at once."""
    poll_interval_seconds: Annotated[float, Field(gt=0)] = 0.5
    """How often running jobs are polled, in bulk per provider."""
    balance_interval_seconds: Annotated[float, Field(gt=0)] = 15.0
    """How often the operator's wallet, and the balance of providers with `min_balance`, are looked at."""
    drain_seconds: Annotated[float, Field(ge=0)] = 20.0
    """On SIGTERM: how long calls under way may still take."""
    lease_seconds: Annotated[float, Field(ge=90)] = 180.0
    """How long a row is held for a step. Must outlive any call made under it, of which the longest takes 60 s."""
    close_ended: bool = True
    """Close ended requests after their retention, which returns fee and rent to their payer."""
    expire_overdue: bool = True
    """Expire requests of the served queues that are past their deadline, which frees their fee."""


class Log(_Section):
    """Logs go to stderr. They hold no secrets, and prompts and outputs by hash only."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """Least severity that is logged."""
    format: Literal["auto", "console", "json"] = "auto"
    """`auto`: console on a terminal, JSON elsewhere."""
    show_content: bool = False
    """Log outputs in full. Off: they appear by hash only."""


class Config(_Section):
    """The whole file."""

    cluster: Cluster = Cluster()
    operator: Operator = Operator()
    spending: Spending = Spending()
    database: Database = Database()
    api: Api = Api()
    rates: RateSettings = RateSettings()
    providers: dict[str, ProviderSettings] = {}
    """Who runs jobs, each as `[providers.NAME]` under a name of your own; `kind` says which network it is."""
    sources: Sources = {}
    """Data networks that requests may name as their input, each as `[sources.NAME]` for `data://NAME/…`."""
    models: dict[str, ModelSettings] = {}
    """What requests may ask for, each as `[models.NAME]`."""
    policy: Policy = Policy()
    breaker: BreakerSettings = BreakerSettings()
    input: InputFetch = InputFetch()
    settlement: Settlement = Settlement()
    daemon: Daemon = Daemon()
    log: Log = Log()
    gateway: Gateway = Gateway()

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Config:
        if self.daemon.lease_seconds <= self.input.timeout_seconds:
            raise ValueError("daemon.lease_seconds must outlive input.timeout_seconds")
        for name, model in self.models.items():
            for route in model.routes:
                if route.provider not in self.providers:
                    raise ValueError(f"models.{name}: no [providers.{route.provider}] section")
            if len({(route.provider, route.model) for route in model.routes}) < len(model.routes):
                raise ValueError(f"models.{name}: two routes lead to the same model of the same provider")
        if self.gateway.record_fee_lamports > self.spending.max_lamports_per_transaction:
            raise ValueError("gateway.record_fee_lamports is above spending.max_lamports_per_transaction")
        self.gateway.check(self.models, self.operator.queues)
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
