"""What a model wrote where it should have made a call: the call itself as text, or only the promise of one.

Understood as calls, wherever they stand in a text:

    {"name": "tool", "arguments": {...}}          also tool, action, function; args, parameters, input; in a ``` block
    <tool_call>{...}</tool_call>                   <function=tool>{...}</function>, [TOOL_CALLS][{...}]
    Action: tool / Action Input: {...}             <|python_tag|>{...}

A JSON object that is not of this form is an answer like any other, and so is anything that names no tool of the run
in a form that answers have, too.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from backend.core.llm.toolset import Toolset, parse_json

MAX_PROMISE_CHARS = 400
_NAMES = ("name", "tool", "tool_name", "action", "function", "function_name")
_ARGUMENTS = ("arguments", "args", "parameters", "input", "action_input", "tool_input", "params")
_ACTION = re.compile(r"^[ \t>*]*Action\**\s*:\**\s*`?([^\n`]+?)`?\s*$", re.MULTILINE | re.IGNORECASE)
_ACTION_INPUT = re.compile(
    r"^[ \t>*]*Action[ _]?Input\**\s*:\**\s*(.*?)(?=^\s*(?:Observation|Thought|Action)\s*:|\Z)",
    re.MULTILINE | re.IGNORECASE | re.DOTALL,
)
_FUNCTION_TAG = re.compile(
    r"<function(?:\s*=\s*|\s+name\s*=\s*)[\"']?([\w.:-]+)[\"']?\s*>(.*?)(?:</function>|\Z)", re.DOTALL
)
_PARAMETER_TAG = re.compile(r"<parameter(?:\s*=\s*|\s+name\s*=\s*)[\"']?(\w+)[\"']?\s*>(.*?)</parameter>", re.DOTALL)
_EXPLICIT = re.compile(
    r"<tool_call|<function|\[TOOL_CALLS\]|<\|python_tag\|>|^\s*Action\s*:", re.MULTILINE | re.IGNORECASE
)
_PROMISE = re.compile(
    r"\b(let me|let's|i(?:'ll| will| am going to|'m going to| need to| should)|allow me to|one moment|please wait|"
    r"hold on|ich werde|lass(?:en sie)? mich|je vais|voy a|déjame)\b"
    r"|(겠습니다|볼게요|잠시만|しましょう|します。?$|让我|我来|我将|稍等)",
    re.IGNORECASE,
)
_ACT = re.compile(
    r"\b(search|look|check|find|comput|calculat|run|execut|use|call|fetch|query|brows|try|analy[sz]|read|open|verify|retriev|get|"
    r"moment|wait|hold|such|suche|rechn|prüf|cherch|calcul|busc)|검색|확인|계산|실행|조회|찾아|잠시|検索|調べ|計算|搜索|查|计算|稍等",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class TextCall:
    """A call as it was written; the name may be no tool's."""

    name: str
    arguments: Any
    explicit: bool  # in a form that no answer has


def find_calls(text: str, tools: Toolset) -> list[TextCall]:
    """The calls in a text. One that is not explicit names a tool of the run."""
    explicit = _EXPLICIT.search(text) is not None
    found = [TextCall(name, arguments, explicit) for name, arguments in _tagged(text)]
    if not found:
        found = [
            TextCall(name, given, explicit)
            for item in _objects(text)
            if (call := _as_call(item))
            for name, given in [call]
        ]
    if not found and (action := _ACTION.search(text)):
        given = _ACTION_INPUT.search(text, action.end())
        name = action[1].strip()
        if name.lower().replace(" ", "_") not in {"answer", "final_answer", "none", "finish"}:
            found = [TextCall(name, _unfenced(given[1]) if given else "{}", explicit=True)]
    return [call for call in found if call.explicit or tools.find(call.name)]


def is_cut_call(text: str, tools: Toolset) -> bool:
    """Whether the text is the beginning of a call that was not written to its end."""
    if not (_EXPLICIT.search(text) or re.match(r"\s*(?:```\w*\s*)?[\[{]", text)):
        return False
    names_a_tool = any(f'"{name}"' in text or f"={name}" in text for name in tools.names)
    return names_a_tool and parse_json(_unfenced(text)) is None


def is_promise(text: str) -> bool:
    """Whether the text only says what its writer is about to do."""
    text = text.strip()
    if not text or len(text) > MAX_PROMISE_CHARS or text.endswith(("?", "？")):
        return False
    last = re.split(r"(?<=[.!。])\s+|\n+", text)[-1]
    return bool(_PROMISE.search(last) and _ACT.search(last))


def may_become_promise(text: str) -> bool:
    """Whether a text that has only begun may turn out to be a promise."""
    return len(text) <= MAX_PROMISE_CHARS and (len(text) < 40 or _PROMISE.search(text) is not None)


def final_answer_in(text: str) -> str | None:
    """What follows `Final Answer:`, or stands in `{"action": "answer", "input": ...}`."""
    if found := re.search(r"^[ \t*]*Final Answer\s*:?\**\s*:\s*", text, re.MULTILINE | re.IGNORECASE):
        return text[found.end() :].strip() or None
    return None


def _tagged(text: str) -> Iterator[tuple[str, Any]]:
    for name, body in _FUNCTION_TAG.findall(text):
        parameters = {key: value.strip("\n") for key, value in _PARAMETER_TAG.findall(body)}
        yield name, parameters or body


def _objects(text: str) -> Iterator[Any]:
    """Every JSON object of a text that is not inside another one; arrays are gone into."""
    position = 0
    decoder = json.JSONDecoder(strict=False)
    while (start := text.find("{", position)) >= 0:
        try:
            value, position = decoder.raw_decode(text, start)
        except (ValueError, RecursionError):
            position = start + 1
            continue
        if isinstance(value, dict):
            yield parse_json(json.dumps(value))


def _as_call(item: Any) -> tuple[str, Any] | None:
    if not isinstance(item, dict):
        return None
    if isinstance(item.get("function"), dict):  # OpenAI's own form, written out
        item = item["function"]
    name = next((item[key] for key in _NAMES if isinstance(item.get(key), str)), None)
    keys = [key for key in _ARGUMENTS if key in item]
    if name is None or (not keys and len(item) > 1):
        return None
    given = item[keys[0]] if keys else {}
    return (name, given) if isinstance(given, dict | str) else None


def _unfenced(text: str) -> str:
    return re.sub(r"^```\w*\s*|\s*```$", "", text.strip()).strip()
