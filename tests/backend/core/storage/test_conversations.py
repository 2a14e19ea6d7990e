import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from backend.core.errors import StorageFailed, Unavailable
from backend.core.events import Usage
from backend.core.messages import ImagePart, Message, TextPart, ToolCall
from backend.core.storage import conversations
from backend.core.storage.conversations import Conversation, StoredMessage

SESSION = "sess_" + "0" * 32
KILLS = 25


def said(text: str, role: str = "user") -> StoredMessage:
    return StoredMessage.from_message(Message(role, text))  # type: ignore[arg-type]


def texts(messages: Sequence[StoredMessage]) -> list[str]:
    return [message.to_message().text for message in messages]


def begin(folder: Path, *messages: str) -> tuple[Conversation, Path]:
    conversation = Conversation(folder, SESSION)
    conversation.create("alice", [said(text) for text in messages], created_at=time.time())
    return conversation, folder / f"{SESSION}.json"


def check_valid(path: Path) -> list[dict[str, object]]:
    """The messages of a file that is valid JSON and numbered without a gap."""
    document = json.loads(path.read_bytes())
    assert document["session_id"] == SESSION
    assert [message["seq"] for message in document["messages"]] == list(range(1, len(document["messages"]) + 1))
    return document["messages"]  # type: ignore[no-any-return]


def run_python(code: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[4])


def test_the_file_is_json_with_one_message_per_line_after_every_append(tmp_path: Path) -> None:
    conversation, path = begin(tmp_path)
    assert check_valid(path) == []
    assert conversation.append([said("one\ntwo,\n]}\n")]) == 1
    check_valid(path)
    assert conversation.append([said("three"), said("four")], durable=True) == 3
    assert [message["content"] for message in check_valid(path)] == ["one\ntwo,\n]}\n", "three", "four"]
    lines = path.read_text().splitlines()
    assert len(lines) == 5
    assert json.loads(lines[0] + "]}")["username"] == "alice"
    assert path.stat().st_mode & 0o077 == 0


def test_everything_known_of_a_message_comes_back(tmp_path: Path) -> None:
    stored = StoredMessage.from_message(
        Message(
            "assistant",
            (TextPart("look:"), ImagePart("data:image/png;base64,AAAA", "low"), ImagePart("data:image/png;base64,BB")),
            (ToolCall("call_1", "search", '{"q": "x'),),
            reasoning="hm",
        ),
        model="m",
        backend="ollama",
        agent="chat",
        run_id="r",
        finish_reason="tool_calls",
        interrupted=True,
        usage=Usage(1, 2, 3, 4),
        files=("a.csv",),
    )
    answered = StoredMessage.from_message(Message("tool", "found", tool_call_id="call_1", name="search"))
    conversation, path = begin(tmp_path)
    conversation.append([stored, answered])
    first, second = conversation.read()
    assert first.created_at == pytest.approx(stored.created_at, abs=1e-5)
    assert first.to_message() == stored.to_message()
    assert second.to_message() == answered.to_message()
    for name in ("model", "backend", "agent", "run_id", "finish_reason", "interrupted", "usage", "files"):
        assert getattr(first, name) == getattr(stored, name)
    on_disk = check_valid(path)[0]
    assert on_disk["content"][1] == {  # type: ignore[index]
        "type": "image_url",
        "image_url": {"url": "data:image/png;base64,AAAA", "detail": "low"},
    }
    assert str(on_disk["created_at"]).endswith("Z")


@pytest.mark.parametrize("text", ["", "\x00", "\ud800", "a\udfffb", "\u2028\u2029", "😀", '"}\n]}', "\r\n"])
def test_any_text_is_kept_and_what_is_no_text_becomes_a_replacement_character(tmp_path: Path, text: str) -> None:
    conversation, path = begin(tmp_path, text)
    conversation.append([said(text), said("\ud83d" + "\ude00")])
    expected = text.replace("\ud800", "\ufffd").replace("\udfff", "\ufffd")
    assert texts(conversation.read())[:2] == [expected, expected]
    check_valid(path)


