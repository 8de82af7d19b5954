"""Content addresses, against the vectors of nosana.md and of the IPFS reference implementation."""

from __future__ import annotations

import json

import pytest

from oracle.localnet.emulators.nosana.ipfs import BLOCK_BYTES, as_pinata_stores, cid_of, is_cid

STUB = {
    "version": "0.1",
    "type": "container",
    "meta": {"trigger": "cli"},
    "logistics": {"send": {"type": "api-listen", "args": {}}, "receive": {"type": "api-listen", "args": {}}},
    "ops": [],
}


@pytest.mark.parametrize(
    ("document", "cid"),
    [
        (b"hello world", "Qmf412jQZiuVUtdgnB36FXFX7xg5V6KEbSJ4dpQuhkLyfD"),
        (json.dumps(STUB, separators=(",", ":")).encode(), "QmYBbVdWFgfoTEdPT7mnaXJz6zQzfKb1Pts4A5B9kDMBph"),
    ],
)
def test_the_address_of_one_block_is_that_of_the_specification(document: bytes, cid: str) -> None:
    """§1.6."""
    assert cid_of(document) == cid


@pytest.mark.parametrize(
    ("length", "cid"),
    [
        (0, "QmbFMke1KXqnYyBBWxB74N4c5SBnJMVAiMNRcGu6x1AwQH"),
        (11, "QmWk22EeDfUWMrVzAGpZNQ5J7ZoKsYJLNUKoGAZPDTnSL8"),
        (BLOCK_BYTES, "QmZ7cfTEYzy5gH5pYNJLHQy1Fx2vDYLQhAz2WD8eicaVEP"),
        (BLOCK_BYTES + 1, "QmfU7NikntK2cujEDHSnAThFsUWndKSspC5x2wB8NMMgoH"),
        (600_000, "QmWsWHSBYJrzeHs2LhgK3T8t4qLopWucN3sH331Bd4J4XN"),
        (3_000_000, "QmRhjHzTFkCA2PWCjbTx5Aeg4yTEwMgXxPM4v69tUKHwsm"),
    ],
)
def test_the_address_of_many_blocks_is_that_of_the_reference_importer(length: int, cid: str) -> None:
    """Computed with ipfs-unixfs-importer 15: CIDv0, blocks of 256 KiB, balanced with 174 links a node."""
    pattern = bytes((n * 7 + 3) % 251 for n in range(251))
    assert cid_of((pattern * (length // 251 + 1))[:length]) == cid


def test_a_file_deeper_than_one_level_is_refused() -> None:
    with pytest.raises(ValueError, match="deeper than one level"):
        cid_of(bytes(BLOCK_BYTES * 174 + 1))


def test_only_a_version_0_address_is_one() -> None:
    assert is_cid("QmYBbVdWFgfoTEdPT7mnaXJz6zQzfKb1Pts4A5B9kDMBph")
    assert not is_cid("bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi")
    assert not is_cid("Qm0BbVdWFgfoTEdPT7mnaXJz6zQzfKb1Pts4A5B9kDMBph")
    assert not is_cid(None)


def test_pinned_json_is_what_javascript_would_write() -> None:
    """§1.6: compact, key order kept, no `1.0`."""
    assert as_pinata_stores({"b": 1.0, "a": [0.5, {"é": True}]}) == '{"b":1,"a":[0.5,{"é":true}]}'.encode()
