"""What a user's sessions may keep on the disk: told where a next call begins."""

from pathlib import Path

import pytest

from backend.core.storage import scratch_quota
from tests.support.agents import NativeModel, running_agents
from tests.support.llm_script import Reply

MIB = b"x" * 2**20
FILE = {"type": "file", "file": {"filename": "a.txt", "file_data": "aGVsbG8="}}


async def test_who_has_too_much_is_told_and_goes_on_after_deleting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scratch_quota, "LOOK_S", 0.0)
    async with NativeModel() as model, running_agents(tmp_path, model, USER_SCRATCH_MB=1) as agents:
        first = await agents.ask("Hello")
        folder = agents.data_dir / "scratch" / first["session_id"] / "deep"
        folder.mkdir(parents=True)
        (folder / "large.bin").write_bytes(MIB)
        (folder / "elsewhere").symlink_to("/usr")
        (folder / "more.bin").write_bytes(b"x")

        model.script(Reply(text="", tool_calls=(("toy", {"act": "echo"}),)), Reply(text="So be it."))
        told = await agents.ask("Use the toy.")
        assert told["choices"][0]["message"]["content"] == "So be it."
        assert "1 MiB are the most. Delete sessions" in str(model.chats[-1].body["messages"][-1])
        assert agents.toy.journal == ["started"]
        content = [{"type": "text", "text": "What is in it?"}, FILE]
        body = {"messages": [{"role": "user", "content": content}]}
        refused = await agents.alice.post("/v1/chat/completions", json=body)
        assert (refused.status_code, refused.json()["error"]["code"]) == (413, "storage_quota_exceeded")
        assert (await agents.bob.post("/v1/chat/completions", json=body)).status_code == 200

        assert (await agents.alice.delete(f"/api/chat/sessions/{first['session_id']}")).status_code in {200, 204}
        assert (await agents.alice.post("/v1/chat/completions", json=body)).status_code == 200
