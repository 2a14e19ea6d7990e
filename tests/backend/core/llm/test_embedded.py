"""The embedded engine as its starter sees it: a process, its two streams, its log, its end."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from backend.core.llm.embedded import engine_parameters, model_file, model_name
from config import Settings

pytestmark = pytest.mark.timeout(120)

ENGINE = [sys.executable, "-m", "backend.core.llm.embedded"]


def engine_env(data_dir: Path, **settings: str) -> dict[str, str]:
    small = {"EMBEDDED_LLM_SLOTS": "2", "EMBEDDED_LLM_CONTEXT": "512", "EMBEDDED_LLM_PORT": "0"}
    return {"PATH": os.environ["PATH"], "DATA_DIR": str(data_dir), **small, **settings}


def refusal(data_dir: Path, **settings: str) -> str:
    """The one line with which the engine refuses to start."""
    done = subprocess.run(ENGINE, env=engine_env(data_dir, **settings), capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    return done.stderr


@contextmanager
def running_engine(data_dir: Path, **settings: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    with subprocess.Popen(ENGINE, env=engine_env(data_dir, **settings), stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process, process.stdout.readline().strip()
        finally:
            process.kill()


def get_json(url: str) -> Any:
    with urlopen(url, timeout=30) as answer:
        return json.load(answer)


def test_it_announces_its_address_when_the_model_answers(tmp_path: Path) -> None:
    with running_engine(tmp_path) as (_, url):
        assert get_json(f"{url}/health") == {"status": "ok"}
        assert get_json(f"{url}/v1/models")["data"][0]["id"] == "smollm2-135m-instruct"
        properties = get_json(f"{url}/props")
        assert properties["total_slots"] == 2
        assert properties["default_generation_settings"]["n_ctx"] == 512  # for each slot, not shared among them
        with urlopen(f"{url}/metrics", timeout=30) as metrics:
            assert b"llamacpp:" in metrics.read()


def test_it_listens_on_the_port_that_is_asked_for(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with running_engine(tmp_path, EMBEDDED_LLM_PORT=str(port)) as (_, url):
        assert url == f"http://127.0.0.1:{port}"


def test_the_demonstration_model_comes_to_an_end_where_your_own_may_go_on() -> None:
    demonstration = Settings(_env_file=None, LLAMACPP_MODEL_PATH="")
    model = model_file(demonstration)
    assert engine_parameters(demonstration, model).n_predict == 512
    assert engine_parameters(Settings(_env_file=None, LLAMACPP_MODEL_PATH=str(model)), model).n_predict == -1


def test_a_signal_ends_it_at_once_even_in_the_middle_of_an_answer(tmp_path: Path) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        with running_engine(tmp_path) as (process, url):
            host, port = url.removeprefix("http://").split(":")
            body = json.dumps({"stream": True, "messages": [{"role": "user", "content": "Tell me a long story."}]})
            with socket.create_connection((host, int(port)), timeout=30) as client:
                client.sendall(
                    f"POST /v1/chat/completions HTTP/1.0\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()
                )
                client.recv(1)
                asked = time.monotonic()
                process.send_signal(number)
                assert process.wait(timeout=20) == -number
                assert time.monotonic() - asked < 10


def test_it_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    starter = (
        "import subprocess, sys, time\n"
        f"engine = subprocess.Popen({ENGINE!r}, stdout=subprocess.PIPE, text=True)\n"
        "print(engine.stdout.readline().strip(), flush=True)\n"
        "time.sleep(60)\n"
    )
    command = [sys.executable, "-c", starter]
    with subprocess.Popen(command, env=engine_env(tmp_path), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        host, port = process.stdout.readline().strip().removeprefix("http://").split(":")
        process.kill()
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        try:
            socket.create_connection((host, int(port)), timeout=1).close()
        except OSError:
            return
        time.sleep(0.1)
    pytest.fail("the engine outlived its starter")


def test_what_the_engine_has_to_say_goes_to_its_log(tmp_path: Path) -> None:
    torn = tmp_path / "torn.gguf"
    torn.write_bytes(b"GGUF" + bytes(1000))
    log = tmp_path / "logs" / "engine.log"
    assert refusal(tmp_path, LLAMACPP_MODEL_PATH=str(torn)) == (
        f"embedded engine: the engine could not load {torn}: see {log}\n"
    )
    assert "gguf" in log.read_text().lower()


def test_a_crash_is_told_in_the_log_and_the_next_start_leaves_it_there(tmp_path: Path) -> None:
    with running_engine(tmp_path) as (process, _):
        process.send_signal(signal.SIGSEGV)
        assert process.wait(timeout=10) == -signal.SIGSEGV
    with running_engine(tmp_path):
        assert "Segmentation fault" in (tmp_path / "logs" / "engine.log").read_text()


def test_a_file_that_is_no_model_is_refused_by_name(tmp_path: Path) -> None:
    letter = tmp_path / "letter.txt"
    letter.write_text("Dear model,")
    assert f"LLAMACPP_MODEL_PATH: {letter} is not a GGUF file" in refusal(tmp_path, LLAMACPP_MODEL_PATH=str(letter))
    missing = tmp_path / "missing.gguf"
    assert f"cannot read {missing}: No such file" in refusal(tmp_path, LLAMACPP_MODEL_PATH=str(missing))
    assert f"cannot read {tmp_path}: Is a directory" in refusal(tmp_path, LLAMACPP_MODEL_PATH=str(tmp_path))


def test_a_port_in_use_is_refused_by_name(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"EMBEDDED_LLM_PORT: cannot listen on 127.0.0.1:{port}" in refusal(tmp_path, EMBEDDED_LLM_PORT=str(port))


def test_a_wrong_setting_is_refused_by_name(tmp_path: Path) -> None:
    assert "EMBEDDED_LLM_SLOTS" in refusal(tmp_path, EMBEDDED_LLM_SLOTS="many")


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("SmolLM2-135M-Instruct.Q4_1.gguf", "smollm2-135m-instruct"),
        ("Qwen2.5-14B-Instruct-Q4_K_M-00001-of-00003.gguf", "qwen2.5-14b-instruct"),
        ("Llama-3.2-3B-Instruct-IQ4_XS.gguf", "llama-3.2-3b-instruct"),
        ("gpt-oss-20b-MXFP4.gguf", "gpt-oss-20b"),
        ("my own model (new).gguf", "my-own-model-new"),
        ("Q8_0.gguf", "q8_0"),
    ],
)
def test_a_model_is_called_after_its_file(file: str, name: str) -> None:
    assert model_name(Path("/models") / file) == name
