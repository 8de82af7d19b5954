"""Whether the model that answered is the model that was asked for (law 9). Pure."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Final

# A dated snapshot: `gpt-x` is answered by `gpt-x-2026-08-01` or `gpt-x-0613`. `gpt-x-mini` is another model.
_SNAPSHOT: Final = re.compile(r"-(\d{4}-\d{2}-\d{2}|\d{8}|\d{6}|\d{4})")


def is_same_model(asked: str, returned: str, accepted: Collection[str] = ()) -> bool:
    """True for the same name in any case, a dated snapshot of it, its bare name without the organisation, or an
    `accepted` one. A missing name is not the same: nobody can tell what answered."""
    if returned in accepted:
        return True
    if not returned:
        return False
    mine, theirs = asked.lower(), returned.lower()
    if "/" not in theirs:
        mine = mine.rpartition("/")[2]
    return theirs == mine or (theirs.startswith(mine) and _SNAPSHOT.fullmatch(theirs[len(mine) :]) is not None)
