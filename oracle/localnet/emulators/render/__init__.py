"""Render's compute subnet (Dispersed): containers on rented GPU nodes, ordered by signed calls.

Written from specs/render.md; sections are named where a rule comes from. Error bodies, limits and the status of
time-outs are unverified there, and so here. Not emulated: job recipes, the GPU registry, nodes and the ledger's rows.
"""

from oracle.localnet.emulators.render.emulator import ApiKey, Render
from oracle.localnet.emulators.render.hardware import HARDWARE, Hardware
from oracle.localnet.emulators.render.jobs import JobFault, Timings

__all__ = ["HARDWARE", "ApiKey", "Hardware", "JobFault", "Render", "Timings"]
