"""What clients are tried against, and where the outcome of their checks goes: the table of conformance."""

import socket
import subprocess
import sys
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.e2e.clients.conformance import Client, Conformance
from tests.e2e.clients.model import MODELS, OLLAMA_MODEL, Models, running_models
from tests.e2e.launch import ROOT, environment
from tests.support.engine import running_engine
from tests.support.tiny_bert import make_tiny_bert

START_TIMEOUT_S = 60

CONFORMANCE = pytest.StashKey[Conformance]()


def pytest_collection_finish(session: pytest.Session) -> None:
    """A run of whole modules replaces what is known of their clients; a run of some tests adds to it."""
    if session.config.option.keyword or any("::" in argument for argument in session.config.args):
        return
    table = session.config.stash.setdefault(CONFORMANCE, Conformance())
    for client in {client for item in session.items if (client := _client_of(item))}:
        table.forget(client)


def _client_of(item: pytest.Item) -> Client | None:
    client = getattr(getattr(item, "module", None), "CLIENT", None)
    return client if isinstance(client, Client) else None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    client = _client_of(item)
    if client and (report.when == "call" or report.failed):
        table = item.config.stash.setdefault(CONFORMANCE, Conformance())
        check = item.nodeid.partition("::")[2]
        if report.skipped:  # an xfailed test is reported as skipped, too
            reason = report.wasxfail if hasattr(report, "wasxfail") else report.longrepr[2].removeprefix("Skipped: ")
            table.report(client, check, "unsupported", reason.removeprefix("reason: "))
        else:
            table.report(client, check, "passed" if report.passed else "failed")
    return report


def pytest_sessionfinish(session: pytest.Session) -> None:
    if table := session.config.stash.get(CONFORMANCE, None):
        table.save()


@pytest.fixture(scope="session")
def models() -> Iterator[Models]:
    """The model servers; `models.of(NAME).script(...)` says what the next answers are."""
    with running_models() as running:
        yield running


@dataclass(frozen=True)
class Place:
    """Where both servers are, or will be: they find each other by what they are started with."""

    env: dict[str, str]
    main_url: str
    tools_url: str


@pytest.fixture(scope="session")
def place(models: Models, tmp_path_factory: pytest.TempPathFactory) -> Place:
    folder = tmp_path_factory.mktemp("clients")
    main_port, tools_port = _free_port(), _free_port()
    env = environment(
        folder / "data",
        LLM_BACKEND="ollama,llamacpp",
        OLLAMA_BASE_URL=models.ollama.url,
        OLLAMA_MODEL=OLLAMA_MODEL,
        LLAMACPP_BASE_URL=f"{models.llamacpp.url},{models.plain.url}",
        MAIN_API_PORT=str(main_port),
        TOOLS_PORT=str(tools_port),
        RAG_EMBEDDING_MODEL=str(make_tiny_bert(folder / "bert")),
        LOG_LEVEL="WARNING",
    )
    return Place(env, f"http://127.0.0.1:{main_port}", f"http://127.0.0.1:{tools_port}")


@pytest.fixture(scope="session")
def server(place: Place) -> Iterator[httpx.Client]:
    """The main API's process with these models, called by somebody who is signed in."""
    with _running("server.py", place.main_url, place.env):
        yield from _signed_in(place.main_url)


@pytest.fixture(scope="session")
def tools_url(place: Place, server: httpx.Client) -> Iterator[str]:
    """The address of the tools API's process; only those tests that need it start it."""
    with _running("tools_server.py", place.tools_url, place.env):
        yield place.tools_url


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """The main API's process with the real llama.cpp engine, called by somebody who is signed in."""
    folder = tmp_path_factory.mktemp("engine")
    port = _free_port()
    with running_engine(folder) as model:
        env = environment(folder / "data", LLM_BACKEND="llamacpp", LLAMACPP_BASE_URL=model, MAIN_API_PORT=str(port))
        with _running("server.py", f"http://127.0.0.1:{port}", env | {"TOOLS_PORT": "9"}):
            yield from _signed_in(f"http://127.0.0.1:{port}")


@contextmanager
def _running(program: str, url: str, env: dict[str, str]) -> Iterator[None]:
    """A server's process, once it answers."""
    Path(env["DATA_DIR"]).mkdir(parents=True, exist_ok=True)
    output = Path(env["DATA_DIR"]).parent / f"{program}.log"
    with output.open("wb") as log:
        process = subprocess.Popen([sys.executable, program], cwd=ROOT, env=env, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not _answers(url):
            assert process.poll() is None, output.read_text()
            assert time.monotonic() < deadline, f"{program} did not start in time"
            time.sleep(0.1)
        yield
    finally:
        process.terminate()
        process.wait(30)


def _signed_in(url: str) -> Iterator[httpx.Client]:
    answer = httpx.post(f"{url}/api/auth/signup", json={"username": "alice", "password": "a password"}, timeout=30)
    headers = {"Authorization": f"Bearer {answer.json()['access_token']}"}
    with httpx.Client(base_url=url, headers=headers, timeout=60) as client:
        yield client


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def _answers(url: str) -> bool:
    try:
        httpx.get(f"{url}/health", timeout=5)
    except httpx.TransportError:
        return False
    return True


@pytest.fixture
def token(server: httpx.Client) -> str:
    """What clients call an API key."""
    return server.headers["Authorization"].removeprefix("Bearer ")


@pytest.fixture(autouse=True)
def no_script_left(models: Models) -> Iterator[None]:
    """A test that scripts more than is asked for would answer for the next one."""
    yield
    left = [fake for fake in (models.ollama, models.llamacpp, models.plain) if fake._script]
    for fake in left:
        fake._script.clear()
    assert not left, "not all that was scripted was asked for"


@pytest.fixture(params=MODELS)
def model(request: pytest.FixtureRequest) -> str:
    """Each kind of model in turn: on both backends, with a template that knows tools and without."""
    return str(request.param)
