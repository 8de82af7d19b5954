"""Methods that send, simulate and find transactions."""

from __future__ import annotations

from base64 import b64decode
from typing import Any

from based58 import b58decode
from solders.message import Message, MessageV0, from_bytes_versioned
from solders.transaction import SanitizeError, VersionedTransaction

from oracle.localnet import fees, transaction_error
from oracle.localnet.chain import Chain, Commitment
from oracle.localnet.history import inner_instructions, return_data, status_of
from oracle.localnet.outcome import Outcome
from oracle.localnet.rpc import encoding
from oracle.localnet.rpc.context import in_context
from oracle.localnet.rpc.errors import invalid_params, node_unhealthy, preflight_failure, signature_verification_failure
from oracle.localnet.rpc.params import Options, Params
from oracle.localnet.vm import MAX_TRANSACTION_BYTES, signatures_valid

MAX_STATUSES = 256
MAX_SIGNATURES = 1_000
STATUS_CACHE_SLOTS = 300
"""Agave remembers the statuses of about this many slots; older ones are found only by searching the history."""

MAX_PRIORITIZATION_ADDRESSES = 128
_TRANSACTION_ENCODINGS = ("base58", "base64")
_MAX_ENCODED = {"base58": 1_683, "base64": 1_644}
_TYPE = "solana_transaction::versioned::VersionedTransaction"


def send_transaction(chain: Chain, params: Params) -> Any:
    options = params.options(1)
    tx = _transaction(params.text(0), options)
    skip_preflight = options.flag("skipPreflight")
    level = Commitment.PROCESSED if skip_preflight else options.commitment("preflightCommitment")
    options.require_context_slot(chain, level)
    _sanitize(tx)
    if not skip_preflight:
        if not signatures_valid(tx):
            raise signature_verification_failure()
        if chain.slots_behind is not None:
            raise node_unhealthy(chain.slots_behind)
        outcome = chain.simulate(tx, level)
        if not outcome.ok:
            assert outcome.err is not None
            message = f"Transaction simulation failed: {transaction_error.sentence(outcome.err)}"
            raise preflight_failure(message, _simulated(outcome))
    return str(chain.submit(tx, max_retries=options.integer("maxRetries")))


def simulate_transaction(chain: Chain, params: Params) -> Any:
    options = params.options(1)
    tx = _transaction(params.text(0), options)
    level = options.commitment()
    slot = options.bank_slot(chain)
    sig_verify, replace = options.flag("sigVerify"), options.flag("replaceRecentBlockhash")
    if sig_verify and replace:
        raise invalid_params("sigVerify may not be used with replaceRecentBlockhash")
    _sanitize(tx)
    if sig_verify and not signatures_valid(tx):
        raise signature_verification_failure()
    outcome = chain.simulate(tx, level, replace_blockhash=replace)
    result = _simulated(outcome)
    if (wanted := options.nested("accounts")) is not None:
        result["accounts"] = _accounts_after(chain, level, tx, outcome, wanted)
    if options.flag("innerInstructions"):
        keys = [str(key) for key in outcome.accounts.keys]
        result["innerInstructions"] = encoding.parsed_inner_instructions(inner_instructions(outcome), keys)
    if replace:
        bank = chain.bank(level)
        result["replacementBlockhash"] = {
            "blockhash": str(bank.blockhash),
            "lastValidBlockHeight": bank.last_valid_block_height,
        }
    return in_context(slot, result)


def get_fee_for_message(chain: Chain, params: Params) -> Any:
    text, options = params.text(0), params.options(1)
    slot = options.bank_slot(chain)
    try:
        message = _message(b64decode(text, validate=True))
    except ValueError as error:
        raise invalid_params(f"invalid base64 encoding: {error}") from None
    if not chain.is_blockhash_valid(message.recent_blockhash, options.commitment()):
        return in_context(slot, None)
    return in_context(slot, fees.of_message(message).lamports)


def get_signature_statuses(chain: Chain, params: Params) -> Any:
    signatures, options = params.signatures(0), params.options(1)
    if len(signatures) > MAX_STATUSES:
        raise invalid_params(f"Too many inputs provided; max {MAX_STATUSES}")
    slot = chain.slot(Commitment.PROCESSED)
    search = options.flag("searchTransactionHistory")
    statuses: list[dict[str, Any] | None] = []
    for signature in signatures:
        found = chain.status(signature)
        if found is None or (found[0] < slot - STATUS_CACHE_SLOTS and not search):
            statuses.append(None)
            continue
        landed, err = found
        level = chain.commitment_of(landed)
        statuses.append(
            {
                "slot": landed,
                "confirmations": None if level == Commitment.FINALIZED else slot - landed,
                "status": status_of(err),
                "err": err,
                "confirmationStatus": level.name.lower(),
            }
        )
    return in_context(slot, statuses)


