"""What is bought from a compute network, and the two Protocols behind which every network stands (DESIGN §6)."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum
from typing import Any, Literal, NewType, Protocol, runtime_checkable

from oracle.core.dataquery import DataQuery
from oracle.core.errors import OracleError

IdempotencyKey = NewType("IdempotencyKey", str)
"""Derived from request and attempt (`core.identity`), so that whoever repeats a call uses the same."""


@dataclass(frozen=True, slots=True)
class Message:
    """One chat message, as the OpenAI wire format names it."""

    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True, slots=True)
class Task:
    """One inference to run. `model` is the provider's own name of it; `timeout_seconds` bounds the whole job.

    `sampling` are further fields of the OpenAI wire format, such as `top_p` and `stop`. Only a chat API can honour
    them, so a task that has any never goes elsewhere.
    """

    model: str
    messages: tuple[Message, ...]
    max_output_tokens: int
    temperature: float = 0.0
    seed: int = 0
    private: bool = False
    timeout_seconds: float = 120.0
    sampling: Mapping[str, Any] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class Money:
    """An amount in a provider's own unit, such as `Money(1.25, "USD")`, `Money(30.0, "NOS")`."""

    amount: float
    unit: str


@dataclass(frozen=True, slots=True)
class Quote:
    """What a job is expected to cost and to take. `cost_lamports` is what budgets are kept in.

    `starting_seconds` are known to pass before it can start, and `promised_seconds` are what the provider reserves for
    it: no nearer deadline is counted on, however fast the jobs before it were.
    """

    cost_lamports: int
    cost: Money
    expected_seconds: float | None = None
    starting_seconds: float = 0.0
    promised_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class JobHandle:
    """A job at a provider. `detail` holds what else its adapter needs to find it again: JSON values only."""

    provider: str
    job_id: str
    detail: Mapping[str, Any] = field(default_factory=dict, compare=False, hash=False)


