"""Request bodies and queries of CaaS (§4.2, §4.3)."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Id = int | str
_AtLeastOne = Annotated[int, Field(ge=1)]


class ContainerConfig(BaseModel):
    model_config = ConfigDict(extra="forbid")

    replica_count: _AtLeastOne = 1
    env_variables: dict[str, str] = {}
    secret_env_variables: dict[str, str] = {}
    entrypoint: list[str] = []
    command: list[str] = []
    args: list[str] = []
    traffic_port: Annotated[int, Field(ge=1, le=65535)]


class RegistryConfig(BaseModel):
    image_url: Annotated[str, Field(min_length=1)]
    registry_username: str = ""
    registry_secret: str = ""


class DeployRequest(BaseModel):
    """Newer optional fields exist whose names on the wire are unverified: unknown ones pass."""

    resource_private_name: Annotated[str, Field(min_length=1)]
    duration_hours: _AtLeastOne
    gpus_per_container: _AtLeastOne
    hardware_id: Id
    location_ids: Annotated[list[Id], Field(min_length=1)]
    container_config: ContainerConfig
    registry_config: RegistryConfig


class PatchRequest(BaseModel):
    """Everything at the top level: wrapped in `container_config` it is refused with `extra_forbidden`."""

    model_config = ConfigDict(extra="forbid")

    env_variables: dict[str, str] | None = None
    secret_env_variables: dict[str, str] | None = None
    entrypoint: list[str] | None = None
    command: list[str] | None = None
    args: list[str] | None = None
    traffic_port: int | None = None
    image_url: str | None = None
    registry_username: str | None = None
    registry_secret: str | None = None


class ExtendRequest(BaseModel):
    duration_hours: _AtLeastOne


class PriceQuery(BaseModel):
    location_ids: str
    hardware_id: Id
    duration_hours: _AtLeastOne
    gpus_per_container: _AtLeastOne
    replica_count: _AtLeastOne


class ListQuery(BaseModel):
    """Pages count from 0 here."""

    status: str | None = None
    page: Annotated[int, Field(ge=0)] = 0
    page_size: Annotated[int, Field(ge=1, le=100)] = 10