def get_signatures_for_address(chain: Chain, params: Params) -> Any:
    address, options = params.pubkey(0), params.options(1)
    limit = options.integer("limit")
    limit = MAX_SIGNATURES if limit is None else limit
    if not 0 < limit <= MAX_SIGNATURES:
        raise invalid_params(f"Invalid limit; max {MAX_SIGNATURES}")
    before, until = options.signature("before"), options.signature("until")
    level = options.at_least_confirmed()
    slot = options.bank_slot(chain)
    return [
        {
            "signature": str(record.signature),
            "slot": record.slot,
            "err": record.err,
            "memo": None,
            "blockTime": _block_time(chain, record.slot),
            "confirmationStatus": max(level, chain.commitment_of(record.slot)).name.lower(),
        }
        for record in chain.ledger.mentioning(address, slot, before, until, limit)
    ]


def get_transaction(chain: Chain, params: Params) -> Any:
    signature = params.signature(0)
    options = Options({"encoding": params.get(1)}) if isinstance(params.get(1), str) else params.options(1)
    shown = options.choice("encoding", ("json", "jsonParsed", "base58", "base64", "binary"), "json")
    level = options.at_least_confirmed()
    record = chain.ledger.transaction(signature)
    if record is None or record.slot > chain.slot(level):
        return None
    version = options.integer("maxSupportedTransactionVersion")
    found = encoding.transaction(record, shown, version)
    return {"slot": record.slot, **found, "blockTime": _block_time(chain, record.slot)}


def get_recent_prioritization_fees(chain: Chain, params: Params) -> Any:
    addresses = [] if params.get(0) is None else params.pubkeys(0)
    if len(addresses) > MAX_PRIORITIZATION_ADDRESSES:
        raise invalid_params(f"Too many inputs provided; max {MAX_PRIORITIZATION_ADDRESSES}")
    return [{"slot": slot, "prioritizationFee": price} for slot, price in chain.prices.recent(addresses)]


def request_airdrop(chain: Chain, params: Params) -> Any:
    return str(chain.request_airdrop(params.pubkey(0), params.integer(1)))


def _transaction(text: str, options: Options) -> VersionedTransaction:
    form = options.choice("encoding", _TRANSACTION_ENCODINGS, "base58")
    if len(text) > _MAX_ENCODED[form]:
        raise invalid_params(
            f"{form} encoded {_TYPE} too large: {len(text)} bytes"
            f" (max: encoded/raw {_MAX_ENCODED[form]}/{MAX_TRANSACTION_BYTES})"
        )
    try:
        wire = b64decode(text, validate=True) if form == "base64" else b58decode(text.encode())
    except ValueError as error:
        raise invalid_params(f"invalid {form} encoding: {error}") from None
    if len(wire) > MAX_TRANSACTION_BYTES:
        raise invalid_params(f"decoded {_TYPE} too large: {len(wire)} bytes (max: {MAX_TRANSACTION_BYTES} bytes)")
    try:
        return VersionedTransaction.from_bytes(wire)
    except ValueError as error:
        raise invalid_params(f"failed to deserialize {_TYPE}: {error}") from None


def _sanitize(tx: VersionedTransaction) -> None:
    try:
        tx.sanitize()
    except SanitizeError:
        raise invalid_params(f"invalid transaction: {transaction_error.sentence('SanitizeFailure')}") from None


def _message(data: bytes) -> Message | MessageV0:
    return from_bytes_versioned(data) if data and data[0] & 0x80 else Message.from_bytes(data)


def _simulated(outcome: Outcome) -> dict[str, Any]:
    return {
        "err": outcome.err,
        "logs": list(outcome.logs),
        "accounts": None,
        "unitsConsumed": outcome.units_consumed,
        "returnData": return_data(outcome),
        "innerInstructions": None,
        "replacementBlockhash": None,
    }


def _accounts_after(
    chain: Chain, level: Commitment, tx: VersionedTransaction, outcome: Outcome, wanted: Options
) -> list[Any]:
    form = wanted.account_encoding("base64")
    if form in ("binary", "base58"):
        raise invalid_params("base58 encoding not supported")
    addresses = wanted.pubkeys("addresses")
    known = max(len(outcome.accounts.keys), len(tx.message.account_keys))
    if len(addresses) > known:
        raise invalid_params(f"Too many accounts provided; max {known}")
    if not outcome.ok:
        return [None] * len(addresses)
    after = dict(zip(outcome.accounts.keys, outcome.after, strict=True))
    accounts = [after[address] if address in after else chain.account(address, level) for address in addresses]
    return [encoding.account(account, form) if account else None for account in accounts]


def _block_time(chain: Chain, slot: int) -> int | None:
    block = chain.ledger.block(slot)
    return block.unix_timestamp if block else None


METHODS = {
    "sendTransaction": send_transaction,
    "simulateTransaction": simulate_transaction,
    "getFeeForMessage": get_fee_for_message,
    "getSignatureStatuses": get_signature_statuses,
    "getSignaturesForAddress": get_signatures_for_address,
    "getTransaction": get_transaction,
    "getRecentPrioritizationFees": get_recent_prioritization_fees,
    "requestAirdrop": request_airdrop,
}
