"""A port of loopback for a server that must be told its port before it listens."""

import os
import socket
from itertools import count
from typing import Final

FIRST: Final = 20_000
"""Below the ports that the system hands out by itself, so that no other socket gets ours before the server has it."""

PORTS_A_WORKER: Final = 500
WORKER: Final = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))

_ports = count(FIRST + WORKER * PORTS_A_WORKER)


def free_port() -> int:
    """A port at which nobody listens; each call of this test process gives another one."""
    for port in _ports:
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError  # the count does not end
