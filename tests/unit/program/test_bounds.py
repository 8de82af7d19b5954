"""Every bound of names, terms, bodies and amounts: the last value that is accepted and the first that is refused."""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256

import pytest
from oracle_world import (
    BODY,
    CLAIM_TERMS,
    OPEN_TERMS,
    OUTPUT,
    PROGRAM_ID,
    Site,
    Ticket,
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
from oracle.chain.program.body import encode_body
from oracle.chain.program.layout import QueueTerms
from oracle.core.request import Body, Callback, CallbackAccount, Data, Flags, Inline, Params, Uri

MAX_U32, MAX_U64 = 2**32 - 1, 2**64 - 1
TAIL = 9_888


@pytest.fixture(scope="module")
def site(world: World) -> Site:
    return world.queue(OPEN_TERMS)


def terms(**changed: int | bool) -> QueueTerms:
    return replace(OPEN_TERMS, **changed)  # type: ignore[arg-type]


ALLOWED_TERMS = {
    "no floor": terms(fee_floor_lamports=0),
    "the highest floor": terms(fee_floor_lamports=MAX_U64),
    "one deadline for all": terms(min_deadline_slots=7, max_deadline_slots=7),
    "the shortest deadline": terms(min_deadline_slots=1, max_deadline_slots=1),
    "the longest deadline": terms(max_deadline_slots=MAX_U32),
    "no lease where no claim is needed": terms(lease_slots=0),
    "the shortest lease": terms(lease_slots=1, claim_required=True),
    "the longest lease": terms(lease_slots=MAX_U32, claim_required=True),
    "no retention": terms(retention_slots=0),
    "the longest retention": terms(retention_slots=MAX_U32),
    "the largest body": terms(max_body_len=TAIL, max_output_cap=0),
    "the largest output": terms(max_body_len=1, max_output_cap=TAIL - 1),
}
REFUSED_TERMS = {
    "a deadline of nothing": (terms(min_deadline_slots=0), "DeadlineBoundsInvalid"),
    "deadlines the wrong way round": (terms(min_deadline_slots=8, max_deadline_slots=7), "DeadlineBoundsInvalid"),
    "a deadline too far": (terms(max_deadline_slots=MAX_U32 + 1), "DeadlineBoundsInvalid"),
    "a deadline beyond all slots": (terms(max_deadline_slots=MAX_U64), "DeadlineBoundsInvalid"),
    "claims without a lease": (terms(lease_slots=0, claim_required=True), "LeaseInvalid"),
    "no room for a body": (terms(max_body_len=0), "SizeBoundsInvalid"),
    "more room than an account has": (terms(max_body_len=TAIL, max_output_cap=1), "SizeBoundsInvalid"),
    "sizes whose sum wraps": (terms(max_body_len=MAX_U32, max_output_cap=MAX_U32), "SizeBoundsInvalid"),
}


@pytest.mark.parametrize("name", ALLOWED_TERMS)
def test_sensible_terms_are_accepted_in_a_new_queue_and_in_an_old_one(world: World, name: str) -> None:
    site = world.queue(ALLOWED_TERMS[name], operators=0)
    assert site.state().terms == ALLOWED_TERMS[name]
    site.change(OPEN_TERMS)
    site.change(ALLOWED_TERMS[name], paused=True)
    assert (site.state().terms, site.state().paused) == (ALLOWED_TERMS[name], True)


@pytest.mark.parametrize("name", REFUSED_TERMS)
def test_senseless_terms_are_refused_in_a_new_queue_and_in_an_old_one(world: World, site: Site, name: str) -> None:
    wanted, expected = REFUSED_TERMS[name]
    authority = world.wallet()
    create = instructions.create_queue(PROGRAM_ID, authority=authority.pubkey(), name="senseless", terms=wanted)
    world.refuse(expected, create, signers=[authority])
    world.refuse(expected, site.update_queue(wanted), signers=[site.authority])


def test_the_largest_request_that_terms_allow_can_be_made(world: World) -> None:
    site = world.queue(terms(max_body_len=1_000, max_output_cap=TAIL - 1_000))
    ticket = site.ask(output_cap=TAIL - 1_000)
    assert len(world.data(ticket.address)) == 352 + len(encode_body(BODY)) + TAIL - 1_000


def queue_named(world: World, name: bytes) -> tuple[Instruction, Wallet]:
    """A `create_queue` whose name need not be one that our own builder lets through."""
    authority = world.wallet()
    plain = instructions.create_queue(PROGRAM_ID, authority=authority.pubkey(), name="x", terms=OPEN_TERMS)
    data = bytes(plain.data)
    address = Pubkey.find_program_address([b"queue", bytes(authority.pubkey()), name], PROGRAM_ID)[0]
    return with_account(with_data(plain, data[:8] + name + data[40:]), 0, pubkey=address), authority


@pytest.mark.parametrize("name", [b"a", b" ", b"~" * 32, b"two words", b"x" * 31])
def test_a_queue_is_named_in_up_to_32_printable_characters(world: World, name: bytes) -> None:
    create, authority = queue_named(world, name.ljust(32, b"\0"))
    world.succeed(create, signers=[authority])


@pytest.mark.parametrize("name", [b"", b"\0a", b"a\0b", b"a\n", b"\x7f", b"\x1b[2J", "é".encode(), b"\0" * 31 + b"a"])
def test_any_other_name_is_refused(world: World, name: bytes) -> None:
    create, authority = queue_named(world, name.ljust(32, b"\0"))
    world.refuse("QueueNameInvalid", create, signers=[authority])


def test_a_name_is_taken_once_by_one_authority(world: World) -> None:
    create, authority = queue_named(world, b"mine".ljust(32, b"\0"))
    world.succeed(create, signers=[authority])
    world.refuse("AccountAlreadyInUse", create, signers=[authority])
    other, another = queue_named(world, b"mine".ljust(32, b"\0"))
    world.succeed(other, signers=[another])


GOOD_URIS = ["http://x", "https://x", "https://" + "x" * 120, "http://127.0.0.1:8080/~a?b=c#d"]
BAD_URIS = [
    "",
    "https://",
    "http://",
    "ftp://x",
    "HTTPS://x",
    "https://a b",
    "https://a\n",
    "https://é",
    "https://" + "x" * 121,
]


@pytest.mark.parametrize("uri", GOOD_URIS)
def test_an_operator_is_found_under_a_visible_web_address(world: World, site: Site, uri: str) -> None:
    world.succeed(site.update_operator(uri), signers=site.operators)
    assert site.operator_state().uri == uri


@pytest.mark.parametrize("uri", BAD_URIS)
def test_any_other_address_of_an_operator_is_refused(world: World, site: Site, uri: str) -> None:
    world.refuse("OperatorUriInvalid", site.update_operator(uri), signers=site.operators)
    newcomer = world.queue(operators=0)
    add = newcomer.add_operator(world.wallet().pubkey(), uri)
    world.refuse("OperatorUriInvalid", add, signers=[newcomer.authority])


def test_a_shorter_address_leaves_nothing_of_a_longer_one(world: World, site: Site) -> None:
    world.succeed(site.update_operator("https://a.very.long.name.example"), signers=site.operators)
    world.succeed(site.update_operator("http://b"), signers=site.operators)
    assert world.data(site.operator())[80:] == b"http://b".ljust(128, b"\0")


def test_an_operator_is_added_once(world: World) -> None:
    site = world.queue(CLAIM_TERMS)
    world.refuse("AccountAlreadyInUse", site.add_operator(site.operators[0].pubkey()), signers=[site.authority])
    assert site.state().operator_count == 1


CONSUMER = Pubkey.from_bytes(bytes([9]) * 32)


def callback(count: int = 0, program: Pubkey = CONSUMER) -> Callback:
    accounts = (
        CallbackAccount(Pubkey.from_bytes(bytes([number + 1]) * 32), number % 2 == 0) for number in range(count)
    )
    return Callback(program, tuple(accounts))


QUERY = "data://beemaps/tile?x=1"
GOOD_BODIES: dict[str, Body] = {
    "a model of one letter": replace(BODY, model="x"),
    "a model of 64 letters": replace(BODY, model="~" * 64),
    "a model with spaces": replace(BODY, model="Llama 3.3 70B"),
    "every known flag": replace(BODY, params=Params(1, flags=Flags.PRIVATE | Flags.ANY_MODEL | Flags.CHAT)),
    "the largest parameters": replace(BODY, params=Params(MAX_U32, 2**16 - 1, MAX_U64, Flags.NONE)),
    "an empty input": replace(BODY, input=Inline(b"")),
    "bytes that are no text": replace(BODY, input=Inline(bytes(range(256)))),
    "an input behind a URI": replace(BODY, input=Uri("https://x", bytes(32))),
    "an input from a query": replace(BODY, input=Data(QUERY, sha256(QUERY.encode()).digest())),
    "a callback without accounts": replace(BODY, callback=callback()),
    "a callback with 16 accounts": replace(BODY, callback=callback(16)),
}
BAD_BODIES: dict[str, tuple[Body, str]] = {
    "no model": (replace(BODY, model=""), "ModelInvalid"),
    "a model of 65 letters": (replace(BODY, model="x" * 65), "ModelInvalid"),
    "a model with a control character": (replace(BODY, model="a\x1b[2J"), "ModelInvalid"),
    "a model that is not ASCII": (replace(BODY, model="modèle"), "ModelInvalid"),
    "an unknown flag": (replace(BODY, params=Params(1, flags=Flags(8))), "UnknownFlags"),
    "the highest flag": (replace(BODY, params=Params(1, flags=Flags(1 | 1 << 15))), "UnknownFlags"),
    "a URI that is not encrypted": (replace(BODY, input=Uri("http://x", bytes(32))), "InputUriInvalid"),
    "a URI of nothing": (replace(BODY, input=Uri("https://", bytes(32))), "InputUriInvalid"),
    "a URI with a space": (replace(BODY, input=Uri("https://a b", bytes(32))), "InputUriInvalid"),
    "a URI of a file": (replace(BODY, input=Uri("file:///etc/passwd", bytes(32))), "InputUriInvalid"),
    "a query of another kind": (
        replace(BODY, input=Data("https://x", sha256(b"https://x").digest())),
        "DataQueryInvalid",
    ),
    "a query of nothing": (replace(BODY, input=Data("data://", sha256(b"data://").digest())), "DataQueryInvalid"),
    "a query with another hash": (replace(BODY, input=Data(QUERY, bytes(32))), "DataQueryHashMismatch"),
    "a callback into the oracle": (replace(BODY, callback=callback(program=PROGRAM_ID)), "CallbackProgramInvalid"),
    "a callback into nothing": (replace(BODY, callback=callback(program=Pubkey.default())), "CallbackProgramInvalid"),
}


@pytest.mark.parametrize("name", GOOD_BODIES)
def test_a_body_is_stored_verbatim(site: Site, name: str) -> None:
    body = GOOD_BODIES[name]
    request = site.read(site.ask(body=body))
    assert (request.body, request.body_bytes) == (body, encode_body(body))
    assert request.body_is_authentic
    assert request.header.callback_program == (body.callback.program if body.callback else Pubkey.default())


@pytest.mark.parametrize("name", BAD_BODIES)
def test_a_bad_body_is_refused(world: World, site: Site, name: str) -> None:
    body, expected = BAD_BODIES[name]
    refuse_submit(world, site, expected, body=body)


def refuse_submit(world: World, site: Site, expected: str, body: Body = BODY, **values: int) -> None:
    ticket = site.ticket(world.wallet(), world.wallet(), body)
    world.refuse(expected, site.submit(ticket, **values), signers=[ticket.requester, ticket.payer])


def test_a_callback_with_17_accounts_is_refused(world: World, site: Site) -> None:
    body = encode_body(BODY)[:-1] + b"\x01" + bytes([9]) * 32 + b"\x11\0\0\0" + (bytes([8]) * 32 + b"\x01") * 17
    world.refuse("TooManyCallbackAccounts", *submit_bytes(world, site, body))


def submit_bytes(world: World, site: Site, body: bytes, body_hash: bytes | None = None) -> tuple[Instruction]:
    """A submit of bytes that our own encoder would not produce; the payer of the transaction is the requester."""
    body_hash = body_hash or sha256(body).digest()
    ticket = Ticket(Pubkey.default(), world.payer, world.payer, world.number(), BODY)
    plain = site.submit(ticket)
    seeds = [
        b"request",
        bytes(site.address),
        bytes(world.payer.pubkey()),
        ticket.nonce.to_bytes(8, "little"),
        body_hash,
    ]
    address = Pubkey.find_program_address(seeds, PROGRAM_ID)[0]
    data = bytes(plain.data)[: 8 + 28] + body_hash + body
    return (with_account(with_data(plain, data), 0, pubkey=address),)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (encode_body(BODY)[:-1] + b"\x02", "InstructionDidNotDeserialize"),
        (encode_body(BODY)[:25] + b"\x03" + encode_body(BODY)[26:], "InstructionDidNotDeserialize"),
        (b"\x02\0\0\0\xc3\x28" + encode_body(BODY)[9:], "InstructionDidNotDeserialize"),
        # borsh makes room for what the length claims, and the heap of a program ends at 32 KiB: the sender's own loss.
        (b"\xff\xff\xff\xff" + encode_body(BODY)[4:], "ProgramFailedToComplete"),
    ],
)
def test_bytes_that_are_no_body_are_refused(world: World, site: Site, body: bytes, expected: str) -> None:
    world.refuse(expected, *submit_bytes(world, site, body))


