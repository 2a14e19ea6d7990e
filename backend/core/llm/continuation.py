"""How an answer goes on at another backend after the first one broke in the middle of it.

A backend that continues a partial answer gets it as the last message and sends new text only. One that does not is
asked for the whole answer again. Either way the `Seam` holds back what arrives for as long as it repeats what the
client has, so that no text is ever sent twice:

    it repeats all of it           -> the answer was begun anew; it goes on after the overlap
    it repeats nothing             -> new text, from a backend that continues
    it repeats a part and differs  -> cannot be joined: `AnswerInterrupted`

Limits: a continuing backend is believed when it shares only the first few characters with the answer (`COINCIDENCE`
of them would be a repetition). Text that is passed on in part loses its logprobs.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from backend.core.errors import AnswerInterrupted
from backend.core.events import BackendEvent, Completed, ReasoningDelta, TextDelta, ToolCallDelta
from backend.core.llm.base import LLMRequest
from backend.core.messages import Message

COINCIDENCE = 8


@dataclass(slots=True)
class Sent:
    """What the client has of an answer."""

    texts: list[str] = field(default_factory=list)
    reasoned: bool = False
    called: bool = False  # a tool call has begun

    @property
    def begun(self) -> bool:
        return bool(self.texts) or self.reasoned or self.called

    def note(self, event: BackendEvent) -> None:
        if isinstance(event, TextDelta):
            self.texts.append(event.text)
        elif isinstance(event, ReasoningDelta):
            self.reasoned = True
        elif isinstance(event, ToolCallDelta):
            self.called = True

    def can_go_on(self, request: LLMRequest) -> bool:
        """Whether another backend may take over. Half a tool call or half a JSON document cannot be joined safely."""
        return not self.called and (not self.texts or request.response_format is None)


def ask_to_continue(request: LLMRequest, sent: Sent) -> LLMRequest:
    """The request whose answer is the rest of this one. A text without a template just goes on, wherever it stopped.

    Space at the end of the partial answer is left out: chat templates trim it anyway, and models continue badly after
    it. They begin with that space themselves then, and the `Seam` drops it.
    """
    if request.prompt is not None:
        return _lower_limit(replace(request, prompt=request.prompt + "".join(sent.texts)), sent)
    partial = "".join(sent.texts).rstrip()
    if not partial:
        return request
    messages = request.messages
    last = messages[-1] if messages else None
    if last is not None and last.role == "assistant" and not last.tool_calls:  # the client asked to continue this one
        messages, partial = messages[:-1], last.text + partial
    return _lower_limit(replace(request, messages=(*messages, Message("assistant", partial))), sent)


def _lower_limit(request: LLMRequest, sent: Sent) -> LLMRequest:
    limit = request.sampling.max_tokens
    if limit is not None:  # a delta is a token or more: this never cuts the answer short
        limit = max(1, limit - len(sent.texts))
    return replace(request, sampling=replace(request.sampling, max_tokens=limit))


class Seam:
    """Joins a second stream to what the client has: its text without the overlap, its reasoning not at all."""

    def __init__(self, sent: Sent, *, continues: bool) -> None:
        self._sent = "".join(sent.texts)
        self._continues = continues
        self._matched = 0  # this much of what was sent has been repeated so far
        self._joined = not self._sent
        self._space = ""  # what was sent of the space around the seam, and is not to be sent again

    def join(self, event: BackendEvent) -> Iterable[BackendEvent]:
        """What of this event goes to the client.

        Raises:
            AnswerInterrupted: the stream cannot be joined; no text of it was passed on.
        """
        if isinstance(event, TextDelta):
            text = self._join_text(event.text)
            if not text:
                return ()
            return (event,) if text == event.text else (TextDelta(text),)
        if isinstance(event, ReasoningDelta):
            return ()
        if isinstance(event, ToolCallDelta | Completed):
            held = self._settle()
            return (TextDelta(held), event) if held else (event,)
        return ()

    def _join_text(self, text: str) -> str:
        if self._joined:
            return self._drop_space(text) if self._space else text
        overlap = _common_length(self._sent[self._matched : self._matched + len(text)], text)
        self._matched += overlap
        if overlap == len(text):
            return ""
        if self._matched == len(self._sent):
            self._joined = True
            return text[overlap:]
        return self._drop_space(self._release() + text[overlap:])

    def _settle(self) -> str:
        """The stream has no more text: what was held back of it."""
        if self._joined or self._matched == len(self._sent):
            return ""
        return self._drop_space(self._release())

    def _release(self) -> str:
        """The stream differs from what was sent: give back the few characters that were alike by chance."""
        if not self._continues or self._matched >= COINCIDENCE:
            raise AnswerInterrupted("Another model server began the answer anew, in other words.")
        self._joined = True
        self._space = self._sent[len(self._sent.rstrip()) :]
        return self._sent[: self._matched]

    def _drop_space(self, text: str) -> str:
        dropped = _common_length(self._space, text)
        self._space = self._space[dropped:] if dropped == len(text) else ""
        return text[dropped:]


def _common_length(one: str, other: str) -> int:
    if one == other:
        return len(one)
    pairs = zip(one, other, strict=False)
    return next((at for at, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))
