"""Every request ends, and the money goes where it belongs."""

import hashlib

import pytest
from pipeline_world import World, until
from solders.keypair import Keypair

from oracle.chain.program import instructions
from oracle.chain.program.addresses import operator_address
from oracle.chain.program.layout import QueueTerms
from oracle.client import requests
from oracle.client.transact import transact
from oracle.core.lifecycle import State
from oracle.core.request import Flags, Inline, Params, Reason, Status, Uri
from oracle.localnet import network
from oracle.localnet.network import LOCAL_TERMS
from oracle.store import attempts, journal, ledger
from oracle.store.rows import RequestRow

pytestmark = pytest.mark.localnet


async def test_a_model_that_nobody_routes_is_rejected_and_refunded(world: World) -> None:
    async with world.daemon() as daemon:
        submitted = await world.submit(model="unheard-of")
        ended = await world.ended(submitted)
        row = await world.reaches(daemon, submitted, State.REJECTED)
    assert (ended.header.status, ended.header.reason) == (Status.REJECTED, Reason.MODEL_UNAVAILABLE)
    assert row.error_code == "ORC-POLICY-005"
    held = (await world.rpc.get_account(submitted.address)).value
    assert held is not None
    before = (await world.rpc.get_balance(world.requester.pubkey())).value
    await requests.close(world.rpc, world.program_id, ended, world.requester)
    after = (await world.rpc.get_balance(world.requester.pubkey())).value
    assert after - before == held.lamports - 5_000
    assert held.lamports >= 50_000


async def test_a_job_that_fails_on_every_route_is_rejected(world: World) -> None:
    world.model.faults.add("error", status=400, text="no such thing", count=None)
    async with world.daemon() as daemon:
        submitted = await world.submit()
        ended = await world.ended(submitted)
        row = await world.reaches(daemon, submitted, State.REJECTED)
        tried = await daemon.context.store.read(lambda c: attempts.of(c, row.id))
    assert (ended.header.status, ended.header.reason) == (Status.REJECTED, Reason.NO_PROVIDER)
    assert [attempt.state for attempt in tried] == ["failed"]


async def test_a_first_provider_that_fails_is_followed_by_the_next(world: World) -> None:
    world.settings["providers"]["broken"] = {
        **world.settings["providers"]["scripted"],
        "base_url": "http://127.0.0.1:9",
    }
    world.settings["models"]["tiny"]["routes"].insert(0, {"provider": "broken", "model": "tiny", "max_attempts": 1})
    async with world.daemon() as daemon:
        submitted = await world.submit()
        ended = await world.ended(submitted)
        row = await world.reaches(daemon, submitted, State.SETTLED)
        tried = await daemon.context.store.read(lambda c: attempts.of(c, row.id))
    assert ended.header.status is Status.FULFILLED
    assert [(attempt.provider, attempt.state) for attempt in tried] == [("broken", "failed"), ("scripted", "succeeded")]


@pytest.mark.parametrize(
    ("content", "flags", "code"),
    [
        (b"look\x1b[2Jhere", Flags.NONE, "ORC-INPUT-003"),
        (b"\xff\xfe", Flags.NONE, "ORC-INPUT-002"),
        (b"  \n", Flags.NONE, "ORC-INPUT-001"),
        (b"{}", Flags.CHAT, "ORC-INPUT-004"),
    ],
)
async def test_an_input_that_is_no_prompt_is_declined_at_no_cost(
    world: World, content: bytes, flags: Flags, code: str
) -> None:
    async with world.daemon() as daemon:
        before = (await world.rpc.get_balance(world.authority.pubkey())).value
        submitted = await world.submit(content, params=Params(64, flags=flags))
        good = await world.submit("And this one goes on.")
        row = await world.reaches(daemon, submitted, State.DECLINED)
        assert (await world.ended(good)).header.status is Status.FULFILLED
        noted = await daemon.context.store.read(lambda c: journal.of(c, row.id))
        bought = await daemon.context.store.read(lambda c: attempts.of(c, row.id))
        spent = await daemon.context.store.read(lambda c: ledger.sum(c, request_id=row.id))
    assert row.error_code == code
    assert code in {line.code for line in noted}
    assert (bought, spent) == ([], 0)
    after = (await world.rpc.get_balance(world.authority.pubkey())).value
    assert after >= before


