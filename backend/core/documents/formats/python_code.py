"""Python by definitions, from the syntax tree: nothing of it is run."""

import ast
from collections.abc import Iterator, Sequence

from backend.core.documents.document import Block, DocumentInfo, DocumentPart
from backend.core.documents.formats import text
from backend.core.documents.formats.source import Source

MAX_BYTES = 2**21
MAX_SIGNATURE = 300
MAX_DOC = 200

Function = ast.FunctionDef | ast.AsyncFunctionDef


def read(source: Source) -> Iterator[DocumentPart]:
    code = source.read_whole_text(MAX_BYTES)
    tree = _parse(code)
    if tree is None:
        yield from text.read(source)
        return
    yield DocumentInfo(source.name)
    lines = code.splitlines()
    yield from _read_body(tree.body, lines, "", 1, len(lines), 1)


def describe(source: Source) -> Iterator[str]:
    tree = _parse(source.read_whole_text(MAX_BYTES))
    if tree is None:
        yield "A file called Python that is none, or is broken."
        yield from text.describe(source)
        return
    yield f"A Python module of {text.count_lines(source)} lines."
    if doc := ast.get_docstring(tree):
        yield f"It says of itself: {doc[:MAX_DOC]}"
    imports = sorted({name for node in ast.walk(tree) for name in _imported(node)})
    if imports:
        yield f"Imports: {', '.join(imports)}"
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            yield f"class {node.name}{_bases(node)}{_first_line(node)}"
            yield from (f"    {_signature(part)}" for part in node.body if isinstance(part, Function))
        elif isinstance(node, Function):
            yield f"{_signature(node)}{_first_line(node)}"


def _parse(code: str) -> ast.Module | None:
    try:
        return ast.parse(code)
    except (SyntaxError, ValueError):
        return None


def _read_body(
    body: Sequence[ast.stmt], lines: list[str], prefix: str, first: int, last: int, level: int
) -> Iterator[Block]:
    """Definitions each under a heading, and the lines between them. Lines are counted from 1."""
    for node in body:
        if not isinstance(node, ast.ClassDef | Function):
            continue
        begin = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
        end = node.end_lineno or node.lineno
        yield from _code(lines, first, begin - 1)
        name = prefix + node.name
        if isinstance(node, ast.ClassDef):
            yield Block("heading", f"class {name}", level=level)
            yield from _read_body(node.body, lines, f"{name}.", begin, end, level + 1)
        else:
            yield Block("heading", f"def {name}", level=level)
            yield from _code(lines, begin, end)
        first = end + 1
    yield from _code(lines, first, last)


def _code(lines: list[str], first: int, last: int) -> Iterator[Block]:
    piece = "\n".join(lines[first - 1 : last]).strip("\n")
    if piece.strip():
        yield Block("code", piece)


def _imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return ["." * node.level + (node.module or "")] if isinstance(node, ast.ImportFrom) else []


def _bases(node: ast.ClassDef) -> str:
    return f"({', '.join(map(ast.unparse, node.bases))})"[:MAX_SIGNATURE] if node.bases else ""


def _signature(node: Function) -> str:
    word = "async def" if isinstance(node, ast.AsyncFunctionDef) else "def"
    returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    return f"{word} {node.name}({ast.unparse(node.args)}){returns}"[:MAX_SIGNATURE]


def _first_line(node: ast.ClassDef | Function) -> str:
    doc = ast.get_docstring(node) or ""
    return f"  # {doc.splitlines()[0][:MAX_DOC]}" if doc else ""
