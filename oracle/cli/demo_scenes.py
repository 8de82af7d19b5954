"""The demo's requests: how each must end, and what has come of it."""

from __future__ import annotations

from dataclasses import dataclass, field

from oracle.client.requests import Submitted
from oracle.core.dataquery import compose
from oracle.core.request import Request, Status

FEE_LAMPORTS = 100_000
# The map is paid for too: 0.30 USD, at the demo's rate 2,000,000 lamports.
DATA_FEE_LAMPORTS = 2_500_000

# From crawl to chain: drivers film the road, Bee Maps finds the signs, the query picks class and properties of those
# within 100 m, the model reads them, and the answer is settled.
SPEED_LIMIT = compose(
    "beemaps",
    "features",
    params={"at": "11.575,48.137", "radius": "100", "class": "speed-sign", "fields": "class,properties"},
    ask="What is the speed limit?",
)


@dataclass(frozen=True, slots=True)
class Scene:
    """One request, and how it must end. A prompt may be a `data://` query with a question in it."""

    title: str
    model: str
    prompt: str
    fact: str
    end: Status
    provider: str | None = None
    fee_lamports: int = FEE_LAMPORTS
    ttl_slots: int = 1_500


SCENES = (
    Scene("Nosana", "smollm2", "What is the capital city of Japan?", "Tokyo", Status.FULFILLED, "nosana"),
    Scene("io.net", "smollm2-ionet", "What is 2 times 3?", "6", Status.FULFILLED, "ionet"),
    Scene("this machine", "smollm2-local", "What is the opposite of big?", "small", Status.FULFILLED, "local"),
    Scene("fallback", "smollm2-fallback", "What is the plural of mouse?", "mice", Status.FULFILLED, "ionet"),
    Scene("map data", "smollm2-local", SPEED_LIMIT, "30", Status.FULFILLED, "local", DATA_FEE_LAMPORTS),
    Scene("nobody can", "smollm2-nobody", "What is the chemical symbol for water?", "", Status.REJECTED),
    Scene("too cheap", "smollm2", "Calculate 10 + 10.", "", Status.EXPIRED, None, 5_000, 60),
)


@dataclass(slots=True)
class Take:
    """A scene that runs: what was submitted, what has come of it."""

    scene: Scene
    submitted: Submitted
    began: float
    state: str = "submitted"
    route: str = ""
    seconds: float | None = None
    ended: Request | None = None
    answer: str = ""
    verified: bool = False
    input_hash: str = ""
    input_origin: str | None = None
    hash_recomputed: str = ""
    fee_paid_lamports: int | None = None
    problems: list[str] = field(default_factory=list)
