"""Reasoning that a server writes into the answer itself, between two tags at its start. Pure.

Servers with a reasoning parser put it into a field of its own; others leave it in the text (openai_compatible.md §6.4).
"""

from __future__ import annotations

from enum import Enum, auto


class _Where(Enum):
    BEFORE = auto()
    """Nothing but what may become the opening tag."""
    INSIDE = auto()
    BETWEEN = auto()
    """The line feeds after the closing tag, which belong to neither."""
    ANSWER = auto()


class Thoughts:
    """Leaves out `<tag>…</tag>` where a text begins so. The text may come in pieces, cut anywhere."""

    def __init__(self, tag: str | None) -> None:
        self._opening = f"<{tag}>"
        self._closing = f"</{tag}>"
        self._held = ""
        self._where = _Where.BEFORE if tag else _Where.ANSWER
        self.found = False

    def feed(self, piece: str) -> str:
        """What of the text is certainly answer now, and was not before."""
        if self._where is _Where.ANSWER:
            return piece
        self._held += piece
        if self._where is _Where.BEFORE:
            start = self._held.lstrip()
            if start.startswith(self._opening):
                self._where, self.found, self._held = _Where.INSIDE, True, start[len(self._opening) :]
            elif self._opening.startswith(start):
                return ""
            else:
                return self._take()
        if self._where is _Where.INSIDE:
            _, closing, after = self._held.partition(self._closing)
            if not closing:
                # The beginning of the closing tag may be there already.
                self._held = self._held[1 - len(self._closing) :]
                return ""
            self._where, self._held = _Where.BETWEEN, after
        self._held = self._held.lstrip()
        return self._take() if self._held else ""

    def rest(self) -> str:
        """At the end of the text: what was held back and is answer after all. Thoughts without an end are none."""
        return self._take() if self._where is _Where.BEFORE else ""

    def _take(self) -> str:
        self._where = _Where.ANSWER
        held, self._held = self._held, ""
        return held
