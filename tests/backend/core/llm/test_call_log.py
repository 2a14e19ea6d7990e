import asyncio
import fcntl
import signal
import stat
import subprocess
import sys
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import orjson
import pytest

from backend.core.errors import BackendUnavailable
from backend.core.events import BackendSelected, ReasoningDelta
from backend.core.llm.base import CallContext, LLMRequest, ResponseFormat, Sampling, ToolDefinition
from backend.core.llm.call_log import CallRecord, Logged, PromptLog, render
from backend.core.llm.log_file import LogFile
from backend.core.messages import ImagePart, Message, TextPart, ToolCall
from backend.utils.masking import MASK
from tests.support.scripted import Pause, ScriptedLLM, ask, collect

KEY = "sk-" + "a1B2" * 10
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhbGljZSJ9.c2lnbmF0dXJlLXNpZw"
SELECTED = BackendSelected("ollama", "qwen2.5:14b")
ROOT = Path(__file__).parents[4]


class Kept:
    """An observer that keeps what it is told."""

    def __init__(self) -> None:
        self.records: list[CallRecord] = []

    def call_finished(self, record: CallRecord) -> None:
        self.records.append(record)


async def record_of(*steps: Any, request: LLMRequest | None = None) -> CallRecord:
    kept = Kept()
    await collect(Logged(ScriptedLLM([steps]), None, kept), request or ask())
    return kept.records[0]


async def logged(path: Path, *records: CallRecord, max_bytes: int = 2**20, keep: int = 3) -> PromptLog:
    log = PromptLog(path, max_bytes=max_bytes, keep=keep)
    for record in records:
        log.put(record)
    await log.close()
    return log


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in path.read_bytes().splitlines()]


# --- What is recorded -------------------------------------------------------------------------------------------------


async def test_a_call_is_one_line_with_all_there_is_to_know(tmp_path: Path) -> None:
    request = LLMRequest(
        "gpt-4o-mini",
        (
            Message("system", "Be kind."),
            Message("user", (TextPart("What is this?"), ImagePart("data:image/png;base64," + "A" * 400))),
            Message("assistant", "", (ToolCall("call_0", "look", "{}"),), reasoning="I look."),
            Message("tool", "A cat.", tool_call_id="call_0"),
        ),
        sampling=Sampling(temperature=0.0, max_tokens=50),
        tools=(ToolDefinition("look", "Looks.", {"type": "object"}),),
        response_format=ResponseFormat({"type": "object"}),
        context=CallContext("req-1", "alice", "session-1", "react"),
    )
    call = ToolCall("call_1", "add", '{"x": 1}')
    record = await record_of(SELECTED, ReasoningDelta("Hm."), "A ", "cat 🐈.", call, request=request)
    await logged(tmp_path / "prompts.log", record)
    [line] = lines_of(tmp_path / "prompts.log")
    assert line.pop("time").endswith("+00:00")
    assert 0 <= line.pop("first_token_ms") <= line.pop("duration_ms")
    assert line == {
        "request_id": "req-1",
        "session_id": "session-1",
        "user": "alice",
        "agent": "react",
        "backend": "ollama",
        "model": "qwen2.5:14b",
        "requested_model": "gpt-4o-mini",
        "earlier_backends": [],
        "messages": [
            {"role": "system", "content": "Be kind."},
            {"role": "user", "content": ["What is this?", {"image": "image/png", "bytes": 300}]},
            {
                "role": "assistant",
                "content": "",
                "tool_calls": [{"id": "call_0", "name": "look", "arguments": "{}"}],
                "reasoning": "I look.",
            },
            {"role": "tool", "content": "A cat.", "tool_call_id": "call_0"},
        ],
        "tools": [{"name": "look", "description": "Looks.", "parameters": {"type": "object"}, "strict": None}],
        "response_format": {"schema": {"type": "object"}, "name": "answer"},
        "sampling": {"temperature": 0.0, "max_tokens": 50},
        "response": "A cat 🐈.",
        "reasoning": "Hm.",
        "tool_calls": [{"id": "call_1", "name": "add", "arguments": '{"x": 1}'}],
        "tokens": {"prompt": 7, "completion": 3, "cached": 0},
        "finish_reason": "tool_calls",
        "outcome": "completed",
        "error": None,
    }


async def test_a_takeover_names_both_backends() -> None:
    record = await record_of(BackendSelected("a", "x"), "One", BackendSelected("b", "y"), " two")
    line = orjson.loads(render(record))
    assert (line["backend"], line["model"], line["earlier_backends"]) == ("b", "y", ["a"])
    assert line["response"] == "One two"


async def test_a_failed_call_is_recorded_with_what_was_said_and_the_error_goes_on() -> None:
    kept, failure = Kept(), BackendUnavailable("It broke.")
    with pytest.raises(BackendUnavailable) as caught:
        await collect(Logged(ScriptedLLM([[SELECTED, "One", failure]]), None, kept), ask())
    assert caught.value is failure
    [record] = kept.records
    assert (record.outcome, record.text) == ("failed", "One")
    assert record.error == "backend_unavailable: It broke."
    assert record.usage is None


