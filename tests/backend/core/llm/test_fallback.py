import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.core.errors import (
    AnswerInterrupted,
    ApiError,
    BackendUnavailable,
    BadRequest,
    ContextOverflow,
    ModelNotFound,
)
from backend.core.events import BackendEvent, BackendSelected, Completed, ReasoningDelta, TextDelta, Usage
from backend.core.llm.base import LLMRequest, ResponseFormat, Sampling
from backend.core.llm.breaker import Reason
from backend.core.llm.catalog import ModelCatalog
from backend.core.llm.fallback import Fallback
from backend.core.messages import ImagePart, Message, ToolCall
from tests.support.scripted import Answer, Pause, ScriptedLLM, ask, broken, collect, refused, text_of

A_THEN_B = ["a", "b"]
CALL = ToolCall("call_1", "add", '{"x": 1}')


def catalog_of(*backends: ScriptedLLM, **options: float) -> ModelCatalog:
    for backend, name in zip(backends, "abcdef", strict=False):
        backend.name = name
    return ModelCatalog(backends, aliases={}, model_map={}, cache_file=None, **options)


def chain(*backends: ScriptedLLM, **options: float) -> Fallback:
    return Fallback(catalog_of(*backends, **options), retry_after_s=5)


async def chain_that_has_looked(*backends: ScriptedLLM) -> tuple[Fallback, ModelCatalog]:
    catalog = catalog_of(*backends)
    await catalog.models()
    return Fallback(catalog, retry_after_s=5), catalog


def says(*answers: Answer, continues: bool = False) -> ScriptedLLM:
    return ScriptedLLM(answers, continues=continues)


def timed_out() -> BackendUnavailable:
    error = BackendUnavailable("The model server did not answer in time.")
    error.__cause__ = TimeoutError()
    return error


def selected(events: Sequence[BackendEvent]) -> list[str]:
    return [event.backend for event in events if isinstance(event, BackendSelected)]


async def until_error(llm: Fallback, request: LLMRequest) -> tuple[list[BackendEvent], ApiError]:
    """What a client gets of an answer that ends with an error."""
    events: list[BackendEvent] = []
    try:
        async with aclosing(llm.stream(request)) as stream:
            async for event in stream:
                events.append(event)
    except ApiError as error:
        return events, error
    raise AssertionError("the answer ended well")


@pytest.fixture(autouse=True)
async def nothing_left_running() -> AsyncIterator[None]:
    yield
    assert asyncio.all_tasks() == {asyncio.current_task()}


# --- Before the first delta -------------------------------------------------------------------------------------------


async def test_the_first_backend_answers_and_the_others_are_left_alone() -> None:
    a, b = says(["Hi", " you"]), says()
    assert await collect(chain(a, b), ask()) == [
        BackendSelected("a", "scripted-model"),
        TextDelta("Hi"),
        TextDelta(" you"),
        Completed("stop", Usage(1, 2)),
    ]
    assert b.requests == []


@pytest.mark.parametrize(
    "failure",
    [refused(), timed_out(), broken(), BackendUnavailable("It is busy."), ModelNotFound("scripted-model")],
    ids=["refused", "timeout", "broken", "busy", "no model"],
)
async def test_a_failure_before_the_first_delta_leads_to_the_next_backend(failure: ApiError) -> None:
    a, b = says(failure), says("Hello from b")
    events = await collect(chain(a, b), ask())
    assert selected(events) == ["b"]
    assert text_of(events) == "Hello from b"


@pytest.mark.parametrize(
    "failure",
    [
        ContextOverflow("Too long.", prompt_tokens=9, context_tokens=8),
        BadRequest("No.", param="temperature"),
        BadRequest("No.", param="messages"),
        BadRequest("No."),
    ],
    ids=["overflow", "temperature", "messages", "unnamed"],
)
async def test_a_wrong_request_is_told_to_the_caller_at_once(failure: ApiError) -> None:
    a, b = says(failure), says()
    _, error = await until_error(chain(a, b), ask())
    assert error is failure
    assert b.requests == []


