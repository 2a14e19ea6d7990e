"""Where Node and nanocoder lie, and whether they are new enough: `start_servers.sh --install-nanocoder` brings them."""

from dataclasses import dataclass
from pathlib import Path

from tools.node_programs import LIBRARY, NotInstalled, find_node, find_script, read_version

OLDEST_NODE, OLDEST_NANOCODER = 22, (1, 28)
HOW_TO_INSTALL = "Run `bash start_servers.sh --install-nanocoder` once, or set PYTHON_EXECUTOR_MODE=native."
_PACKAGE = LIBRARY / "nanocoder" / "node_modules" / "@nanocollective" / "nanocoder"

__all__ = ["HOW_TO_INSTALL", "Installation", "NotInstalled", "find_installation"]


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
    node = find_node(OLDEST_NODE)
    nanocoder = find_script(package, "dist/cli.js", "nanocoder")
    if read_version(nanocoder.version) < OLDEST_NANOCODER:
        oldest = ".".join(map(str, OLDEST_NANOCODER))
        raise NotInstalled(f"nanocoder {nanocoder.version} is too old: it takes {oldest} or newer.")
    return Installation(node.path, nanocoder.path, node.version, nanocoder.version)
