"""Imported by the fork server: all that a daemon imports, and what it computes once from files that never change."""

from __future__ import annotations

import gc

import alembic.command
import alembic.script
import anyio._backends._asyncio
import uvicorn.lifespan.off
import uvicorn.protocols.http.auto
import uvicorn.protocols.websockets.auto

from oracle.chain.program import idl, selfcheck
from oracle.providers import http
from oracle.testing import crashing

__all__ = ["alembic", "anyio", "crashing", "uvicorn"]

selfcheck.check(idl.built_in())
http.certificates()

# What is here for good need not be looked at by the collector of every child, which would copy all of it.
gc.collect()
gc.freeze()
