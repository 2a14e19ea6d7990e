"""What the start script promises besides an answer: settings, refusals, and an end without remains."""

import os
import signal
import socket
import subprocess
import time
from pathlib import Path

import httpx
import pytest

from tests.e2e.launch import NOBODY, ROOT, Copy, environment, launch, processes_of, refused_start


def listens(url: str) -> bool:
    host, port = url.removeprefix("http://").split(":")
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except OSError:
        return False
    return True


def test_a_second_start_needs_no_network_and_takes_seconds(copy: Copy, tmp_path: Path) -> None:
    offline = {"PIP_NO_INDEX": "1", "PIP_INDEX_URL": NOBODY, "HTTP_PROXY": NOBODY, "HTTPS_PROXY": NOBODY}
    took_s = []
    while len(took_s) < 3 and min(took_s, default=10) >= 10:  # a busy machine is given another try
        before = time.monotonic()
        with launch(tmp_path / "data", **offline, http_proxy=NOBODY, https_proxy=NOBODY) as second:
            took_s.append(time.monotonic() - before)
            assert second.main_url != copy.main_url
            assert httpx.get(f"{second.main_url}/health").json()["tools"]["state"] == "up"
            assert httpx.get(f"{copy.main_url}/health").status_code == 200  # two copies side by side
    if os.getloadavg()[0] > 2 * (os.cpu_count() or 1):
        pytest.skip("the machine is too busy to tell how long a start takes")
    assert min(took_s) < 10


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_everything_that_was_started_and_nothing_else(tmp_path: Path, number: signal.Signals) -> None:
    with launch(tmp_path / "data") as copy:
        stranger = subprocess.Popen(["sleep", "60"])
        assert len(processes_of(copy.data_dir)) >= 4  # the script, the engine, both servers
        assert copy.stop(number) == 0
        assert processes_of(copy.data_dir) == {}
        assert not listens(copy.main_url)
        assert stranger.poll() is None
        stranger.kill()
        stranger.wait()


def test_a_script_that_runs_it_in_the_background_can_stop_it_as_ctrl_c_does(tmp_path: Path) -> None:
    lines = """
        bash "$0" >terminal.txt 2>&1 &
        until grep --quiet "Ctrl-C stops everything" terminal.txt || ! kill -0 $!; do sleep 0.1; done
        kill -INT $!
        wait $!
    """
    done = subprocess.run(
        ["bash", "-c", lines, ROOT / "start_servers.sh"], cwd=tmp_path, env=environment(tmp_path), timeout=120
    )
    assert done.returncode == 0
    assert processes_of(tmp_path) == {}


