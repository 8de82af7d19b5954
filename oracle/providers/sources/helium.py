"""`Source` on Helium's public data: its Entity API, token supplies on Solana, files of its oracles (depin_data.md §2).

    data://helium/hotspot/KEY                            key-to-asset key, or the hotspot's own (entity) key; fields=
    data://helium/hotspots?subnetwork=iot                box=W,S,E,N, fields=
    data://helium/network?subnetwork=mobile              how many hotspots
    data://helium/wallet/ADDRESS
    data://helium/ouis   data://helium/oui/NUMBER        fields=
    data://helium/supply/HNT                             or DC, MOBILE, IOT
    data://helium/files/NAME

All of it may be asked for twice at no cost. Of a network no part is given for the whole: more pages than are read at
once is an error.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import re
from collections.abc import Mapping
from typing import Any, Final

from oracle.core.compute import Dataset
from oracle.core.dataquery import FIELDS, RESOURCE_UNKNOWN, DataQuery, check_params, fields, one_of
from oracle.providers import errors
from oracle.providers.http import Http
from oracle.providers.sources import geo
from oracle.providers.sources.errors import DATA_NOT_FOUND, DATA_TOO_LARGE
from oracle.providers.sources.files import Files
from oracle.providers.sources.normal import (
    Fit,
    Misfit,
    dataset,
    each,
    either,
    number,
    only,
    ordered,
    record,
    text,
    truth,
)

SUBNETWORK: Final = "subnetwork"
SUBNETWORKS: Final = ("iot", "mobile")

# depin_data.md §2.2
MINTS: Final[Mapping[str, str]] = {
    "HNT": "hntyVP6YFm1Hg25TN9WGLqM12b8TQmcknKrdu1oxWux",
    "DC": "dcuc8Amr83Wz27ZkQ2K9NS6r8zRpf1J6cvArEBDZDmm",
    "MOBILE": "mb1eu7TzEc71KxDpsmsKoucSSuuoGLv1drys1oP2jh6",
    "IOT": "iotEVVZLEywoTn1QdwNPddxPWszn3zFhEot3MfL9fns",
}
# An SPL Token mint: an optional authority (36 bytes), supply (u64), decimals (u8), initialised, an optional authority.
_MINT_BYTES: Final = 82
_SUPPLY: Final = slice(36, 44)
_DECIMALS: Final = 44

_BASE58: Final = "[1-9A-HJ-NP-Za-km-z]"
_ADDRESS: Final = re.compile(rf"{_BASE58}{{32,44}}")
_ENTITY_KEY: Final = re.compile(rf"{_BASE58}{{45,80}}")
_NUMBER: Final = re.compile(r"0|[1-9][0-9]{0,8}")

_DEGREES: Final = number(7)
_AMOUNT: Final = either(text(40), number(0))
_INFO: Final = record(
    {
        "address": text(),
        "street": text(),
        "city": text(),
        "state": text(),
        "country": text(),
        "location": text(),
        "elevation": number(1),
        "gain": number(1),
        "created_at": text(),
        "asset": text(),
        "lat": _DEGREES,
        "long": _DEGREES,
        "dc_onboarding_fee_paid": _AMOUNT,
    }
)
HOTSPOT: Final[Mapping[str, Fit]] = {
    "name": text(),
    "asset_id": text(),
    "key_to_asset_key": text(),
    "entity_key_b64": text(),
    "key_serialization": text(),
    "entity_key_str": text(),
    "hotspot_infos": record({"iot": _INFO, "mobile": _INFO}),
    "attributes": each(record({"trait_type": text(), "value": either(text(), number(7), truth)})),
}
# `is_active` is deprecated and always false (§2.1): a model would take it for a fact.
LISTED: Final[Mapping[str, Fit]] = {
    "key_to_asset_key": text(),
    "entity_key_str": text(),
    "lat": _DEGREES,
    "long": _DEGREES,
}
OUI: Final[Mapping[str, Fit]] = {
    "oui": number(0),
    "owner": text(),
    "payer": text(),
    "escrow": text(),
    "delegate_keys": each(text()),
    "locked": truth,
}
_HOTSPOT: Final = record(HOTSPOT, required=("key_to_asset_key",))
_PAGE: Final = record(
    {"cursor": text(2_048), "items": each(record(LISTED, required=("key_to_asset_key",)))}, required=("items",)
)
_PAGINATION: Final = record(
    {"pageSize": number(0), "totalItems": number(0), "totalPages": number(0)},
    required=("pageSize", "totalItems", "totalPages"),
)
_WALLET: Final = record(
    {
        "hotspots_count": number(0),
        "balances": each(record({"mint": text(), "balance": _AMOUNT}, required=("mint", "balance"))),
    },
    required=("hotspots_count", "balances"),
)
_OUI: Final = record(OUI, required=("oui",))
_OUIS: Final = record({"orgs": each(_OUI)}, required=("orgs",))
_ACCOUNT: Final = record({"result": record({"value": record({"data": each(text(4_096))})})}, required=("result",))


class Helium:
    """Implements `Source`. `http` speaks to the Entity API, `rpc` to a Solana endpoint, where there is one."""

    def __init__(
        self,
        name: str,
        http: Http,
        files: Files,
        *,
        origin: str,
        rpc: Http | None = None,
        rpc_origin: str = "",
        max_pages: int = 20,
        max_bytes: int = 16_384,
        seconds: float = 20.0,
    ) -> None:
        self.name = name
        self.max_bytes = max_bytes
        self._http = http
        self._files = files
        self._origin = origin
        self._rpc = rpc
        self._rpc_origin = rpc_origin
        self._max_pages = max_pages
        self._seconds = seconds

    def cost_lamports(self, query: DataQuery) -> int:
        self._check(query)
        return 0

    async def fetch(self, query: DataQuery) -> Dataset:
        self._check(query)
        if query.path[0] == "files":
            return await self._files.fetch(query)
        try:
            async with asyncio.timeout(self._seconds):
                value, origin = await self._ask(query)
            return dataset(value, origin, self.max_bytes)
        except TimeoutError:
            raise errors.UNREACHABLE(f"{self.name}: {query.path[0]} took more than {self._seconds:g} s") from None
        except Misfit as misfit:
            raise self._http.unreadable(f"{query.path[0]}: {misfit}", repeatable=True) from None

    async def probe(self) -> str:
        await self.fetch(DataQuery(self.name, ("network",), ((SUBNETWORK, SUBNETWORKS[0]),)))
        if self._rpc is not None:
            await self.fetch(DataQuery(self.name, ("supply", "HNT")))
        self._files.probe()
        return "answers, needs no key"

    async def close(self) -> None:
        await self._http.close()
        if self._rpc is not None:
            await self._rpc.close()

    def _check(self, query: DataQuery) -> None:
        """Raise ORC-DATA-002 or 003 unless it is one of the queries above. No I/O."""
        match query.path:
            case ("files", *_):
                self._files.check(query)
            case ("supply", token) if token in MINTS and self._rpc is not None:
                check_params(query)
            case _:
                check(query)

    async def _ask(self, query: DataQuery) -> tuple[Any, str]:
        """The normalised value, and where it came from."""
        match query.path:
            case ("hotspot", key):
                path = f"v2/hotspot/{key}" if _ADDRESS.fullmatch(key) else key
                hotspot = _HOTSPOT(await self._get(path))
                if "attributes" in hotspot:
                    hotspot["attributes"] = ordered(hotspot["attributes"])
                wanted = fields(query, HOTSPOT)
                return {name: value for name, value in hotspot.items() if name in wanted}, self._from(path)
            case ("hotspots",):
                return {"hotspots": await self._hotspots(query)}, self._from("v2/hotspots")
            case ("network",):
                path = "v2/hotspots/pagination-metadata"
                subnetwork = one_of(query, SUBNETWORK, SUBNETWORKS)
                pages = _PAGINATION(await self._get(path, {SUBNETWORK: subnetwork}))
                return {"hotspots": pages["totalItems"], SUBNETWORK: subnetwork}, self._from(path)
            case ("wallet", address):
                wallet = _WALLET(await self._get(f"v2/wallet/{address}"))
                wallet["balances"] = ordered(wallet["balances"], "mint")
                return wallet, self._from(f"v2/wallet/{address}")
            case ("oui", oui):
                found = only([_OUI(await self._get(f"v2/oui/{oui}"))], fields(query, OUI))
                return found[0], self._from(f"v2/oui/{oui}")
            case ("ouis",):
                orgs = ordered(_OUIS(await self._get("v2/oui/all"))["orgs"], "oui")
                return {"orgs": only(orgs, fields(query, OUI))}, self._from("v2/oui/all")
            case _:
                return await self._supply(query.path[1]), f"{self._rpc_origin} getAccountInfo {MINTS[query.path[1]]}"

    async def _hotspots(self, query: DataQuery) -> list[dict[str, Any]]:
        """Every hotspot of the subnetwork, or of a box of it."""
        box = geo.box_of(query)
        wanted = fields(query, LISTED)
        params = {SUBNETWORK: one_of(query, SUBNETWORK, SUBNETWORKS)}
        found: list[dict[str, Any]] = []
        for _ in range(self._max_pages):
            page = _PAGE(await self._get("v2/hotspots", params))
            found += [one for one in page["items"] if box is None or _is_in(box, one)]
            if "cursor" not in page:
                return only(ordered(found, "key_to_asset_key"), wanted)
            params["cursor"] = page["cursor"]
        raise DATA_TOO_LARGE(f"more than {self._max_pages} pages of hotspots")

    async def _supply(self, token: str) -> dict[str, Any]:
        """What the mint says, at `finalized`. The supply is in the token's smallest unit, and may be beyond 2^53."""
        assert self._rpc is not None
        body = {
            "jsonrpc": "2.0",
            "id": 1,
            "method": "getAccountInfo",
            "params": [MINTS[token], {"encoding": "base64", "commitment": "finalized"}],
        }
        answer = await self._rpc.call("POST", "", json=body, repeatable=True)
        account = _ACCOUNT(self._rpc.json(answer, repeatable=True))
        if "value" not in account["result"]:
            raise DATA_NOT_FOUND(f"no mint of {token} on this cluster")
        try:
            raw = base64.b64decode(account["result"]["value"]["data"][0], validate=True)
        except (binascii.Error, LookupError):
            raise Misfit("data is no base64") from None
        if len(raw) < _MINT_BYTES:
            raise Misfit("the account is no mint")
        supply = int.from_bytes(raw[_SUPPLY], "little")
        return {"token": token, "mint": MINTS[token], "supply": str(supply), "decimals": raw[_DECIMALS]}

    async def _get(self, path: str, params: Mapping[str, str] | None = None) -> Any:
        answer = await self._http.call("GET", path, params=params, repeatable=True, expect=(404,))
        if answer.status == 404:
            raise DATA_NOT_FOUND(f"/{path}: HTTP 404")
        return self._http.json(answer, repeatable=True)

    def _from(self, path: str) -> str:
        return f"{self._origin}/{path}"


