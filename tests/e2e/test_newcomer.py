"""The way of a newcomer: what the start script prints, the OpenAI client, and what is kept of it all."""

import json
import os
import pty
import re
import subprocess

import httpx
import openai
import pytest
from openai import OpenAI

from config import Settings
from tests.e2e.launch import PASSWORD, ROOT, Copy

CAPITAL = "What is the capital of France? Answer in one word."


def type_in_a_terminal(commands: str, answers: list[tuple[bytes, bytes]]) -> str:
    """Run commands as pasted into a terminal, answering each prompt in turn; return what the terminal showed."""
    ours, theirs = pty.openpty()
    env = {"PATH": os.environ["PATH"], "HOME": "/"}
    command = ["bash", "-e", "-c", commands]
    with subprocess.Popen(command, cwd="/", env=env, stdin=theirs, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        shown = b""
        while True:
            try:
                piece = os.read(ours, 65536)
            except OSError:  # the other side has closed its terminal
                break
            shown += piece
            if answers and answers[0][0] in shown.rpartition(b"\n")[2]:
                os.write(ours, answers.pop(0)[1] + b"\n")
    os.close(ours)
    assert process.returncode == 0, shown.decode()
    return shown.decode()


def test_the_printed_commands_work_as_they_stand(copy: Copy) -> None:
    commands = re.search(r"\n\n(  cd .*?)\n\n", copy.output, re.DOTALL)
    assert commands, copy.output
    typed = PASSWORD.encode()
    shown = type_in_a_terminal(commands[1], [(b"Password", typed), (b"again", typed)])
    assert PASSWORD not in shown
    answer = json.loads(shown[shown.index('{"id"') : shown.rindex("}") + 1])
    assert answer["choices"][0]["message"]["content"]
    assert answer["model"] == "smollm2-135m-instruct"


def test_the_terminal_says_where_everything_is_and_that_the_model_is_small(copy: Copy) -> None:
    assert copy.main_url in copy.output
    assert copy.tools_url in copy.output
    assert str(copy.data_dir / "logs") in copy.output
    assert "LLAMACPP_MODEL_PATH" in copy.output
    assert httpx.get(f"{copy.main_url}/docs").status_code == 200


def test_an_answer_comes_whole(client: OpenAI) -> None:
    answer = client.chat.completions.create(
        model="smollm2-135m-instruct", messages=[{"role": "user", "content": CAPITAL}], max_tokens=16, temperature=0
    )
    assert "Paris" in (answer.choices[0].message.content or "")
    assert answer.usage
    assert answer.usage.completion_tokens > 0


def test_an_answer_comes_as_a_stream(client: OpenAI) -> None:
    stream = client.chat.completions.create(
        model="smollm2-135m-instruct",
        messages=[{"role": "user", "content": "Count from one to ten."}],
        max_tokens=16,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    pieces = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices and chunk.choices[0].delta.content]
    assert len(pieces) > 3
    assert chunks[-1].usage
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] in {"stop", "length"}


def test_a_request_for_another_known_model_is_answered_by_the_one_that_is_there(client: OpenAI) -> None:
    for model in ("qwen2.5:14b", "gpt-3.5-turbo"):
        answer = client.chat.completions.create(
            model=model,
            messages=[{"role": "user", "content": CAPITAL}],
            max_tokens=4,
            extra_body={"agent_type": "chat"},
        )
        assert answer.model == "smollm2-135m-instruct"


def test_the_models_are_listed(client: OpenAI) -> None:
    assert "smollm2-135m-instruct" in {model.id for model in client.models.list()}
    assert client.models.retrieve("smollm2-135m-instruct").id == "smollm2-135m-instruct"


def test_an_unknown_model_and_a_wrong_key_are_refused(client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as unknown:
        client.chat.completions.create(model="gpt-99", messages=[{"role": "user", "content": "Hello"}])
    assert unknown.value.code == "model_not_found"
    with pytest.raises(openai.AuthenticationError) as stranger:
        client.with_options(api_key="sk-wrong").models.list()
    assert stranger.value.status_code == 401


def test_a_conversation_is_kept_and_gone_on_with(client: OpenAI, copy: Copy) -> None:
    first = client.chat.completions.create(
        model="default", messages=[{"role": "user", "content": "My name is Ada."}], max_tokens=8
    )
    session_id = (first.model_extra or {})["session_id"]
    client.chat.completions.create(
        model="default",
        messages=[{"role": "user", "content": "What is my name?"}],
        max_tokens=8,
        extra_body={"session_id": session_id},
    )
    with httpx.Client(base_url=copy.main_url, headers={"Authorization": f"Bearer {client.api_key}"}) as api:
        sessions = api.get("/api/chat/sessions").json()["sessions"]
        assert sessions[0]["session_id"] == session_id
        assert sessions[0]["message_count"] == 4
        messages = api.get(f"/api/chat/history/{session_id}").json()["messages"]
    assert [message["role"] for message in messages] == ["user", "assistant", "user", "assistant"]
    assert messages[0]["content"] == "My name is Ada."
    assert messages[1]["content"] == first.choices[0].message.content


def test_a_user_from_the_command_line_can_sign_in(copy: Copy) -> None:
    copy.make_key("grace")
    answer = httpx.post(f"{copy.main_url}/api/auth/login", json={"username": "grace", "password": PASSWORD})
    headers = {"Authorization": f"Bearer {answer.json()['access_token']}"}
    me = httpx.get(f"{copy.main_url}/api/auth/me", headers=headers).json()
    assert (me["username"], me["role"]) == ("grace", "user")


def test_the_health_page_tells_what_is_up(copy: Copy) -> None:
    health = httpx.get(f"{copy.main_url}/health").json()
    assert health["tools"]["state"] == "up"
    assert {backend["name"]: backend["state"] for backend in health["backends"]}["embedded"] == "up"


def test_the_readme_and_the_help_name_the_commands_that_there_are() -> None:
    help_text = subprocess.run(["bash", ROOT / "start_servers.sh", "--help"], capture_output=True, text=True).stdout
    readme = (ROOT / "README.md").read_text()
    for line in ("bash start_servers.sh", "MAIN_API_PORT=10017 TOOLS_PORT=10016 DATA_DIR=data2 bash start_servers.sh"):
        assert line in help_text
        assert line in readme
    for name in re.findall(r"`([A-Z][A-Z_]+)`", readme):
        assert name in Settings.model_fields or name == "OPENAI_API_KEY", name
