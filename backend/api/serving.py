"""Run one of the two applications on its port, until it is told to stop."""

import gc
import os
import socket
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from backend.api.logs import start_logging

BACKLOG = 2048
GRACE_S = 10  # how long open streams may go on after the signal to stop
KEEP_ALIVE_S = 75


def serve(app: FastAPI, *, host: str, port: int, port_setting: str, log_level: str, data_dir: Path) -> None:
    """Raises: SystemExit with one line, when the port or the data folder cannot be used."""
    os.umask(0o077)  # what the servers write is for nobody else's eyes
    _check_writable(data_dir)
    listener = _bind(host, port, port_setting)
    logs = start_logging(log_level)
    config = uvicorn.Config(
        app,
        loop="uvloop",
        http="httptools",
        lifespan="on",
        log_config=None,
        access_log=False,  # requests are logged by RequestMiddleware, off the event loop
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=GRACE_S,
    )
    server = uvicorn.Server(config)
    # What importing has made never becomes garbage: the collector need not walk through it again and again.
    gc.collect()
    gc.freeze()
    try:
        server.run(sockets=[listener])
    finally:
        logs.stop()
    if not server.started:
        raise SystemExit("The server could not start; the log above says why.")


def _bind(host: str, port: int, port_setting: str) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        reason = error.strerror or str(error)
        raise SystemExit(f"Cannot listen on {host}:{port}: {reason}. Set {port_setting} to another port.") from None
    return listener


def _check_writable(data_dir: Path) -> None:
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SystemExit(f"config: DATA_DIR: cannot make {data_dir}: {error.strerror}") from None
    if not os.access(data_dir, os.W_OK | os.X_OK):
        raise SystemExit(f"config: DATA_DIR: cannot write to {data_dir}")
