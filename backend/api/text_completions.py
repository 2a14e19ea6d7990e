"""Completions of texts in OpenAI's older shape: the same object whole and in pieces.

    stream = chunk* (usage)? [DONE] ; the last chunk of each choice has its finish reason and no text

A choice begins with the prompt itself where that was asked for (`echo`).
"""

from collections.abc import Sequence
from typing import Any

import orjson

from backend.api.completions import DONE, CompletionHead, usage_object
from backend.core.answers import Answer
from backend.core.events import BackendSelected, Event, RunFinished, TextDelta, Usage
from backend.utils.clean_text import clean_value

KIND = "text_completion"


class TextEncoder:
    """Events in, bytes of `text/event-stream` out, for all choices of one response.

    Args:
        beginnings: what each choice begins with, before the model says a word.
    """

    def __init__(self, head: CompletionHead, beginnings: Sequence[str], *, include_usage: bool) -> None:
        self._head = head
        self._fields = head.fields(KIND, None)  # what is the same in every chunk
        self._backend: BackendSelected | None = None
        self._beginnings = dict(enumerate(beginnings))
        self._offsets = [len(text) for text in beginnings]
        self._include_usage = include_usage
        self._unfinished = len(beginnings)
        self._usage = Usage()

    def encode(self, event: Event, choice: int) -> bytes:
        """The bytes for one event; none for an event that shows nothing."""
        match event:
            case TextDelta(text, logprobs):
                offset = self._offsets[choice]
                self._offsets[choice] += len(text)
                told = None if logprobs is None else _old_logprobs(logprobs, offset)
                return self._begin(choice) + self._chunk(choice, text, logprobs=told)
            case BackendSelected():
                if self._backend is None:
                    self._backend, self._fields = event, self._head.fields(KIND, event)
                return b""
            case RunFinished(reason, usage):
                self._unfinished -= 1
                self._usage += usage
                return self._begin(choice) + self._chunk(choice, "", finish_reason=reason)
            case _:
                return b""

    def end(self) -> bytes:
        """What follows the last event of the last choice; nothing where a choice did not finish."""
        if self._unfinished:
            return b""
        if not self._include_usage:
            return DONE
        return _frame(self._fields | {"choices": [], "usage": usage_object(self._usage)}) + DONE

    def _begin(self, choice: int) -> bytes:
        beginning = self._beginnings.pop(choice, "")
        return self._chunk(choice, beginning) if beginning else b""

    def _chunk(self, choice: int, text: str, *, logprobs: Any = None, finish_reason: str | None = None) -> bytes:
        told = {"index": choice, "text": text, "logprobs": logprobs, "finish_reason": finish_reason}
        chunk = self._fields | {"choices": [told]}
        return _frame(chunk | {"usage": None} if self._include_usage else chunk)


def text_completion_object(
    head: CompletionHead, answers: Sequence[Answer], beginnings: Sequence[str]
) -> dict[str, Any]:
    choices = [
        {
            "index": index,
            "text": beginning + answer.text,
            "logprobs": _old_logprobs(answer.logprobs, len(beginning)) if answer.logprobs else None,
            "finish_reason": answer.finish_reason,
        }
        for index, (answer, beginning) in enumerate(zip(answers, beginnings, strict=True))
    ]
    usage = usage_object(sum((answer.usage for answer in answers), Usage()))
    return {**head.fields(KIND, answers[0].backend), "choices": choices, "usage": usage}


def _old_logprobs(entries: Sequence[dict[str, Any]], offset: int) -> dict[str, Any]:
    """Chat's probabilities of tokens in the shape that they had before there was chat."""
    told: dict[str, list[Any]] = {"tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": []}
    for entry in entries:
        told["tokens"].append(entry["token"])
        told["token_logprobs"].append(entry["logprob"])
        told["top_logprobs"].append({other["token"]: other["logprob"] for other in entry.get("top_logprobs", ())})
        told["text_offset"].append(offset)
        offset += len(entry["token"])
    return told


def _frame(value: dict[str, Any]) -> bytes:
    try:
        data = orjson.dumps(value)
    except TypeError:  # a lone surrogate in a model's text, which UTF-8 cannot carry
        data = orjson.dumps(clean_value(value))
    return b"data: " + data + b"\n\n"
