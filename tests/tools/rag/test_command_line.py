"""`python -m tools.rag`, as a process of its own."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from tests.support import documents
from tests.support.accounts import opened_accounts
from tests.tools.rag.conftest import opened_collections

ROOT = Path(__file__).parents[3]


@pytest.fixture
async def data_dir(tmp_path: Path) -> Path:
    """The data of a server that is down, and that has one user."""
    async with opened_accounts(tmp_path / "data") as accounts:
        await accounts.users.create("alice", "correct horse", "user")
    return tmp_path / "data"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "manuals"
    (folder / "deep").mkdir(parents=True)
    documents.make_pdf(folder / "bridges.pdf", ["# Rivers\nThe Elbe.", "# Bridges\nPrague has sixteen arches."])
    (folder / "deep" / "año 手册.md").write_text("# Kettles\n\nDescale the kettle with vinegar.")
    (folder / ".hidden.txt").write_text("hidden")
    return folder


async def run(data_dir: Path, model: Path, *arguments: str | Path) -> tuple[int, str, str]:
    process = await start(data_dir, model, *arguments)
    async with asyncio.timeout(60):
        out, err = await process.communicate()
    return process.returncode or 0, out.decode(), err.decode()


async def start(data_dir: Path, model: Path, *arguments: str | Path) -> asyncio.subprocess.Process:
    pipe = asyncio.subprocess.PIPE
    env = {"PATH": os.environ["PATH"], "DATA_DIR": str(data_dir), "RAG_EMBEDDING_MODEL": str(model), "LANG": "C.UTF-8"}
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tools.rag", *map(str, arguments), cwd=ROOT, env=env, stdout=pipe, stderr=pipe
    )


async def test_a_folder_is_read_searched_listed_and_verified(data_dir: Path, tiny_model: Path, folder: Path) -> None:
    mine = ("--user", "Alice", "--collection", "manuals")
    code, out, err = await run(data_dir, tiny_model, "ingest", folder, *mine)
    assert (code, err) == (0, "")
    assert out.splitlines()[0].startswith("added      bridges.pdf: 2 pages, ")
    assert "deep/año 手册.md" in out
    assert "2 of 2 files are in the collection manuals." in out
    code, out, _ = await run(data_dir, tiny_model, "ingest", folder / "bridges.pdf", *mine)
    assert out.startswith("unchanged  bridges.pdf")
    code, out, _ = await run(data_dir, tiny_model, "search", "arches in Prague", *mine, "--limit", "1")
    assert (code, out.startswith("[1] bridges.pdf, page 2, Bridges")) == (0, True)
    code, out, _ = await run(data_dir, tiny_model, "stats", *mine)
    assert "documents  2\n" in out
    code, out, _ = await run(data_dir, tiny_model, "list", "--user", "alice")
    assert out.split()[1:] == ["2", "documents", "manuals"]
    code, out, _ = await run(data_dir, tiny_model, "list", *mine)
    assert [line.split()[-1] for line in out.splitlines()] == ["bridges.pdf", "手册.md"]
    code, out, _ = await run(data_dir, tiny_model, "verify", *mine)
    assert (code, out.endswith("all is well\n")) == (0, True)


async def test_a_bad_file_is_told_and_the_others_are_taken(data_dir: Path, tiny_model: Path, folder: Path) -> None:
    documents.make_pdf(folder / "secret.pdf", ["hidden"], password="x")
    (folder / "a\x1b[2J.txt").write_text("An odd name.")
    code, out, _ = await run(data_dir, tiny_model, "ingest", folder, "--user", "alice")
    failed = [line for line in out.splitlines() if line.startswith("failed")]
    assert (code, len(failed)) == (1, 2)
    assert "\x1b" not in out
    assert "2 of 4 files are in the collection default." in out


async def test_what_is_well_no_more_is_told(data_dir: Path, tiny_model: Path, folder: Path) -> None:
    await run(data_dir, tiny_model, "ingest", folder, "--user", "alice")
    next((data_dir / "rag" / "alice").glob("vs_*/files/doc_*")).unlink()
    code, out, err = await run(data_dir, tiny_model, "verify", "--user", "alice")
    assert (code, "original" in err, out.endswith("not well\n")) == (1, True, True)


async def test_another_process_sees_what_was_read_while_it_ran(data_dir: Path, tiny_model: Path, folder: Path) -> None:
    async with opened_collections(data_dir, tiny_model) as server:
        assert await server.search("alice", [], "kettle") == []
        await run(data_dir, tiny_model, "ingest", folder, "--user", "alice")
        assert [one.document for one in await server.search("alice", [], "kettle", limit=1)] == ["deep/año 手册.md"]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["list", "--user", "nobody"], 1, "nobody"),
        (["search", "a", "--user", "alice", "--collection", "none"], 1, "no such collection"),
        (["ingest", "/no/such/folder", "--user", "alice"], 1, "/no/such/folder"),
        (["ingest", "/dev/null", "--user", "alice"], 1, "no file"),
        (["ingest", ".", "--user", "alice", "--collection", "../../etc"], 1, "name"),
        (["dance"], 2, "dance"),
        (["list"], 2, "--user"),
    ],
)
async def test_what_is_wrong_is_said_in_a_line(
    data_dir: Path, tiny_model: Path, arguments: list[str], code: int, message: str
) -> None:
    returned, out, err = await run(data_dir, tiny_model, *arguments)
    assert (returned, out) == (code, "")
    assert message in err
    assert "Traceback" not in err


async def test_a_missing_model_is_told(data_dir: Path, tmp_path: Path) -> None:
    code, _, err = await run(data_dir, tmp_path / "no model", "list", "--user", "alice")
    assert (code, "Traceback" in err) == (1, False)
    assert err


async def test_ctrl_c_leaves_nothing_half_done(data_dir: Path, tiny_model: Path, tmp_path: Path) -> None:
    long = tmp_path / "long.txt"
    long.write_text("".join(f"Sentence number {number} tells of the river.\n\n" for number in range(60_000)))
    process = await start(data_dir, tiny_model, "ingest", long, "--user", "alice")
    async with asyncio.timeout(60):
        while not list(data_dir.glob("rag/alice/vs_*")):
            await asyncio.sleep(0.02)
        await asyncio.sleep(0.5)
        process.send_signal(signal.SIGINT)
        _, err = await process.communicate()
    assert (process.returncode, b"Stopped." in err, b"Traceback" in err) == (1, True, False)
    async with opened_collections(data_dir, tiny_model) as collections:
        assert await collections.list_documents("alice") == []
    assert [path.name for path in data_dir.glob("rag/alice/vs_*/files/*") if path.name != ".lock"] == []
