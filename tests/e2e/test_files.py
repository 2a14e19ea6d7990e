"""Files, as a user of OpenAI's own client keeps and sends them, over the real processes and a real model."""

import base64
from pathlib import Path

import httpx
from openai import OpenAI

from tests.e2e.launch import Copy
from tests.support import documents


def test_files_are_kept_sent_and_described(copy: Copy, client: OpenAI, tmp_path: Path) -> None:
    path = documents.make_pdf(tmp_path / "bridges.pdf", ["# Arches\nAn arch carries its load."])
    with path.open("rb") as file:
        kept = client.files.create(file=file, purpose="user_data")
    assert client.files.retrieve(kept.id).filename == "bridges.pdf"
    assert kept.id in [file.id for file in client.files.list()]
    assert client.files.content(kept.id).read() == path.read_bytes()
    table = base64.b64encode(b"day,price\n2024-05-01,3\n").decode()
    answer = client.chat.completions.create(
        model="default",
        max_tokens=8,
        messages=[
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "What are these?"},
                    {"type": "file", "file": {"file_id": kept.id}},
                    {"type": "file", "file": {"filename": "a.csv", "file_data": f"data:text/csv;base64,{table}"}},
                ],
            }
        ],
    )
    assert answer.choices[0].message.content
    session = (answer.model_extra or {})["session_id"]
    scratch = copy.data_dir / "scratch" / session
    assert sorted(file.name for file in scratch.iterdir() if not file.name.startswith(".")) == ["a.csv", "bridges.pdf"]
    headers = {"Authorization": f"Bearer {client.api_key}"}
    prompt = httpx.get(f"{copy.main_url}/api/chat/history/{session}", headers=headers).json()["messages"][0]["content"]
    assert "An arch carries its load." in prompt
    assert "day (date), price (integer)" in prompt
    assert client.files.delete(kept.id).deleted