def check(query: DataQuery) -> None:
    """Raise ORC-DATA-002 or 003 unless it is a query of the Entity API."""
    match query.path:
        case ("hotspot", key) if _ADDRESS.fullmatch(key) or _ENTITY_KEY.fullmatch(key):
            check_params(query, optional=(FIELDS,))
            fields(query, HOTSPOT)
        case ("hotspots",):
            check_params(query, required=(SUBNETWORK,), optional=(geo.BOX, FIELDS))
            one_of(query, SUBNETWORK, SUBNETWORKS)
            geo.box_of(query)
            fields(query, LISTED)
        case ("network",):
            check_params(query, required=(SUBNETWORK,))
            one_of(query, SUBNETWORK, SUBNETWORKS)
        case ("wallet", address) if _ADDRESS.fullmatch(address):
            check_params(query)
        case ("oui", oui) if _NUMBER.fullmatch(oui):
            check_params(query, optional=(FIELDS,))
            fields(query, OUI)
        case ("ouis",):
            check_params(query, optional=(FIELDS,))
            fields(query, OUI)
        case _:
            raise RESOURCE_UNKNOWN(f"{'/'.join(query.path)} is nothing that {query.network} is asked here")


def _is_in(box: geo.Box, hotspot: Mapping[str, Any]) -> bool:
    """A hotspot whose place is not known is in no box."""
    return "lat" in hotspot and "long" in hotspot and box.holds(hotspot["long"], hotspot["lat"])