def test_a_hash_of_another_body_is_refused(world: World, site: Site) -> None:
    world.refuse("BodyHashMismatch", *submit_bytes(world, site, encode_body(BODY), sha256(b"another").digest()))


def test_bytes_behind_the_body_are_not_part_of_it(world: World, site: Site) -> None:
    """Anchor reads arguments from the front: the hash is of the body, so a hash over more is another body's."""
    padded = encode_body(BODY) + b"\0"
    world.refuse("BodyHashMismatch", *submit_bytes(world, site, padded))
    (submit,) = submit_bytes(world, site, padded, sha256(encode_body(BODY)).digest())
    world.succeed(submit)
    assert len(world.data(submit.accounts[0].pubkey)) == 352 + len(encode_body(BODY)) + 100


def test_fee_deadline_and_sizes_are_bounded_by_the_terms(world: World) -> None:
    site = world.queue(terms(max_body_len=len(encode_body(BODY))))
    for values in (
        {"fee_lamports": 10_000},
        {"ttl_slots": 10},
        {"ttl_slots": 10_000},
        {"output_cap": 0},
        {"output_cap": 1_000},
    ):
        site.ask(**values)  # type: ignore[arg-type]
    refuse_submit(world, site, "FeeTooLow", fee_lamports=9_999)
    refuse_submit(world, site, "DeadlineOutOfBounds", ttl_slots=9)
    refuse_submit(world, site, "DeadlineOutOfBounds", ttl_slots=10_001)
    refuse_submit(world, site, "DeadlineOutOfBounds", ttl_slots=MAX_U64)
    refuse_submit(world, site, "OutputCapTooLarge", output_cap=1_001)
    refuse_submit(world, site, "OutputCapTooLarge", output_cap=MAX_U32)
    refuse_submit(world, site, "BodyTooLong", body=replace(BODY, input=Inline(b"Hello there!!")))


