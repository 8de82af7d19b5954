"""The emulated Jobs program in a virtual machine: one market, an owner, a host, and what they may do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from solders.hash import Hash
from solders.instruction import Instruction
from solders.keypair import Keypair
from solders.message import Message
from solders.pubkey import Pubkey
from solders.token.state import TokenAccount
from solders.transaction import Transaction

from oracle.localnet.chain import Chain
from oracle.localnet.emulators.nosana import genesis, jobs_program
from oracle.localnet.emulators.nosana.jobs_program import JobAccount, MarketAccount, RunAccount, nos_account
from oracle.localnet.outcome import Outcome

SOL = 10**9
NOS = jobs_program.MICRO_NOS
MARKET = Pubkey.from_string("7AtiXMSH6R1jjBxrcYjehCkkSF7zvYWte63gwEDBcGHq")
PRICE = 48
BEGINNING = 1_785_000_000
REFLECTION = Pubkey.find_program_address([b"reflection"], jobs_program.REWARDS_PROGRAM)[0]
REWARDS_VAULT = Pubkey.find_program_address([bytes(jobs_program.NOS_MINT)], jobs_program.REWARDS_PROGRAM)[0]


def keys(first_byte: int) -> Keypair:
    """The seeds of the specification: 32 bytes that count up (§2.7)."""
    return Keypair.from_seed(bytes(range(first_byte, first_byte + 32)))


@dataclass
class Ground:
    """Time stands still until `wait`. `owner`, `job` and `run` are those of the golden vector, `host` is §7's."""

    chain: Chain = field(init=False)
    seconds: float = BEGINNING
    owner: Keypair = field(default_factory=lambda: keys(0))
    job: Keypair = field(default_factory=lambda: keys(32))
    run: Keypair = field(default_factory=lambda: keys(64))
    host: Keypair = field(default_factory=lambda: keys(96))

    def __post_init__(self) -> None:
        self.chain = Chain(seed=bytes(32), now=lambda: self.seconds)
        genesis.place(self.chain, job_expiration_seconds=3600)
        for who, nos in ((self.owner, 100), (self.host, 0)):
            self.chain.fund(who.pubkey(), 10 * SOL)
            genesis.grant_nos(self.chain, who.pubkey(), nos * NOS)

    def wait(self, seconds: float) -> None:
        self.seconds += seconds
        self.chain.advance()

    def send(self, payer: Keypair, wanted: Sequence[Instruction], *others: Keypair) -> Outcome:
        message = Message(list(wanted), payer.pubkey())
        tx = Transaction([payer, *others], message, Hash.default())
        return self.chain.vm.process(tx)

    def succeed(self, payer: Keypair, wanted: Instruction, *others: Keypair) -> Outcome:
        outcome = self.send(payer, [wanted], *others)
        assert outcome.ok, (outcome.err, outcome.logs)
        return outcome

    def refused(self, payer: Keypair, wanted: Instruction, *others: Keypair) -> str:
        """The name of the error, as it stands in the log, or what the token program says."""
        outcome = self.send(payer, [wanted], *others)
        assert not outcome.ok
        named = [line.partition("Error Code: ")[2].partition(".")[0] for line in outcome.logs if "Error Code" in line]
        return named[0] if named else str(outcome.err)

    # Instructions

    def listing(self, ipfs_job: bytes = b"j" * 32, timeout: int = 600, job: Keypair | None = None) -> Instruction:
        accounts = {
            "job": (job or self.job).pubkey(),
            "market": MARKET,
            "run": self.run.pubkey(),
            "user": nos_account(self.owner.pubkey()),
            "vault": jobs_program.vault_of(MARKET)[0],
            "payer": self.owner.pubkey(),
            "rewards_reflection": REFLECTION,
            "rewards_vault": REWARDS_VAULT,
            "authority": self.owner.pubkey(),
        }
        return jobs_program.instruction("list", accounts, ipfs_job=ipfs_job, timeout=timeout)

    def by_owner(self, name: str, authority: Pubkey | None = None, run: Pubkey | None = None) -> Instruction:
        """`delist`, `end`, `recover`, `extend` (to 1,200 s) or `clean` of the job."""
        owner = self.owner.pubkey()
        accounts = {
            "job": self.job.pubkey(),
            "market": MARKET,
            "run": run or self.run.pubkey(),
            "deposit": nos_account(owner),
            "user": nos_account(self.host.pubkey() if name == "end" else owner),
            "vault": jobs_program.vault_of(MARKET)[0],
            "payer": self.host.pubkey() if name == "end" and self.run_is_hosts() else owner,
            "rewards_reflection": REFLECTION,
            "rewards_vault": REWARDS_VAULT,
            "authority": authority or owner,
        }
        return jobs_program.instruction(name, accounts, timeout=1200)

    def by_host(self, name: str, result: bytes = b"r" * 32, host: Keypair | None = None) -> Instruction:
        """`work`, `finish`, `quit`, `claim`, `complete`, or `stop`."""
        node = (host or self.host).pubkey()
        owner = self.owner.pubkey()
        run_payer = node if name in ("work", "claim") or self.run_is_hosts() else owner
        accounts = {
            "job": self.job.pubkey(),
            "run": self.run.pubkey(),
            "market": MARKET,
            "vault": jobs_program.vault_of(MARKET)[0],
            "deposit": nos_account(owner),
            "user": nos_account(node),
            "payer": run_payer,
            "payer_run": run_payer,
            "payer_job": owner,
            "stake": Pubkey.default(),
            "nft": Pubkey.default(),
            "metadata": Pubkey.default(),
            "node": node,
            "authority": node,
        }
        return jobs_program.instruction(name, accounts, ipfs_result=result)

    def list_job(self, **options: int) -> Outcome:
        return self.succeed(self.owner, self.listing(**options), self.job, self.run)

    def take_job(self) -> Outcome:
        return self.succeed(self.host, self.by_host("work"), self.run)

    def run_is_hosts(self) -> bool:
        run = self.the_run()
        return run is not None and run.payer == self.host.pubkey()

    # What is

    def the_job(self) -> JobAccount | None:
        account = self.chain.vm.account(self.job.pubkey())
        return None if account is None else jobs_program.read_job(account.data)

    def the_run(self) -> RunAccount | None:
        account = self.chain.vm.account(self.run.pubkey())
        return None if account is None else jobs_program.read_run(account.data)

    def the_market(self) -> MarketAccount:
        account = self.chain.vm.account(MARKET)
        assert account is not None
        return jobs_program.read_market(account.data)

    def nos(self, owner: Pubkey) -> int:
        """In millionths."""
        return self._tokens(nos_account(owner))

    def in_vault(self) -> int:
        return self._tokens(jobs_program.vault_of(MARKET)[0])

    def _tokens(self, address: Pubkey) -> int:
        account = self.chain.vm.account(address)
        assert account is not None
        return TokenAccount.from_bytes(account.data).amount
