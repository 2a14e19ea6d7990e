import asyncio
import time

import pytest

from backend.core.errors import Unavailable
from backend.core.llm.limited import Limited
from tests.support.scripted import Pause, ScriptedLLM, ask, broken, collect, text_of


async def until_running(llm: ScriptedLLM, count: int) -> None:
    async with asyncio.timeout(5):
        while llm.running != count:
            await asyncio.sleep(0.001)


async def test_no_more_calls_run_at_once_than_allowed_and_all_are_answered() -> None:
    most = 0

    def answer(_: object) -> list[object]:
        nonlocal most
        most = max(most, inner.running + 1)
        return [Pause(0.001), "Hi"]

    inner = ScriptedLLM(answer)  # type: ignore[arg-type]
    limited = Limited(inner, max_calls=3, wait_s=30)
    answers = await asyncio.gather(*(collect(limited, ask()) for _ in range(200)))
    assert [text_of(events) for events in answers] == ["Hi"] * 200
    assert most == 3


async def test_calls_get_their_turn_in_the_order_of_their_arrival() -> None:
    inner = ScriptedLLM(lambda _: [Pause(0.001), "Hi"])
    limited = Limited(inner, max_calls=2, wait_s=30)
    await asyncio.gather(*(collect(limited, ask(str(number))) for number in range(20)))
    assert [request.messages[0].text for request in inner.requests] == [str(number) for number in range(20)]


async def test_a_call_that_waited_in_vain_is_told_when_to_come_back() -> None:
    inner = ScriptedLLM([[Pause()]])
    limited = Limited(inner, max_calls=1, wait_s=0.05)
    holder = asyncio.create_task(collect(limited, ask()))
    await until_running(inner, 1)
    start = time.monotonic()
    with pytest.raises(Unavailable) as caught:
        await collect(limited, ask())
    assert 0.04 < time.monotonic() - start < 10
    assert caught.value.status == 503
    assert caught.value.retry_after_s == 0.05
    assert len(inner.requests) == 1
    holder.cancel()
    await asyncio.wait([holder])


async def test_one_more_than_may_wait_is_refused_at_once() -> None:
    inner = ScriptedLLM(lambda _: [Pause(0.05), "Hi"])
    limited = Limited(inner, max_calls=1, wait_s=60, max_waiting=1)
    running, waiting = asyncio.create_task(collect(limited, ask())), asyncio.create_task(collect(limited, ask()))
    await until_running(inner, 1)
    with pytest.raises(Unavailable):
        await collect(limited, ask())
    assert [text_of(events) for events in await asyncio.gather(running, waiting)] == ["Hi", "Hi"]


@pytest.mark.parametrize("ending", ["cancelled while waiting", "cancelled while running", "failed", "closed"])
async def test_no_place_is_lost_however_a_call_ends(ending: str) -> None:
    inner = ScriptedLLM(lambda request: broken() if request.messages[0].text == "fail" else ["One", Pause(0.02), "!"])
    limited = Limited(inner, max_calls=1, wait_s=5)
    for _ in range(5):
        if ending == "failed":
            with pytest.raises(Unavailable):
                await collect(limited, ask("fail"))
        elif ending == "closed":
            stream = limited.stream(ask())
            await anext(stream)
            await stream.aclose()
        else:
            tasks = [asyncio.create_task(collect(limited, ask())) for _ in range(3)]
            await until_running(inner, 1)
            chosen = tasks[0] if ending == "cancelled while running" else tasks[1]
            chosen.cancel()
            await asyncio.wait(tasks)
            assert sum(task.cancelled() for task in tasks) == 1
    async with asyncio.timeout(5):
        assert text_of(await collect(limited, ask())) == "One!"
    assert inner.running == 0


async def test_a_call_cancelled_in_the_moment_it_gets_its_turn_passes_the_turn_on() -> None:
    inner = ScriptedLLM(lambda _: ["One", Pause(0), "!"])
    limited = Limited(inner, max_calls=1, wait_s=5)
    for delay in range(12):  # one of these hits the moment
        first = asyncio.create_task(collect(limited, ask()))
        second = asyncio.create_task(collect(limited, ask()))
        for _ in range(delay):
            await asyncio.sleep(0)
        second.cancel()
        await asyncio.wait([first, second])
        async with asyncio.timeout(5):
            assert text_of(await collect(limited, ask())) == "One!"
