"""Methods about the node, its slots, blocks and blockhashes."""

from __future__ import annotations

from typing import Any

from oracle.localnet.chain import Chain, Commitment
from oracle.localnet.rpc import encoding
from oracle.localnet.rpc.context import API_VERSION, in_context
from oracle.localnet.rpc.errors import (
    block_cleaned_up,
    block_not_available,
    invalid_params,
    node_unhealthy,
    slot_skipped,
)
from oracle.localnet.rpc.params import Params
from oracle.localnet.vm import SLOTS_PER_EPOCH

FEATURE_SET = 0
MAX_BLOCKS = 500_000


def get_health(chain: Chain, params: Params) -> Any:
    if chain.slots_behind is not None:
        raise node_unhealthy(chain.slots_behind)
    return "ok"


def get_version(chain: Chain, params: Params) -> Any:
    return {"solana-core": API_VERSION, "feature-set": FEATURE_SET}


def get_genesis_hash(chain: Chain, params: Params) -> Any:
    return str(chain.genesis_hash)


def get_identity(chain: Chain, params: Params) -> Any:
    return {"identity": str(chain.identity)}


def get_slot(chain: Chain, params: Params) -> Any:
    return params.options(0).bank_slot(chain)


def get_slot_leader(chain: Chain, params: Params) -> Any:
    params.options(0).bank_slot(chain)
    return str(chain.identity)


def get_block_height(chain: Chain, params: Params) -> Any:
    options = params.options(0)
    options.bank_slot(chain)
    return chain.bank(options.commitment()).height


def get_transaction_count(chain: Chain, params: Params) -> Any:
    return chain.ledger.count_transactions(params.options(0).bank_slot(chain))


def get_epoch_info(chain: Chain, params: Params) -> Any:
    options = params.options(0)
    slot = options.bank_slot(chain)
    return {
        "epoch": slot // SLOTS_PER_EPOCH,
        "slotIndex": slot % SLOTS_PER_EPOCH,
        "slotsInEpoch": SLOTS_PER_EPOCH,
        "absoluteSlot": slot,
        "blockHeight": chain.bank(options.commitment()).height,
        "transactionCount": chain.ledger.count_transactions(slot),
    }


def get_epoch_schedule(chain: Chain, params: Params) -> Any:
    return {
        "slotsPerEpoch": SLOTS_PER_EPOCH,
        "leaderScheduleSlotOffset": SLOTS_PER_EPOCH,
        "warmup": False,
        "firstNormalEpoch": 0,
        "firstNormalSlot": 0,
    }


def get_latest_blockhash(chain: Chain, params: Params) -> Any:
    options = params.options(0)
    slot = options.bank_slot(chain)
    bank = chain.bank(options.commitment())
    value = {"blockhash": str(bank.blockhash), "lastValidBlockHeight": bank.last_valid_block_height}
    return in_context(slot, value)


def is_blockhash_valid(chain: Chain, params: Params) -> Any:
    blockhash, options = params.blockhash(0), params.options(1)
    slot = options.bank_slot(chain)
    return in_context(slot, chain.is_blockhash_valid(blockhash, options.commitment()))


def get_block_time(chain: Chain, params: Params) -> Any:
    slot = params.integer(0)
    block = chain.ledger.block(slot)
    if block is None:
        raise _no_block(chain, slot, Commitment.FINALIZED)
    return block.unix_timestamp


def get_block(chain: Chain, params: Params) -> Any:
    slot, options = params.integer(0), params.options(1)
    level = options.at_least_confirmed()
    block = chain.ledger.block(slot)
    if slot < (first := chain.ledger.first_available_block()):
        raise block_cleaned_up(slot, first)
    if block is None or slot > chain.slot(level):
        raise _no_block(chain, slot, level)
    found = {
        "blockhash": str(block.blockhash),
        "previousBlockhash": str(block.previous_blockhash),
        "parentSlot": block.parent_slot,
        "blockTime": block.unix_timestamp,
        "blockHeight": block.height,
    }
    records = chain.ledger.transactions_in(slot)
    details = options.choice("transactionDetails", ("full", "accounts", "signatures", "none"), "full")
    if details == "accounts":
        raise invalid_params("The embedded chain has no transactionDetails `accounts`; use `full`")
    if details == "signatures":
        found["signatures"] = [str(record.signature) for record in records]
    elif details == "full":
        shown = options.choice("encoding", ("json", "jsonParsed", "base58", "base64", "binary"), "json")
        version = options.integer("maxSupportedTransactionVersion")
        found["transactions"] = [encoding.transaction(record, shown, version) for record in records]
    if options.get("rewards") is not False:
        found["rewards"] = []
    return found


def get_blocks(chain: Chain, params: Params) -> Any:
    first, last = params.integer(0), params.get(1)
    if isinstance(last, dict):
        last, options = None, params.options(1)
    else:
        last, options = (None if last is None else params.integer(1)), params.options(2)
    newest = chain.slot(options.at_least_confirmed())
    last = newest if last is None else min(last, newest)
    first = max(first, chain.ledger.first_available_block())
    if last - first > MAX_BLOCKS:
        raise invalid_params(f"Slot range too large; max {MAX_BLOCKS}")
    return chain.ledger.block_slots(first, last)


def get_blocks_with_limit(chain: Chain, params: Params) -> Any:
    first, limit, options = params.integer(0), params.integer(1), params.options(2)
    if limit > MAX_BLOCKS:
        raise invalid_params(f"Limit too large; max {MAX_BLOCKS}")
    first = max(first, chain.ledger.first_available_block())
    return chain.ledger.block_slots(first, chain.slot(options.at_least_confirmed()))[:limit]


def get_first_available_block(chain: Chain, params: Params) -> Any:
    return chain.ledger.first_available_block()


def get_recent_performance_samples(chain: Chain, params: Params) -> Any:
    limit = 720 if params.get(0) is None else params.integer(0)
    if limit > 720:
        raise invalid_params("Invalid limit; max 720")
    return [
        {
            "slot": sample.slot,
            "numTransactions": sample.transactions,
            "numNonVoteTransactions": sample.transactions,
            "numSlots": sample.slots,
            "samplePeriodSecs": 60,
        }
        for sample in chain.ledger.samples(chain.bank(Commitment.PROCESSED).unix_timestamp, limit)
    ]


def _no_block(chain: Chain, slot: int, level: Commitment) -> Exception:
    return block_not_available(slot) if slot > chain.slot(level) else slot_skipped(slot)


METHODS = {
    "getHealth": get_health,
    "getVersion": get_version,
    "getGenesisHash": get_genesis_hash,
    "getIdentity": get_identity,
    "getSlot": get_slot,
    "getSlotLeader": get_slot_leader,
    "getBlockHeight": get_block_height,
    "getTransactionCount": get_transaction_count,
    "getEpochInfo": get_epoch_info,
    "getEpochSchedule": get_epoch_schedule,
    "getLatestBlockhash": get_latest_blockhash,
    "isBlockhashValid": is_blockhash_valid,
    "getBlockTime": get_block_time,
    "getBlock": get_block,
    "getBlocks": get_blocks,
    "getBlocksWithLimit": get_blocks_with_limit,
    "getFirstAvailableBlock": get_first_available_block,
    "minimumLedgerSlot": get_first_available_block,
    "getRecentPerformanceSamples": get_recent_performance_samples,
}
