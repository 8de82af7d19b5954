"""Ports for servers that are started later, and started again on the same port."""

import secrets
import socket
from contextlib import ExitStack, suppress
from typing import Final

from oracle.localnet.errors import PORTS_TAKEN

HOST: Final = "127.0.0.1"
FIRST: Final = 10_000
LAST: Final = 32_767
"""From 32,768 on Linux, and from 49,152 on other systems, any outgoing connection may take a port for itself."""

_ATTEMPTS: Final = 100


def free_port(neighbours: int = 0) -> int:
    """A port that nobody listens on, as none of the `neighbours` after it. Raises ORC-LOCALNET-004 where there is none.

    Nothing holds it from here on. It is drawn at random, so that two who ask are not given the same.
    """
    for _ in range(_ATTEMPTS):
        first = FIRST + secrets.randbelow(LAST - neighbours - FIRST + 1)
        with ExitStack() as held, suppress(OSError):
            for port in range(first, first + neighbours + 1):
                held.enter_context(socket.create_server((HOST, port)))
            return first
    raise PORTS_TAKEN(f"{HOST}, from {FIRST} to {LAST}")