def test_a_message_of_ten_megabytes_is_kept_and_appended_to(tmp_path: Path) -> None:
    conversation, path = begin(tmp_path, "small")
    huge = "x" * 10_000_000
    assert conversation.append([said(huge)]) == 2
    assert conversation.append([said("after")], durable=True) == 3
    assert texts(conversation.read(2)) == [huge, "after"]
    assert texts(conversation.read(1, before=2)) == ["small"]
    check_valid(path)


@pytest.mark.parametrize("length", [0, 1, 7, 400])
def test_any_window_of_a_conversation_can_be_read(tmp_path: Path, length: int) -> None:
    sizes = [3, 5000, 40, 17000, 900]
    all_texts = [f"{n} " + "x" * sizes[n % 5] for n in range(length)]
    conversation, _ = begin(tmp_path, *all_texts)
    assert texts(conversation.read()) == all_texts
    for last in (0, 1, 2, 20, 399, 400, 1000):
        assert texts(conversation.read(last)) == all_texts[max(0, length - last) :]
        for before in (0, 1, 2, 8, 200, 400, 401, 9999):
            expected = all_texts[: max(0, before - 1)]
            assert texts(conversation.read(last, before=before)) == expected[max(0, len(expected) - last) :]


def test_a_file_cut_anywhere_keeps_all_its_whole_messages(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    conversation, path = begin(tmp_path, "one", 'two, with a \\ and a "', "three")
    whole = path.read_bytes()
    ends = [whole.index(line) + len(line.rstrip(b",")) for line in whole.split(b"\n")[1:4]]
    header_end = whole.index(b"\n")
    for cut in range(len(whole)):
        expected = ["one", 'two, with a \\ and a "', "three"][: sum(end <= cut for end in ends)]
        path.write_bytes(whole[:cut])
        assert texts(conversation.read()) == expected, cut
        if cut:
            check_valid(path)
        path.write_bytes(whole[:cut])
        assert conversation.append([said("next")]) == len(expected) + 1, cut
        assert [message["content"] for message in check_valid(path)] == [*expected, "next"], cut
        # What was cut in its header cannot be mended in place: the original is kept.
        assert (path.with_suffix(".damaged").exists()) == (0 < cut < header_end), cut
        conversation.delete()
        assert list(tmp_path.iterdir()) == []
    assert "whole messages are kept" in caplog.text


@pytest.mark.parametrize(
    "tail", [b"\x00" * 5000, b',\n{"seq":2,"role":"us', b"\n]}\n\n]}\n", b"garbage", b"\n]}\n\xff\xfe"]
)
def test_a_torn_tail_is_repaired_on_append(tmp_path: Path, tail: bytes) -> None:
    conversation, path = begin(tmp_path, "kept")
    path.write_bytes(path.read_bytes().removesuffix(b"\n]}\n") + tail)
    assert conversation.append([said("next")]) == 2
    assert [message["content"] for message in check_valid(path)] == ["kept", "next"]


def test_a_damaged_middle_costs_only_its_message_and_the_original_is_kept(tmp_path: Path) -> None:
    conversation, path = begin(tmp_path, "one", "two", "three", "four")
    damaged = path.read_bytes().replace(b'"content":"two"', b"\x00" * 15)
    path.write_bytes(damaged)
    assert texts(conversation.read(3)) == ["one", "three", "four"]
    assert [message["content"] for message in check_valid(path)] == ["one", "three", "four"]
    assert path.with_suffix(".damaged").read_bytes() == damaged
    again = path.read_bytes().replace(b'"role":"user"', b'"role":"????"', 1)
    path.write_bytes(again)
    assert texts(conversation.read()) == ["three", "four"]
    assert path.with_suffix(".damaged").read_bytes() == damaged
    assert path.with_suffix(".damaged-2").read_bytes() == again
    conversation.delete()
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_was_laid_out_anew_by_hand_loses_nothing(tmp_path: Path) -> None:
    conversation, path = begin(tmp_path, "one", "two")
    document = json.loads(path.read_bytes())
    document["note"] = document["messages"][0]["stars"] = 5
    del document["messages"][1]["created_at"]
    path.write_text(json.dumps(document, indent=4))
    assert texts(conversation.read()) == ["one", "two"]
    assert conversation.append([said("three")]) == 3
    assert json.loads(path.read_bytes())["note"] == 5
    assert check_valid(path)[0]["stars"] == 5
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize(
    "edit",
    [
        lambda data: data.replace(b"},\n{", b"}\n{"),  # a comma lost
        lambda data: data.replace(b"\n]}\n", b",\n]}\n"),  # a comma left over
        lambda data: data.replace(b"\n", b"\r\n"),
        lambda data: data.rstrip(),
        lambda data: data + b"\n\n",
        lambda data: data.replace(b'{"seq":2,', b"{"),
    ],
)
def test_what_an_editor_does_to_a_file_is_put_right(tmp_path: Path, edit: object) -> None:
    conversation, path = begin(tmp_path, "one", "two")
    path.write_bytes(edit(path.read_bytes()))  # type: ignore[operator]
    assert conversation.append([said("three")]) == 3
    assert texts(conversation.read()) == ["one", "two", "three"]
    assert [message["content"] for message in check_valid(path)] == ["one", "two", "three"]


def test_a_deleted_file_is_not_made_again(tmp_path: Path) -> None:
    conversation, _ = begin(tmp_path, "one")
    conversation.delete()
    conversation.delete()
    with pytest.raises(FileNotFoundError):
        conversation.append([said("two")])
    with pytest.raises(FileNotFoundError):
        conversation.read()
    assert list(tmp_path.iterdir()) == []


def test_an_append_that_waited_does_not_write_to_a_file_that_was_replaced(tmp_path: Path) -> None:
    conversation, path = begin(tmp_path, "one")
    with path.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        waiting = threading.Thread(target=conversation.append, args=([said("two")],))
        waiting.start()
        time.sleep(0.05)
        replacement = tmp_path / "new"
        replacement.write_bytes(path.read_bytes().replace(b"one", b"uno"))
        replacement.replace(path)
    waiting.join(5)
    assert [message["content"] for message in check_valid(path)] == ["uno", "two"]


def test_a_file_that_somebody_holds_for_too_long_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversations, "LOCK_WAIT_S", 0.1)
    conversation, path = begin(tmp_path, "one")
    with path.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(Unavailable):
            conversation.append([said("two")])
        assert texts(conversation.read()) == ["one"]
    assert conversation.append([said("two")]) == 2


