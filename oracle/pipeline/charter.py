"""What each key of the daemon signs, and the guard in front of it (`core/spending.py`)."""

from __future__ import annotations

import struct
from typing import Final

from solders.pubkey import Pubkey

from oracle.chain import derived
from oracle.chain.program import idl, instructions
from oracle.chain.program.layout import HEADER_LENGTH
from oracle.chain.signer import Signer
from oracle.chain.signing.guard import Allowance, Guard, SetAside
from oracle.config import Config, Spending
from oracle.core.spending import Caps, Charter, Lamports, Spend, nothing
from oracle.pipeline.clock import Clock
from oracle.providers.nosana import program as nosana
from oracle.providers.registry import nosana_clusters
from oracle.store import allowances
from oracle.store.engine import Store

TOKEN_ACCOUNT_RENT_LAMPORTS: Final = 2_039_280
LAMPORTS_PER_BYTE: Final = 6_960
"""Rent exemption as it has always been (`Rent::default`: two years of 3,480 a year); 128 bytes more an account."""

_SUBMISSION: Final = struct.Struct("<8xQQQI32s")
_OPERATORS: Final = (
    instructions.CLAIM_REQUEST,
    instructions.RECORD_INFERENCE_RESULT,
    instructions.PUBLISH_OUTPUT,
    instructions.REJECT_REQUEST,
    instructions.EXPIRE_REQUEST,
    instructions.CLOSE_REQUEST,
)


def operator_charter(config: Config) -> Charter:
    """What settles requests; and what buys and ends jobs on Nosana's chain, where a provider does so."""
    allowed: dict[Pubkey, list[tuple[bytes, Lamports]]] = {
        program_of(config): [(start, nothing) for start in _OPERATORS]
    }
    clusters = nosana_clusters(config.providers.values())
    for cluster in clusters:
        allowed[nosana.Program(cluster).id] = [
            (nosana.LIST, lambda _: nosana.JOB_RENT_LAMPORTS + nosana.RUN_RENT_LAMPORTS),
            *((start, nothing) for start in (nosana.DELIST, nosana.END, nosana.RECOVER)),
        ]
    if clusters:
        allowed[nosana.ASSOCIATED_TOKEN_PROGRAM] = [(bytes([1]), _only_create_token_account)]
    return Charter(allowed, frozenset({derived.TEXT}) if clusters else frozenset())


def gateway_charter(config: Config) -> Charter:
    """What asks for recordings: the fee and the rent of the request are the key's."""
    return Charter({program_of(config): [(instructions.SUBMIT_REQUEST, _escrowed)]})


def caps_of(settings: Spending) -> Caps:
    return Caps(
        transaction=Spend(settings.max_lamports_per_transaction, settings.max_micro_nos_per_transaction),
        day=Spend(settings.max_lamports_per_day, settings.max_micro_nos_per_day),
    )


def guarded(signer: Signer, charter: Charter, settings: Spending, store: Store, clock: Clock) -> Guard:
    """The signer behind the policy, which counts in the database."""
    caps, key = caps_of(settings), str(signer.public_key)

    async def set_aside(today: int, least: Spend, most: Spend) -> Spend:
        return await store.write(lambda c: allowances.reserve(c, key, today, least, most, caps.day))

    return guard(signer, charter, caps, set_aside, clock)


def guard(signer: Signer, charter: Charter, caps: Caps, set_aside: SetAside, clock: Clock) -> Guard:
    return Guard(signer, charter, caps, Allowance(caps, set_aside, clock.now_ms))


def program_of(config: Config) -> Pubkey:
    named = config.cluster.program_id
    return idl.program_id() if named is None else Pubkey.from_string(named)


def _escrowed(data: bytes) -> int:
    if len(data) < _SUBMISSION.size:
        raise ValueError("a submission that is cut off")
    _, fee_lamports, _, output_cap, _ = _SUBMISSION.unpack_from(data)
    size = HEADER_LENGTH + len(data) - _SUBMISSION.size + output_cap
    return int(fee_lamports + LAMPORTS_PER_BYTE * (size + 128))


def _only_create_token_account(data: bytes) -> int:
    if len(data) != 1:
        raise ValueError("more than the making of a token account")
    return TOKEN_ACCOUNT_RENT_LAMPORTS