@pytest.mark.parametrize("fee_lamports", [MAX_U64, 2**63, 10**13])
def test_a_fee_that_the_payer_does_not_hold_is_refused(world: World, site: Site, fee_lamports: int) -> None:
    refuse_submit(world, site, "ResultWithNegativeLamports", fee_lamports=fee_lamports)


def test_a_queue_may_ask_for_no_fee(world: World) -> None:
    site = world.queue(terms(fee_floor_lamports=0))
    ticket = site.ask(fee_lamports=0)
    before = world.balance(site.operators[0].pubkey())
    world.succeed(site.record(ticket), signers=site.operators)
    assert world.balance(site.operators[0].pubkey()) == before


@pytest.mark.parametrize("reason", [1, 255])
def test_a_rejection_has_a_reason(site: Site, reason: int) -> None:
    ticket = site.ask()
    site.world.succeed(site.reject(ticket, reason=reason), signers=site.operators)
    assert site.header(ticket).reason == reason


def test_a_rejection_without_a_reason_is_refused(site: Site) -> None:
    site.world.refuse("ReasonMissing", site.reject(site.ask(), reason=0), signers=site.operators)


@pytest.mark.parametrize("completed_at", [-(2**63), 0, 2**63 - 1])
def test_the_operators_time_is_its_own_statement(site: Site, completed_at: int) -> None:
    ticket = site.ask()
    record = site.record(ticket)
    data = bytes(record.data)[:72] + completed_at.to_bytes(8, "little", signed=True)
    site.world.succeed(with_data(record, data), signers=site.operators)
    assert site.header(ticket).completed_at == completed_at


