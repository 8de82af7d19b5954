"""What `GET /models` of IO Intelligence says: names and prices, in either of the two shapes it is known to have. Pure.

Source: specs/ionet.md §2.7. The live service lists `id` and a price per token, as numbers; the documentation lists
`name`, `status` and a price per million tokens, as strings inside `metadata`. The two differ by a factor of a million.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Any, Final

from oracle.providers.pricing import TokenPrice

_MILLION: Final = Decimal(1_000_000)
# Outside of this a price per token was read in the wrong unit.
_CHEAPEST_TOKEN_USD: Final = Decimal("1e-9")
_DEAREST_TOKEN_USD: Final = Decimal("1e-3")


def read_page(content: bytes) -> tuple[dict[str, TokenPrice | None], bool] | None:
    """Price of each model on the page, None where it states none that can be right; and whether another page follows.

    None where the content is no such page. Numbers are read as decimals: binary floats would round a price per token.
    """
    try:
        body = json.loads(content, parse_float=Decimal)
    except (ValueError, RecursionError):
        return None
    data = body.get("data") if isinstance(body, dict) else None
    if not isinstance(data, list):
        return None
    found: dict[str, TokenPrice | None] = {}
    for item in data:
        if not isinstance(item, dict) or item.get("status", "active") != "active":
            continue
        # The documented shape has the UUID under `model_id`, and the name to ask for under `name`.
        name = item.get("id") or item.get("name")
        if isinstance(name, str):
            found[name] = _price(item)
    pagination = body.get("pagination")
    return found, isinstance(pagination, dict) and pagination.get("has_next") is True


def remaining_usd(body: Any) -> float | None:
    """The credit left, from a usage answer whose shape nobody has published: any number called remaining credit."""
    data = body.get("data", body) if isinstance(body, dict) else None
    if not isinstance(data, dict):
        return None
    for name, value in data.items():
        if "remaining" in name and "credit" in name and (number := _decimal(value)) is not None:
            return float(number)
    return None


def _price(item: Mapping[str, Any]) -> TokenPrice | None:
    metadata = item.get("metadata")
    if isinstance(metadata, dict) and "input_token_price" in metadata:
        per_million = metadata.get("input_token_price"), metadata.get("output_token_price")
        return _checked(_decimal(per_million[0]), _decimal(per_million[1]), Decimal(1))
    return _checked(_decimal(item.get("input_token_price")), _decimal(item.get("output_token_price")), _MILLION)


def _checked(input_price: Decimal | None, output_price: Decimal | None, to_million: Decimal) -> TokenPrice | None:
    if input_price is None or output_price is None:
        return None
    price = TokenPrice(input_price * to_million, output_price * to_million)
    per_token = (price.input / _MILLION, price.output / _MILLION)
    if not all(_CHEAPEST_TOKEN_USD < token < _DEAREST_TOKEN_USD for token in per_token):
        return None
    return price


def _decimal(value: Any) -> Decimal | None:
    if isinstance(value, bool) or not isinstance(value, int | str | Decimal):
        return None
    try:
        number = Decimal(value)
    except InvalidOperation:
        return None
    return number if number.is_finite() and number >= 0 else None
