"""The tools API over real HTTP: who may call what, and what comes back."""

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from backend.api.tool_results import MAX_PROGRESS_BYTES, MAX_RESULT_BYTES
from backend.core.storage.sessions import new_session_id
from backend.utils.shared_stamp import REREAD_S
from tests.support.tools_server import RunningTools, running_tools

EVENT_STREAM = {"Accept": "text/event-stream"}


@pytest.fixture
async def tools(tmp_path: Path) -> Any:
    async with running_tools(tmp_path) as server:
        yield server


async def stream(client: httpx.AsyncClient, **args: Any) -> list[tuple[str, dict[str, Any]]]:
    """The events of a streamed call of the toy."""
    async with client.stream("POST", "/api/tools/toy", json=args, headers=EVENT_STREAM) as response:
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        text = (await response.aread()).decode()
    events = [frame for frame in text.split("\n\n") if frame and not frame.startswith(":")]
    return [(frame.split("\n")[0].removeprefix("event: "), json.loads(frame.split("data: ")[1])) for frame in events]


# --- Who calls --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/api/tools/list"), ("POST", "/api/tools/toy"), ("POST", "/api/tools/no"), ("GET", "/metrics")],
)
async def test_without_a_token_everything_but_health_is_closed(tools: RunningTools, method: str, path: str) -> None:
    response = await tools.nobody.request(method, path, content=b"{not json")
    assert response.status_code == 401
    assert response.headers["WWW-Authenticate"] == "Bearer"
    assert response.json()["error"]["type"] == "authentication_error"
    assert (await tools.nobody.get("/health")).status_code == 200


async def test_a_user_calls_with_a_token_or_an_api_key(tools: RunningTools) -> None:
    _, key = await tools.main.api_keys.create("bob", "my key")
    by_token = await tools.alice.post("/api/tools/toy", json={"text": "hello"})
    by_key = await tools.nobody.post("/api/tools/toy", json={}, headers={"Authorization": f"Bearer {key}"})
    assert by_token.json()["answer"] == "hello"
    assert by_token.json()["data"]["username"] == "alice"
    assert by_key.json()["data"]["username"] == "bob"


async def test_the_main_api_calls_as_its_user_in_its_session(tools: RunningTools) -> None:
    session_id = new_session_id()  # the main API may not have written it yet
    token = tools.main.authenticator.make_service_token("alice", session_id, timeout_s=5)
    headers = {"Authorization": f"Bearer {token}", "X-Session-ID": new_session_id(), "X-Request-ID": "req-7"}
    response = await tools.nobody.post("/api/tools/toy", json={"username": "bob"}, headers=headers)
    body = response.json()
    assert (body["data"]["username"], body["data"]["workspace"]) == ("alice", session_id)
    assert response.headers["X-Session-ID"] == session_id
    assert body["metadata"]["request_id"] == response.headers["X-Request-ID"] == "req-7"


async def test_a_service_token_opens_the_tools_and_nothing_else(tools: RunningTools) -> None:
    token = tools.main.authenticator.make_service_token("alice", new_session_id(), timeout_s=5)
    headers = {"Authorization": f"Bearer {token}"}
    assert (await tools.nobody.get("/api/tools/list", headers=headers)).status_code == 200
    assert (await tools.nobody.get("/metrics", headers=headers)).status_code == 401


async def test_an_expired_service_token_is_refused(tools: RunningTools) -> None:
    token = tools.main.authenticator.make_service_token("alice", new_session_id(), timeout_s=-100)
    await asyncio.sleep(1.1)
    response = await tools.nobody.post("/api/tools/toy", json={}, headers={"Authorization": f"Bearer {token}"})
    assert response.status_code == 401
    assert response.json()["error"]["code"] == "token_expired"


async def test_a_disabled_user_calls_no_tool_any_more(tools: RunningTools) -> None:
    token = tools.main.authenticator.make_service_token("bob", new_session_id(), timeout_s=5)
    assert (await tools.bob.post("/api/tools/toy", json={})).status_code == 200
    await tools.main.users.update("bob", disabled=True)
    await asyncio.sleep(REREAD_S)  # another process would take longer to say so
    assert (await tools.bob.post("/api/tools/toy", json={})).status_code == 401
    headers = {"Authorization": f"Bearer {token}"}
    assert (await tools.nobody.post("/api/tools/toy", json={}, headers=headers)).status_code == 401


# --- In which session -------------------------------------------------------------------------------------------------


async def test_a_direct_call_makes_a_session_that_the_next_call_goes_on_with(tools: RunningTools) -> None:
    first = await tools.alice.post("/api/tools/toy", json={})
    session_id = first.headers["X-Session-ID"]
    record = await tools.context.sessions.open("alice", session_id)
    assert (record.message_count, record.title) == (0, "toy")
    second = await tools.alice.post("/api/tools/toy", json={}, headers={"X-Session-ID": session_id})
    assert second.headers["X-Session-ID"] == session_id
    assert first.json()["data"]["workspace"] == second.json()["data"]["workspace"] == session_id


