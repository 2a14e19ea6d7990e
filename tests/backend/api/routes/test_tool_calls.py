"""The limits of users and keys hold for tools that they call themselves, and not once more for what agents call."""

from pathlib import Path

import pytest

from backend.core.storage.allowances import Allowance
from backend.core.storage.api_keys import KeyOptions
from backend.core.storage.sessions import new_session_id
from tests.support.tools_server import running_tools

TOY = "/api/tools/toy"
STREAM = {"Accept": "text/event-stream"}


@pytest.mark.parametrize("headers", [{}, STREAM])
async def test_requests_of_a_user_are_bounded_over_all_credentials(tmp_path: Path, headers: dict[str, str]) -> None:
    async with running_tools(tmp_path, USER_REQUESTS_PER_MINUTE=2) as tools:
        _, key = await tools.main.api_keys.create("alice", "laptop")
        first = await tools.alice.post(TOY, json={}, headers=headers)
        assert (first.status_code, first.headers["x-ratelimit-remaining-requests"]) == (200, "1")
        assert (await tools.nobody.post(TOY, json={}, headers=headers | {"x-api-key": key})).status_code == 200
        for credential in ({}, {"Authorization": f"Bearer {key}"}):
            refused = await tools.alice.post(TOY, json={}, headers=headers | credential)
            assert (refused.status_code, refused.json()["error"]["type"]) == (429, "rate_limit_error")
            assert int(refused.headers["retry-after"]) > 0
        assert (await tools.bob.post(TOY, json={}, headers=headers)).status_code == 200
        assert not tools.context.limits._running


async def test_a_key_with_bounds_of_its_own_cannot_go_around_them(tmp_path: Path) -> None:
    async with running_tools(tmp_path) as tools:
        _, key = await tools.main.api_keys.create("alice", "script", KeyOptions(Allowance(1, None, None)))
        answers = [await tools.nobody.post(TOY, json={}, headers={"x-api-key": key}) for _ in range(2)]
        assert [answer.status_code for answer in answers] == [200, 429]
        assert (await tools.alice.post(TOY, json={})).status_code == 200


async def test_a_place_is_held_until_the_stream_ends_and_given_back_when_its_reader_leaves(tmp_path: Path) -> None:
    async with running_tools(tmp_path, USER_CONCURRENT_REQUESTS=1) as tools:
        call = {"act": "report", "seconds": 15}
        async with tools.alice.stream("POST", TOY, json=call, headers=STREAM) as stream:
            assert stream.status_code == 200
            assert (await tools.alice.post(TOY, json={})).status_code == 429
        await tools.busy(0)
        assert (await tools.alice.post(TOY, json={})).status_code == 200


async def test_calls_of_the_main_api_were_let_in_there(tmp_path: Path) -> None:
    async with running_tools(tmp_path, USER_REQUESTS_PER_MINUTE=1) as tools:
        token = tools.main.authenticator.make_service_token("alice", new_session_id(), timeout_s=10)
        for _ in range(3):
            answer = await tools.nobody.post(TOY, json={}, headers={"Authorization": f"Bearer {token}"})
            assert (answer.status_code, answer.json()["data"]["username"]) == (200, "alice")
