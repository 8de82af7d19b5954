"""Tells systemd that the daemon is ready (sd_notify(3)): one datagram, and silence where nobody listens."""

from __future__ import annotations

import os
import socket


def notify(state: str) -> None:
    path = os.environ.get("NOTIFY_SOCKET")
    if not path:
        return
    address = "\0" + path[1:] if path.startswith("@") else path
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.sendto(state.encode(), address)
    except OSError:
        # A supervisor that does not listen is no reason to stop working.
        return
