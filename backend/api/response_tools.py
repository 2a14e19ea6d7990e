"""Calls of the server's own tools as items of a response: by OpenAI's types where it has one, as `mcp_call` otherwise.

Never as `function_call`: a client would take that for a call that it is to make itself.

    item added, STAGES, (code | arguments as one delta, and done), RUNNING, then `completed` (`failed`), item done
"""

from collections.abc import Iterator
from typing import Any

import orjson

from backend.core.events import ToolFinished, ToolStarted
from backend.core.untrusted import shorten

MAX_OUTPUT_CHARS = 64_000
SERVER_LABEL = "llm-api-server"
PREFIXES = {"websearch": "ws", "python_coder": "ci", "rag": "fs"}

# What a client must ask for by name.
SOURCES = "web_search_call.action.sources"
RESULTS = "file_search_call.results"
OUTPUTS = "code_interpreter_call.outputs"

Change = tuple[str, dict[str, Any]]  # a kind of event, and what it says besides where


def begin_call(event: ToolStarted, item_id: str, container_id: str) -> dict[str, Any]:
    """The item of a call that has just begun."""
    arguments = event.arguments
    match event.tool:
        case "websearch":
            return {"id": item_id, "type": "web_search_call", "status": "in_progress", "action": _action(arguments)}
        case "rag":
            queries = [_text(arguments.get("query"))]
            return {
                "id": item_id,
                "type": "file_search_call",
                "status": "in_progress",
                "queries": queries,
                "results": None,
            }
        case "python_coder":
            return {
                "id": item_id,
                "type": "code_interpreter_call",
                "status": "in_progress",
                "code": "",
                "container_id": container_id,
                "outputs": None,
            }
        case _:
            return {
                "id": item_id,
                "type": "mcp_call",
                "status": "in_progress",
                "server_label": SERVER_LABEL,
                "name": event.tool,
                "arguments": "",
                "output": None,
                "error": None,
            }


def run_call(event: ToolStarted, item: dict[str, Any]) -> Iterator[Change]:
    """What follows the begin: the item is filled in with what the tool was asked."""
    kind = item["type"]
    yield f"response.{kind}.in_progress", {}
    match kind:
        case "code_interpreter_call":
            item["code"] = _text(event.arguments.get("code") or event.arguments.get("task"))
            yield "response.code_interpreter_call_code.delta", {"delta": item["code"]}
            yield "response.code_interpreter_call_code.done", {"code": item["code"]}
            yield "response.code_interpreter_call.interpreting", {}
        case "mcp_call":
            item["arguments"] = orjson.dumps(event.arguments, default=str).decode()
            yield "response.mcp_call_arguments.delta", {"delta": item["arguments"]}
            yield "response.mcp_call_arguments.done", {"arguments": item["arguments"]}
        case _:
            yield f"response.{kind}.searching", {}


def end_call(event: ToolFinished, item: dict[str, Any], include: frozenset[str]) -> Iterator[Change]:
    """The call is over: the item is filled in with what it brought, as far as the client asked for that."""
    kind = item["type"]
    item["status"] = "completed" if event.success else "failed"
    result = event.result or {}
    data = result.get("data") if isinstance(result.get("data"), dict) else {}
    assert isinstance(data, dict)
    match kind:
        case "web_search_call" if SOURCES in include and item["action"]["type"] == "search":
            item["action"]["sources"] = [{"type": "url", "url": url} for url in _urls(data.get("results"))]
        case "file_search_call" if RESULTS in include:
            item["results"] = [_passage(source) for source in _objects(data.get("sources"))]
        case "code_interpreter_call" if OUTPUTS in include:
            item["outputs"] = list(_outputs(data, event))
        case "mcp_call" if event.success:
            item["output"] = shorten(_text(result.get("answer")) or event.summary, MAX_OUTPUT_CHARS)
        case "mcp_call":
            error = {"type": "mcp_tool_execution_error", "content": [{"type": "text", "text": event.summary}]}
            item["error"] = error
            yield "response.mcp_call.failed", {}
    if event.success:
        yield f"response.{kind}.completed", {}


def _action(arguments: dict[str, Any]) -> dict[str, Any]:
    if url := arguments.get("fetch_url"):
        return {"type": "open_page", "url": _text(url)}
    query = _text(arguments.get("query"))
    return {"type": "search", "query": query, "queries": [query]}


def _outputs(data: dict[str, Any], event: ToolFinished) -> Iterator[dict[str, Any]]:
    logs = "\n".join(text for name in ("stdout", "value", "stderr") if (text := _text(data.get(name)).rstrip()))
    if logs or not event.success:
        yield {"type": "logs", "logs": shorten(logs or event.summary, MAX_OUTPUT_CHARS)}
    for file in _objects(data.get("files")):
        name, url = _text(file.get("name")), _text(file.get("url"))
        if url and name.lower().endswith((".png", ".jpg", ".jpeg", ".gif", ".webp", ".svg")):
            yield {"type": "image", "url": url}


def _passage(source: dict[str, Any]) -> dict[str, Any]:
    document, score = _text(source.get("document")), source.get("score")
    return {
        "file_id": _text(source.get("id")) or document,
        "filename": document,
        "score": score if isinstance(score, int | float) else None,
        "text": shorten(_text(source.get("text")), MAX_OUTPUT_CHARS),
        "attributes": {"page": page} if isinstance(page := source.get("page"), int | str) else {},
    }


def _urls(results: Any) -> list[str]:
    return [url for result in _objects(results) if (url := _text(result.get("url")))]


def _objects(value: Any) -> list[dict[str, Any]]:
    """Tools may return anything."""
    return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
