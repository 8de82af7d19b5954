"""The body of `POST /v1/jobs`, and what of it is refused (§4, §8)."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from oracle.localnet.emulators.render.refusals import refuse

_MOST = 2**53
_Whole = Annotated[int, Field(ge=0, le=_MOST)]
_Amount = Annotated[float, Field(ge=0, le=_MOST)]


class DockerParameters(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    image: Annotated[str, Field(min_length=1)]
    tag: str = "latest"
    imagesrc: str | None = None
    host: str | None = None
    user: str | None = None
    secret: str | None = None
    sshkey: str | None = None
    allowed_ips: list[str] = Field(default_factory=list)
    ports: list[Annotated[int, Field(ge=1, le=65_535)]] = Field(default_factory=lambda: [22])
    env: dict[str, str] = Field(default_factory=dict)
    volumes: list[dict[str, str]] = Field(default_factory=list)


class Parameters(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    type: Literal["docker"]
    parameters: DockerParameters


class Order(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    task: Literal["BATCH", "PERSISTENT"]
    title: str = ""
    description: str | None = None
    max_timeout_run_ms: Annotated[int, Field(ge=60_000, le=_MOST)] | None = None
    max_timeout_assign_ms: Annotated[int, Field(ge=300_000, le=_MOST)] = 300_000
    max_timeout_start_ms: Annotated[int, Field(ge=120_000, le=_MOST)] = 300_000
    cpu_count: _Whole = 4
    gpu_count: _Whole = 1
    gpu_name: str | None = None
    gpu_registry_uuid: str | None = None
    min_ram_gb: _Amount = 0
    min_storage_gb: _Amount = 0
    min_vram_gb: _Amount = 0
    max_node_count: Annotated[int, Field(ge=1, le=_MOST)] = 1
    max_retry_count: _Whole = 0
    allowed_region_codes: list[str] = Field(default_factory=list)
    parameters: Parameters


def read_order(body: Any) -> Order:
    """Raises Refused with 400 or 422."""
    try:
        order = Order.model_validate(body)
    except ValidationError as error:
        first = error.errors()[0]
        raise refuse(400, "VALIDATION_ERROR", f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    if order.task == "BATCH" and order.max_timeout_run_ms is None:
        raise refuse(400, "VALIDATION_ERROR", "max_timeout_run_ms is required for BATCH jobs")
    if order.task == "PERSISTENT" and order.max_timeout_run_ms is not None:
        raise refuse(400, "VALIDATION_ERROR", "max_timeout_run_ms must be null for PERSISTENT jobs")
    if order.gpu_name and order.gpu_registry_uuid:
        raise refuse(422, "UNPROCESSABLE_ENTITY", "gpu_name and gpu_registry_uuid are mutually exclusive")
    return order