def test_ctrl_c_while_starting_leaves_nothing(tmp_path: Path) -> None:
    for delay_s in (0.3, 1.0, 1.8):
        script = subprocess.Popen(
            ["bash", ROOT / "start_servers.sh"],
            env=environment(tmp_path),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        time.sleep(delay_s)
        os.killpg(script.pid, signal.SIGINT)
        assert script.wait(timeout=30) == 130
        assert processes_of(tmp_path) == {}


def test_what_it_started_ends_even_when_the_script_is_killed(tmp_path: Path) -> None:
    with launch(tmp_path / "data") as copy:
        copy.script.kill()
        copy.script.wait()
        deadline = time.monotonic() + 20
        while processes_of(copy.data_dir) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert processes_of(copy.data_dir) == {}


def test_an_engine_that_dies_is_started_again_at_its_address_a_few_times(tmp_path: Path) -> None:
    with launch(tmp_path / "data") as copy:
        first = copy.pid("backend.core.llm.embedded")
        os.kill(first, signal.SIGABRT)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            states = {b["name"]: b["state"] for b in httpx.get(f"{copy.main_url}/health").json()["backends"]}
            if "starting it again" in copy.output and states["embedded"] == "up":
                break
            time.sleep(0.2)
        assert copy.script.poll() is None
        assert copy.pid("backend.core.llm.embedded") != first
        log = (copy.data_dir / "logs" / "engine.log").read_text()
        assert "Fatal Python error: Aborted" in log
        assert "The engine has ended (killed by SIGABRT)" in log
        assert states["embedded"] == "up"


@pytest.mark.parametrize("program", ["server.py", "tools_server.py"])
def test_when_one_process_dies_it_is_named_and_the_others_end(tmp_path: Path, program: str) -> None:
    with launch(tmp_path / "data") as copy:
        os.kill(copy.pid(program), signal.SIGKILL)
        assert copy.script.wait(timeout=30) == 1
        name = {"server.py": "main API", "tools_server.py": "tools API"}[program]
        assert f"The {name} has ended (exit code 137)" in copy.output
        assert processes_of(copy.data_dir) == {}


def test_a_log_is_kept_from_growing_without_end(tmp_path: Path) -> None:
    with launch(tmp_path / "data") as copy:
        log = copy.data_dir / "logs" / "main.log"
        with log.open("ab") as file:
            file.truncate(60 << 20)
        deadline = time.monotonic() + 20
        while log.stat().st_size > 1 << 20 and time.monotonic() < deadline:
            time.sleep(0.1)
        httpx.get(f"{copy.main_url}/health")
        assert log.stat().st_size < 1 << 20
        assert log.with_name("main.log.1").stat().st_size >= 60 << 20


@pytest.mark.parametrize("setting", ["MAIN_API_PORT", "TOOLS_PORT", "EMBEDDED_LLM_PORT"])
def test_a_port_in_use_is_one_line(tmp_path: Path, setting: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = refused_start(tmp_path, **{setting: str(port)})
    assert said.count(f"{setting}: cannot listen on 127.0.0.1:{port}") == 1
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("MAIN_API_PORT", "none"),
        ("LLM_BACKEND", "chatgpt"),
        ("JWT_SECRET_KEY", "your-secret-key-here"),
        ("DATA_DIR", "/dev/null/data"),
        ("LLAMACPP_MODEL_PATH", "/dev/null"),
    ],
)
def test_a_broken_setting_is_one_line_that_names_it(tmp_path: Path, setting: str, value: str) -> None:
    said = refused_start(tmp_path, **{setting: value})
    assert said.count(setting) == 1
    assert "Traceback" not in said


def test_an_unknown_option_is_refused() -> None:
    done = subprocess.run(["bash", ROOT / "start_servers.sh", "--fast"], capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout) == (1, "")
    assert "--fast" in done.stderr


def test_it_starts_from_any_folder_and_through_a_path_with_spaces(tmp_path: Path) -> None:
    path = tmp_path / "my own servers"
    path.symlink_to(ROOT)
    with launch(tmp_path / "the data", script=path / "start_servers.sh") as copy:
        assert httpx.get(f"{copy.main_url}/health").status_code == 200


def test_a_server_alone_answers_and_says_so_in_either_order(tmp_path: Path) -> None:
    ports = []
    for _ in range(2):
        with socket.create_server(("127.0.0.1", 0)) as free:
            ports.append(free.getsockname()[1])
    env = environment(tmp_path, MAIN_API_PORT=str(ports[0]), TOOLS_PORT=str(ports[1]))
    python = str(ROOT / ".venv" / "bin" / "python")
    with (
        httpx.Client(base_url=f"http://127.0.0.1:{ports[0]}") as main,
        subprocess.Popen([python, "server.py"], cwd=ROOT, env=env, stderr=subprocess.DEVNULL) as server,
    ):
        assert tools_state(main) == "down"
        with subprocess.Popen([python, "tools_server.py"], cwd=ROOT, env=env, stderr=subprocess.DEVNULL) as tools:
            deadline = time.monotonic() + 30
            while tools_state(main) != "up":
                assert time.monotonic() < deadline
                time.sleep(0.2)
            tools.terminate()
        server.terminate()
    assert {server.returncode, tools.returncode} == {-signal.SIGTERM}  # in good order, then as the signal asks


def tools_state(main: httpx.Client) -> str:
    """As the main API sees it, once it is there."""
    for _ in range(300):
        try:
            return str(main.get("/health").json()["tools"]["state"])
        except httpx.TransportError:
            time.sleep(0.1)
    raise AssertionError("the main API does not answer")
