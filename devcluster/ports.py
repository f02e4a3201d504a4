"""Ports for programs that are told theirs before they listen."""

import random
import socket

_BELOW_EPHEMERAL = range(10_000, 32_000)
_TRIES = 1000
_random = random.SystemRandom()
_given = set[int]()


def free_port() -> int:
    """A port of this host that nobody listens on right now, and that no system gives away meanwhile.

    Who asks the system for any port, or connects, gets one from 32768 on (ip_local_port_range in Linux'
    ip-sysctl; 49152 elsewhere): a port that was such a one may be another's by the time that a program is up.
    RuntimeError: there is none.
    """
    for _ in range(_TRIES):
        port = _random.choice(_BELOW_EPHEMERAL)
        if port not in _given and _is_free(port):
            _given.add(port)
            return port
    raise RuntimeError("no port is free")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
