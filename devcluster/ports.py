"""Ports for programs that are told theirs before they listen."""

import random
import socket

_BELOW_EPHEMERAL = range(10_000, 32_000)
_candidates = iter(random.SystemRandom().sample(_BELOW_EPHEMERAL, len(_BELOW_EPHEMERAL)))


def free_port() -> int:
    """A port of this host that nobody listens on right now, and that no system gives away meanwhile.

    Who asks the system for any port, or connects, gets one from 32768 on (ip_local_port_range in Linux'
    ip-sysctl; 49152 elsewhere): a port that was such a one may be another's by the time that a program is up.
    """
    for port in _candidates:
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise RuntimeError("every port was given away or is in use")
