import socket

import pytest

from devcluster import ports
from devcluster.ports import free_port


def test_no_port_is_given_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    monkeypatch.setattr(ports, "_BELOW_EPHEMERAL", [port])
    with pytest.raises(RuntimeError):
        free_port()


def test_a_port_on_which_somebody_listens_is_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        monkeypatch.setattr(ports, "_BELOW_EPHEMERAL", [busy.getsockname()[1]])
        with pytest.raises(RuntimeError):
            free_port()