async def test_a_model_that_lacks_an_ability_hands_over_to_one_that_may_have_it() -> None:
    a, b = says(BadRequest("No tools.", param="tools")), says([CALL])
    assert selected(await collect(chain(a, b), ask())) == ["b"]


async def test_a_model_that_cannot_see_hands_over_to_one_that_may() -> None:
    blind, seeing = says(BadRequest("No eyes.", param="messages")), says("A cat.")
    look = LLMRequest("scripted-model", (Message("user", (ImagePart("data:image/png;base64,AA=="),)),))
    assert text_of(await collect(chain(blind, seeing), look)) == "A cat."


async def test_where_nobody_has_the_ability_the_first_refusal_is_told() -> None:
    first = BadRequest("No tools.", param="tools")
    for other in (BadRequest("None here either.", param="tools"), refused(), ModelNotFound("scripted-model")):
        _, error = await until_error(chain(says(first), says(other)), ask())
        assert error is first


async def test_a_refusal_says_more_than_that_another_backend_lacks_the_model() -> None:
    refusal = BadRequest("No tools.", param="tools")
    _, error = await until_error(chain(says(ModelNotFound("scripted-model")), says(refusal)), ask())
    assert error is refusal


async def test_a_name_that_every_backend_disowns_is_not_found() -> None:
    disowned = ModelNotFound("scripted-model")
    _, error = await until_error(chain(says(disowned), says(ModelNotFound("scripted-model"))), ask())
    assert error is disowned


async def test_a_name_that_one_disowns_while_another_is_down_is_unavailable() -> None:
    _, error = await until_error(chain(says(ModelNotFound("scripted-model")), says(refused())), ask())
    assert isinstance(error, BackendUnavailable)


async def test_each_backend_is_asked_for_its_own_name_of_the_model() -> None:
    a = ScriptedLLM([refused()], name="a", kind="ollama", models=["qwen"])
    b = ScriptedLLM(["Hi"], name="b", kind="llamacpp", models=["file.gguf"])
    catalog = ModelCatalog([a, b], aliases={}, model_map={"llamacpp": {"qwen": "default"}}, cache_file=None)
    events = await collect(Fallback(catalog, retry_after_s=5), ask(model="qwen"))
    assert events[0] == BackendSelected("b", "file.gguf")
    assert [a.requests[0].model, b.requests[0].model] == ["qwen", "file.gguf"]


async def test_an_answer_without_words_names_its_backend_as_well() -> None:
    assert await collect(chain(says([Completed("stop")])), ask()) == [
        BackendSelected("a", "scripted-model"),
        Completed("stop"),
    ]


async def test_an_empty_delta_does_not_count_as_the_first_one() -> None:
    a, b = says([TextDelta(""), ReasoningDelta(""), broken()]), says("Hi")
    assert selected(await collect(chain(a, b), ask())) == ["b"]


async def test_an_answer_that_ends_without_an_end_is_a_failure() -> None:
    class Endless(ScriptedLLM):
        async def stream(self, request: LLMRequest) -> AsyncIterator[BackendEvent]:  # type: ignore[override]
            if False:
                yield

    assert selected(await collect(chain(Endless(), says("Hi")), ask())) == ["b"]


async def test_nothing_after_the_end_is_passed_on() -> None:
    a = says([TextDelta("Hi"), Completed("stop")])
    events = await collect(chain(a), ask())
    assert events[-1] == Completed("stop")
    assert (a.running, a.ended) == (0, 1)


async def test_all_down_is_told_fast_with_names_and_when_to_come_back() -> None:
    backends = [ScriptedLLM() for _ in range(4)]
    llm, _ = await chain_that_has_looked(*backends)
    for backend in backends:
        backend.go_down()
    for _ in range(3):  # closed breakers, then open ones
        start = time.monotonic()
        _, error = await until_error(llm, ask())
        assert time.monotonic() - start < 5
        assert isinstance(error, BackendUnavailable)
        assert error.retry_after_s == 5
        assert all(f"{name}: " in error.message for name in "abcd")


