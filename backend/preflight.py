"""What start_servers.sh has to know before it starts anything.

    python -m backend.preflight

Checks the settings, the data folder and the ports, and looks which LLM backends are there. stdout: shell assignments
(`NAME='value'`), for the script to evaluate. stderr: sentences for the person who starts it; with a non-zero exit, one
that says what is wrong.
"""

import errno
import json
import os
import shlex
import socket
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from urllib.request import ProxyHandler, Request, build_opener

from config import Settings, load_settings

ANY_HOST = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # noqa: S104  where a server that listens everywhere is reached
MAX_ANSWER_BYTES = 4 << 20
MODEL_LISTS = {"Ollama": ("/api/tags", "models", "name"), "llama.cpp": ("/v1/models", "data", "id")}


@dataclass(frozen=True, slots=True)
class Backend:
    """A place where models may be. `models` None: nobody answers there."""

    name: str
    url: str
    models: tuple[str, ...] | None


def prepare_logs(settings: Settings) -> Path:
    """Make the folder of the logs, readable for its owner alone."""
    logs = settings.DATA_DIR.absolute() / "logs"
    try:
        settings.DATA_DIR.mkdir(mode=0o700, parents=True, exist_ok=True)
        logs.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise SystemExit(f"DATA_DIR: cannot write to {logs}: {error.strerror}") from None
    if not os.access(logs, os.W_OK):
        raise SystemExit(f"DATA_DIR: cannot write to {logs}: Permission denied")
    return logs


def check_database(settings: Settings) -> None:
    """See that another database than our own file can be used, before two servers fail for it."""
    if not settings.DATABASE_URL:
        return
    from sqlalchemy import create_engine, exc  # only here: it would slow every start

    engine = create_engine(settings.database_url)
    try:
        engine.connect().close()
    except exc.SQLAlchemyError as error:
        shown = engine.url.render_as_string(hide_password=True)
        raise SystemExit(f"DATABASE_URL: cannot use {shown}: {str(error).splitlines()[0]}") from None
    engine.dispose()


def choose_ports(settings: Settings) -> dict[str, int]:
    """The ports of both servers: seen to be free, and for a 0 a free one."""
    ports: dict[str, int] = {}
    with ExitStack() as held:  # both at once, so that they cannot be the same
        for name, host in (("MAIN_API_PORT", settings.MAIN_API_HOST), ("TOOLS_PORT", settings.TOOLS_HOST)):
            port = getattr(settings, name)
            try:
                family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
                listener = held.enter_context(socket.socket(family, kind, protocol))
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                listener.bind(address)
                listener.listen(1)
            except OSError as error:
                advice = f": set {name} to another port" if error.errno == errno.EADDRINUSE else ""
                raise SystemExit(f"{name}: cannot listen on {host}:{port}: {error.strerror}{advice}") from None
            ports[name] = listener.getsockname()[1]
    return ports


def address(host: str, port: int) -> str:
    host = ANY_HOST.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def look_at(name: str, url: str, settings: Settings) -> Backend:
    """Ask one backend for its models, for at most CONNECT_TIMEOUT_S."""
    path, models, model_id = MODEL_LISTS[name]
    request = Request(url + path)  # noqa: S310  http or https: config.py has seen to it
    if name == "llama.cpp" and settings.LLAMACPP_API_KEY:
        request.add_header("Authorization", f"Bearer {settings.LLAMACPP_API_KEY}")
    try:
        with build_opener(ProxyHandler({})).open(request, timeout=settings.CONNECT_TIMEOUT_S) as answer:
            listed = json.loads(answer.read(MAX_ANSWER_BYTES))[models]
            return Backend(name, url, tuple(str(model[model_id]) for model in listed or ()))
    except (OSError, ValueError, LookupError, TypeError, HTTPException):  # silent, or something else that listens there
        return Backend(name, url, None)


def find_backends(settings: Settings) -> list[Backend]:
    """Look at every backend that LLM_BACKEND allows, all at the same time."""
    places: list[tuple[str, str]] = []
    if {"auto", "ollama"} & set(settings.LLM_BACKEND):
        places += [("Ollama", url) for url in settings.OLLAMA_BASE_URL]
    if {"auto", "llamacpp"} & set(settings.LLM_BACKEND):
        places += [("llama.cpp", url) for url in settings.LLAMACPP_BASE_URL]
    with ThreadPoolExecutor(max_workers=len(places) or 1) as pool:
        return list(pool.map(lambda place: look_at(place[0], place[1], settings), places))


def describe(backend: Backend, settings: Settings) -> str:
    place = f"{backend.name} at {backend.url}"
    if backend.models is None:
        return f"{place} does not answer."
    if not backend.models:
        return f"{place} has no model yet."
    if backend.name == "Ollama" and not {settings.OLLAMA_MODEL, f"{settings.OLLAMA_MODEL}:latest"} & set(
        backend.models
    ):
        names = ", ".join(backend.models[:5])
        return f"{place} has {names}, but not {settings.OLLAMA_MODEL}: set OLLAMA_MODEL to one that it has."
    return f"{place} answers ({len(backend.models)} model{'s' if len(backend.models) > 1 else ''})."


def needs_engine(settings: Settings, backends: list[Backend]) -> bool:
    """Whether the embedded engine is to be started: when nobody else has a model, or when a model for it is named."""
    if settings.EMBEDDED_LLM_URL or not {"auto", "llamacpp"} & set(settings.LLM_BACKEND):
        return False
    if settings.LLAMACPP_MODEL_PATH:
        return True
    return "auto" in settings.LLM_BACKEND and not any(backend.models for backend in backends)


def main() -> None:
    settings = load_settings()
    logs = prepare_logs(settings)
    check_database(settings)
    ports = choose_ports(settings)
    backends = find_backends(settings)
    engine = needs_engine(settings, backends)
    for backend in backends:
        sys.stderr.write(f"{describe(backend, settings)}\n")
    if settings.LLAMACPP_MODEL_PATH and not engine and not settings.EMBEDDED_LLM_URL:
        sys.stderr.write("LLAMACPP_MODEL_PATH is left aside: LLM_BACKEND allows no llama.cpp.\n")
    if not engine and not settings.EMBEDDED_LLM_URL and not any(backend.models for backend in backends):
        sys.stderr.write("No model to talk to yet: the servers start, and answer as soon as a backend does.\n")
    plan = {
        **{name: str(port) for name, port in ports.items()},
        "MAIN_URL": address(settings.MAIN_API_HOST, ports["MAIN_API_PORT"]),
        "TOOLS_URL": address(settings.TOOLS_HOST, ports["TOOLS_PORT"]),
        "LOGS": str(logs),
        "ENGINE": "" if not engine else "own" if settings.LLAMACPP_MODEL_PATH else "demonstration",
    }
    sys.stdout.write("".join(f"{name}={shlex.quote(value)}\n" for name, value in plan.items()))


if __name__ == "__main__":
    main()
