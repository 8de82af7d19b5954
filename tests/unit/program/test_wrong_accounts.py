"""Every instruction with every account that is not the one it asks for: each is refused by name, and changes nothing.

Every case starts from an instruction that would succeed, which is proven first: what is refused is the one change.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from oracle_world import (
    CLAIM_TERMS,
    OUTPUT,
    PROGRAM_ID,
    URI,
    Site,
    Wallet,
    World,
    refusal,
    with_account,
    with_data,
)
from solders.account import Account
from solders.instruction import Instruction
from solders.pubkey import Pubkey

from oracle.chain.program import instructions
from oracle.chain.program.idl import built_in

INSTRUCTIONS = [instruction["name"] for instruction in built_in()["instructions"]]
ROLES = {
    instruction["name"]: [account["name"] for account in instruction["accounts"]]
    for instruction in built_in()["instructions"]
}
MADE_HERE = {("create_queue", "queue"), ("add_operator", "operator"), ("submit_request", "request")}
PAYERS = {("create_queue", "authority"), ("add_operator", "authority"), ("submit_request", "payer")}


@dataclass(frozen=True)
class Stage:
    """One instruction of each kind that would succeed now, and accounts to put in the wrong places."""

    world: World
    good: dict[str, tuple[Instruction, list[Wallet]]]
    wrong: dict[str, Pubkey]
    other: Site

    def refusal(self, name: str, instruction: Instruction, signers: list[Wallet] | None = None) -> str | None:
        return refusal(self.world.try_out(instruction, signers=signers or self.good[name][1]))


@pytest.fixture(scope="module")
def stage(world: World) -> Stage:
    open_site, site = world.queue(), world.queue(CLAIM_TERMS, operators=2)
    other = world.queue(CLAIM_TERMS, operators=0)
    for keys in (*site.operators, *open_site.operators):
        other.hire(keys)
    overdue = site.ask(ttl_slots=10)
    published, closable, closed = open_site.ask(), open_site.ask(), open_site.ask()
    world.succeed(open_site.record(published), signers=open_site.operators)
    world.succeed(open_site.reject(closable), signers=open_site.operators)
    world.succeed(open_site.reject(closed), signers=open_site.operators)
    world.wait(11)
    world.succeed(open_site.close(closed), signers=[closed.payer])
    claimed, pending, unclaimed = site.ask(), site.ask(), open_site.ask()
    world.succeed(site.claim(claimed), signers=[site.operators[0]])

    authority, newcomer = world.wallet(), world.wallet()
    ticket = site.ticket(world.wallet(), world.wallet())
    create = instructions.create_queue(PROGRAM_ID, authority=authority.pubkey(), name="new", terms=CLAIM_TERMS)
    good = {
        "create_queue": (create, [authority]),
        "update_queue": (site.update_queue(CLAIM_TERMS), [site.authority]),
        "add_operator": (site.add_operator(newcomer.pubkey()), [site.authority]),
        "update_operator": (site.update_operator(URI), [site.operators[0]]),
        "remove_operator": (site.remove_operator(), [site.authority]),
        "submit_request": (site.submit(ticket), [ticket.requester, ticket.payer]),
        "claim_request": (site.claim(pending), [site.operators[0]]),
        "record_inference_result": (site.record(claimed), [site.operators[0]]),
        "publish_output": (open_site.publish(published), open_site.operators),
        "reject_request": (open_site.reject(unclaimed), open_site.operators),
        "cancel_request": (site.cancel(pending), [pending.requester]),
        "expire_request": (site.expire(overdue), []),
        "close_request": (open_site.close(closable), [closable.payer]),
    }
    return Stage(world, good, wrong_accounts(world, site, closed.address, pending.address), other)


def wrong_accounts(world: World, site: Site, closed: Pubkey, request: Pubkey) -> dict[str, Pubkey]:
    """Accounts that no typed place accepts, by what is wrong with them."""
    wrong = {
        "a wallet": world.wallet().pubkey(),
        "an address without an account": Pubkey.new_unique(),
        "closed": closed,
    }
    for name, data in (("empty", b""), ("short", b"\x01" * 7), ("zeroed", bytes(500))):
        wrong[name] = Pubkey.new_unique()
        world.vm.set_account(wrong[name], Account(RENT, data, PROGRAM_ID))
    for role, address in (("request", request), ("operator", site.operator()), ("queue", site.address)):
        wrong[f"forged {role}"] = Pubkey.new_unique()
        world.vm.set_account(wrong[f"forged {role}"], Account(RENT, world.data(address), Pubkey.new_unique()))
        wrong[f"true {role}"] = address
    return wrong


RENT = 10**8
WRONG_FOR_A_LOADER = {
    "a wallet": "AccountOwnedByWrongProgram",
    "an address without an account": "AccountOwnedByWrongProgram",
    "closed": "AccountOwnedByWrongProgram",
    "empty": "AccountDiscriminatorNotFound",
    "short": "AccountDiscriminatorNotFound",
    "zeroed": "AccountDiscriminatorMismatch",
    "forged request": "AccountOwnedByWrongProgram",
    "forged operator": "AccountOwnedByWrongProgram",
    "forged queue": "AccountOwnedByWrongProgram",
}
# Anchor's `Account` tells an address where nothing lives from one that another program owns; `AccountLoader` does not.
WRONG_FOR_A_QUEUE = WRONG_FOR_A_LOADER | {
    "an address without an account": "AccountNotInitialized",
    "closed": "AccountNotInitialized",
}


def typed_places() -> Iterator[tuple[str, int, str]]:
    for name, roles in ROLES.items():
        for at, role in enumerate(roles):
            if role in ("request", "operator", "queue") and (name, role) not in MADE_HERE:
                yield name, at, role


@pytest.mark.parametrize("name", INSTRUCTIONS)
def test_each_instruction_succeeds_before_anything_is_changed(stage: Stage, name: str) -> None:
    assert stage.refusal(name, stage.good[name][0]) is None


@pytest.mark.parametrize(("name", "at", "role"), list(typed_places()))
def test_an_account_that_is_none_of_ours_is_refused(stage: Stage, name: str, at: int, role: str) -> None:
    expected = WRONG_FOR_A_QUEUE if role == "queue" else WRONG_FOR_A_LOADER
    got = {what: stage.refusal(name, wrongly(stage, name, at, what)) for what in expected}
    assert got == expected


@pytest.mark.parametrize(("name", "at", "role"), list(typed_places()))
def test_an_account_of_another_kind_is_refused(stage: Stage, name: str, at: int, role: str) -> None:
    others = [kind for kind in ("request", "operator", "queue") if kind != role]
    got = {kind: stage.refusal(name, wrongly(stage, name, at, f"true {kind}")) for kind in others}
    assert got == dict.fromkeys(others, "AccountDiscriminatorMismatch")


def wrongly(stage: Stage, name: str, at: int, what: str) -> Instruction:
    return with_account(stage.good[name][0], at, pubkey=stage.wrong[what])


@pytest.mark.parametrize("name", INSTRUCTIONS)
def test_every_signature_is_needed(stage: Stage, name: str) -> None:
    instruction, _ = stage.good[name]
    signers = [at for at, meta in enumerate(instruction.accounts) if meta.is_signer]
    for at in signers:
        assert stage.refusal(name, with_account(instruction, at, is_signer=False)) == "AccountNotSigner"
    assert signers or name == "expire_request"


@pytest.mark.parametrize("name", INSTRUCTIONS)
def test_every_account_that_is_written_must_be_writable(stage: Stage, name: str) -> None:
    instruction, _ = stage.good[name]
    written = [at for at, meta in enumerate(instruction.accounts) if meta.is_writable]
    for at in written:
        # An account that is to be made, and its payer, reach the system program first, which may not write them.
        expected = "PrivilegeEscalation" if (name, ROLES[name][at]) in MADE_HERE | PAYERS else "ConstraintMut"
        assert stage.refusal(name, with_account(instruction, at, is_writable=False)) == expected
    assert written


@pytest.mark.parametrize("name", INSTRUCTIONS)
def test_no_account_can_be_left_out(stage: Stage, name: str) -> None:
    instruction, _ = stage.good[name]
    for count in range(len(instruction.accounts)):
        fewer = Instruction(instruction.program_id, instruction.data, instruction.accounts[:count])
        assert stage.refusal(name, fewer) == "AccountNotEnoughKeys"


@pytest.mark.parametrize("name", INSTRUCTIONS)
def test_cut_arguments_are_refused(stage: Stage, name: str) -> None:
    instruction, _ = stage.good[name]
    data = bytes(instruction.data)
    for length in range(8, len(data)):
        assert stage.refusal(name, with_data(instruction, data[:length])) == "InstructionDidNotDeserialize"
    for length in (0, 1, 7):
        assert stage.refusal(name, with_data(instruction, data[:length])) == "InstructionFallbackNotFound"


def test_an_unknown_instruction_is_refused(stage: Stage) -> None:
    instruction, _ = stage.good["expire_request"]
    assert stage.refusal("expire_request", with_data(instruction, b"\xff" * 8)) == "InstructionFallbackNotFound"


@pytest.mark.parametrize(("name", "role"), sorted(MADE_HERE))
def test_an_account_is_made_at_its_own_address_only(stage: Stage, name: str, role: str) -> None:
    at = ROLES[name].index(role)
    moved = with_account(stage.good[name][0], at, pubkey=Pubkey.new_unique())
    assert stage.refusal(name, moved) == "ConstraintSeeds"


@pytest.mark.parametrize("name", [name for name, roles in ROLES.items() if "system_program" in roles])
def test_no_other_program_can_pose_as_the_system_program(stage: Stage, name: str) -> None:
    at = ROLES[name].index("system_program")
    posing = with_account(stage.good[name][0], at, pubkey=PROGRAM_ID)
    assert stage.refusal(name, posing) == "InvalidProgramId"


@pytest.mark.parametrize(
    ("name", "role", "expected"),
    [
        ("update_queue", "authority", "NotQueueAuthority"),
        ("add_operator", "authority", "NotQueueAuthority"),
        ("remove_operator", "authority", "NotQueueAuthority"),
        ("update_operator", "operator_key", "NotThisOperator"),
        ("claim_request", "operator_key", "NotThisOperator"),
        ("record_inference_result", "operator_key", "NotThisOperator"),
        ("publish_output", "operator_key", "NotThisOperator"),
        ("reject_request", "operator_key", "NotThisOperator"),
        ("cancel_request", "requester", "NotRequester"),
        ("close_request", "closer", "RetentionRunning"),
        ("create_queue", "authority", "ConstraintSeeds"),
        ("submit_request", "requester", "ConstraintSeeds"),
    ],
)
def test_a_stranger_cannot_sign_in_anothers_place(stage: Stage, name: str, role: str, expected: str) -> None:
    instruction, signers = stage.good[name]
    stranger = stage.world.wallet()
    posing = with_account(instruction, ROLES[name].index(role), pubkey=stranger.pubkey())
    assert stage.refusal(name, posing, [*signers, stranger]) == expected


OPERATOR_WORK = ["claim_request", "record_inference_result", "publish_output", "reject_request"]


@pytest.mark.parametrize("name", OPERATOR_WORK)
def test_an_operator_of_another_queue_is_refused_though_its_key_is_the_same(stage: Stage, name: str) -> None:
    instruction, (keys,) = stage.good[name]
    elsewhere = stage.other.operator(stage.other.operators.index(keys))
    moved = with_account(instruction, ROLES[name].index("operator"), pubkey=elsewhere)
    assert stage.refusal(name, moved) == "OperatorOfAnotherQueue"


@pytest.mark.parametrize("name", OPERATOR_WORK)
def test_somebody_elses_operator_account_is_refused(stage: Stage, name: str) -> None:
    colleague = stage.other.operator(1)
    moved = with_account(stage.good[name][0], ROLES[name].index("operator"), pubkey=colleague)
    assert stage.refusal(name, moved) == "NotThisOperator"


def test_an_operator_is_removed_from_its_own_queue_only(stage: Stage) -> None:
    instruction, _ = stage.good["remove_operator"]
    moved = with_account(instruction, 0, pubkey=stage.other.operator(0))
    assert stage.refusal("remove_operator", moved) == "OperatorOfAnotherQueue"
    moved = with_account(instruction, 1, pubkey=stage.other.address)
    assert stage.refusal("remove_operator", moved) == "OperatorOfAnotherQueue"


def test_a_claim_reads_the_pause_of_its_own_queue(stage: Stage) -> None:
    moved = with_account(stage.good["claim_request"][0], 3, pubkey=stage.other.address)
    assert stage.refusal("claim_request", moved) == "QueueOfAnotherRequest"


def test_a_request_is_made_for_the_queue_in_its_address_only(stage: Stage) -> None:
    moved = with_account(stage.good["submit_request"][0], 1, pubkey=stage.other.address)
    assert stage.refusal("submit_request", moved) == "ConstraintSeeds"


def test_refunds_go_to_the_payer_and_nobody_else(stage: Stage) -> None:
    instruction, _ = stage.good["close_request"]
    thief = stage.world.wallet()
    moved = with_account(with_account(instruction, 1, pubkey=thief.pubkey()), 2, pubkey=thief.pubkey())
    assert stage.refusal("close_request", moved, [thief]) == "NotRefundAccount"


def test_what_is_published_is_what_was_recorded(stage: Stage) -> None:
    instruction, _ = stage.good["publish_output"]
    other = bytes([OUTPUT[0] ^ 1]) + OUTPUT[1:]
    swapped = with_data(instruction, bytes(instruction.data).replace(OUTPUT, other))
    assert stage.refusal("publish_output", swapped) == "OutputHashMismatch"
