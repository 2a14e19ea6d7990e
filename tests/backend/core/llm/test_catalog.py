import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from backend.core.errors import BackendUnavailable, ModelNotFound
from backend.core.llm.base import ModelInfo
from backend.core.llm.catalog import ModelCatalog
from tests.support.scripted import ScriptedLLM

ALIASES = {"gpt-3.5-turbo": "default", "fast": "small"}
MODEL_MAP = {"llamacpp": {"big": "default", "medium": "medium.gguf"}}


def ollama(*models: str, default: str | None = "big", name: str = "ollama") -> ScriptedLLM:
    return ScriptedLLM(name=name, kind="ollama", models=models, default_model=default)


def llamacpp(*models: str, default: str | None = None, name: str = "llamacpp") -> ScriptedLLM:
    return ScriptedLLM(name=name, kind="llamacpp", models=models, default_model=default)


def make_catalog(*backends: ScriptedLLM, cache_file: Path | None = None, **options: float) -> ModelCatalog:
    return ModelCatalog(backends, aliases=ALIASES, model_map=MODEL_MAP, cache_file=cache_file, **options)


@asynccontextmanager
async def running(catalog: ModelCatalog) -> AsyncIterator[ModelCatalog]:
    await catalog.start()
    try:
        yield catalog
    finally:
        await catalog.close()


async def route(catalog: ModelCatalog, model: str | None) -> list[tuple[str, str]]:
    return [(candidate.backend.name, candidate.model_name) for candidate in await catalog.candidates(model)]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.005)


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (None, [("ollama", "big"), ("llamacpp", "loaded.gguf")]),
        ("", [("ollama", "big"), ("llamacpp", "loaded.gguf")]),
        ("default", [("ollama", "big"), ("llamacpp", "loaded.gguf")]),
        ("gpt-3.5-turbo", [("ollama", "big"), ("llamacpp", "loaded.gguf")]),  # an alias of default
        ("fast", [("ollama", "small")]),  # an alias of a model
        ("big", [("ollama", "big"), ("llamacpp", "loaded.gguf")]),  # listed here, mapped there
        ("small", [("ollama", "small")]),  # only one has it
        ("loaded.gguf", [("llamacpp", "loaded.gguf")]),
        ("medium", [("llamacpp", "medium.gguf")]),  # mapped to a name of its own
        ("tagged", [("ollama", "tagged:latest")]),
        ("tagged:latest", [("ollama", "tagged:latest")]),
        ("hub:8000/team/tagged", [("ollama", "hub:8000/team/tagged:latest")]),  # the colon of a port is no tag
    ],
)
async def test_a_name_leads_to_those_who_have_it(model: str | None, expected: list[tuple[str, str]]) -> None:
    catalog = make_catalog(
        ollama("big", "small", "tagged:latest", "hub:8000/team/tagged:latest"), llamacpp("loaded.gguf")
    )
    assert await route(catalog, model) == expected


@pytest.mark.parametrize("model", ["nope", "tagged", "small:latest", "BIG"])
async def test_a_name_that_nobody_has_is_not_found(model: str) -> None:
    with pytest.raises(ModelNotFound):
        await make_catalog(ollama("big", "small"), llamacpp("tagged:latest")).candidates(model)


async def test_the_default_is_the_first_listed_model_that_can_chat() -> None:
    models = (
        ModelInfo("embedder", "llamacpp", capabilities=frozenset({"embedding"})),
        ModelInfo("chatter", "llamacpp", capabilities=frozenset({"completion"})),
    )
    backend = ScriptedLLM(kind="llamacpp", models=models)
    assert await route(make_catalog(backend), None) == [("scripted", "chatter")]


async def test_a_backend_without_any_model_is_no_candidate() -> None:
    with pytest.raises(ModelNotFound):
        await make_catalog(llamacpp()).candidates(None)


async def test_a_backend_that_was_never_seen_is_asked_for_its_default_and_for_mapped_names_only() -> None:
    up, down = ollama("small"), llamacpp("loaded.gguf", default="mine.gguf")
    down.go_down()
    catalog = make_catalog(up, down)
    assert await route(catalog, "mine.gguf") == [("llamacpp", "mine.gguf")]
    assert await route(catalog, "big") == [("llamacpp", "mine.gguf")]
    assert await route(catalog, None) == [("ollama", "big"), ("llamacpp", "mine.gguf")]
    with pytest.raises(ModelNotFound):
        await catalog.candidates("loaded.gguf")