async def test_a_defect_is_recorded_by_its_kind_alone() -> None:
    kept = Kept()
    with pytest.raises(KeyError):
        await collect(Logged(ScriptedLLM([KeyError("/home/secret")]), None, kept), ask())
    assert kept.records[0].error == "KeyError"


@pytest.mark.parametrize("way", ["cancel", "close"])
async def test_a_cancelled_call_is_recorded_and_closed(way: str) -> None:
    kept, inner = Kept(), ScriptedLLM([["One", Pause()]])
    stream = Logged(inner, None, kept).stream(ask())
    await anext(stream)
    if way == "cancel":
        waiting = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0.01)
        waiting.cancel()
        await asyncio.wait([waiting])
    else:
        await stream.aclose()
    [record] = kept.records
    assert (record.outcome, record.text, record.error) == ("cancelled", "One", None)
    assert inner.running == 0


async def test_a_client_that_leaves_after_the_end_has_not_cancelled() -> None:
    kept = Kept()
    stream = Logged(ScriptedLLM(["Hi"]), None, kept).stream(ask())
    await anext(stream)
    await anext(stream)
    await stream.aclose()
    assert kept.records[0].outcome == "completed"


# --- What must not be in it -------------------------------------------------------------------------------------------


async def test_secrets_are_masked_in_every_field(tmp_path: Path) -> None:
    request = LLMRequest(
        KEY,
        (
            Message("user", f"My key is {KEY}"),
            Message("user", (TextPart(JWT), ImagePart(f"data:{KEY};base64,AAAA"))),
            Message("assistant", "", (ToolCall("c", "f", f'{{"key": "{KEY}"}}'),), reasoning=KEY),
        ),
        tools=(ToolDefinition("f", KEY, {"default": [{"deep": KEY}]}),),
        response_format=ResponseFormat({"const": KEY}),
    )
    record = await record_of(KEY, ReasoningDelta(JWT), ToolCall("d", "g", f'"{KEY}"'), request=request)
    await logged(tmp_path / "prompts.log", replace(record, error=f"Bearer {KEY}"))
    content = (tmp_path / "prompts.log").read_text()
    assert KEY not in content
    assert JWT not in content
    assert content.count(MASK) == 13


async def test_what_cannot_be_json_does_not_lose_the_line() -> None:
    deep: dict[str, Any] = {}
    for _ in range(5000):
        deep = {"a": deep}
    for parameters in (deep, {"maximum": 10**40}, {"\ud800": 1}):
        request = replace(ask("\ud800 lone \x00 🐈"), tools=(ToolDefinition("f", "", parameters),))
        line = orjson.loads(render(await record_of("fine", request=request)))
        assert line["messages"] == [{"role": "user", "content": "? lone \x00 🐈"}]
        assert line["tools"] == ["f"]  # the name is all that can be written
        assert line["response"] == "fine"


# --- The log ----------------------------------------------------------------------------------------------------------


async def test_the_file_is_its_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "logs" / "prompts.log"
    path.parent.mkdir()
    path.touch(mode=0o644)
    await logged(path, await record_of("Hi"))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_all_that_was_put_is_written_before_close_returns(tmp_path: Path) -> None:
    record = await record_of("Hi")
    log = await logged(tmp_path / "prompts.log", *[record] * 500)
    assert len(lines_of(tmp_path / "prompts.log")) == 500
    assert log.dropped == 0
    log.put(record)
    assert log.dropped == 1


async def test_a_full_queue_drops_records_counts_them_and_warns_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "prompts.log"
    record = replace(await record_of("Hi"), text="x" * 10_000)
    with path.open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)  # a disk that is not ready: the writer waits for it
        log = PromptLog(path, max_bytes=2**20, keep=1, max_queued_bytes=100_000)
        start = time.monotonic()
        for _ in range(100):
            log.put(record)
        assert time.monotonic() - start < 5
    async with asyncio.timeout(20):
        while len(lines_of(path)) < 8:
            await asyncio.sleep(0.01)
    log.put(record)  # there is room again
    await log.close()
    assert log.dropped == 92
    assert len(lines_of(path)) == 9
    assert caplog.text.count("The prompt log has lost") == 1


async def test_a_full_disk_harms_nobody_and_leaves_whole_lines(tmp_path: Path) -> None:
    """The file-size limit of a process stands in for the disk: writing is cut short in the middle of a line."""
    script = f"""
import asyncio, resource, signal, sys
from pathlib import Path
from tests.backend.core.llm.test_call_log import logged, record_of
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
async def main():
    log = await logged(Path({str(tmp_path / "prompts.log")!r}), *[await record_of("x" * 100)] * 50)
    print(log.dropped)
asyncio.run(main())
"""
    dropped, _ = await asyncio.to_thread(start_python(script).communicate, timeout=30)
    written = lines_of(tmp_path / "prompts.log")
    assert 5 < len(written) < 50
    assert len(written) + int(dropped) == 50