def test_a_reader_never_sees_half_a_message(tmp_path: Path) -> None:
    conversation, path = begin(tmp_path, "0")
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            conversation.append([said("x" * 20_000), said("y" * 20_000)])

    writer = threading.Thread(target=write)
    writer.start()
    try:
        counts = []
        deadline = time.monotonic() + 1
        while time.monotonic() < deadline:
            window = conversation.read(3)
            assert {len(text) for text in texts(window)} <= {1, 20_000}
            counts.append(window[-1].seq)
    finally:
        stop.set()
        writer.join()
    assert counts == sorted(counts)
    assert counts[-1] > 1
    check_valid(path)
    assert len(list(tmp_path.iterdir())) == 1


APPEND_UNTIL_FULL = """
import resource, sys
from pathlib import Path
from backend.core.errors import StorageFailed
from backend.core.storage.conversations import Conversation, StoredMessage
conversation = Conversation(Path(sys.argv[1]), sys.argv[2])
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), int(sys.argv[3])))
kept = 1
try:
    while kept < 1000:
        kept = conversation.append([StoredMessage("user", "x" * 300)], durable=True)
except StorageFailed as error:
    print(kept, error.message)
"""


@pytest.mark.parametrize("limit", [5000, 5001, 5302, 5500])
def test_a_full_disk_leaves_the_file_as_it_was(tmp_path: Path, limit: int) -> None:
    conversation, path = begin(tmp_path, "one")
    output, _ = run_python(APPEND_UNTIL_FULL, tmp_path, SESSION, limit).communicate(timeout=30)
    kept, _, message = output.partition(" ")
    assert "disk is full" in message
    assert len(check_valid(path)) == int(kept) > 5
    assert conversation.append([said("there is room again")]) == int(kept) + 1