@pytest.mark.parametrize("kind", ["another's", "unknown", "a path"])
async def test_a_session_that_is_not_the_callers_is_not_found(tools: RunningTools, kind: str) -> None:
    named = {"another's": await tools.new_session("bob"), "unknown": new_session_id(), "a path": "../../etc"}[kind]
    response = await tools.alice.post("/api/tools/toy", json={}, headers={"X-Session-ID": named})
    assert response.status_code == 404
    assert response.json()["error"]["type"] == "not_found_error"
    assert tools.toy.journal == ["started"]


async def test_a_collection_is_named_in_a_header_in_any_script(tools: RunningTools) -> None:
    response = await tools.alice.post("/api/tools/toy", json={}, headers={"X-RAG-Collection": "%E6%96%87%20a"})
    assert response.json()["data"]["collection"] == "文 a"


# --- Bad calls --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b'{"act": "dance"}', "act"),
        (b'{"seconds": "long"}', "seconds"),
        (b'{"origin": {}}', "origin.place"),
        (b"[]", None),
        (b"{", None),
        (b"\xff", None),
    ],
)
async def test_wrong_arguments_are_a_bad_request_that_names_them(tools: RunningTools, body: bytes, param: str) -> None:
    response = await tools.alice.post("/api/tools/toy", content=body)
    error = response.json()["error"]
    assert response.status_code == 400
    assert (error["type"], error["param"]) == ("invalid_request_error", param)
    assert tools.toy.journal == ["started"]


async def test_no_body_means_no_arguments(tools: RunningTools) -> None:
    assert (await tools.alice.post("/api/tools/toy")).json()["success"]


async def test_an_unknown_tool_is_answered_with_the_known_ones(tools: RunningTools) -> None:
    response = await tools.alice.post("/api/tools/nope", json={})
    assert response.status_code == 404
    assert "toy, broken, disabled, slow" in response.json()["error"]["message"]


@pytest.mark.parametrize(
    ("tool", "words"), [("disabled", "It has no key. Set TOY_KEY."), ("broken", "could not be started")]
)
async def test_a_tool_that_is_off_says_why_and_makes_no_session(tools: RunningTools, tool: str, words: str) -> None:
    response = await tools.alice.post(f"/api/tools/{tool}", json={})
    error = response.json()["error"]
    assert (response.status_code, error["code"]) == (503, "tool_disabled")
    assert words in error["message"]
    assert "X-Session-ID" not in response.headers
    assert (await tools.context.sessions.list("alice", limit=10)).sessions == []


async def test_a_body_over_the_limit_is_refused(tmp_path: Path) -> None:
    async with running_tools(tmp_path, MAX_BODY_MB=1) as tools:
        response = await tools.alice.post("/api/tools/toy", json={"text": "x" * 2**20})
    assert response.status_code == 413


# --- Results ----------------------------------------------------------------------------------------------------------


async def test_a_failure_of_the_tool_is_a_result(tools: RunningTools) -> None:
    response = await tools.alice.post("/api/tools/toy", json={"act": "fail"})
    body = response.json()
    assert response.status_code == 200
    assert (body["success"], body["error"], body["data"]) == (
        False,
        "The toy is broken. Take another one.",
        {"parts": 2},
    )
    assert set(body) == {"success", "answer", "data", "metadata", "error"}


async def test_a_crash_of_the_tool_is_a_result_without_its_secrets(tools: RunningTools) -> None:
    for act in ("crash", "exit", "rubbish"):
        response = await tools.alice.post("/api/tools/toy", json={"act": act})
        assert response.status_code == 200
        assert not response.json()["success"]
        assert response.headers["X-Request-ID"] in response.json()["error"]
        assert "secret" not in response.text
    assert (await tools.alice.post("/api/tools/toy", json={})).json()["success"]


async def test_a_huge_result_is_cut_and_says_so(tools: RunningTools) -> None:
    response = await tools.alice.post("/api/tools/toy", json={"act": "huge", "text": "kept"})
    body = response.json()
    assert len(response.content) <= MAX_RESULT_BYTES
    assert "cut" in body["metadata"]["truncated"]
    assert body["answer"] == "kept"
    assert body["data"]["text"].startswith("begin")
    assert body["data"]["text"].endswith("end")
    assert body["data"]["username"] == "alice"


async def test_what_json_cannot_carry_arrives_as_text(tools: RunningTools) -> None:
    data = (await tools.alice.post("/api/tools/toy", json={"act": "odd"})).json()["data"]
    assert data["big"] == str(2**80)
    assert data["surrogate"] == "\ufffd"
    assert data["set"] == [1]
    assert data["nan"] is None
    assert data["3"] == "b'bytes'"


