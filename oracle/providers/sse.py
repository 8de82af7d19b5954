"""Server-sent events, from bytes cut anywhere to the data of each event."""

from __future__ import annotations

import codecs
from collections.abc import AsyncIterator, Iterator
from typing import Final

from oracle.providers import errors

LONGEST_LINE_BYTES: Final = 1024 * 1024


async def events(pieces: AsyncIterator[bytes]) -> AsyncIterator[str]:
    """Data of every event: lines may end in LF, CR LF or CR, and several `data:` lines of one event are joined.

    Comments (llama.cpp's pings) and other fields are skipped. A line that begins with `{` is taken as data: some
    servers report an error in a stream without the prefix. Raises ORC-PROVIDER-006 on a line without end, and
    ORC-PROVIDER-004 on bytes that are not UTF-8.
    """
    lines = _Lines()
    data: list[str] = []
    async for piece in pieces:
        for line in lines.feed(piece):
            if not line:
                if data:
                    yield "\n".join(data)
                data = []
            elif line.startswith("data:"):
                data.append(line[5:].removeprefix(" "))
            elif line.startswith("{"):
                yield line
    # A stream may end without the blank line that closes its last event.
    if (rest := lines.rest()).startswith("data:"):
        data.append(rest[5:].removeprefix(" "))
    elif rest.startswith("{"):
        yield rest
    if data:
        yield "\n".join(data)


class _Lines:
    """Lines from bytes; characters and line ends may be cut anywhere."""

    def __init__(self) -> None:
        self._decode = codecs.getincrementaldecoder("utf-8")().decode
        self._open = ""
        self._after_cr = False

    def feed(self, piece: bytes) -> Iterator[str]:
        try:
            text = self._decode(piece)
        except UnicodeDecodeError:
            raise errors.NO_ANSWER("the stream is not UTF-8") from None
        if self._after_cr and text:
            text = text.removeprefix("\n")
            self._after_cr = False
        self._after_cr = self._after_cr or text.endswith("\r")
        *whole, self._open = (self._open + text).replace("\r\n", "\n").replace("\r", "\n").split("\n")
        if len(self._open) > LONGEST_LINE_BYTES:
            raise errors.ANSWER_TOO_LARGE(f"a line of the stream exceeds {LONGEST_LINE_BYTES} characters")
        yield from whole

    def rest(self) -> str:
        return self._open
