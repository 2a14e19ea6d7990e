"""Clients that do not go into .venv: programs of Node, and packages that want other versions than ours.

    .venv/bin/python -m tests.e2e.clients.installed      install them all, once, below ~/.cache

It says which cannot be had here. Tests only look for them, and are skipped without them.
"""

import subprocess
import sys
import venv
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.benchmarks.gateway.gateways import LITELLM_VERSION, PEER_VENV, install_litellm
from tests.benchmarks.gateway.processes import SCRATCH, StartFailed
from tools.node_programs import NotInstalled, find_node

OPENAI_NODE_VERSION, LLM_VERSION, AGENTS_SDK_VERSION = "7.57.0", "0.36", "0.24.0"
OPENAI_NODE = SCRATCH / f"openai-node-{OPENAI_NODE_VERSION}"
LLM_VENV = SCRATCH / f"llm-{LLM_VERSION}"
AGENTS_SDK_VENV = SCRATCH / f"openai-agents-{AGENTS_SDK_VERSION}"
OLDEST_NODE = 22
_INSTALL_S = 300


def node_with_openai() -> Path:
    """Node, where `OPENAI_NODE / "node_modules"` holds OpenAI's package; otherwise the test is skipped."""
    _skip_without(OPENAI_NODE / "node_modules" / "openai" / "package.json")
    return find_node(OLDEST_NODE).path


def llm_program() -> Path:
    return _skip_without(LLM_VENV / "bin" / "llm")


def python_with_litellm() -> Path:
    _skip_without(PEER_VENV / "bin" / "litellm")
    return PEER_VENV / "bin" / "python"


def python_with_agents_sdk() -> Path:
    _skip_without(AGENTS_SDK_VENV / "installed")
    return AGENTS_SDK_VENV / "bin" / "python"


def _skip_without(file: Path) -> Path:
    if not file.exists():
        pytest.skip(f"{file} is not there: run `.venv/bin/python -m tests.e2e.clients.installed` once")
    return file


def _install_openai_node() -> None:
    if (OPENAI_NODE / "node_modules" / "openai" / "package.json").exists():
        return
    node = find_node(OLDEST_NODE).path
    npm = node.parents[1] / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    options = ["--prefix", OPENAI_NODE, "--ignore-scripts", "--no-audit", "--no-fund"]
    _run([node, npm, "install", *options, f"openai@{OPENAI_NODE_VERSION}"])


def _install_package(folder: Path, requirement: str) -> None:
    """Into an environment of its own, which is there only when all of it is."""
    if not (folder / "installed").exists():
        venv.create(folder, with_pip=True)
        _run([folder / "bin" / "python", "-m", "pip", "install", "-q", requirement])
        (folder / "installed").touch()


def _run(command: list[Path | str]) -> None:
    try:
        done = subprocess.run(command, timeout=_INSTALL_S, capture_output=True, text=True)
    except subprocess.TimeoutExpired:
        raise StartFailed(f"it took more than {_INSTALL_S} s") from None
    if done.returncode:
        raise StartFailed(done.stderr.strip()[-400:])


INSTALLERS: dict[str, Callable[[], None]] = {
    f"openai {OPENAI_NODE_VERSION} for Node": _install_openai_node,
    f"llm {LLM_VERSION}": lambda: _install_package(LLM_VENV, f"llm=={LLM_VERSION}"),
    f"openai-agents {AGENTS_SDK_VERSION}": lambda: _install_package(
        AGENTS_SDK_VENV, f"openai-agents=={AGENTS_SDK_VERSION}"
    ),
    f"litellm {LITELLM_VERSION}": lambda: install_litellm(PEER_VENV),
}


def main() -> None:
    for name, install in INSTALLERS.items():
        try:
            install()
        except (StartFailed, NotInstalled) as error:
            print(f"{name} cannot be had here, its tests are skipped: {error}", file=sys.stderr)


if __name__ == "__main__":
    main()
