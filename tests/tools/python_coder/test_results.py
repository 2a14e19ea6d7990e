# ruff: noqa: E501 (the user's code reads best in one line)
"""What comes back of a call: tables, figures, files, tracebacks, output."""

import asyncio

import pytest
import pytest_asyncio

from tests.tools.python_coder.coder import Coder, started_coder
from tools.python_coder.args import PythonCoderArgs

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def coder(tmp_path_factory):
    async with started_coder(tmp_path_factory.mktemp("data")) as coder:
        yield coder


async def test_tables_are_markdown(coder: Coder):
    code = "import pandas as pd\npd.DataFrame({'name': ['a|b', 'c'], 'price': [1234567.891, 0.5], 'n': [1, 2]})"

    result = await coder.run(code, "table")

    assert result.data["value"].splitlines() == [
        "|  | name | price | n |",
        "| --- | --- | --- | --- |",
        "| 0 | a\\|b | 1234567.891 | 1 |",
        "| 1 | c | 0.5 | 2 |",
    ]


async def test_a_long_table_shows_its_ends_and_its_size(coder: Coder):
    result = await coder.run("import pandas as pd\npd.Series(range(1000), name='n')", "long-table")

    lines = result.data["value"].splitlines()
    assert lines[2] == "| 0 | 0 |"
    assert "| … | … |" in lines
    assert lines[-3:] == ["| 999 | 999 |", "", "(1000 rows)"]


async def test_every_open_figure_becomes_a_picture_without_savefig(coder: Coder):
    code = "import matplotlib.pyplot as plt\nfor n in range(2):\n    plt.figure()\n    plt.plot([1, n])\nplt.show()"

    first = await coder.run(code, "figure")
    second = await coder.run("plt.plot([3]);", "figure")

    assert [file["name"] for file in first.data["files"]] == ["figure-1.png", "figure-2.png"]
    assert [file["name"] for file in second.data["files"]] == ["figure-3.png"]
    assert first.data["files"][0]["url"] == "/api/chat/sessions/figure/files/figure-1.png"
    assert (coder.folder("figure") / "figure-1.png").read_bytes().startswith(b"\x89PNG")
    assert first.data["stderr"] == ""


async def test_a_figure_that_the_code_saved_itself_is_not_saved_twice(coder: Coder):
    code = "import matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.savefig('mine.png')"

    result = await coder.run(code, "own-figure")

    assert [file["name"] for file in result.data["files"]] == ["mine.png"]


async def test_files_made_or_changed_are_listed_and_others_are_not(coder: Coder):
    folder = coder.folder("files")
    await coder.run("pass", "files")
    (folder / "upload.csv").write_text("a,b\n1,2\n")
    await coder.run("open('old.txt', 'w').write('1')", "files")

    code = "import os\nos.mkdir('out')\nopen('out/ä b.txt', 'w').write('new')\nopen('upload.csv', 'a').write('3,4')"
    result = await coder.run(code, "files")

    assert [(file["name"], file["size"]) for file in result.data["files"]] == [("out/ä b.txt", 3), ("upload.csv", 11)]
    assert result.data["files"][0]["url"] == "/api/chat/sessions/files/files/out/%C3%A4%20b.txt"


async def test_a_traceback_shows_the_users_own_lines_alone(coder: Coder):
    await coder.run("import pandas as pd\ndef pick(table):\n    return table['missing']", "traceback")

    result = await coder.run("pick(pd.DataFrame({'a': [1]}))", "traceback")

    assert result.error == "KeyError: 'missing'"
    text = result.data["stderr"]
    assert "return table['missing']" in text
    assert 'File "<cell 2>", line 1' in text
    assert "site-packages" not in text
    assert "tools/python_coder" not in text


async def test_a_syntax_error_points_at_its_place(coder: Coder):
    result = await coder.run("x = (1 +", "syntax")

    assert result.error == "SyntaxError: '(' was never closed"
    assert "x = (1 +\n        ^" in result.data["stderr"]


async def test_long_output_is_cut_in_the_middle_and_kept_whole_in_a_file(coder: Coder):
    result = await coder.run("for n in range(10_000): print('line', n)", "long-output")

    shown = result.data["stdout"]
    assert len(shown) < 17_000
    assert shown.startswith("line 0\n")
    assert shown.endswith("line 9999\n")
    assert "characters left out; whole in stdout-1.txt" in shown
    assert [file["name"] for file in result.data["files"]] == ["stdout-1.txt"]
    assert (coder.folder("long-output") / "stdout-1.txt").read_text().count("\n") == 10_000


async def test_a_file_of_long_output_never_follows_a_link_that_lies_in_its_way(coder: Coder):
    prey = coder.data_dir / "prey"
    prey.write_text("whole")
    await coder.run(f"import os\nos.symlink({str(prey)!r}, 'stdout-1.txt')", "trap")

    result = await coder.run("print('x' * 100_000)", "trap")

    assert prey.read_text() == "whole"
    assert [file["name"] for file in result.data["files"]] == ["stdout-2.txt"]


async def test_output_streams_while_the_code_runs(coder: Coder):
    seen: list[tuple[str, str]] = []
    done = asyncio.Event()

    async def listen(message: str, data: dict) -> None:
        seen.append((message, data["stream"]))
        assert not done.is_set()

    code = "import sys, time\nfor n in range(3):\n    print(n)\n    time.sleep(0.3)\nprint('bad', file=sys.stderr)\ntime.sleep(0.3)"
    await coder.tool.run(PythonCoderArgs(code=code), coder.context("live", progress=listen))
    done.set()

    assert "".join(text for text, stream in seen if stream == "stdout") == "0\n1\n2\n"
    assert len(seen) >= 3
    assert ("bad\n", "stderr") in seen


async def test_a_listener_that_fails_or_hangs_does_not_touch_the_result(coder: Coder):
    async def fail(*_) -> None:
        raise ConnectionError

    async def hang(*_) -> None:
        await asyncio.sleep(3600)

    for session, listener in (("fails", fail), ("hangs", hang)):
        code = "import time\nprint(1)\ntime.sleep(0.5)\n7"
        result = await coder.tool.run(PythonCoderArgs(code=code), coder.context(session, progress=listener))
        assert result.data["value"] == "7"


async def test_input_says_that_nobody_answers(coder: Coder):
    assert "nobody to answer input()" in (await coder.run("input()", "input")).error


async def test_an_attempt_at_the_network_says_that_there_is_none(coder: Coder):
    code = "import urllib.request\nurllib.request.urlopen('https://example.org')"

    assert "There is no network in here" in (await coder.run(code, "network")).error


async def test_the_answer_holds_all_that_a_model_needs(coder: Coder):
    result = await coder.run("print('hello')\nopen('a.txt', 'w').write('x')\n{'k': 1}", "answer")

    assert result.answer == (
        "Output:\nhello\n\nValue:\n{'k': 1}\n\nFiles:\n- a.txt (1 bytes): /api/chat/sessions/answer/files/a.txt"
    )