async def test_the_deadline_is_a_result(tools: RunningTools) -> None:
    response = await tools.alice.post("/api/tools/slow", json={"seconds": 30})
    assert response.status_code == 200
    assert "still starting" in response.json()["error"]


# --- Streams ----------------------------------------------------------------------------------------------------------


async def test_a_stream_brings_progress_and_then_the_same_result(tools: RunningTools) -> None:
    events = await stream(tools.alice, act="report", text="done")
    assert events[:3] == [("progress", {"message": f"step {n}", "data": {"step": n}}) for n in range(3)]
    kind, result = events[3]
    plain = (await tools.alice.post("/api/tools/toy", json={"act": "report", "text": "done"})).json()
    assert kind == "result"
    assert len(events) == 4
    assert {name: result[name] for name in ("success", "answer", "error")} == {
        name: plain[name] for name in ("success", "answer", "error")
    }
    assert result["metadata"].keys() == plain["metadata"].keys()


async def test_progress_arrives_while_the_tool_works(tools: RunningTools) -> None:
    args = {"act": "report", "seconds": 0.3}
    async with tools.alice.stream("POST", "/api/tools/toy", json=args, headers=EVENT_STREAM) as response:
        async for chunk in response.aiter_text():
            assert "step 0" in chunk
            assert tools.context.toolbox.find("toy").queue.running == 1
            break
    assert response.headers["X-Session-ID"].startswith("sess_")


async def test_a_silent_stream_is_kept_alive(tmp_path: Path) -> None:
    async with running_tools(tmp_path, SSE_KEEPALIVE_S=0.05) as tools:
        args = {"act": "sleep", "seconds": 0.5}
        async with tools.alice.stream("POST", "/api/tools/toy", json=args, headers=EVENT_STREAM) as response:
            text = (await response.aread()).decode()
    assert text.count(": keep-alive\n\n") >= 4
    assert text.count("event: result") == 1


async def test_a_refusal_before_the_first_byte_keeps_its_status_on_a_stream(tools: RunningTools) -> None:
    response = await tools.alice.post("/api/tools/disabled", json={}, headers=EVENT_STREAM)
    assert (response.status_code, response.json()["error"]["code"]) == (503, "tool_disabled")