async def test_nothing_known_and_nobody_reachable_is_unavailable_and_names_who_was_tried() -> None:
    backends = ollama("big", name="ollama-2"), llamacpp("loaded.gguf")
    for backend in backends:
        backend.go_down()
    with pytest.raises(BackendUnavailable) as caught:
        await make_catalog(*backends).candidates("something")
    assert "ollama-2: The model server is down (refused)." in caught.value.message
    assert "llamacpp: " in caught.value.message
    assert caught.value.retry_after_s == 5


async def test_a_model_that_was_just_pulled_is_found_before_the_next_probe() -> None:
    now = 100.0
    backend = ollama("big")
    catalog = ModelCatalog([backend], aliases={}, model_map={}, cache_file=None, clock=lambda: now)
    await catalog.models()
    backend.models.append(ModelInfo("new", "ollama"))
    now += 10
    assert await route(catalog, "new") == [("ollama", "new")]


async def test_asking_for_rubbish_does_not_probe_each_time() -> None:
    backend = ollama("big")
    catalog = make_catalog(backend)
    for number in range(50):
        with pytest.raises(ModelNotFound):
            await catalog.candidates(f"rubbish-{number}")
    assert backend.probes == 1


@pytest.mark.parametrize("name", ["x" * 100_000, "a\nb\x00c\u202e", "`; rm`", "\ud800", "../../etc/passwd", "💥" * 500])
async def test_a_strange_name_is_shown_safely(name: str) -> None:
    with pytest.raises(ModelNotFound) as caught:
        await make_catalog(ollama("big")).candidates(name)
    message = caught.value.message
    assert len(message) < 300
    assert message.isprintable()
    assert message.count("`") == 2
    message.encode()


async def test_of_two_models_with_one_id_the_first_backend_wins() -> None:
    first = ScriptedLLM(name="a", models=[ModelInfo("same", "a", context_tokens=1), ModelInfo("x", "a")])
    second = ScriptedLLM(name="b", models=[ModelInfo("same", "b", context_tokens=2), ModelInfo("y", "b")])
    models = await make_catalog(first, second).models()
    assert [(model.id, model.owned_by) for model in models] == [("same", "a"), ("x", "a"), ("y", "b")]


async def test_the_window_is_that_of_the_backend_that_will_answer() -> None:
    first = ScriptedLLM(name="a", models=[ModelInfo("same", "a", context_tokens=1000)])
    second = ScriptedLLM(name="b", models=[ModelInfo("same", "b", context_tokens=2000)])
    catalog = make_catalog(first, second)
    assert catalog.context_tokens("same") is None
    await catalog.models()
    assert catalog.context_tokens("same") == 1000
    assert catalog.context_tokens("default") == 1000
    assert catalog.context_tokens("nope") is None
    first.go_down()
    await catalog.look_again(["a"])
    assert catalog.context_tokens("same") == 2000


async def test_a_slow_backend_delays_the_first_list_by_a_second_at_most_and_later_ones_not_at_all() -> None:
    fast, slow = ollama("big"), llamacpp("loaded.gguf")
    slow.probe_delay_s = 60
    async with running(make_catalog(fast, slow)) as catalog:
        start = time.monotonic()
        assert [model.id for model in await catalog.models()] == ["big"]
        assert time.monotonic() - start < 10
        start = time.monotonic()
        for _ in range(10):
            assert [model.id for model in await catalog.models()] == ["big"]
        assert time.monotonic() - start < 5


async def test_starting_waits_for_nobody() -> None:
    slow = ollama("big")
    slow.probe_delay_s = 60
    start = time.monotonic()
    async with running(make_catalog(slow)):
        assert time.monotonic() - start < 5


async def test_a_hundred_questions_at_once_make_one_probe() -> None:
    backend = ollama("big")
    backend.probe_delay_s = 0.05
    catalog = make_catalog(backend)
    await asyncio.gather(*(catalog.candidates("big") for _ in range(100)))
    assert backend.probes == 1


async def test_who_goes_away_does_not_end_the_probe_for_the_others() -> None:
    backend = ollama("big")
    backend.probe_delay_s = 0.1
    catalog = make_catalog(backend)
    leaver, stayer = asyncio.create_task(catalog.models()), asyncio.create_task(catalog.models())
    await asyncio.sleep(0.02)
    leaver.cancel()
    assert [model.id for model in await stayer] == ["big"]


