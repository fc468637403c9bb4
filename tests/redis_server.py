"""A real Redis server on a free port of 127.0.0.1, for tests that stop it, kill it, or lock it with a password.

::

    with RedisServer(tmp_path) as server, RedisStore(server.url) as store:
        store.append("a", turn)
        server.kill()

As a program it prints its address and serves until its input ends.
"""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Self

import redis

from programs import require_program

if TYPE_CHECKING:
    from collections.abc import Callable

START_TIMEOUT_S = 20
STOP_TIMEOUT_S = 20


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
    ) -> None:
        """Choose a port and, for ``tls``, make a certificate; the server starts on entering the context."""
        self.directory = directory
        self.password = password
        self.port = _free_port()
        self.certificate = _certificate(directory) if tls else None
        self._durable = durable
        self._cluster = cluster
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
            self._wait_for_cluster()
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
            command += ["--cluster-enabled", "yes", "--cluster-port", str(_free_port())]
        return command

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, "redis-server ended at once"
        with closing(self.client()) as client:
            try:
                return bool(client.ping())
            except (redis.ConnectionError, redis.BusyLoadingError):
                return False

    def _wait_for_cluster(self) -> None:
        with closing(self.client()) as client:
            _wait_for(lambda: "cluster_state:ok" in str(client.execute_command("CLUSTER", "INFO")))  # type: ignore[no-untyped-call]


def _wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline, f"redis-server did not answer within {START_TIMEOUT_S} s"
        time.sleep(0.01)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


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
