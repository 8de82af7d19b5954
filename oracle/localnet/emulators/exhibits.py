"""Every emulator by name, to be served alone: what it stands for, what it needs, and what leads the oracle to it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from oracle.localnet.emulators.beemaps import Beemaps, MapKey
from oracle.localnet.emulators.grass import Grass
from oracle.localnet.emulators.helium import Helium
from oracle.localnet.emulators.ionet import CLOUD_KEY, Ionet, IonetCloud
from oracle.localnet.emulators.ionet import ApiKey as IonetKey
from oracle.localnet.emulators.nosana import Account, Nosana
from oracle.localnet.emulators.nosana.emulator import PIN_TOKEN
from oracle.localnet.emulators.openai import Personality, ScriptedOpenAI
from oracle.localnet.emulators.render import ApiKey as RenderKey
from oracle.localnet.emulators.render import Render
from oracle.localnet.emulators.server import Emulator

REPOSITORY: Final = "HuggingFaceTB/SmolLM2-135M-Instruct"


@dataclass(frozen=True, slots=True)
class Ground:
    """What an emulator stands on: a model server, a directory for its books, the chain whose queues its host works."""

    model_url: str = ""
    state: Path | None = None
    rpc_url: str | None = None


@dataclass(frozen=True, slots=True)
class Exhibit:
    """`settings` is the section of a configuration that leads to the emulator, with `{url}` for its address."""

    stands_for: str
    build: Callable[[Ground], Emulator]
    settings: str
    needs_model: bool = False
    keeps_state: bool = False


EXHIBITS: Final[Mapping[str, Exhibit]] = {
    "nosana": Exhibit(
        "Nosana: REST jobs with credits, deployments, the IPFS pin and gateway, and a host that runs the jobs",
        lambda ground: Nosana(ground.model_url, state_directory=ground.state, rpc_url=ground.rpc_url),
        f"""\
[providers.nosana]
kind = "nosana"
base_url = "{{url}}"
pinning_url = "{{url}}"
gateway_url = "{{url}}"
api_key = "{Account().api_key}"
pinata_jwt = "{PIN_TOKEN}"
models = ["{REPOSITORY}"]
""",
        needs_model=True,
        keeps_state=True,
    ),
    "ionet": Exhibit(
        "IO Intelligence of io.net: chat, embeddings, models, quotas",
        lambda ground: Ionet(ground.model_url, state_directory=ground.state),
        f"""\
[providers.ionet]
kind = "ionet"
base_url = "{{url}}/api/v1"
api_key = "{IonetKey().value}"
""",
        needs_model=True,
        keeps_state=True,
    ),
    "ionet-cloud": Exhibit(
        "IO Cloud of io.net: containers by the hour",
        lambda ground: IonetCloud(ground.model_url, state_directory=ground.state),
        f"""\
[providers.ionet-cloud]
kind = "ionet_cloud"
base_url = "{{url}}/enterprise/v1/io-cloud/caas"
api_key = "{CLOUD_KEY.value}"
repository = "{REPOSITORY}"
hardware = [12]
""",
        needs_model=True,
        keeps_state=True,
    ),
    "render": Exhibit(
        "Render's compute subnet (Dispersed): containers on rented GPUs, ordered by signed calls",
        lambda ground: Render(ground.model_url, state_directory=ground.state),
        f"""\
[providers.render]
kind = "render"
base_url = "{{url}}"
public_key = "{RenderKey().public_key}"
secret_key = "{RenderKey().secret_key}"
models = ["{REPOSITORY}"]
""",
        needs_model=True,
        keeps_state=True,
    ),
    "openai": Exhibit(
        "an OpenAI-compatible server whose answers are scripted: each names its question, none needs a model",
        lambda ground: ScriptedOpenAI(Personality.OPENAI),
        """\
[providers.openai]
kind = "openai"
base_url = "{url}/v1"
free = true
""",
    ),
    "beemaps": Exhibit(
        "Bee Maps of Hivemapper: the map features and frames of a small town",
        lambda ground: Beemaps(),
        f"""\
[sources.beemaps]
kind = "beemaps"
base_url = "{{url}}/api/developer"
api_key = "{MapKey().value}"
""",
    ),
    "helium": Exhibit(
        "the Entity API of Helium: a network of a few hotspots",
        lambda ground: Helium(),
        """\
[sources.helium]
kind = "helium"
base_url = "{url}"
""",
    ),
    "grass": Exhibit(
        "a service that serves web pages as the operator of a Grass-like network might; Grass itself has no such API",
        lambda ground: Grass(),
        """\
[sources.grass]
kind = "grass"
endpoint = "{url}"
api_key = "grass_localnet"
""",
    ),
}
