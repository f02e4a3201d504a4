import socket
import threading

from bench.relay import relayed


def test_it_counts_what_goes_each_way() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                received = b""
                while len(received) < 100_000:
                    received += connection.recv(1 << 16)
                connection.sendall(b"x" * 70_000)

        thread = threading.Thread(target=answer)
        thread.start()
        with relayed(*server.getsockname()) as relay:
            port = int(relay.url.rpartition(":")[2])
            with socket.create_connection(("127.0.0.1", port)) as client:
                client.sendall(b"y" * 100_000)
                received = 0
                while chunk := client.recv(1 << 16):
                    received += len(chunk)
            thread.join()
            assert (relay.sent, relay.received, received) == (100_000, 70_000, 70_000)
