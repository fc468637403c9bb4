"""Ports for servers that tests start."""

from __future__ import annotations

import socket


def free_port() -> int:
    """Return a free port of 127.0.0.1, which the system gives to no other program for a minute.

    The side of a connection that closes first stays in TIME_WAIT. Its port can then be bound by a server that asks for
    it by number with SO_REUSEADDR, as servers do, but is not chosen for one that asks for any.
    """
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        server.accept()[0].close()
        client.recv(1)
        port: int = server.getsockname()[1]
        return port
