"""The job definition as the strict validator of hosts reads it: whatever it does not know is refused. Pure.

A job whose definition a host refuses is paid for all the same, so it is checked here first. What the specification has
only for newer hosts (`ssh`, `execution.timeout`) is refused, since older ones would. Source: specs/nosana.md §3.1 to
§3.6.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, NoReturn

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from oracle.providers import errors

# Linux: MAX_ARG_STRLEN, for `NAME=value` and its closing zero byte. A larger one fails when the container is started.
LONGEST_VARIABLE_BYTES: Final = 131_071

_PLACEHOLDER: Final = re.compile(r"%%(?:globals?|ops)\.[\w.\-]+%%")


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, hide_input_in_errors=True)


Id = Annotated[str, StringConstraints(pattern=r"^\S+$")]
Text = Annotated[str, StringConstraints(min_length=1)]
Scalar = str | int | float
Texts = str | list[str]


class HttpCheck(_Part):
    type: Literal["http"]
    path: str
    method: Literal["GET", "POST", "PUT", "DELETE"]
    expected_status: int
    continuous: bool
    headers: dict[str, str] | None = None
    body: Any = None


class WebSocketCheck(_Part):
    type: Literal["websocket"]
    expected_response: str
    continuous: bool


class ExposedPort(_Part):
    port: int | str
    type: Literal["api", "web", "websocket", "webapi", "none"] | None = None
    health_checks: list[Annotated[HttpCheck | WebSocketCheck, Field(discriminator="type")]] | None = None


class Bucket(_Part):
    url: str
    files: list[str] | None = None


class Iam(_Part):
    REGION: str
    ACCESS_KEY_ID: str
    SECRET_ACCESS_KEY: str


class S3(_Part):
    type: Literal["S3"]
    target: str
    url: str | None = None
    files: list[str] | None = None
    bucket: str | None = None
    buckets: list[Bucket] | None = None
    allowWrite: bool | None = None
    IAM: Iam | None = None


class HuggingFace(_Part):
    type: Literal["HF"]
    repo: str
    target: str
    revision: str | None = None
    files: list[str] | None = None
    accessToken: str | None = None


class OllamaModel(_Part):
    type: Literal["Ollama"]
    model: str
    target: str | None = None


class Volume(_Part):
    name: str
    dest: str


class DockerLogin(_Part):
    username: str | None = None
    password: str | None = None
    email: str | None = None
    server: str | None = None


class Authentication(_Part):
    docker: DockerLogin | None = None


class OnFailure(_Part):
    policy: Literal["on-failure"]
    restart_tries: int


class RunArgs(_Part):
    image: Text
    cmd: Texts | None = None
    entrypoint: Texts | None = None
    env: dict[str, str] | None = None
    gpu: bool | None = None
    work_dir: str | None = None
    volumes: list[Volume] | None = None
    expose: int | str | ExposedPort | list[int | str | ExposedPort] | None = None
    private: bool | None = None
    resources: list[Annotated[S3 | HuggingFace | OllamaModel, Field(discriminator="type")]] | None = None
    authentication: Authentication | None = None
    restart_policy: Literal["no", "always", "unless-stopped", "on-failure"] | OnFailure | None = None
    aliases: Texts | None = None


class VolumeArgs(_Part):
    name: Text


class ResultRule(_Part):
    regex: str
    logType: list[Literal["stdin", "stdout", "stderr", "nodeerr"]]


class Execution(_Part):
    group: str | None = None
    depends_on: list[str] | None = None
    stop_if_dependent_stops: bool | None = None


class Run(_Part):
    id: Id
    type: Literal["container/run"]
    args: RunArgs
    results: dict[str, str | ResultRule] | None = None
    execution: Execution | None = None


class CreateVolume(_Part):
    id: Id
    type: Literal["container/create-volume"]
    args: VolumeArgs
    execution: Execution | None = None


class Transport(_Part):
    type: Literal["api", "api-listen"]
    args: dict[str, Any]


class Logistics(_Part):
    send: Transport
    receive: Transport


class Defaults(_Part):
    image: str | None = None
    gpu: bool | None = None
    entrypoint: Texts | None = None
    env: dict[str, str] | None = None
    work_dir: str | None = None
    variables: dict[str, str] | None = None


class Definition(_Part):
    version: Literal["0.1"]
    type: Literal["container"]
    ops: list[Annotated[Run | CreateVolume, Field(discriminator="type")]] = Field(min_length=1)
    meta: dict[str, Scalar | list[Scalar] | dict[str, Scalar]] | None = None
    # `global` is a word of Python.
    defaults: Defaults | None = Field(None, alias="global")
    logistics: Logistics | None = None
    deployment_id: str | None = None


def validate(document: Mapping[str, Any]) -> None:
    """Raises ORC-PROVIDER-025, with the place and the rule and never with what is there: it may be a prompt."""
    try:
        definition = Definition.model_validate(document)
    except ValidationError as error:
        found = error.errors()[0]
        _refuse(f"{'.'.join(map(str, found['loc']))}: {found['msg']}")
    _check_graph(definition)
    for operation in definition.ops:
        if isinstance(operation, Run):
            _check_run(operation)
    _check_placeholders(document, "")


def _check_graph(definition: Definition) -> None:
    """What operations refer to is there."""
    ids = [operation.id for operation in definition.ops]
    if len(set(ids)) < len(ids):
        _refuse("ops: an id twice")
    volumes = {operation.args.name for operation in definition.ops if isinstance(operation, CreateVolume)}
    for operation in definition.ops:
        for name in (operation.execution.depends_on or []) if operation.execution else []:
            if name not in ids or name == operation.id:
                _refuse(f"{operation.id}: depends on {name!r}, which is no other operation")
        for volume in (operation.args.volumes or []) if isinstance(operation, Run) else []:
            if volume.name not in volumes:
                _refuse(f"{operation.id}: volume {volume.name!r} is created by no operation")


def _check_run(operation: Run) -> None:
    for name, value in (operation.args.env or {}).items():
        if len(f"{name}={value}".encode()) >= LONGEST_VARIABLE_BYTES:
            _refuse(f"{operation.id}: env {name} is longer than Linux allows")
    for name, rule in (operation.results or {}).items():
        regex = rule if isinstance(rule, str) else rule.regex
        if re.search(r"(?<!\\)(?:\\\\)*\$$", regex):
            # Entries keep their line end, before which JavaScript's `$` does not match.
            _refuse(f"{operation.id}: the regex of result {name!r} ends in `$` and would never match")


def _check_placeholders(value: Any, where: str) -> None:
    """`%%` is what hosts expand: where it is no placeholder that they know, it is an accident."""
    if isinstance(value, str) and "%%" in _PLACEHOLDER.sub("", value):
        _refuse(f"{where}: `%%`, which hosts would expand")
    for name, inner in (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    ):
        _check_placeholders(inner, f"{where}.{name}".strip("."))


def _refuse(why: str) -> NoReturn:
    raise errors.DEFINITION_INVALID(why)
