"""How each contestant is started: its command, its settings, and how one knows that it answers.

Each runs one worker with its access log off. LiteLLM gets the easier work: no key, no database, no call log.
"""

import http.client
import json
import os
import re
import subprocess
import sys
import venv
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.gateway import wire
from tests.benchmarks.gateway.load import Target
from tests.benchmarks.gateway.processes import (
    LOAD_CORES,
    ROOT,
    SCRATCH,
    SERVER_CORES,
    Processes,
    Server,
    StartFailed,
    free_port,
    wait_until_ready,
)

LITELLM_VERSION = "1.99.4"
PEER_VENV = SCRATCH / f"litellm-{LITELLM_VERSION}"
_INSTALL_S = 600
_START_S = 90.0
_COMMAND_S = 60


@dataclass(frozen=True)
class Gateway:
    """A contestant that answers: where, and the process to account to it."""

    name: str
    target: Target
    server: Server


def start_upstream(processes: Processes) -> Gateway:
    port = free_port()
    argv = [sys.executable, "-m", "tests.benchmarks.gateway.upstream", str(port)]
    return _ready("direct", processes.start("direct", argv, port, {}, LOAD_CORES))


def start_starlette(processes: Processes, upstream: str) -> Gateway:
    port = free_port()
    argv = [sys.executable, "-m", "tests.benchmarks.gateway.passthrough", str(port), upstream]
    return _ready("starlette", processes.start("starlette", argv, port, {}, SERVER_CORES))


def install_litellm(environment: Path) -> None:
    """Make a virtual environment for the peer, once; it is never a dependency of the project."""
    if (environment / "bin" / "litellm").exists():
        return
    print(f"installing litellm[proxy]=={LITELLM_VERSION} into {environment} ...", file=sys.stderr)
    venv.create(environment, with_pip=True)
    command = [environment / "bin" / "python", "-m", "pip", "install", "-q", f"litellm[proxy]=={LITELLM_VERSION}"]
    try:
        done = subprocess.run(command, timeout=_INSTALL_S, capture_output=True, text=True)
    except subprocess.TimeoutExpired:
        raise StartFailed(f"pip did not install it within {_INSTALL_S} s") from None
    if done.returncode:
        raise StartFailed(f"pip could not install it: {done.stderr.strip()[-400:]}")


def start_litellm(processes: Processes, upstream: str, environment: Path) -> Gateway:
    install_litellm(environment)
    common = {"api_base": f"{upstream}/v1", "api_key": "none"}
    models = [{"model_name": name, "litellm_params": {"model": f"openai/{name}", **common}} for name in wire.MODELS]
    config = processes.folder / "litellm.yaml"  # JSON is YAML
    config.write_text(json.dumps({"model_list": models, "litellm_settings": {"telemetry": False}}))
    port = free_port()
    argv = [str(environment / "bin" / "litellm"), "--config", str(config), "--telemetry", "False"]
    argv += ["--host", "127.0.0.1", "--port", str(port), "--num_workers", "1"]
    settings = {
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # no call to the network at start
        "LITELLM_LOG": "ERROR",
        "NO_PROXY": "127.0.0.1",
    }
    return _ready("litellm", processes.start("litellm", argv, port, settings, SERVER_CORES))


def start_ours(processes: Processes, upstream: str, *, prompt_log: bool) -> Gateway:
    """This server as a user gets it: sign-in by API key, every conversation stored."""
    name = "ours" if prompt_log else "ours, no log"
    port = free_port()
    data = processes.folder / name.replace(", ", "-").replace(" ", "-")
    settings = {
        "MAIN_API_HOST": "127.0.0.1",
        "MAIN_API_PORT": str(port),
        "DATA_DIR": str(data),
        "DATABASE_URL": "",
        "LLM_BACKEND": "llamacpp",
        "LLAMACPP_BASE_URL": upstream,
        "LOG_LEVEL": "WARNING",
        "PROMPT_LOG": "on" if prompt_log else "off",
    }
    user = ["--username", "bench", "--role", "user", "--password-stdin"]
    _create_user(user, settings, "a long enough passphrase")
    key = re.search(r"\bsk-\S+", _create_user(["--make-key", "bench"], settings, ""))
    if key is None:
        raise StartFailed("create_user_direct.py --make-key printed no key")
    server = processes.start(data.name, [sys.executable, "server.py"], port, settings, SERVER_CORES)
    return _ready(name, server, key[0])


def _create_user(arguments: list[str], settings: dict[str, str], password: str) -> str:
    command = [sys.executable, "create_user_direct.py", *arguments]
    env = {**os.environ, **settings}
    done = subprocess.run(
        command, cwd=ROOT, env=env, input=password, capture_output=True, text=True, timeout=_COMMAND_S
    )
    if done.returncode:
        raise StartFailed(f"{' '.join(command[1:3])}: {(done.stderr or done.stdout).strip()[-400:]}")
    return done.stdout


def _ready(name: str, server: Server, key: str | None = None) -> Gateway:
    target = Target(server.port, key)
    wait_until_ready(server, lambda: _obstacle(target), _START_S)
    return Gateway(name, target, server)


def _obstacle(target: Target) -> str:
    """Why the server does not answer a chat request with the model's text; empty when it does."""
    before, after = wire.request_template(wire.REPLY, stream=False)
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {target.key or 'none'}"}
    connection = http.client.HTTPConnection("127.0.0.1", target.port, timeout=10)
    try:
        connection.request("POST", "/v1/chat/completions", before + b"00000000" + after, headers)
        answer = connection.getresponse()
        body = answer.read()
    except (OSError, http.client.HTTPException) as error:
        return repr(error)
    finally:
        connection.close()
    whole = answer.status == 200 and wire.REPLY_TEXT.encode() in body
    return "" if whole else f"HTTP {answer.status}: {body[:300].decode(errors='replace')}"
