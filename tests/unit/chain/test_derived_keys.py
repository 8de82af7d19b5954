"""Keys of purchases: the same whenever they are derived, and never shown."""

from __future__ import annotations

import os
import pickle

import pytest
from solders.keypair import Keypair
from solders.message import from_bytes_versioned

from oracle.chain import derived
from oracle.chain.derived import DerivedKeys, seed
from oracle.chain.signer import KeypairSigner
from oracle.core.errors import OracleError

OPERATOR = Keypair.from_seed(bytes(range(32)))


class HedgedSigner:
    """Signs with fresh randomness each time, as some remote signers do."""

    public_key = OPERATOR.pubkey()

    async def ready(self) -> None:
        return None

    async def sign(self, message: bytes) -> bytes:
        return os.urandom(64)


class Recorder(HedgedSigner):
    """Signs as RFC 8032 says, and keeps what it was given."""

    def __init__(self) -> None:
        self.signed: list[bytes] = []

    async def sign(self, message: bytes) -> bytes:
        self.signed.append(message)
        return bytes(OPERATOR.sign_message(message))


def test_the_seed_is_that_of_the_specification() -> None:
    found = seed(bytes(range(32)), "nosana-job", "task-0001")
    assert found.hex() == "8ed479d6b4ed1a7e666104f9b2f0f83ac48d92b6b31616627f823fe105c65a65"
    assert str(Keypair.from_seed(found).pubkey()) == "7ozG68xLSpmvM39JPQ5X2oLf2GGTepfSodhZMDqMmdP"


async def test_another_process_derives_the_same_keys() -> None:
    first = await DerivedKeys(KeypairSigner(OPERATOR)).keypair("nosana-job", "key")
    second = await DerivedKeys(KeypairSigner(OPERATOR)).keypair("nosana-job", "key")
    assert first == second


async def test_labels_purchases_and_operators_have_keys_of_their_own() -> None:
    ours, theirs = DerivedKeys(KeypairSigner(OPERATOR)), DerivedKeys(KeypairSigner(Keypair.from_seed(bytes([9] * 32))))
    asked = [(ours, "job", "a"), (ours, "run", "a"), (ours, "job", "b"), (theirs, "job", "a")]
    addresses = {(await keys.keypair(label, purchase)).pubkey() for keys, label, purchase in asked}
    assert len(addresses) == 4


async def test_what_is_signed_for_the_secret_can_never_be_a_transaction() -> None:
    recorder = Recorder()
    await DerivedKeys(recorder).keypair("job", "a")
    (text,) = set(recorder.signed)
    with pytest.raises(ValueError, match="off-chain messages are not accepted"):
        from_bytes_versioned(text)


async def test_a_signer_that_never_signs_the_same_twice_is_refused() -> None:
    with pytest.raises(OracleError) as caught:
        await DerivedKeys(HedgedSigner()).keypair("job", "a")
    assert caught.value.error is derived.SIGNER_NOT_DETERMINISTIC


async def test_the_secret_is_shown_by_nothing() -> None:
    keys = DerivedKeys(KeypairSigner(OPERATOR))
    await keys.keypair("job", "a")
    assert repr(keys) == str(keys) == f"DerivedKeys({OPERATOR.pubkey()})"
    with pytest.raises(TypeError):
        pickle.dumps(keys)
