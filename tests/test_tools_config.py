"""The list of tools."""

import asyncio
import importlib
from pathlib import Path

import pytest

from backend.core.contracts import Tool
from config import Settings
from tools_config import TOOLS


@pytest.mark.parametrize("name", TOOLS)
async def test_a_tool_of_the_list_can_be_made_and_tells_a_model_what_it_does(name: str, tmp_path: Path) -> None:
    module, _, attribute = TOOLS[name].partition(":")
    tool_class = getattr(importlib.import_module(module), attribute)
    tool: Tool = await asyncio.to_thread(tool_class, Settings(_env_file=None, DATA_DIR=tmp_path))
    assert tool.spec.name == name
    assert len(tool.spec.description) > 20
    arguments = tool.spec.args.model_json_schema()["properties"]
    assert all("description" in schema for schema in arguments.values())


def test_each_folder_of_a_tool_is_on_the_list() -> None:
    folders = {path.parent.name for path in Path(__file__).parents[1].glob("tools/*/tool.py")}
    assert folders == {place.split(".")[1] for place in TOOLS.values()}