async def test_all_hanging_is_told_within_five_seconds_once_it_is_known() -> None:
    a = says()
    llm, catalog = await chain_that_has_looked(a)
    a.go_down()
    await until_error(llm, ask())
    a.probe_delay_s = 60  # the machine is gone: nothing even refuses
    start = time.monotonic()
    _, error = await until_error(llm, ask())
    assert time.monotonic() - start < 5
    assert isinstance(error, BackendUnavailable)
    await catalog.close()


async def test_the_second_of_two_addresses_is_found_when_the_first_was_never_up() -> None:
    a, b = says(), says("Hi")
    a.go_down()
    assert selected(await collect(chain(a, b), ask(model="default"))) == ["b"]


# --- The breaker ------------------------------------------------------------------------------------------------------


async def test_a_backend_that_refused_is_passed_over_the_next_time() -> None:
    a, b = says(refused()), says("one", "two")
    llm = chain(a, b)
    await collect(llm, ask())
    await collect(llm, ask())
    assert [len(a.requests), len(b.requests)] == [1, 2]


async def test_failures_between_good_answers_do_not_add_up() -> None:
    a, b = says(broken(), "one", broken(), "two"), ScriptedLLM(lambda _: "other")
    llm = chain(a, b)
    answers = [text_of(await collect(llm, ask())) for _ in range(4)]
    assert answers == ["other", "one", "other", "two"]


async def test_a_backend_that_is_back_is_found_before_the_caller_is_told_that_all_are_down() -> None:
    a = says()
    llm, _ = await chain_that_has_looked(a)
    a.go_down()
    await until_error(llm, ask())
    a.come_up()
    a.answers = lambda _: "Back again"
    assert text_of(await collect(llm, ask())) == "Back again"


async def test_one_broken_model_does_not_lock_the_others_of_the_only_backend_out() -> None:
    def answer(request: LLMRequest) -> Answer:
        return broken() if request.model == "bad" else "fine"

    llm = chain(ScriptedLLM(answer, models=["bad", "good"]))
    for _ in range(4):
        await until_error(llm, ask(model="bad"))
        assert text_of(await collect(llm, ask(model="good"))) == "fine"


async def test_a_backend_whose_answers_hang_gets_one_trial_at_a_time() -> None:
    a, b = ScriptedLLM(lambda _: timed_out()), ScriptedLLM(lambda _: "Hi")
    llm = chain(a, b, retry_s=0.05)
    for _ in range(2):
        await collect(llm, ask())
    a.answers = lambda _: [Pause(), "never"]
    await asyncio.sleep(0.06)
    trial = asyncio.create_task(collect(llm, ask()))
    await asyncio.sleep(0.01)
    await asyncio.gather(*(collect(llm, ask()) for _ in range(20)))
    assert a.running == 1
    trial.cancel()
    await asyncio.wait([trial])
    assert a.running == 0
    a.answers = lambda _: "Well again"
    assert selected(await collect(llm, ask())) == ["a"]  # the place of the trial is free again


async def test_who_listens_is_told_of_every_failure() -> None:
    failures: list[tuple[str, Reason]] = []

    class Listener:
        def backend_failed(self, backend: str, reason: Reason) -> None:
            failures.append((backend, reason))

    catalog = catalog_of(says(refused()), says(["Hel", broken()]), says("lo", continues=True))
    await collect(Fallback(catalog, retry_after_s=5, observer=Listener()), ask())
    assert failures == [("a", "refused"), ("b", "failed")]


