"""Byte strings that nobody meant to be read, made from some that somebody did: for tests of decoders."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from random import Random

EXTREMES = (b"\x00", b"\xff", b"\x7f", b"\x80", b"\x01")
LONGEST_TAIL = 600


def hostile(valid: Sequence[bytes], count: int, seed: int = 20_261_128) -> Iterator[bytes]:
    """`count` strings: the valid ones cut, prolonged, flipped, overwritten, spliced, and noise behind their heads."""
    chance = Random(seed)
    yield from valid
    for _ in range(count):
        yield _spoilt(chance, valid)


def truncations(valid: bytes) -> Iterator[bytes]:
    """Every beginning of a valid string, short of all of it."""
    return (valid[:length] for length in range(len(valid)))


@contextmanager
def bounded_memory(most_bytes: int) -> Iterator[None]:
    """Fails where the block has held more than so much at once."""
    tracemalloc.start()
    try:
        yield
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < most_bytes, peak


def _spoilt(chance: Random, valid: Sequence[bytes]) -> bytes:
    data = bytearray(chance.choice(valid))
    for _ in range(chance.choice((1, 1, 2, 5))):
        at = chance.randrange(len(data) + 1)
        match chance.randrange(7):
            case 0:
                del data[at:]
            case 1:
                data += chance.randbytes(chance.randrange(LONGEST_TAIL))
            case 2 if at < len(data):
                data[at] ^= 1 << chance.randrange(8)
            case 3:
                run = chance.choice(EXTREMES) * chance.choice((1, 4, 8, 32))
                data[at : at + len(run)] = run
            case 4:
                other = chance.choice(valid)
                data[at:] = other[chance.randrange(len(other) + 1) :]
            case 5:
                del data[at : at + chance.randrange(9)]
            case _:
                data[8:] = chance.randbytes(chance.randrange(LONGEST_TAIL))
    return bytes(data)
