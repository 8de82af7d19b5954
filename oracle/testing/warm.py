"""Imported by the fork server: all that a daemon imports, and what it computes once from files that never change."""

from __future__ import annotations

from oracle.chain.program import idl, selfcheck
from oracle.testing import crashing

__all__ = ["crashing"]

selfcheck.check(idl.built_in())