# --- After the first delta --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("failure", [refused(), timed_out(), broken(), BadRequest("Odd."), ContextOverflow("Full.")])
async def test_the_next_backend_continues_a_broken_answer(failure: ApiError) -> None:
    a, b = says(["One,", " two", failure]), says([",", " three."], continues=True)
    request = replace(ask("Count."), sampling=Sampling(max_tokens=10, temperature=0))
    events = await collect(chain(a, b), request)
    assert text_of(events) == "One, two, three."
    assert selected(events) == A_THEN_B
    assert events[3] == BackendSelected("b", "scripted-model")
    assert events[-1] == Completed("stop", Usage(3, 2))
    assert b.requests[0].messages[-1] == Message("assistant", "One, two")
    assert b.requests[0].sampling == Sampling(max_tokens=8, temperature=0)


async def test_a_backend_that_answers_anew_with_the_same_words_goes_on_after_them() -> None:
    for continues in (False, True):
        a, b = says(["One,", " two", broken()]), says("One, two, three.", continues=continues)
        events = await collect(chain(a, b), ask())
        assert text_of(events) == "One, two, three."
        assert selected(events) == A_THEN_B


async def test_a_backend_that_answers_anew_in_other_words_is_not_joined() -> None:
    a, b = says(["One,", " two", broken()]), says("Uno, dos, tres.")
    events, error = await until_error(chain(a, b), ask())
    assert isinstance(error, AnswerInterrupted)
    assert text_of(events) == "One, two"
    assert selected(events) == ["a"]
    assert b.running == 0


async def test_where_one_backend_cannot_go_on_the_one_after_it_may() -> None:
    a, b, c = says(["One,", " two", broken()]), says("Uno."), says([", three."], continues=True)
    events = await collect(chain(a, b, c), ask())
    assert text_of(events) == "One, two, three."
    assert selected(events) == ["a", "c"]


async def test_an_answer_may_break_several_times() -> None:
    backends = [says([word, broken()], continues=True) for word in ("One, ", "two, ", "three, ")]
    last = says(["four."], continues=True)
    events = await collect(chain(*backends, last), ask())
    assert text_of(events) == "One, two, three, four."
    assert last.requests[0].messages[-1].text == "One, two, three,"


async def test_without_another_backend_the_answer_is_interrupted() -> None:
    for others in ([], [says(refused(), continues=True)], [says(ModelNotFound("m"))]):
        events, error = await until_error(chain(says(["One", broken()]), *others), ask())
        assert isinstance(error, AnswerInterrupted)
        assert error.retry_after_s == 5
        assert text_of(events) == "One"


async def test_a_backend_that_came_back_in_the_meantime_goes_on() -> None:
    a, b = says([" two."], continues=True), says(["One,", broken()])
    llm, catalog = await chain_that_has_looked(a, b)
    a.go_down()
    await catalog.look_again(["a"])
    a.come_up()
    events = await collect(llm, ask())
    assert text_of(events) == "One, two."
    assert selected(events) == ["b", "a"]


async def test_a_begun_tool_call_is_not_continued() -> None:
    b = says()
    _, error = await until_error(chain(says(["Let me add.", CALL, broken()]), b), ask())
    assert isinstance(error, AnswerInterrupted)
    assert b.requests == []


async def test_half_a_json_document_is_not_continued() -> None:
    b = says()
    request = replace(ask(), response_format=ResponseFormat())
    _, error = await until_error(chain(says(['{"a', broken()]), b), request)
    assert isinstance(error, AnswerInterrupted)
    assert b.requests == []


async def test_an_answer_that_was_only_thought_about_starts_over_without_thinking_twice() -> None:
    a = says([ReasoningDelta("Hm."), broken()])
    b = says([ReasoningDelta("Let me see."), "42", CALL])
    request = replace(ask(), response_format=ResponseFormat())
    events = await collect(chain(a, b), request)
    assert [event.text for event in events if isinstance(event, ReasoningDelta)] == ["Hm."]
    assert text_of(events) == "42"
    assert b.requests[0] == request


