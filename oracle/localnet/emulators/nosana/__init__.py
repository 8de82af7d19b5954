"""Nosana: the REST API with credits, the IPFS pin and gateway it is used with, and the hosts that run the jobs.

Written from specs/nosana.md; sections are named where a rule comes from. What the specification calls unverified is
marked so here, too.
"""

from oracle.localnet.emulators.nosana.accounts import Account
from oracle.localnet.emulators.nosana.emulator import Nosana
from oracle.localnet.emulators.nosana.host import JobFault
from oracle.localnet.emulators.nosana.jobs import Job, JobState
from oracle.localnet.emulators.nosana.markets import MARKETS, Market
from oracle.localnet.emulators.nosana.timings import Timings

__all__ = ["MARKETS", "Account", "Job", "JobFault", "JobState", "Market", "Nosana", "Timings"]