def test_a_full_disk_at_the_start_leaves_nothing(tmp_path: Path) -> None:
    code = APPEND_UNTIL_FULL.replace("kept = 1\n", "kept = 0\n").replace(
        "kept = conversation.append(", "kept = conversation.create('alice', created_at=0, messages=[said] * 20) # "
    )
    code = code.replace("kept = 0", "kept, said = 0, StoredMessage('user', 'x' * 300)")
    output, _ = run_python(code, tmp_path, SESSION, 4000).communicate(timeout=30)
    assert output.startswith("0 The server's disk is full")
    assert list(tmp_path.iterdir()) == []


APPEND_MANY = """
import sys
from pathlib import Path
from backend.core.storage.conversations import Conversation, StoredMessage
conversation = Conversation(Path(sys.argv[1]), sys.argv[2])
for number in range(int(sys.argv[4])):
    text = f"{sys.argv[3]} {number} " + "x" * (number * 7919 % 30000)
    conversation.append([StoredMessage("user", text)], durable=number % 5 == 0)
    print(number, flush=True)
"""


def test_two_processes_that_append_to_one_conversation_lose_nothing(tmp_path: Path) -> None:
    _, path = begin(tmp_path)
    running = [run_python(APPEND_MANY, tmp_path, SESSION, name, 500) for name in ("a", "b")]
    for process in running:
        process.communicate(timeout=50)
        assert process.returncode == 0
    kept = [str(message["content"]).split()[:2] for message in check_valid(path)]
    for name in ("a", "b"):
        assert [number for who, number in kept if who == name] == [str(number) for number in range(500)]
    assert len(list(tmp_path.iterdir())) == 1


def test_what_was_acknowledged_outlives_a_killed_process(tmp_path: Path) -> None:
    conversation, path = begin(tmp_path)
    expected: list[tuple[str, int]] = []
    for kill in range(KILLS):
        process = run_python(APPEND_MANY, tmp_path, SESSION, kill, 100_000)
        assert process.stdout is not None
        process.stdout.readline()  # it has begun
        time.sleep(0.001 * (kill * 7 % 23))
        process.send_signal(signal.SIGKILL)
        rest = process.communicate(timeout=20)[0].splitlines()
        acknowledged = int(rest[-1]) if rest and rest[-1].isdigit() else 0
        kept = [(str(m.content).split()[0], int(str(m.content).split()[1])) for m in conversation.read()]
        mine = [number for who, number in kept if who == str(kill)]
        assert mine == list(range(len(mine)))
        assert len(mine) > acknowledged
        assert kept[: len(expected)] == expected
        expected = kept
        check_valid(path)


def test_a_disk_that_cannot_be_written_is_an_error_with_a_name(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageFailed):
        Conversation(tmp_path / "file", SESSION).create("alice", [], created_at=0)


def test_a_mended_file_is_read_even_if_the_repair_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    conversation, path = begin(tmp_path, "one", "two")
    path.write_bytes(path.read_bytes()[:-20])

    def fail(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", fail)
    assert texts(conversation.read()) == ["one"]
    with pytest.raises(StorageFailed):
        conversation.append([said("three")])
