"""A prompt is made to fit the model's window, whole turns at a time, and what was left out is told."""

import pytest

from backend.core.errors import ContextOverflow
from backend.core.events import BackendEvent, Completed, HistoryTrimmed, Usage
from backend.core.llm.base import LLMRequest, Sampling
from backend.core.llm.fitting import MAX_ATTEMPTS, Fitted, prompt_bytes
from backend.core.messages import Message, ToolCall
from tests.support.llm_calls import events_of
from tests.support.scripted import Answer, ScriptedLLM

SYSTEM = Message("system", "Be brief.")


def conversation(turns: int, *, words: int = 40) -> list[Message]:
    pairs = [(Message("user", f"{n} " + "word " * words), Message("assistant", f"answer {n}")) for n in range(turns)]
    return [message for pair in pairs for message in pair]


def request(*messages: Message, max_tokens: int | None = 16) -> LLMRequest:
    return LLMRequest("m", messages, Sampling(max_tokens=max_tokens))


def engine(window: int, *, tokens_per_byte: float = 0.25) -> ScriptedLLM:
    """A model that counts as real ones do: it refuses what is too long, with the numbers, and tells its usage."""

    def answer(asked: LLMRequest) -> Answer:
        tokens = int(prompt_bytes(asked) * tokens_per_byte)
        if tokens > window:
            return ContextOverflow("too long", prompt_tokens=tokens, context_tokens=window)
        return ["ok", Completed("stop", Usage(tokens, 1))]

    return ScriptedLLM(answer)


def dropped(events: list[BackendEvent]) -> int:
    return max((event.dropped_messages for event in events if isinstance(event, HistoryTrimmed)), default=0)


async def test_what_fits_is_sent_as_it_is() -> None:
    model = engine(10_000)
    asked = request(SYSTEM, *conversation(5), Message("user", "new"))
    events = await events_of(Fitted(model, lambda _: 10_000), asked)
    assert model.requests == [asked]
    assert dropped(events) == 0


async def test_the_oldest_turns_are_left_out_and_the_system_message_and_the_question_stay() -> None:
    model = engine(300)
    asked = request(SYSTEM, *conversation(20), Message("user", "new"))
    events = await events_of(Fitted(model, lambda _: 300), asked)
    sent = model.requests[-1].messages
    assert (sent[0], sent[-1]) == (SYSTEM, Message("user", "new"))
    assert sent[1].role == "user"
    assert sent[1:] == asked.messages[-len(sent) + 1 :]
    assert dropped(events) == len(asked.messages) - len(sent) > 0


async def test_a_tool_call_is_left_out_together_with_its_result() -> None:
    call = Message("assistant", tool_calls=(ToolCall("c1", "f", "{}"),))
    result = Message("tool", "x" * 400, tool_call_id="c1")
    turn = [Message("user", "old " * 100), call, result, Message("assistant", "done")]
    model = engine(200)
    await events_of(Fitted(model, lambda _: 200), request(*turn, *turn, *turn, Message("user", "new")))
    sent = model.requests[-1].messages
    assert sum(message.role == "tool" for message in sent) == sum(bool(message.tool_calls) for message in sent)


async def test_the_newest_turn_that_alone_is_too_long_is_an_error_with_the_models_own_numbers() -> None:
    model = engine(100)
    with pytest.raises(ContextOverflow) as refusal:
        await events_of(Fitted(model, lambda _: 100), request(*conversation(3), Message("user", "word " * 1000)))
    assert refusal.value.context_tokens == 100
    assert len(model.requests) <= MAX_ATTEMPTS


@pytest.mark.parametrize("tokens_per_byte", [0.1, 0.25, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("window", [None, 500])
async def test_a_wrong_estimate_is_put_right_by_what_the_backend_says(
    tokens_per_byte: float, window: int | None
) -> None:
    model = engine(500, tokens_per_byte=tokens_per_byte)
    fitted = Fitted(model, lambda _: window)
    events = await events_of(fitted, request(*conversation(30), Message("user", "new")))
    assert isinstance(events[-1], Completed)
    calls = len(model.requests)
    await events_of(fitted, request(*conversation(30), Message("user", "newer")))
    assert len(model.requests) == calls + 1 or window is None  # learned: it fits at the first try


async def test_each_model_is_learned_by_itself() -> None:
    model = engine(500, tokens_per_byte=2.0)
    fitted = Fitted(model, lambda name: 500 if name == "m" else None)
    await events_of(fitted, request(*conversation(30), Message("user", "new")))
    other = LLMRequest("other", (Message("user", "short"),))
    assert dropped(await events_of(fitted, other)) == 0