async def test_a_refusal_after_the_first_byte_is_an_error_event(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.support.toy_tool.tool import BrokenTool

    async def fail_late(self: BrokenTool) -> None:
        await asyncio.sleep(2)
        raise RuntimeError("secret detail")

    monkeypatch.setattr(BrokenTool, "start", fail_late)
    async with running_tools(tmp_path, SSE_KEEPALIVE_S=0.05) as tools:
        response = await tools.alice.post("/api/tools/broken", json={}, headers=EVENT_STREAM)
    assert response.status_code == 200
    last = response.text.rstrip("\n").split("\n\n")[-1]
    assert last.startswith("event: error\ndata: ")
    assert json.loads(last.split("data: ")[1])["error"]["code"] == "tool_disabled"
    assert "secret" not in last


async def test_long_progress_is_cut(tools: RunningTools, monkeypatch: pytest.MonkeyPatch) -> None:
    async def chatter(self: Any, args: Any, context: Any) -> Any:
        await context.progress("m" * 10**6, {"more": "d" * 10**6})
        return await original(self, args, context)

    original = type(tools.toy).run
    monkeypatch.setattr(type(tools.toy), "run", chatter)
    (_, progress), _ = await stream(tools.alice)
    assert len(json.dumps(progress)) <= MAX_PROGRESS_BYTES


# --- Leaving ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("headers", [{}, EVENT_STREAM], ids=["plain", "stream"])
async def test_a_caller_who_leaves_stops_the_tool_within_a_second(tools: RunningTools, headers: dict[str, str]) -> None:
    args = {"act": "sleep", "seconds": 30, "text": "long"}
    call = asyncio.create_task(tools.alice.post("/api/tools/toy", json=args, headers=headers))
    await tools.busy(1)
    call.cancel()
    async with asyncio.timeout(1):
        await tools.busy(0)
    assert tools.toy.journal[-1] == "cancelled long"


async def test_a_caller_who_leaves_the_queue_gives_up_the_turn(tools: RunningTools) -> None:
    sleep = {"act": "sleep", "seconds": 30}
    running = [asyncio.create_task(client.post("/api/tools/toy", json=sleep)) for client in (tools.alice, tools.bob)]
    await tools.busy(2)
    waiting = asyncio.create_task(tools.alice.post("/api/tools/toy", json={"text": "waits"}))
    queue = tools.context.toolbox.find("toy").queue
    while queue.waiting != 1:
        await asyncio.sleep(0.01)
    waiting.cancel()
    async with asyncio.timeout(1):
        while queue.waiting:
            await asyncio.sleep(0.01)
    for call in running:
        call.cancel()
    await tools.busy(0)
    assert "ran waits" not in tools.toy.journal


async def test_stopping_the_server_stops_the_tools(tmp_path: Path) -> None:
    async with running_tools(tmp_path) as tools:
        args = {"act": "sleep", "seconds": 30, "text": "long"}
        call = asyncio.create_task(tools.alice.post("/api/tools/toy", json=args))
        await tools.busy(1)
        toy = tools.toy
    assert toy.journal[-2:] == ["cancelled long", "closed"]
    with pytest.raises(httpx.HTTPError):
        await call


# --- Many at once -----------------------------------------------------------------------------------------------------


async def test_calls_over_the_limit_wait_and_calls_over_the_queue_are_told_to_come_back(tools: RunningTools) -> None:
    # The toy has two places (one of them for each user) and a queue of two (one of them for each user).
    sleep = {"act": "sleep", "seconds": 0.5}
    running = [asyncio.create_task(client.post("/api/tools/toy", json=sleep)) for client in (tools.alice, tools.bob)]
    await tools.busy(2)
    waiting = [asyncio.create_task(tools.alice.post("/api/tools/toy", json={}))]
    queue = tools.context.toolbox.find("toy").queue
    while queue.waiting != 1:
        await asyncio.sleep(0.01)
    too_many_of_one = await tools.alice.post("/api/tools/toy", json={}, headers=EVENT_STREAM)
    waiting.append(asyncio.create_task(tools.bob.post("/api/tools/toy", json={})))
    while queue.waiting != 2:
        await asyncio.sleep(0.01)
    too_many = await tools.bob.post("/api/tools/toy", json={})
    assert (too_many_of_one.status_code, too_many.status_code) == (429, 503)
    assert too_many.headers["Retry-After"] == too_many_of_one.headers["Retry-After"] == "5"
    assert too_many.json()["error"]["code"] == "tool_busy"
    results = await asyncio.gather(*running, *waiting)
    assert all(result.json()["success"] for result in results)
    assert tools.toy.most_at_once == 2


# --- What there is ----------------------------------------------------------------------------------------------------


async def test_the_list_has_what_a_model_needs_to_call_a_tool(tools: RunningTools) -> None:
    listed = {tool["name"]: tool for tool in (await tools.alice.get("/api/tools/list")).json()["tools"]}
    assert list(listed) == ["toy", "broken", "disabled", "slow"]
    assert listed["toy"]["enabled"]
    assert listed["toy"]["timeout_s"] == 20
    assert listed["disabled"]["timeout_s"] == 120
    assert "act" in listed["toy"]["parameters"]["properties"]
    assert "Origin" in listed["toy"]["parameters"]["$defs"]
    assert not listed["disabled"]["enabled"]
    assert (listed["disabled"]["reason"], listed["disabled"]["how_to_enable"]) == ("It has no key.", "Set TOY_KEY.")


async def test_health_tells_how_each_tool_is(tools: RunningTools) -> None:
    body = (await tools.nobody.get("/health")).json()
    assert body["status"] == "ok"
    assert body["uptime_s"] >= 0
    assert {name: tool["state"] for name, tool in body["tools"].items()} == {
        "toy": "on",
        "broken": "off",
        "disabled": "off",
        "slow": "starting",
    }
    assert body["tools"]["toy"]["details"] == {"colour": "red"}
    assert body["tools"]["disabled"]["how_to_enable"] == "Set TOY_KEY."
    assert "secret" not in json.dumps(body)


async def test_metrics_count_calls_by_tool_and_outcome(tools: RunningTools) -> None:
    for act in ("echo", "fail", "crash"):
        await tools.alice.post("/api/tools/toy", json={"act": act})
    text = (await tools.alice.get("/metrics")).text
    for outcome in ("succeeded", "failed", "crashed"):
        assert f'tool_calls_total{{outcome="{outcome}",tool="toy"}} 1.0' in text
    assert 'tool_running{tool="toy"} 0.0' in text
    assert 'tool_seconds_count{tool="toy"} 3.0' in text


async def test_the_description_of_the_api_has_a_route_for_each_tool(tools: RunningTools) -> None:
    document = (await tools.nobody.get("/openapi.json")).json()
    schema = document["paths"]["/api/tools/toy"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert schema["properties"]["act"]["description"] == "what the toy is to do"
    references = [part.split('"')[0] for part in json.dumps(document).split('"$ref": "#/components/schemas/')[1:]]
    assert "toy.Origin" in references
    assert set(references) <= set(document["components"]["schemas"])
    assert (await tools.nobody.get("/docs")).status_code == 200
