"""Who is on the network. Field names from §2.1, every value synthetic; keys only look like keys."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

_BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"

HNT = "hntyVP6YFm1Hg25TN9WGLqM12b8TQmcknKrdu1oxWux"
IOT = "iotEVVZLEywoTn1QdwNPddxPWszn3zFhEot3MfL9fns"


def key(seed: str) -> str:
    """32 bytes in base58, as an address of Solana is written."""
    return _base58(hashlib.sha256(seed.encode()).digest())


def entity_key(seed: str) -> str:
    """What a hotspot calls itself: network byte and compact ECC key with a checksum, about 51 letters."""
    compact = b"\x00" + hashlib.sha512(seed.encode()).digest()[:33]
    return _base58(b"\x00" + compact + hashlib.sha256(compact).digest()[:4])


def _base58(raw: bytes) -> str:
    number, letters = int.from_bytes(raw, "big"), ""
    while number:
        number, digit = divmod(number, 58)
        letters = _BASE58[digit] + letters
    return "1" * (len(raw) - len(raw.lstrip(b"\x00"))) + letters


def _hotspot(name: str, subnetwork: str, city: str, country: str, lat: float, long: float) -> dict[str, Any]:
    info = {
        "address": f"1 {city} Road",
        "street": f"{city} Road",
        "city": city,
        "state": city,
        "country": country,
        "location": "8839221b35fffff",
        "elevation": 12,
        "gain": 40,
        "created_at": "2024-05-04T12:00:00.000Z",
        "asset": key(f"{name} asset"),
        "lat": lat,
        "long": long,
        "dc_onboarding_fee_paid": "4000000",
    }
    return {
        "name": name,
        "description": "A hotspot of the emulator",
        "image": "https://entities.example/hotspot.png",
        "asset_id": key(f"{name} asset"),
        "key_to_asset_key": key(name),
        "entity_key_b64": base64.b64encode(hashlib.sha512(name.encode()).digest()[:33]).decode(),
        "key_serialization": "b58",
        "entity_key_str": entity_key(name),
        "hotspot_infos": {subnetwork: info},
        "attributes": [
            {"trait_type": "networks", "value": subnetwork},
            {"trait_type": f"{subnetwork}_city", "value": city},
        ],
    }


HOTSPOTS = (
    _hotspot("rapid-teal-otter", "iot", "Lisbon", "Portugal", 38.7223, -9.1393),
    _hotspot("brave-amber-heron", "iot", "Porto", "Portugal", 41.1579, -8.6291),
    _hotspot("quiet-rose-lynx", "iot", "Munich", "Germany", 48.1371, 11.5754),
    _hotspot("eager-jade-crane", "mobile", "Austin", "United States", 30.2672, -97.7431),
    _hotspot("noble-slate-fox", "mobile", "Miami", "United States", 25.7617, -80.1918),
)

OWNER = key("owner of two hotspots")
WALLETS = {
    OWNER: {
        "hotspots_count": 2,
        "hotspots": [one["key_to_asset_key"] for one in HOTSPOTS[:2]],
        "balances": [{"mint": IOT, "balance": "250000000"}, {"mint": HNT, "balance": "1200000000"}],
    }
}


def _oui(number: int, locked: bool) -> dict[str, Any]:
    return {
        "oui": number,
        "owner": key(f"oui {number} owner"),
        "payer": key(f"oui {number} payer"),
        "escrow": key(f"oui {number} escrow"),
        "delegate_keys": [key(f"oui {number} delegate")],
        "locked": locked,
    }


OUIS = (_oui(1, False), _oui(12, False), _oui(60, True))
