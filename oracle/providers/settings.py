"""Every option of every provider, as `[providers.NAME]` of the configuration holds them; `kind` tells them apart."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr

Usd = Annotated[Decimal, Field(ge=0, allow_inf_nan=False)]


class _Strict(BaseModel):
    """A misspelled option is an error, and a secret in a refused one is not repeated."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class ModelPrice(_Strict):
    input_usd_per_million_tokens: Usd = Field(description="USD for a million input tokens")
    output_usd_per_million_tokens: Usd = Field(description="USD for a million output tokens, reasoning included")


class AnyProviderSettings(_Strict):
    """Options of every provider."""

    daily_budget_lamports: int | None = Field(
        None, ge=0, description="Most that jobs of this provider may cost in a day (UTC); other routes are then taken"
    )
    min_balance: float | None = Field(
        None,
        ge=0,
        description="Buy nothing while the balance there, in its own unit, is lower; for those that tell their balance",
    )


class LocalSettings(AnyProviderSettings):
    """The small model on this machine (extra `local`). It costs nothing, and answers one request at a time."""

    kind: Literal["local"] = "local"
    directory: Path | None = Field(
        None,
        description="Where the weights lie, or are downloaded to; none means `ORACLE_MODEL_DIR` or the cache",
    )
    threads: int = Field(1, ge=1, description="Threads of llama.cpp; more is slower where cores are shared")
    context_tokens: int = Field(2048, ge=64, le=8192, description="Tokens that a prompt and its answer share")
    max_kept_jobs: int = Field(1000, ge=1, description="Most jobs held in memory, ended ones included")


class HttpSettings(AnyProviderSettings):
    """Options of every provider that is called over HTTP."""

    requests_per_second: float | None = Field(None, gt=0, description="Most calls in a second; none means no limit")
    max_answer_bytes: int = Field(8_388_608, ge=1024, description="Largest answer read into memory")
    connect_seconds: float = Field(5.0, gt=0, description="Longest wait for a connection")
    silence_seconds: float = Field(300.0, gt=0, description="Longest wait for the next bytes of an answer")


class RemoteSettings(HttpSettings):
    """Options of every provider that knows its customer by a key."""

    api_key: SecretStr | None = Field(None, description="API key. Prefer `api_key_file` or `api_key_env`")
    api_key_file: Path | None = Field(None, description="File that holds the API key, such as a systemd credential")
    api_key_env: str | None = Field(None, description="Environment variable that holds the API key")


class ChattingSettings(RemoteSettings):
    """Options of every provider with a chat API."""

    max_concurrent_jobs: int = Field(8, ge=1, le=10_000, description="Most jobs of this provider running at once")
    model_prices: dict[str, ModelPrice] = Field(
        default_factory=dict, description="Price of each model, by the provider's own name of it"
    )
    max_kept_jobs: int = Field(1000, ge=1, description="Most jobs held in memory, ended ones included")


class OpenAISettings(ChattingSettings):
    """Any OpenAI-compatible server: a hosted fallback, vLLM, Ollama, llama.cpp."""

    kind: Literal["openai"] = "openai"
    base_url: str = Field("https://api.openai.com/v1", description="Address up to and including `/v1`")
    server: Literal["openai", "vllm", "ollama", "llamacpp", "other"] = Field(
        "other",
        description="What runs there: decides how the output limit is named and which sampling defaults to undo",
    )
    token_limit_field: Literal["max_tokens", "max_completion_tokens"] | None = Field(
        None, description="Name of the output limit; none means what `server` wants"
    )
    send_sampling: bool = Field(True, description="Send temperature, top_p and seed; reasoning models refuse them")
    reasoning_tag: str | None = Field(
        None,
        pattern=r"^[a-z_]{1,32}$",
        description="Tag of reasoning that the server leaves in the answer: what stands between `<tag>` and `</tag>` "
        "at its start is left out. None takes the answer as it is",
    )
    extra_body: dict[str, Any] = Field(default_factory=dict, description="More fields for every chat request")
    organization: str | None = Field(None, description="`OpenAI-Organization` header")
    project: str | None = Field(None, description="`OpenAI-Project` header")
    free: bool = Field(
        False, description="The server is yours: jobs cost nothing, and an interrupted call is simply repeated"
    )


