"""Text from outside, made fit to be shown: it can neither forge a line nor drive the terminal that shows it."""

from __future__ import annotations

import re
from typing import Final

# C0 and C1 controls, DEL, what Unicode counts as line ends, and what turns the direction of the text around it.
_CONTROLS: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def harmless(text: str, *, keep: str = "") -> str:
    """`text` with every control character written as its escape, but for those in `keep`."""
    if text.isprintable():
        return text
    # A lone surrogate, as JSON may hold one, could not be written at all.
    text = text.encode(errors="replace").decode()
    return _CONTROLS.sub(lambda found: found[0] if found[0] in keep else _escaped(found[0]), text)


def _escaped(control: str) -> str:
    return control.encode("unicode_escape").decode()