async def test_a_declined_request_is_expired_by_the_daemon_when_due_and_closed_after_its_retention(
    world: World,
) -> None:
    async with world.daemon(policy={"min_fee_lamports": 40_000}) as daemon:
        submitted = await world.submit(fee_lamports=5_000, ttl_slots=2_000)
        await world.reaches(daemon, submitted, State.DECLINED)
        await world.node.advance(2_000)
        row = await world.reaches(daemon, submitted, State.EXPIRED)
        assert (await requests.read(world.rpc, submitted.address)).header.status is Status.EXPIRED
        payer_before = (await world.rpc.get_balance(world.requester.pubkey())).value
        await world.node.advance(LOCAL_TERMS.retention_slots + 40)
        assert row.error_code == "ORC-POLICY-004"

        async def closed() -> RequestRow | None:
            found = await world.row(daemon, submitted)
            return found if found is not None and found.closed else None

        await until(closed, "the close")
    assert (await world.rpc.get_account(submitted.address)).value is None
    assert (await world.rpc.get_balance(world.requester.pubkey())).value > payer_before + 5_000


async def test_a_denied_requester_is_declined(world: World) -> None:
    stranger = Keypair()
    await network.fund(world.node, stranger.pubkey())
    async with world.daemon(policy={"deny_requesters": [str(stranger.pubkey())]}) as daemon:
        submitted = await world.submit(requester=stranger)
        row = await world.reaches(daemon, submitted, State.DECLINED)
    assert row.error_code == "ORC-POLICY-001"


async def test_a_requester_beyond_its_cap_of_open_requests_is_declined(world: World) -> None:
    world.model.faults.add("hang", count=None)
    async with world.daemon(policy={"max_open_per_requester": 1}) as daemon:
        first = await world.submit(nonce=1)
        await world.reaches(daemon, first, State.RUNNING)
        second = await world.submit(nonce=2)
        row = await world.reaches(daemon, second, State.DECLINED)
    assert row.error_code == "ORC-POLICY-002"


async def test_a_uri_with_a_private_address_is_never_fetched(world: World) -> None:
    async with world.daemon() as daemon:
        submitted = await world.submit(Uri("https://127.0.0.1/input", hashlib.sha256(b"x").digest()))
        row = await world.reaches(daemon, submitted, State.DECLINED)
    assert row.error_code == "ORC-PIPE-009"


async def test_a_private_request_never_goes_where_prompts_are_public(world: World) -> None:
    async with world.daemon() as daemon:
        provider = daemon.context.providers["scripted"]
        public = type(provider.capabilities)(provider.capabilities.recovery, prompts_public=True)
        provider.capabilities = public
        submitted = await world.submit(params=Params(64, flags=Flags.PRIVATE))
        ended = await world.ended(submitted)
    assert (ended.header.status, ended.header.reason) == (Status.REJECTED, Reason.PRIVACY_UNAVAILABLE)
    assert world.model.requests == []


async def test_a_provider_that_answers_html_costs_only_its_own_request(world: World) -> None:
    world.model.faults.add("html", status=200, count=None)
    async with world.daemon() as daemon:
        submitted = await world.submit()
        ended = await world.ended(submitted)
        row = await world.reaches(daemon, submitted, State.REJECTED)
        tried = await daemon.context.store.read(lambda c: attempts.of(c, row.id))
    assert ended.header.status is Status.REJECTED
    assert {attempt.state for attempt in tried} == {"failed"}
    # The answer may have been paid for, so nobody calls the purchase failed; what came back is told all the same.
    assert {attempt.error_code for attempt in tried} == {"ORC-POLICY-010"}
    assert all("ORC-PROVIDER" in (attempt.error_detail or "") for attempt in tried)