async def test_usage_is_that_of_the_call_that_ended_well() -> None:
    """The other one told none, and its words are in this one's prompt."""
    a = says(["One", broken()])
    b = says([" two", Completed("length", Usage(10, 5, 3))], continues=True)
    assert (await collect(chain(a, b), ask()))[-1] == Completed("length", Usage(10, 5, 3))


@settings(max_examples=150, deadline=None)
@given(
    first=st.lists(st.text(alphabet="ab ", min_size=1, max_size=5), min_size=1, max_size=4),
    second=st.lists(st.text(alphabet="ab ", min_size=0, max_size=12), max_size=4),
    anew=st.booleans(),
    continues=st.booleans(),
    breaks=st.booleans(),
)
def test_no_text_is_ever_sent_twice(
    first: list[str], second: list[str], anew: bool, continues: bool, breaks: bool
) -> None:
    """Whatever the second backend does: the client keeps what it has, and gets new text or an error after it."""
    sent = "".join(first)
    stream = [*first, *second] if anew else second
    b = says([*stream, broken()] if breaks else stream, continues=continues)
    llm = chain(says([*first, broken()]), b)
    events: list[BackendEvent] = []

    async def run() -> bool:
        try:
            async with aclosing(llm.stream(ask())) as answer:
                async for event in answer:
                    events.append(event)
        except AnswerInterrupted:
            return False
        return True

    whole = asyncio.run(run())
    text = text_of(events)
    assert text.startswith(sent)
    if anew:
        assert (sent + "".join(second)).startswith(text)
    elif continues:
        added, said = text[len(sent) :], "".join(second)
        assert added in said
    else:
        assert text == sent or "".join(second).startswith(text)
    if whole:
        assert isinstance(events[-1], Completed)
        assert not anew or text == sent + "".join(second)
    assert sum(isinstance(event, Completed) for event in events) == whole


# --- Going away, and many at once -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script_a", "script_b", "read"),
    [
        ([Pause()], [], 0),
        (["One", Pause()], [], 2),
        ([refused()], [Pause()], 0),
        (["One", broken()], [Pause()], 2),
        (["One", broken()], [" two", Pause()], 4),
    ],
    ids=["before the first delta", "after it", "at the next backend", "before it goes on", "after it went on"],
)
async def test_a_client_that_goes_away_ends_the_call_at_every_stage(
    script_a: Answer, script_b: Answer, read: int
) -> None:
    for way in ("cancel", "close"):
        a, b = says(script_a, continues=True), says(script_b, continues=True)
        llm, _ = await chain_that_has_looked(a, b)
        stream = llm.stream(ask())
        for _ in range(read):
            await anext(stream)
        waiting = asyncio.create_task(anext(stream))
        await asyncio.sleep(0.02)
        assert a.running + b.running == 1
        waiting.cancel()
        await asyncio.wait([waiting])
        if way == "close":
            await stream.aclose()
        assert a.running + b.running == 0
        assert a.abandoned + b.abandoned == 1


async def test_a_client_that_stops_reading_closes_the_call() -> None:
    a = says(["One", " two", " three"])
    stream = chain(a).stream(ask())
    await anext(stream)
    await anext(stream)
    await stream.aclose()
    assert (a.running, a.abandoned) == (0, 1)


async def test_two_hundred_answers_at_once_each_get_their_own_words() -> None:
    def begin(request: LLMRequest) -> Answer:
        return [f"{request.messages[0].text}:", Pause(0.01), " one,", broken()]

    def go_on(request: LLMRequest) -> Answer:
        return [" two", Pause(0.01), " for ", request.messages[0].text]

    a, b = ScriptedLLM(begin), ScriptedLLM(go_on, continues=True)
    llm = chain(a, b)
    answers = await asyncio.gather(*(collect(llm, ask(f"q{number}")) for number in range(200)))
    for number, events in enumerate(answers):
        assert text_of(events) in {f"q{number}: one, two for q{number}", f" two for q{number}"}
    assert (a.running, b.running) == (0, 0)
    assert sum(selected(events) == A_THEN_B for events in answers) > 100
