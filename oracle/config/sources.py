"""The `[sources.NAME]` tables: a name is what requesters write in `data://NAME/…`."""

from __future__ import annotations

import re
from typing import Annotated, Final, get_args

from pydantic import AfterValidator

from oracle.providers.sources.settings import SourceSettings

_NAME: Final = re.compile(r"[a-z][a-z0-9-]{0,31}")
_UNION, *_ = get_args(SourceSettings)
KINDS: Final = frozenset(get_args(model.model_fields["kind"].annotation)[0] for model in get_args(_UNION))


def _named(sources: dict[str, SourceSettings]) -> dict[str, SourceSettings]:
    for name, settings in sources.items():
        if not _NAME.fullmatch(name):
            raise ValueError("a name is 1 to 32 of a-z, 0-9 and -, and begins with a letter")
        if name in KINDS and settings.kind != name:
            # Who asks for data of one network must not be given that of another.
            raise ValueError(f"{name} is the name of another network than {settings.kind}")
    return sources


Sources = Annotated[dict[str, SourceSettings], AfterValidator(_named)]