class TestWithClaims:
    @pytest.fixture
    def terms(self) -> QueueTerms:
        return QueueTerms(
            **{name: getattr(LOCAL_TERMS, name) for name in QueueTerms.__slots__ if name != "claim_required"},
            claim_required=True,
        )

    async def test_a_request_is_claimed_before_anything_is_bought(self, world: World) -> None:
        async with world.daemon() as daemon:
            submitted = await world.submit()
            ended = await world.ended(submitted)
            row = await world.reaches(daemon, submitted, State.SETTLED)
            events = [line.new_state for line in await daemon.context.store.read(lambda c: journal.of(c, row.id))]
        assert ended.header.status is Status.FULFILLED
        assert events.index("claimed") < events.index("running")

    async def test_a_cancelled_request_buys_nothing(self, world: World) -> None:
        submitted = await world.submit()
        await requests.cancel(world.rpc, world.program_id, submitted.address, world.requester)
        async with world.daemon() as daemon:
            row = await world.reaches(daemon, submitted, State.CANCELLED)
            bought = await daemon.context.store.read(lambda c: attempts.of(c, row.id))
        assert bought == []


async def test_the_same_prompt_twice_is_two_requests_with_one_answer(world: World) -> None:
    async with world.daemon():
        first, second = await world.submit(nonce=1), await world.submit(nonce=2)
        ended = [await world.ended(first), await world.ended(second)]
    assert ended[0].address != ended[1].address
    assert ended[0].header.output_hash == ended[1].header.output_hash
    assert ended[0].header.job_hash != ended[1].header.job_hash


async def test_an_inline_input_of_any_size_that_fits_is_answered(world: World) -> None:
    async with world.daemon():
        submitted = await world.submit(Inline(b"a" * 600))
        assert (await world.ended(submitted)).header.status is Status.FULFILLED


class TestWithAnotherOperator:
    @pytest.fixture
    def terms(self) -> QueueTerms:
        return QueueTerms(
            **{
                name: getattr(LOCAL_TERMS, name)
                for name in QueueTerms.__slots__
                if name not in ("claim_required", "lease_slots")
            },
            claim_required=True,
            lease_slots=1_000,
        )

    async def rival(self, world: World) -> Keypair:
        rival = Keypair()
        await network.fund(world.node, rival.pubkey())
        added = instructions.add_operator(
            world.program_id,
            queue=world.queue,
            authority=world.authority.pubkey(),
            operator_key=rival.pubkey(),
            uri="http://127.0.0.1:1",
        )
        await transact(world.rpc, [added], [world.authority])
        return rival

    async def claim(self, world: World, rival: Keypair, submitted: requests.Submitted) -> None:
        claimed = instructions.claim_request(
            world.program_id,
            request=submitted.address,
            operator_key=rival.pubkey(),
            operator=operator_address(world.program_id, world.queue, rival.pubkey()),
            queue=world.queue,
        )
        await transact(world.rpc, [claimed], [rival])

    async def test_a_claim_that_lapses_is_taken_over(self, world: World) -> None:
        rival = await self.rival(world)
        submitted = await world.submit()
        await self.claim(world, rival, submitted)
        async with world.daemon() as daemon:
            await world.reaches(daemon, submitted, State.SEEN)
            await world.node.advance(1_000)
            ended = await world.ended(submitted)
            await world.reaches(daemon, submitted, State.SETTLED)
        assert ended.header.operator == world.authority.pubkey()

    async def test_a_request_that_a_rival_settles_is_superseded_and_buys_nothing(self, world: World) -> None:
        rival = await self.rival(world)
        submitted = await world.submit()
        await self.claim(world, rival, submitted)
        async with world.daemon() as daemon:
            await world.reaches(daemon, submitted, State.SEEN)
            recorded = instructions.record_inference_result(
                world.program_id,
                request=submitted.address,
                operator_key=rival.pubkey(),
                operator=operator_address(world.program_id, world.queue, rival.pubkey()),
                output_hash=bytes(32),
                job_hash=bytes(32),
                completed_at=1,
            )
            await transact(world.rpc, [recorded], [rival])
            row = await world.reaches(daemon, submitted, State.SUPERSEDED)
        assert row.attempts_made == 0
        assert len(world.model_url.calls) == 0
