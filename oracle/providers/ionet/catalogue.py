"""What IO Intelligence says of its models, in either of the two shapes it is known to have, and of a key's use. Pure.

Source: specs/ionet.md §2.7. The live service lists `id` and a price per token, as numbers; the documentation lists
`name`, `status` and a price per million tokens, as strings inside `metadata`. The two differ by a factor of a million.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Any, Final

from oracle.providers.offers import Allowance, Offer
from oracle.providers.pricing import TokenPrice

_MILLION: Final = Decimal(1_000_000)
# Outside of this a price per token was read in the wrong unit.
_CHEAPEST_TOKEN_USD: Final = Decimal("1e-9")
_DEAREST_TOKEN_USD: Final = Decimal("1e-3")


def read_page(content: bytes, *, embeds: bool = False) -> tuple[dict[str, Offer], bool] | None:
    """The models on the page by name, without a price where none is stated that can be right; and whether another
    page follows.

    None where the content is no such page. Numbers are read as decimals: binary floats would round a price per token.
    """
    body = _exact(content)
    data = body.get("data") if isinstance(body, dict) else None
    if not isinstance(data, list):
        return None
    found: dict[str, Offer] = {}
    for item in data:
        if not isinstance(item, dict) or item.get("status", "active") != "active":
            continue
        # The documented shape has the UUID under `model_id`, and the name to ask for under `name`.
        name = item.get("id") or item.get("name")
        if isinstance(name, str):
            found[name] = _offer(name, item, embeds=embeds)
    pagination = body.get("pagination")
    return found, isinstance(pagination, dict) and pagination.get("has_next") is True


def read_usage(content: bytes) -> Allowance | None:
    """A key's use. Nobody has published the shape of this answer: any number of a telling name is taken."""
    body = _exact(content)
    data = body.get("data", body) if isinstance(body, dict) else None
    if not isinstance(data, dict):
        return None
    numbers = {name: number for name, value in data.items() if (number := _decimal(value)) is not None}
    cycle = data.get("credit_refresh_cycle")
    allowance = Allowance(
        remaining_usd=next(
            (value for name, value in numbers.items() if "remaining" in name and "credit" in name), None
        ),
        used_usd=next((value for name, value in numbers.items() if "used" in name or "spent" in name), None),
        limit_usd=numbers.get("credit_limit"),
        cycle=cycle if isinstance(cycle, str) else "",
    )
    return None if allowance == Allowance() else allowance


def _exact(content: bytes) -> Any:
    try:
        return json.loads(content, parse_float=Decimal)
    except (ValueError, RecursionError):
        return None


def _offer(name: str, item: Mapping[str, Any], *, embeds: bool) -> Offer:
    metadata = item.get("metadata")
    documented = isinstance(metadata, dict) and "input_token_price" in metadata
    told: Mapping[str, Any] = metadata if isinstance(metadata, dict) and documented else item
    return Offer(
        model=name,
        price=_price(told, Decimal(1) if documented else _MILLION, embeds=embeds),
        context_tokens=_tokens(told.get("context_window")),
        max_output_tokens=None if embeds else _tokens(told.get("max_tokens")),
        embeds=embeds,
        locked=item.get("higher_tier_required") is True,
    )


def _price(told: Mapping[str, Any], to_million: Decimal, *, embeds: bool) -> TokenPrice | None:
    stated = _decimal(told.get("input_token_price")), _decimal(told.get("output_token_price"))
    if embeds:
        # An embedding has no output tokens, so whatever is said of their price says nothing.
        return None if (one := _checked(stated[0], to_million)) is None else TokenPrice(input=one)
    both = _checked(stated[0], to_million), _checked(stated[1], to_million)
    return None if both[0] is None or both[1] is None else TokenPrice(both[0], both[1])


def _checked(price: Decimal | None, to_million: Decimal) -> Decimal | None:
    """USD per million tokens."""
    if price is None or not _CHEAPEST_TOKEN_USD < price * to_million / _MILLION < _DEAREST_TOKEN_USD:
        return None
    return price * to_million


def _tokens(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def _decimal(value: Any) -> Decimal | None:
    if isinstance(value, bool) or not isinstance(value, int | str | Decimal):
        return None
    try:
        number = Decimal(value)
    except InvalidOperation:
        return None
    return number if number.is_finite() and number >= 0 else None
