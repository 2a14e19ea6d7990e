"""What start_servers.sh is told before it starts anything: the plan on stdout, sentences on stderr."""

import json
import os
import shlex
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from backend.preflight import describe, find_backends, main
from config import Settings

NOBODY = "http://127.0.0.1:9"
ALONE = {"OLLAMA_BASE_URL": NOBODY, "LLAMACPP_BASE_URL": NOBODY, "MAIN_API_PORT": "0", "TOOLS_PORT": "0"}


@dataclass(frozen=True)
class Preflight:
    """Runs it with the settings given, and with nobody to talk to but those named in them."""

    monkeypatch: pytest.MonkeyPatch
    capsys: pytest.CaptureFixture[str]

    def plan(self, **settings: str) -> dict[str, str]:
        with self.monkeypatch.context() as environment:
            for name, value in {**ALONE, **settings}.items():
                environment.setenv(name, value)
            main()
        lines = shlex.split(self.capsys.readouterr().out)
        return {name: value for name, _, value in (line.partition("=") for line in lines)}

    def refusal(self, **settings: str) -> str:
        with pytest.raises(SystemExit) as refused:
            self.plan(**settings)
        assert self.capsys.readouterr().out == ""
        assert "\n" not in str(refused.value)
        return str(refused.value)


@pytest.fixture
def preflight(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Preflight:
    monkeypatch.chdir(tmp_path)  # away from a .env
    for name in Settings.model_fields:
        monkeypatch.delenv(name, raising=False)
    return Preflight(monkeypatch, capsys)


@contextmanager
def answering(path: str, answer: object) -> Iterator[str]:
    """A server that has one JSON document."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = self.path == path
            body = json.dumps(answer if found else {"error": "not found"}).encode()
            self.send_response(200 if found else 404)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


def ollama(*models: str) -> object:
    return {"models": [{"name": model} for model in models]}


def test_a_port_0_becomes_a_free_port(preflight: Preflight) -> None:
    told = preflight.plan()
    assert told["MAIN_API_PORT"] != told["TOOLS_PORT"]
    assert told["MAIN_URL"] == f"http://127.0.0.1:{told['MAIN_API_PORT']}"


def test_a_server_open_to_the_network_is_reached_on_loopback(preflight: Preflight) -> None:
    assert preflight.plan(MAIN_API_HOST="0.0.0.0")["MAIN_URL"].startswith("http://127.0.0.1:")


def test_a_port_in_use_is_one_line_that_names_the_setting(preflight: Preflight) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert "TOOLS_PORT: cannot listen on 127.0.0.1:" + port in preflight.refusal(TOOLS_PORT=port)


def test_both_servers_on_one_port_is_refused(preflight: Preflight) -> None:
    with socket.create_server(("127.0.0.1", 0)) as just_now:
        port = str(just_now.getsockname()[1])
    assert "TOOLS_PORT" in preflight.refusal(MAIN_API_PORT=port, TOOLS_PORT=port)


def test_a_wrong_setting_is_one_line_that_names_it(preflight: Preflight) -> None:
    assert "MAIN_API_PORT" in preflight.refusal(MAIN_API_PORT="a hundred")


def test_a_data_folder_that_cannot_be_made_is_one_line_that_names_the_setting(
    preflight: Preflight, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    assert preflight.refusal(DATA_DIR="file/data").startswith("DATA_DIR: ")


def test_the_folder_of_the_logs_is_private(preflight: Preflight, tmp_path: Path) -> None:
    logs = Path(preflight.plan(DATA_DIR="the data")["LOGS"])
    assert logs == tmp_path / "the data" / "logs"
    assert logs.stat().st_mode & 0o077 == 0


def test_the_engine_is_started_when_nobody_else_has_a_model(preflight: Preflight) -> None:
    assert preflight.plan()["ENGINE"] == "demonstration"
    with answering("/api/tags", ollama()) as empty:
        assert preflight.plan(OLLAMA_BASE_URL=empty)["ENGINE"] == "demonstration"
    with answering("/", "some web server") as stranger:
        assert preflight.plan(OLLAMA_BASE_URL=stranger, LLAMACPP_BASE_URL=stranger)["ENGINE"] == "demonstration"


def test_the_engine_is_not_started_when_somebody_has_a_model(preflight: Preflight) -> None:
    with answering("/api/tags", ollama("qwen2.5:14b")) as url:
        assert preflight.plan(OLLAMA_BASE_URL=f"{NOBODY},{url}")["ENGINE"] == ""
    with answering("/v1/models", {"data": [{"id": "own"}]}) as url:
        assert preflight.plan(LLAMACPP_BASE_URL=url)["ENGINE"] == ""


def test_the_engine_is_not_started_when_the_settings_leave_it_out(preflight: Preflight) -> None:
    assert preflight.plan(LLM_BACKEND="ollama,llamacpp")["ENGINE"] == ""
    assert preflight.plan(LLM_BACKEND="ollama", LLAMACPP_MODEL_PATH="own.gguf")["ENGINE"] == ""
    assert preflight.plan(EMBEDDED_LLM_URL=NOBODY)["ENGINE"] == ""


def test_the_engine_is_started_when_a_model_for_it_is_named(preflight: Preflight) -> None:
    with answering("/api/tags", ollama("qwen2.5:14b")) as url:
        assert preflight.plan(OLLAMA_BASE_URL=url, LLAMACPP_MODEL_PATH="own.gguf")["ENGINE"] == "own"
        assert preflight.plan(LLM_BACKEND="llamacpp", LLAMACPP_MODEL_PATH="own.gguf")["ENGINE"] == "own"


@pytest.mark.parametrize(
    ("models", "said"),
    [
        ((), "has no model yet"),
        (("llama3.2:latest",), "has llama3.2:latest, but not qwen2.5:14b: set OLLAMA_MODEL"),
        (("qwen2.5:14b", "llama3.2:latest"), "answers (2 models)"),
    ],
)
def test_what_ollama_has_is_said(monkeypatch: pytest.MonkeyPatch, models: tuple[str, ...], said: str) -> None:
    with answering("/api/tags", ollama(*models)) as url:
        monkeypatch.setenv("OLLAMA_BASE_URL", url)
        backends = find_backends(Settings())
    assert f"Ollama at {url} {said}" in describe(backends[0], Settings())


def test_it_runs_as_a_program(tmp_path: Path) -> None:
    env = {"PATH": os.environ["PATH"], "DATA_DIR": str(tmp_path), **ALONE}
    command = [sys.executable, "-m", "backend.preflight"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    assert "ENGINE=demonstration\n" in done.stdout
    assert done.stderr == f"Ollama at {NOBODY} does not answer.\nllama.cpp at {NOBODY} does not answer.\n"
    wrong = subprocess.run(command, env=env | {"DATA_DIR": "/dev/null/x"}, capture_output=True, text=True, timeout=60)
    assert (wrong.returncode, wrong.stdout, wrong.stderr.count("\n")) == (1, "", 1)
