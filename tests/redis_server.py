"""A real Redis server on a free port of 127.0.0.1, for tests that stop it, kill it, or lock it with a password.

::

    with RedisServer(tmp_path) as server, RedisStore(server.url) as store:
        store.append("a", turn)
        server.kill()

As a program it prints its address and serves until its input ends.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import redis

from ports import free_port
from programs import require_program

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

START_TIMEOUT_S = 60
STOP_TIMEOUT_S = 60


class RedisServer:
    """A server with its files in ``directory``; it persists nothing unless ``durable``, and then every write."""

    def __init__(
        self,
        directory: Path,
        *,
        password: str | None = None,
        durable: bool = False,
        tls: bool = False,
        cluster: bool = False,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        """Choose a port and, for ``tls``, make a certificate; the server starts on entering the context.

        ``settings`` are those of ``redis.conf``. A ``cluster`` of one node has all slots.
        """
        self.directory = directory
        self.password = password
        self.port = free_port()
        self.certificate = _certificate(directory) if tls else None
        self._durable = durable
        self._cluster = cluster
        self._settings = settings or {}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The address, without the password."""
        return f"{'rediss' if self.certificate else 'redis'}://127.0.0.1:{self.port}/0"

    def __enter__(self) -> Self:
        """Start the server and wait until it answers."""
        self.start()
        if self._cluster:
            with closing(self.client()) as client:
                client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)  # type: ignore[no-untyped-call]
            self.wait_for_cluster()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop the server."""
        self.kill()

    def start(self) -> None:
        """Start the server on its port with its persisted data, and wait until it answers."""
        self._process = subprocess.Popen(self._command(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        _wait_for(self._answers)

    def kill(self) -> None:
        """End the server at once, as a power failure would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(STOP_TIMEOUT_S)
            self._process = None

    def pause(self) -> None:
        """Make the server accept connections but answer nothing, until ``resume()``."""
        self._send(signal.SIGSTOP)

    def resume(self) -> None:
        """Let the server continue."""
        self._send(signal.SIGCONT)

    def client(self) -> redis.Redis:
        """Return a client of the server."""
        options = {"ssl_ca_certs": str(self.certificate)} if self.certificate else {}
        return redis.Redis.from_url(self.url, password=self.password, **options)

    def url_of_user(self, name: str, *rights: str) -> str:
        """Add a user with only these rights; return the address with name and password."""
        with closing(self.client()) as client:
            client.execute_command("ACL", "SETUSER", name, "reset", "on", ">secret", *rights)  # type: ignore[no-untyped-call]
        return self.url.replace("//", f"//{name}:secret@")

    def _send(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def _command(self) -> list[str]:
        command = [require_program("redis-server"), "--bind", "127.0.0.1", "--dir", str(self.directory), "--save", ""]
        if self.certificate:
            key = self.certificate.with_suffix(".key")
            command += ["--port", "0", "--tls-port", str(self.port), "--tls-auth-clients", "no"]
            command += ["--tls-cert-file", str(self.certificate), "--tls-key-file", str(key)]
        else:
            command += ["--port", str(self.port)]
        if self.password:
            command += ["--requirepass", self.password]
        if self._durable:
            command += ["--appendonly", "yes", "--appendfsync", "always"]
        if self._cluster:
            command += ["--cluster-enabled", "yes", "--cluster-port", str(free_port())]
        return command + [word for name, value in self._settings.items() for word in (f"--{name}", value)]

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, "redis-server ended at once"
        with closing(self.client()) as client:
            try:
                return bool(client.ping())
            except (redis.ConnectionError, redis.BusyLoadingError):
                return False

    def call(self, *command: object) -> Any:
        """Run a command on the server and return its answer."""
        with closing(self.client()) as client:
            return client.execute_command(*command)  # type: ignore[no-untyped-call]

    def wait_for_cluster(self) -> None:
        """Wait until the cluster that the server is a node of serves all slots."""
        with closing(self.client()) as client:
            _wait_for(lambda: "cluster_state:ok" in str(client.execute_command("CLUSTER", "INFO")))  # type: ignore[no-untyped-call]


class RedisClusterServers:
    """A cluster of three nodes, made by ``redis-cli --cluster create``; files are in ``directory``."""

    def __init__(self, directory: Path) -> None:
        """Choose ports; the nodes start on entering the context."""
        self.nodes = []
        for number in range(3):
            (directory / str(number)).mkdir()
            ports = {"cluster-enabled": "yes", "cluster-port": str(free_port()), "cluster-node-timeout": "2000"}
            self.nodes.append(RedisServer(directory / str(number), settings=ports))

    def __enter__(self) -> Self:
        """Start the nodes, and wait until each serves its part of the slots."""
        for node in self.nodes:
            node.start()
        addresses = [f"127.0.0.1:{node.port}" for node in self.nodes]
        command = [require_program("redis-cli"), "--cluster", "create", *addresses, "--cluster-yes"]
        subprocess.run(command, check=True, capture_output=True)
        for node in self.nodes:
            node.wait_for_cluster()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop the nodes."""
        for node in self.nodes:
            node.kill()

    def client(self) -> redis.RedisCluster:
        """Return a client of the cluster."""
        return redis.RedisCluster(host="127.0.0.1", port=self.nodes[0].port)

    def move_slot(self, key: str) -> int:
        """Give the slot of a key, with all keys in it, to the next node; return that node's number."""
        with closing(self.nodes[0].client()) as client:
            slot = str(client.execute_command("CLUSTER", "KEYSLOT", key))  # type: ignore[no-untyped-call]
        ids = [node.call("CLUSTER", "MYID").decode() for node in self.nodes]
        keys = [node.call("CLUSTER", "GETKEYSINSLOT", slot, 100_000) for node in self.nodes]
        source = next(index for index, found in enumerate(keys) if found)
        target = (source + 1) % len(self.nodes)
        self.nodes[target].call("CLUSTER", "SETSLOT", slot, "IMPORTING", ids[source])
        self.nodes[source].call("CLUSTER", "SETSLOT", slot, "MIGRATING", ids[target])
        port = str(self.nodes[target].port)
        self.nodes[source].call("MIGRATE", "127.0.0.1", port, "", "0", "5000", "KEYS", *keys[source])
        for node in (self.nodes[target], self.nodes[source], *self.nodes):
            node.call("CLUSTER", "SETSLOT", slot, "NODE", ids[target])
        return target


def _wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline, f"redis-server did not answer within {START_TIMEOUT_S} s"
        time.sleep(0.01)


def _certificate(directory: Path) -> Path:
    """Make a certificate for 127.0.0.1, with its key in the same directory."""
    path = directory / "server.crt"
    command = [require_program("openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    command += ["-nodes", "-days", "2", "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    command += ["-keyout", str(path.with_suffix(".key")), "-out", str(path)]
    subprocess.run(command, check=True, capture_output=True)
    return path


def main() -> None:
    """Serve until the input ends."""
    with tempfile.TemporaryDirectory() as directory, RedisServer(Path(directory)) as server:
        print(server.url, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
