"""Server-sent events of the Responses API, held to the types of OpenAI's own package and to the rules between them."""

import json
from typing import Any, get_args

from openai.types.responses import Response, ResponseStreamEvent
from openai.types.responses.response_item_list import ResponseItemList

EVENT_TYPES = {
    get_args(kind.model_fields["type"].annotation)[0]: kind for kind in get_args(get_args(ResponseStreamEvent)[0])
}
ENDS = {"response.completed", "response.incomplete", "response.failed"}


def read_events(stream: str) -> list[dict[str, Any]]:
    """The data of the events. Comments are left out; an event whose name and type differ fails."""
    events = []
    for frame in stream.split("\n\n"):
        if frame and not frame.startswith(":"):
            name, data = frame.split("\n")
            event: dict[str, Any] = json.loads(data.removeprefix("data: "))
            assert name == f"event: {event['type']}"
            events.append(event)
    return events


def check_response(body: dict[str, Any]) -> Response:
    return Response.model_validate(body, strict=False)


def check_item_list(body: dict[str, Any]) -> ResponseItemList:
    return ResponseItemList.model_validate(body)


def check_events(events: list[dict[str, Any]]) -> None:
    """Hold a whole stream to the types and to the grammar."""
    for event in events:
        EVENT_TYPES[event["type"]].model_validate(event)
    kinds = [event["type"] for event in events]
    assert kinds[:2] == ["response.created", "response.in_progress"]
    assert [kind in ENDS for kind in kinds] == [False] * (len(kinds) - 1) + [True]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert len({event["response"]["id"] for event in events if "response" in event}) == 1
    final = events[-1]["response"]["output"]
    added = [event for event in events if event["type"] == "response.output_item.added"]
    done = [event for event in events if event["type"] == "response.output_item.done"]
    assert [event["output_index"] for event in added] == list(range(len(final)))
    assert sorted(event["output_index"] for event in done) == list(range(len(final)))
    for event in done:
        assert event["item"] == final[event["output_index"]]
    for index, item in enumerate(final):
        mine = [event for event in events if event.get("output_index") == index]
        assert mine[0]["type"] == "response.output_item.added", mine[0]
        assert mine[-1]["type"] == "response.output_item.done", mine[-1]
        assert {event["item"]["id"] if "item" in event else event["item_id"] for event in mine} == {item["id"]}
        deltas = "".join(event["delta"] for event in mine if event["type"].endswith(".delta"))
        assert deltas == _text_of(item) or item["type"] in {"web_search_call", "file_search_call"}


def _text_of(item: dict[str, Any]) -> str:
    match item["type"]:
        case "message":
            return item["content"][0]["text"]
        case "reasoning":
            return item["summary"][0]["text"]
        case "code_interpreter_call":
            return item["code"]
        case "function_call" | "mcp_call":
            return item["arguments"]
    return ""