class OpenAIBatchSettings(RemoteSettings):
    """The batch API of OpenAI and its like: about half the price, and an answer within 24 hours."""

    kind: Literal["openai_batch"] = "openai_batch"
    base_url: str = Field("https://api.openai.com/v1", description="Address up to and including `/v1`")
    model_prices: dict[str, ModelPrice] = Field(
        default_factory=dict, description="Usual price of each model, before the discount"
    )
    discount: Decimal = Field(Decimal("0.5"), ge=0, lt=1, description="Part of the usual price that is not charged")
    token_limit_field: Literal["max_tokens", "max_completion_tokens"] = Field(
        "max_completion_tokens", description="Name of the output limit"
    )
    send_sampling: bool = Field(True, description="Send temperature, top_p and seed; reasoning models refuse them")
    extra_body: dict[str, Any] = Field(default_factory=dict, description="More fields for every chat request")
    organization: str | None = Field(None, description="`OpenAI-Organization` header")
    project: str | None = Field(None, description="`OpenAI-Project` header")
    gather_seconds: float = Field(
        2.0, ge=0, le=20, description="How long a batch waits for more requests of its model; at most 195 share one"
    )
    poll_seconds: float = Field(30.0, ge=0, description="Pause between two looks at a batch")
    expected_seconds: float = Field(3600.0, gt=0, description="Usual time of a batch, for `fastest`")
    look_up_seconds: float = Field(
        90_000.0, ge=3600, description="How far back batches are searched for a lost purchase"
    )


class IoNetSettings(ChattingSettings):
    """IO Intelligence of io.net. Prices come from its list of models, except where `model_prices` states one."""

    kind: Literal["ionet"] = "ionet"
    base_url: str = Field(
        "https://api.intelligence.io.solutions/api/v1", description="Address up to and including `/api/v1`"
    )
    usage_url: str | None = Field(
        None,
        description="Where a sub-key learns its usage, such as "
        "`https://api.intelligence.io.solutions/v1/api-keys/sub-keys/me/usage`; none means the balance is not known",
    )
    credit_words: list[str] = Field(
        ["credit", "quota", "insufficient", "billing", "spend"],
        description="Words that tell a 403 or 429 about money from one about the rate",
    )
    extra_body: dict[str, Any] = Field(
        default_factory=dict,
        description="More fields for every chat request, such as `chat_template_kwargs`",
    )
    catalogue_seconds: float = Field(300.0, ge=0, description="How old the list of models and prices may be")


class RentedSettings(RemoteSettings):
    """Options of every provider that rents a server and runs requests on it."""

    max_concurrent_jobs: int = Field(8, ge=1, le=10_000, description="Most requests on the server at once")
    max_kept_jobs: int = Field(1000, ge=1, description="Most jobs held in memory, ended ones included")
    boot_seconds: float = Field(1800.0, gt=0, description="Longest wait for a rented server to serve; then it is ended")
    expected_boot_seconds: float = Field(
        600.0, ge=0, description="Usual time until a server serves, pulling image and model included: for quotes"
    )
    idle_seconds: float = Field(1800.0, ge=1, description="A server without a request for this long is ended")
    expected_answers: int = Field(
        1, ge=1, description="How many answers are to pay for a server; 1 quotes its whole cost to each request"
    )
    expected_seconds: float = Field(30.0, gt=0, description="Usual time of an answer, once the server serves")


