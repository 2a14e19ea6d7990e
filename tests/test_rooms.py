"""Imports go down only: a room knows the rooms below it, and none above or beside it."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# room -> the rooms it may import from (besides itself)
MAY_IMPORT = {
    "config": set(),
    "backend.utils": {"backend.core.errors"},
    "backend.core": {"config", "backend.utils"},
    "tools_config": {"config", "backend.core", "tools"},
    "backend.agents": {"config", "backend.core", "backend.utils"},
    "tools": {"config", "backend.core", "backend.utils"},
    "backend.models": {"config", "backend.core", "backend.utils"},
    "backend.api": {"config", "backend.core", "backend.utils", "backend.agents", "backend.models", "tools_config"},
    "backend.preflight": {"config"},
    "server": {"config", "backend.api"},
    "tools_server": {"config", "backend.api"},
    "create_user_direct": {"config", "backend.core", "backend.utils"},
}
HEAVY = {
    "faiss",
    "matplotlib",
    "numpy",
    "onnx",
    "onnxruntime",
    "pandas",
    "pptx",
    "sentence_transformers",
    "tantivy",
    "tokenizers",
    "torch",
    "xllamacpp",
}
READERS = {"PIL", "lxml", "openpyxl", "pypdfium2"}  # what reads strangers' files has a process of its own


def modules() -> list[tuple[str, Path]]:
    files = [*ROOT.glob("*.py"), *(ROOT / "backend").rglob("*.py"), *(ROOT / "tools").rglob("*.py")]
    return [(".".join(path.relative_to(ROOT).with_suffix("").parts), path) for path in sorted(files)]


def imports_of(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def room_of(module: str) -> str | None:
    return max((room for room in MAY_IMPORT if module == room or module.startswith(room + ".")), key=len, default=None)


@pytest.mark.parametrize(("module", "path"), modules(), ids=[name for name, _ in modules()])
def test_a_module_imports_only_from_its_own_room_and_the_rooms_below(module: str, path: Path) -> None:
    room = room_of(module)
    if room is None:
        assert module in {"backend.__init__"}
        return
    allowed = MAY_IMPORT[room] | {room}
    for name in imports_of(path):
        if room_of(name):
            assert any(name == place or name.startswith(place + ".") for place in allowed), f"{module} imports {name}"


def test_the_main_api_loads_nothing_heavy() -> None:
    reachable: set[str] = set()
    waiting = ["server"]
    paths = dict(modules())
    while waiting:
        module = waiting.pop()
        if module in reachable or module not in paths:
            continue
        reachable.add(module)
        waiting += imports_of(paths[module])
    assert "backend.api.app" in reachable
    loaded = {name.partition(".")[0] for module in reachable for name in imports_of(paths[module])}
    assert not loaded & (HEAVY | READERS)