class JobState(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    LOST = "lost"
    """The provider cannot say what became of it: neither running nor failed (law 5)."""


@dataclass(frozen=True, slots=True)
class JobStatus:
    """Where a job is. `error` is set on FAILED and says whether another try may help."""

    state: JobState
    error: OracleError | None = None
    message: str = ""


@dataclass(frozen=True, slots=True)
class Output:
    """What a job produced. `model_run` is the model that really ran, in the provider's words (law 9).

    `cost_lamports` is the final cost where the provider tells it, else None. Times are unix seconds.
    """

    content: bytes
    model_run: str
    media_type: str = "text/plain; charset=utf-8"
    cost_lamports: int | None = None
    cost: Money | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    started_at: float | None = None
    finished_at: float | None = None
    finish_reason: str = "stop"
    """`length` where the answer was cut at the limit that was asked for."""


@dataclass(frozen=True, slots=True)
class Found:
    """The purchase happened: this is the job."""

    handle: JobHandle


@dataclass(frozen=True, slots=True)
class Absent:
    """The purchase is proven not to have happened."""


@dataclass(frozen=True, slots=True)
class CannotTell:
    """The provider allows no look-up, or did not answer. This is not `Absent`."""

    why: str = ""


class Recovery(StrEnum):
    """What an interrupted purchase allows."""

    REPEAT = "repeat"
    """The same call with the same key buys once, or buying twice costs nothing."""
    LOOK_UP = "look_up"
    """`find` can tell whether the purchase happened."""
    NEITHER = "neither"
    """Repeated at most `max_unconfirmed_purchases` times, charged to the budget, and then rejected (law 4)."""


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a provider can do, and where it lets a prompt be seen."""

    recovery: Recovery
    cancel: bool = False
    stream: bool = False
    prompts_public: bool = False
    """A prompt or an output becomes readable by anyone, as on IPFS: a private request never goes there."""
    in_process: bool = False
    """Only the process that submitted a job knows of it: any other would take it for lost, and buy it again."""


class Compute(Protocol):
    """A network that runs inferences. Every method raises `OracleError`; a `submit` that timed out is `UNKNOWN`."""

    name: str
    capabilities: Capabilities

    async def quote(self, task: Task) -> Quote: ...

    async def submit(self, task: Task, key: IdempotencyKey) -> JobHandle: ...

    async def find(self, key: IdempotencyKey) -> Found | Absent | CannotTell: ...

    async def poll(self, handles: Sequence[JobHandle]) -> Mapping[JobHandle, JobStatus]: ...

    async def fetch(self, handle: JobHandle) -> Output: ...

    async def cancel(self, handle: JobHandle) -> None: ...

    async def balance(self) -> Money | None: ...

    async def models(self) -> Sequence[str]: ...

    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Completion:
    """A finished chat completion, from a synchronous chat API. `cost_usd` where the price is not one by the token."""

    text: str
    model: str
    finish_reason: str
    input_tokens: int | None = None
    output_tokens: int | None = None
    response_id: str = ""
    cost_usd: Decimal | None = None


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of a streamed answer. `model` is the one that is said to run; empty where that is not said yet."""

    text: str
    model: str


@dataclass(frozen=True, slots=True)
class Embeddings:
    """One vector per text, in the order of the texts. `model` is the one that ran, in the provider's words.

    `cost_usd` where the price is not one by the token.
    """

    vectors: tuple[tuple[float, ...], ...]
    model: str
    input_tokens: int | None = None
    cost_lamports: int | None = None
    cost_usd: Decimal | None = None


class Chat(Protocol):
    """A synchronous chat API (OpenAI wire format). `providers.chat.ChatCompute` makes a `Compute` of it."""

    async def complete(self, task: Task) -> Completion: ...

    def stream(self, task: Task) -> AsyncGenerator[Piece | Completion, None]:
        """The answer in pieces, and at its end the whole completion with its token counts."""

    async def embed(self, model: str, texts: Sequence[str], *, seconds: float) -> Embeddings: ...

    async def models(self) -> Sequence[str]: ...

    async def close(self) -> None: ...


@runtime_checkable
class Synchronous(Protocol):
    """A `Compute` that also answers while the caller waits, as the gateway's clients do: nothing of it is a job."""

    async def answer(self, task: Task) -> Output: ...

    def stream(self, task: Task) -> AsyncGenerator[Piece | Output, None]:
        """The answer in pieces, and at its end the whole output. Closing it cuts the call."""

    async def embed(self, model: str, texts: Sequence[str], *, seconds: float) -> Embeddings: ...


@runtime_checkable
class Tended(Protocol):
    """A `Compute` that holds something which costs money while nobody asks for anything."""

    async def tend(self) -> None:
        """Until cancelled: see to it that nothing is held that nobody needs. Run by the daemon, and by nobody else."""


@runtime_checkable
class Lingering(Protocol):
    """A `Compute` whose jobs go on, and cost, after they have answered: only while one runs can its answer be had again
    by a process that has lost it. So a job is let go of once its answer is durable, or not wanted."""

    def release(self, handle: JobHandle) -> None:
        """Begin to end the job, and see to it that it ends; one that has ended stays so. Returns at once."""


def let_go(provider: Compute, handle: JobHandle) -> None:
    """Nobody will ask for the answer of this job again."""
    if isinstance(provider, Lingering):
        provider.release(handle)


@dataclass(frozen=True, slots=True)
class Dataset:
    """Normalised data for a query: canonical JSON, its SHA-256, and where it came from."""

    content: bytes
    sha256: bytes
    origin: str


class Source(Protocol):
    """A data network whose data can be the input of an inference (`data://name/…`). Methods raise `OracleError`."""

    name: str
    max_bytes: int
    """The most bytes that a dataset has."""

    def cost_lamports(self, query: DataQuery) -> int:
        """What one fetch is reckoned to cost; 0 where it is free and may be repeated. No I/O.

        Raises ORC-DATA-002 or 003 where the network cannot be asked this.
        """

    async def fetch(self, query: DataQuery) -> Dataset: ...

    async def probe(self) -> str:
        """Whether the network answers and takes the key, in a few words. Buys nothing."""

    async def close(self) -> None: ...