class IoNetCloudSettings(RentedSettings):
    """IO Cloud of io.net: a container with an inference server, rented by the hour and paid ahead."""

    kind: Literal["ionet_cloud"] = "ionet_cloud"
    base_url: str = Field(
        "https://api.io.solutions/enterprise/v1/io-cloud/caas", description="Address up to and including `/caas`"
    )
    engine: Literal["vllm", "llamacpp"] = Field("vllm", description="Server that runs the model inside the container")
    image: str | None = Field(
        None, description="Container image of the engine, with its registry; none means a known one"
    )
    repository: str = Field(
        min_length=1,
        description="Hugging Face repository of the model, and its name in routes; for llamacpp one of GGUF files, "
        "such as `owner/name:Q8_0`",
    )
    arguments: list[str] = Field(
        default_factory=list, description="More arguments of the server, such as `--max-model-len`, `8192`"
    )
    environment: dict[str, str] = Field(
        default_factory=dict, description="Environment of the container. Nothing secret: io.net shows it"
    )
    huggingface_token_file: Path | None = Field(
        None, description="File that holds a Hugging Face token, for models that ask for one"
    )
    huggingface_token_env: str | None = Field(None, description="Environment variable that holds a Hugging Face token")
    hardware: list[int | str] = Field(
        min_length=1, description="Ids of hardware that the model fits; the cheapest that is free is rented"
    )
    locations: list[int | str] = Field(default_factory=list, description="Ids of allowed locations; empty means any")
    gpus_per_container: int = Field(1, ge=1, le=64, description="GPUs of the container")
    duration_hours: int = Field(1, ge=1, le=720, description="Hours rented and paid ahead each time")
    max_usd_per_hour: Usd = Field(
        Decimal("0.5"), description="Most that an hour of the whole container may cost, fees included"
    )
    name_prefix: str = Field(
        "oracle",
        pattern=r"^[a-z][a-z0-9-]{0,30}$",
        description="Begins the names of rented containers. Another for each daemon on the same account: a daemon ends "
        "every container of its own names that it does not use",
    )


class NosanaMarketsSettings(HttpSettings):
    """Options of every route to Nosana's hosts: the cheapest market that fits is taken."""

    base_url: str = Field("https://api.nosana.com", description="Gateway of all REST routes")
    markets: list[str] = Field(
        default_factory=list, description="Addresses or slugs of allowed markets; empty means any"
    )
    market_types: list[Literal["PREMIUM", "COMMUNITY", "OTHER"]] = Field(
        ["PREMIUM", "COMMUNITY"], description="Kinds of market that may be used where `markets` names none"
    )
    max_usd_per_hour: Usd = Field(Decimal("0.5"), description="Most that an hour may cost, network fee included")
    min_vram_gb: int = Field(8, ge=0, description="Least GPU memory of the weakest host of a market")
    max_queued_jobs: int = Field(5, ge=0, description="Most jobs that may wait in a market for it to be chosen")


class NosanaJobsSettings(NosanaMarketsSettings):
    """Options of both routes that buy a job for each request."""

    pinning_url: str = Field("https://api.pinata.cloud", description="Where job definitions are pinned")
    gateway_url: str = Field("https://nosana.mypinata.cloud", description="IPFS gateway that hosts read through")
    pinata_jwt: SecretStr | None = Field(None, description="JWT for pinning. Prefer `pinata_jwt_file` or `_env`")
    pinata_jwt_file: Path | None = Field(None, description="File that holds the JWT for pinning")
    pinata_jwt_env: str | None = Field(None, description="Environment variable that holds the JWT for pinning")
    template: Literal["vllm", "llamacpp", "ollama", "container", "jupyter"] | Path = Field(
        "vllm",
        description="What runs inside the container: `vllm`, `llamacpp`, `ollama`, `container`, `jupyter`, or the path "
        "of a job definition of your own",
    )
    image: str | None = Field(
        None, description="Container image of the template, with its registry; none means a known one"
    )
    command: str | None = Field(
        None, description="Of the template `container`: a shell command that reads the request as JSON and prints text"
    )
    notebook: Path | None = Field(
        None,
        description="Of the template `jupyter`: a notebook that reads `/tmp/body.json` and writes `/tmp/text`",
    )
    models: list[str] = Field(
        default_factory=list,
        description="Models on offer: Hugging Face repositories, of GGUF files for llamacpp, names of Ollama's library "
        "for ollama, any name for the others; empty means any",
    )
    max_queue_seconds: float = Field(600.0, gt=0, description="Longest wait for a host; then the job is withdrawn")
    expected_seconds: float = Field(300.0, gt=0, description="Usual time of a job, pulling image and model included")


class NosanaSettings(NosanaJobsSettings, RemoteSettings):
    """Nosana over REST, paid with credits. Every prompt and answer is public: a private request never goes there."""

    kind: Literal["nosana"] = "nosana"
    project: str | None = Field(
        None, description="Address that owns your jobs; none means it is learned from the first job that is bought"
    )
    look_up_seconds: float = Field(
        86_400.0, ge=3600, description="How far back ended jobs are searched for a lost purchase"
    )