async def test_a_backend_is_probed_again_and_again_and_its_state_told() -> None:
    backend = ollama("big")
    async with running(make_catalog(backend, refresh_s=0.02, probe_s=0.01)) as catalog:
        assert catalog.states()[0].state == "unknown"
        await until(lambda: catalog.states()[0].state == "up")
        up_since = catalog.states()[0].since
        backend.go_down()
        await until(lambda: catalog.states()[0].state == "down")
        state = catalog.states()[0]
        assert (state.name, state.kind, state.error) == ("ollama", "ollama", "refused")
        assert state.age_s is not None
        assert state.age_s < 10
        assert state.since >= up_since
        assert [model.id for model in state.models] == ["big"]  # the last known list
        backend.come_up()
        await until(lambda: catalog.states()[0].state == "up")
        assert catalog.states()[0].error is None


async def test_a_probe_that_cannot_connect_opens_the_breaker_and_a_good_one_closes_it() -> None:
    backend = ollama("big")
    catalog = make_catalog(backend)
    [candidate] = await catalog.candidates("big")
    backend.go_down()
    await catalog.look_again(["ollama"])
    assert candidate.breaker.state == "open"
    backend.come_up()
    assert await catalog.look_again(["ollama"]) == {}
    assert candidate.breaker.state == "closed"


async def test_one_slow_probe_is_no_outage_and_two_in_a_row_are() -> None:
    backend = ollama("big")
    catalog = make_catalog(backend)
    [candidate] = await catalog.candidates("big")
    late = BackendUnavailable("The model server did not answer in time.")
    late.__cause__ = TimeoutError()
    backend.go_down(late)
    assert await catalog.look_again(["ollama"]) == {"ollama": "The model server is down (timeout)."}
    assert candidate.breaker.state == "closed"
    await catalog.look_again(["ollama"])
    assert candidate.breaker.state == "open"


async def test_a_defect_in_a_backend_does_not_end_the_watch(caplog: pytest.LogCaptureFixture) -> None:
    backend = ollama("big")
    backend.go_down(KeyError("a bug"))
    async with running(make_catalog(backend, probe_s=0.01)) as catalog:
        await until(lambda: catalog.states()[0].state == "down")
        backend.come_up()
        await until(lambda: catalog.states()[0].state == "up")
    assert "failed unexpectedly" in caplog.text


async def test_the_last_known_lists_survive_a_restart(tmp_path: Path) -> None:
    cache_file = tmp_path / "new" / "models.json"
    info = ModelInfo("big", "ollama", 7, 4096, frozenset({"tools", "completion"}))
    backend = ScriptedLLM(name="ollama", models=[info])
    async with running(make_catalog(backend, cache_file=cache_file)) as catalog:
        await catalog.models()
    backend.go_down()
    async with running(make_catalog(backend, cache_file=cache_file)) as catalog:
        start = time.monotonic()
        assert await catalog.models() == [info]
        assert await route(catalog, "big") == [("ollama", "big")]
        assert time.monotonic() - start < 5
    assert [path.name for path in cache_file.parent.iterdir()] == ["models.json"]


async def test_what_is_learnt_is_kept_without_a_clean_end(tmp_path: Path) -> None:
    cache_file = tmp_path / "models.json"
    async with running(make_catalog(ollama("big"), cache_file=cache_file)):
        async with asyncio.timeout(20):
            while not await asyncio.to_thread(cache_file.exists):
                await asyncio.sleep(0.01)


@pytest.mark.parametrize("content", [b"", b"{", b'{"ollama": 5}', b'{"ollama": [{"id": 3}]}', b"\xff\xfe", b"[]"])
async def test_a_damaged_file_is_made_anew(tmp_path: Path, content: bytes) -> None:
    cache_file = tmp_path / "models.json"
    cache_file.write_bytes(content)
    async with running(make_catalog(ollama("big"), cache_file=cache_file)) as catalog:
        assert [model.id for model in await catalog.models()] == ["big"]
    async with running(make_catalog(cache_file=cache_file)):
        assert b'"big"' in await asyncio.to_thread(cache_file.read_bytes)


async def test_a_file_that_cannot_be_written_harms_nobody(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    async with running(make_catalog(ollama("big"), cache_file=tmp_path / "file" / "models.json")) as catalog:
        assert [model.id for model in await catalog.models()] == ["big"]
    assert "could not be kept" in caplog.text


async def test_closing_ends_every_task_also_in_the_middle_of_a_probe() -> None:
    backend = ollama("big")
    backend.probe_delay_s = 60
    async with running(make_catalog(backend)):
        await asyncio.sleep(0.01)
    assert asyncio.all_tasks() == {asyncio.current_task()}