@pytest.mark.parametrize(
    ("output", "cap", "expected"),
    [
        (OUTPUT, len(OUTPUT), None),
        (OUTPUT, len(OUTPUT) - 1, "OutputTooLong"),
        (OUTPUT, 0, "OutputTooLong"),
        (b"x" * 800, 800, None),
        (b"\0", 1, None),
        (b"", 10, "OutputEmpty"),
    ],
)
def test_an_output_fits_the_room_that_was_kept(site: Site, output: bytes, cap: int, expected: str | None) -> None:
    ticket = site.ask(output_cap=cap)
    site.world.succeed(site.record(ticket, output=output), signers=site.operators)
    outcome = site.world.send(site.publish(ticket, output=output), signers=site.operators)
    assert refusal(outcome) == expected
    assert site.read(ticket).inline_output == (output if expected is None else b"")


@pytest.mark.parametrize("published", [OUTPUT + b"\0", OUTPUT[:-1], b"another", OUTPUT.upper()])
def test_an_output_that_hashes_otherwise_is_refused(site: Site, published: bytes) -> None:
    ticket = site.ask()
    site.world.succeed(site.record(ticket), signers=site.operators)
    site.world.refuse("OutputHashMismatch", site.publish(ticket, output=published), signers=site.operators)


def test_at_the_end_of_all_slots_nothing_wraps() -> None:
    world = World()
    site = world.queue(CLAIM_TERMS)
    world.wait_until(MAX_U64 - 600)
    late, ended = site.ask(ttl_slots=590), site.ask(ttl_slots=590)
    world.succeed(site.cancel(ended), signers=[ended.requester])
    world.wait_until(MAX_U64 - 20)
    refuse_submit(world, site, "Overflow", ttl_slots=21)
    site.ask(ttl_slots=20)
    world.refuse("Overflow", site.claim(late), signers=site.operators)
    stranger = world.wallet()
    world.refuse("Overflow", site.close(ended, closer=stranger), signers=[stranger])
    world.succeed(site.close(ended), signers=[ended.payer])
    open_site = world.queue(OPEN_TERMS)
    world.refuse("Overflow", open_site.update_queue(CLAIM_TERMS), signers=[open_site.authority])


def test_the_number_of_operators_never_wraps(world: World) -> None:
    site = world.queue(CLAIM_TERMS)
    account = world.vm.account(site.address)
    assert account is not None
    for count, change in ((MAX_U32, site.add_operator(world.wallet().pubkey())), (0, site.remove_operator())):
        data = bytes(account.data)
        data = data[:74] + count.to_bytes(4, "little") + data[78:]
        world.vm.set_account(site.address, Account(account.lamports, data, account.owner))
        world.refuse("Overflow", change, signers=[site.authority])