async def test_the_log_is_rotated_by_size(tmp_path: Path) -> None:
    record = await record_of("Hi")
    records = [replace(record, started_at=float(second)) for second in range(200)]
    max_bytes = 20 * len(render(record))
    await logged(tmp_path / "prompts.log", *records, max_bytes=max_bytes, keep=2)
    names = ["prompts.log.2", "prompts.log.1", "prompts.log"]
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted(names)
    assert all((tmp_path / name).stat().st_size <= max_bytes for name in names)
    times = [line["time"] for name in names for line in lines_of(tmp_path / name)]
    assert times == [orjson.loads(render(record))["time"] for record in records[-len(times) :]]
    assert 30 < len(times) <= 60


async def test_a_line_longer_than_a_file_may_be_is_kept_all_the_same(tmp_path: Path) -> None:
    record = await record_of("Hi")
    await logged(tmp_path / "prompts.log", record, record, max_bytes=10, keep=1)
    assert len(lines_of(tmp_path / "prompts.log")) == len(lines_of(tmp_path / "prompts.log.1")) == 1


async def test_an_existing_log_is_continued(tmp_path: Path) -> None:
    record = await record_of("Hi")
    for _ in range(2):
        await logged(tmp_path / "prompts.log", record)
    assert len(lines_of(tmp_path / "prompts.log")) == 2


def test_a_file_that_somebody_removed_is_made_anew(tmp_path: Path) -> None:
    file = LogFile(tmp_path / "x.log", max_bytes=1000, keep=1)
    file.append(b"one\n")
    (tmp_path / "x.log").unlink()
    file.append(b"two\n")
    file.close()
    assert (tmp_path / "x.log").read_bytes() == b"two\n"


@pytest.mark.parametrize("torn", [b"{", b"x" * 200_000, b'{"a": 1}\n{"b', b"\n" + b"y" * 65_536])
def test_what_a_killed_writer_left_of_a_line_is_cut_off(tmp_path: Path, torn: bytes) -> None:
    path, content = tmp_path / "x.log", b"whole\n" + torn
    path.write_bytes(content)
    file = LogFile(path, max_bytes=2**20, keep=1)
    file.append(b"next\n")
    file.close()
    assert path.read_bytes() == content[: content.rfind(b"\n") + 1] + b"next\n"


def test_two_processes_that_rotate_one_file_lose_no_line_and_tear_none(tmp_path: Path) -> None:
    count, ready, logs = 5000, tmp_path / "ready", tmp_path / "logs"
    ready.mkdir()
    writers = [
        start_python(f"""
import time
from pathlib import Path
from backend.core.llm.log_file import LogFile
ready = Path({str(ready)!r})
(ready / "{name}").touch()
while len(list(ready.iterdir())) < 2:
    time.sleep(0.001)
file = LogFile(Path({str(logs / "x.log")!r}), max_bytes=20_000, keep=300)
for number in range({count}):
    file.append(b'["%s", %d, "%s"]\\n' % (b"{name}", number, b"x" * (number * 7919 % 900)))
""")
        for name in "ab"
    ]
    assert [writer.wait(timeout=50) for writer in writers] == [0, 0]
    files = sorted(logs.iterdir(), key=lambda file: -int(file.suffix[1:]) if file.suffix != ".log" else 1)
    lines = [orjson.loads(line) for file in files for line in file.read_bytes().splitlines()]
    for name in "ab":
        assert [line[1] for line in lines if line[0] == name] == list(range(count))
    assert len(files) > 200
    assert all(file.stat().st_size <= 20_000 for file in files)
    switches = sum(one[0] != other[0] for one, other in pairwise(lines))
    assert switches > 20, "the writers did not overlap: this run proves nothing"


def test_a_writer_killed_in_the_middle_leaves_whole_lines_but_for_the_last(tmp_path: Path) -> None:
    path = tmp_path / "x.log"
    line = b"x" * 3_000_000 + b"\n"
    for _ in range(5):
        before = path.stat().st_size if path.exists() else 0
        writer = start_python(f"""
from pathlib import Path
from backend.core.llm.log_file import LogFile
file = LogFile(Path({str(path)!r}), max_bytes=10**9, keep=1)
for _ in range(40):
    file.append(b"x" * 3_000_000 + b"\\n")
""")
        deadline = time.monotonic() + 20
        while not path.exists() or path.stat().st_size <= before:
            assert time.monotonic() < deadline
        writer.send_signal(signal.SIGKILL)
        writer.wait(timeout=10)
    file = LogFile(path, max_bytes=10**9, keep=1)
    file.append(line)
    file.close()
    assert set(path.read_bytes().splitlines(keepends=True)) == {line}


def start_python(script: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, text=True)
