"""The one list of tools. Adding a tool: a folder under `tools/`, and a line here."""

from collections.abc import Callable, Mapping

from backend.core.contracts import Tool
from config import Settings

TOOLS: Mapping[str, Callable[[Settings], Tool]] = {}
