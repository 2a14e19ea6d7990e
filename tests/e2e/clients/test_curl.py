"""curl, as people type it: JSON, streams, files in a form, errors."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.clients.conformance import Client
from tests.e2e.clients.model import OLLAMA_MODEL
from tests.support.openai_shapes import check_completion, check_stream

CURL = shutil.which("curl") or ""
VERSION = subprocess.run([CURL, "--version"], capture_output=True, text=True).stdout.split()[1] if CURL else ""
CLIENT = Client("curl", VERSION, "JSON, streams, files in a form, responses, errors")
QUESTION = {"messages": [{"role": "user", "content": "Hello"}]}

pytestmark = pytest.mark.skipif(not CURL, reason="curl is not installed here")


def curl(server: httpx.Client, path: str, *options: str | Path, token: str | None = None) -> tuple[int, str]:
    """The status and the body."""
    token = server.headers["Authorization"] if token is None else token
    command = [CURL, "-sS", "-m", "60", "-w", "\n%{http_code}", "-H", f"Authorization: {token}", *options]
    done = subprocess.run([*command, f"{server.base_url}{path}"], capture_output=True, text=True, timeout=70)
    assert done.returncode == 0, done.stderr
    body, _, status = done.stdout.rpartition("\n")
    return int(status), body


def post(server: httpx.Client, path: str, fields: dict[str, Any], *options: str, **named: Any) -> tuple[int, str]:
    body = ["-H", "Content-Type: application/json", "-d", json.dumps(fields)]
    return curl(server, path, *body, *options, **named)


def test_chat(server: httpx.Client, model: str) -> None:
    status, body = post(server, "/v1/chat/completions", {"model": model, **QUESTION})
    assert status == 200
    check_completion(json.loads(body))
    assert json.loads(body)["choices"][0]["message"]["content"] == "Echo: Hello"


def test_a_stream(server: httpx.Client, model: str) -> None:
    fields = {"model": model, **QUESTION, "stream": True, "stream_options": {"include_usage": True}}
    _, body = post(server, "/v1/chat/completions", fields, "-N")
    (choice,) = check_stream(body, include_usage=True)
    assert (choice.text, choice.finish_reason) == ("Echo: Hello", "stop")


def test_a_file_in_a_form(server: httpx.Client, tmp_path: Path) -> None:
    table = tmp_path / "numbers.csv"
    table.write_text("city,people\nParis,2\n")
    fields = ["-F", f"model={OLLAMA_MODEL}", "-F", f"messages={json.dumps(QUESTION['messages'])}"]
    status, body = curl(server, "/v1/chat/completions", *fields, "-F", f"files=@{table}")
    assert status == 200
    check_completion(json.loads(body))
    assert "numbers.csv" in body  # the model echoes what it was told of the file


def test_files_are_kept(server: httpx.Client, tmp_path: Path) -> None:
    note = tmp_path / "note.txt"
    note.write_text("Hello")
    status, body = curl(server, "/v1/files", "-F", "purpose=user_data", "-F", f"file=@{note}")
    assert status == 200
    place = f"/v1/files/{json.loads(body)['id']}"
    assert curl(server, f"{place}/content") == (200, "Hello")
    assert curl(server, place, "-X", "DELETE")[0] == 200
    assert curl(server, place)[0] == 404


def test_a_response(server: httpx.Client) -> None:
    status, body = post(server, "/v1/responses", {"model": OLLAMA_MODEL, "input": "Hello"})
    assert (status, json.loads(body)["output"][-1]["content"][0]["text"]) == (200, "Echo: Hello")


@pytest.mark.parametrize(
    ("path", "options", "status", "kind"),
    [
        ("/v1/chat/completions", ["-d", "{"], 400, "invalid_request_error"),
        ("/v1/chat/completions", ["-d", "[]"], 400, "invalid_request_error"),
        ("/v1/chat/completions", ["-F", "model=qwen3:4b"], 400, "invalid_request_error"),
        ("/v1/chat/completions", [], 405, "invalid_request_error"),
        ("/v1/files/file-none", [], 404, "not_found_error"),
        ("/v1/nothing", [], 404, "not_found_error"),
        ("/api/admin/users", [], 403, "permission_error"),
    ],
)
def test_errors_have_openais_shape(server: httpx.Client, path: str, options: list[str], status: int, kind: str) -> None:
    found, body = curl(server, path, *options)
    error = json.loads(body)["error"]
    assert (found, error["type"]) == (status, kind)
    assert error.keys() == {"message", "type", "param", "code"}


def test_a_stranger_is_told_how_to_sign_in(server: httpx.Client) -> None:
    status, body = curl(server, "/v1/models", "-i", token="Bearer sk-wrong")
    assert status == 401
    assert "www-authenticate: bearer" in body.lower()
    assert '"authentication_error"' in body


def test_a_wrong_method_is_told_which_there_are(server: httpx.Client) -> None:
    _, body = curl(server, "/v1/files/file-none", "-i", "-X", "PUT")
    assert "allow: get, delete" in body.lower()


def test_the_real_engine(engine: httpx.Client) -> None:
    status, body = post(engine, "/v1/chat/completions", {**QUESTION, "max_tokens": 8})
    assert status == 200
    check_completion(json.loads(body))
    _, body = post(engine, "/v1/chat/completions", {**QUESTION, "max_tokens": 8, "stream": True}, "-N")
    assert check_stream(body)[0].text