class NosanaOnChainSettings(NosanaJobsSettings):
    """Nosana on chain, paid with NOS from the operator's key. Every prompt and answer is public, as with `nosana`."""

    kind: Literal["nosana_onchain"] = "nosana_onchain"
    cluster: Literal["mainnet", "devnet"] = Field(
        "mainnet", description="Which Jobs program and NOS token: those of the cluster that `cluster.rpc` leads to"
    )


class NosanaDeploymentSettings(NosanaMarketsSettings, RentedSettings):
    """A deployment of Nosana: an inference server on one of its GPUs, paid with credits for as long as it runs."""

    kind: Literal["nosana_deployment"] = "nosana_deployment"
    engine: Literal["vllm", "llamacpp", "ollama"] = Field(
        "vllm", description="Server that runs the model. Ollama knows no key: whoever finds it may use it"
    )
    image: str | None = Field(
        None, description="Container image of the engine, with its registry; none means a known one"
    )
    repository: str = Field(
        min_length=1,
        description="The model, and its name in routes: a Hugging Face repository, for llamacpp one of GGUF files, for "
        "ollama a name of its library",
    )
    replicas: int = Field(1, ge=1, le=32, description="Servers that share the requests; each is paid")
    lasts_minutes: int = Field(
        120,
        ge=60,
        description="How long a deployment may run. Credit for all of it is reserved, and only the time used is paid",
    )
    strangers_may_read: bool = Field(
        False,
        description="Send private requests here, too. Nothing is published, but whoever runs the host can read along",
    )
    name_prefix: str = Field(
        "oracle",
        pattern=r"^[a-z][a-z0-9-]{0,30}$",
        description="Begins the names of deployments. Another for each daemon on the same account: a daemon ends every "
        "deployment of its own names that it does not use",
    )


class RenderSettings(HttpSettings):
    """Render's compute subnet (Dispersed): a GPU container for each inference, reached over plain HTTP."""

    kind: Literal["render"] = "render"
    base_url: str = Field("https://api.dispersed.com", description="Address of the API, without `/v1`")
    public_key: str | None = Field(None, description="Public half of the API key, `pk_…`", pattern=r"^[\w-]+$")
    secret_key: SecretStr | None = Field(
        None, description="Secret half of the API key. Prefer `secret_key_file` or `secret_key_env`"
    )
    secret_key_file: Path | None = Field(None, description="File that holds the secret key")
    secret_key_env: str | None = Field(None, description="Environment variable that holds the secret key")
    image: str = Field(
        "ghcr.io/ggml-org/llama.cpp", description="Image of a llama.cpp server, without tag, steered by its environment"
    )
    tag: str = Field("server-cuda", description="Tag of the image")
    port: int = Field(8080, ge=1, le=65_535, description="Port on which the server listens inside the container")
    environment: dict[str, str] = Field(
        default_factory=dict, description="More variables for the container, such as `LLAMA_ARG_CTX_SIZE`"
    )
    job_kind: Literal["BATCH", "PERSISTENT"] = Field(
        "BATCH",
        description="BATCH is ended by Dispersed at its time limit, whatever becomes of this machine",
    )
    models: list[str] = Field(
        default_factory=list, description="Models on offer: Hugging Face repositories of GGUF files; empty means any"
    )
    max_usd_per_hour: Usd = Field(Decimal("0.8"), description="Most that an hour of a node may cost")
    min_vram_gb: int = Field(8, ge=0, description="Least memory of the GPU")
    min_ram_gb: int = Field(16, ge=0, description="Least memory of the node")
    min_storage_gb: int = Field(40, ge=0, description="Least storage, for image and model")
    cpu_count: int = Field(4, ge=0, description="Least number of processor cores")
    regions: list[str] = Field(
        default_factory=list, description="Region codes that are allowed, such as `us-west-2`; empty means any"
    )
    max_queue_seconds: float = Field(600.0, ge=300, description="Longest wait for a node; then the job is withdrawn")
    max_start_seconds: float = Field(
        1800.0, ge=120, description="Longest time to pull the image, load the model and serve; then the job is ended"
    )
    expected_seconds: float = Field(600.0, gt=0, description="Usual time of a job, pulling image and model included")
    look_seconds: float = Field(5.0, gt=0, description="Pause between two questions to a container that starts")
    look_up_seconds: float = Field(86_400.0, ge=3600, description="How far back jobs are searched for a lost purchase")
