# ruff: noqa: E501 (the user's code reads best in one line)
"""What a session's code can count on: its state, its time, its libraries."""

import asyncio
import os

import pytest
import pytest_asyncio

from backend.core.contracts import ToolFailure
from tests.tools.python_coder.coder import Coder, started_coder
from tools.python_coder.args import PythonCoderArgs

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def coder(tmp_path_factory):
    async with started_coder(tmp_path_factory.mktemp("data")) as coder:
        yield coder


async def test_variables_imports_and_files_live_from_call_to_call(coder: Coder):
    await coder.run("import math\nx = 20\nopen('note.txt', 'w').write('kept')", "state")

    result = await coder.run("open('note.txt').read(), math.floor(x * 2.1)", "state")

    assert result.data["value"] == "('kept', 42)"
    assert result.metadata == {"state_kept": True, "notices": []}


async def test_sessions_do_not_share_variables(coder: Coder):
    await coder.run("mine = 1", "one")

    assert (await coder.run("mine", "two")).error == "NameError: name 'mine' is not defined"


async def test_reset_starts_without_variables_and_keeps_files(coder: Coder):
    await coder.run("x = 1\nopen('kept.txt', 'w').write('yes')", "reset")

    result = await coder.run("import os\n'x' in globals(), os.path.exists('kept.txt')", "reset", reset=True)

    assert result.data["value"] == "(False, True)"
    assert result.metadata["notices"] == []  # whoever asks for it need not be told


async def test_a_session_whose_interpreter_died_is_told_so_in_the_same_result(coder: Coder):
    await coder.run("x = 1", "died")

    died = await coder.run("import os\nos._exit(3)", "died")
    after = await coder.run("'x' in globals()", "died")

    assert died.error.endswith("exit code 3. The interpreter was replaced: variables are gone, files are kept.")
    assert (died.data["exit_code"], died.metadata["state_kept"]) == (3, False)
    assert after.data["value"] == "False"


async def test_time_that_is_up_stops_the_code_and_keeps_the_variables(coder: Coder):
    result = await coder.run("x = 5\nimport time\nprint('before')\ntime.sleep(60)", "time", timeout=0.3)

    assert result.error == "The code was stopped: it ran longer than 0.3 s. Its variables are kept."
    assert (result.data["stdout"], result.data["exit_code"]) == ("before\n", 124)
    assert result.data["duration_s"] < 20
    assert (await coder.run("x", "time")).data["value"] == "5"


async def test_a_timeout_above_the_servers_is_cut_to_it(tmp_path):
    async with started_coder(tmp_path, DEFAULT_TOOL_TIMEOUT=0.5) as short:
        assert short.tool.spec.timeout_s > 0.5

        assert "longer than 0.5 s" in (await short.run("import time\ntime.sleep(21)", timeout=10_000)).error


async def test_classes_of_the_session_can_be_pickled(coder: Coder):
    code = "import pickle\nclass Point:\n    x = 3\npickle.loads(pickle.dumps(Point())).x"

    assert (await coder.run(code, "pickle")).data["value"] == "3"


async def test_await_works_at_the_top_level(coder: Coder):
    code = "import asyncio\nqueue = asyncio.Queue()\nawait queue.put(1)\nawait queue.get()"

    assert (await coder.run(code, "await")).data["value"] == "1"
    assert (await coder.run("await queue.put(2)\nawait queue.get()", "await")).data["value"] == "2"


async def test_a_semicolon_hides_the_value(coder: Coder):
    assert (await coder.run("1 + 1;", "semicolon")).data["value"] is None


async def test_nothing_of_a_session_runs_between_its_calls(coder: Coder):
    code = "import threading, time\nn = 0\ndef count():\n    global n\n    while True:\n        n += 1\n        time.sleep(0.001)\n"
    await coder.run(code + "threading.Thread(target=count, daemon=True).start()", "still")
    first = int((await coder.run("n", "still")).data["value"])

    await asyncio.sleep(0.5)

    assert int((await coder.run("n", "still")).data["value"]) - first < 100


async def test_sys_exit_ends_the_call_and_not_the_session(coder: Coder):
    result = await coder.run("x = 1\nimport sys\nsys.exit(4)", "exit")

    assert (result.success, result.data["exit_code"], result.error) == (False, 4, "SystemExit: 4")
    assert (await coder.run("x", "exit")).data["value"] == "1"
    assert (await coder.run("sys.exit()", "exit")).success


async def test_forks_of_one_parent_have_random_numbers_of_their_own(coder: Coder):
    code = "import random, numpy\nrandom.random(), numpy.random.rand()"

    values = {(await coder.run(code, f"random-{n}")).data["value"] for n in range(3)}

    assert len(values) == 3


@pytest.mark.timeout(150)
async def test_libraries_that_people_expect_can_be_imported(coder: Coder):
    code = "import numpy, pandas, matplotlib, scipy, sympy, openpyxl, PIL, docx, pypdf, seaborn, tabulate"

    assert (await coder.run(code, "libraries")).success


async def test_a_spreadsheet_can_be_written_and_read_back(coder: Coder):
    code = "import pandas as pd\npd.DataFrame({'a': [1, 2]}).to_excel('t.xlsx', index=False)\nint(pd.read_excel('t.xlsx').a.sum())"

    assert (await coder.run(code, "excel", timeout=20)).data["value"] == "3"


async def test_subprocesses_pipes_threads_and_pools_work(coder: Coder):
    code = (
        "import subprocess, multiprocessing, concurrent.futures as f\n"
        "def double(n): return 2 * n\n"
        "with multiprocessing.get_context('fork').Pool(2) as pool: a = pool.map(double, [1, 2])\n"
        "with f.ThreadPoolExecutor(2) as pool: b = list(pool.map(double, [3]))\n"
        "a, b, subprocess.check_output('echo hi | tr a-z A-Z', shell=True)"
    )

    assert (await coder.run(code, "subprocess")).data["value"] == "([2, 4], [6], b'HI\\n')"


async def test_a_folder_that_is_no_session_of_ours_is_refused(coder: Coder, tmp_path):
    context = coder.context("x")
    for folder in (tmp_path, coder.folder("x") / "..", coder.folder("x") / "y", coder.folder(".hidden")):
        stray = type(context)("alice", "x", "r", folder)
        with pytest.raises(ToolFailure, match="no folder"):
            await coder.tool.run(PythonCoderArgs(code="1"), stray)


async def test_the_folder_is_open_to_nobody_else(coder: Coder):
    await coder.run("pass", "private")
    status = coder.folder("private").stat()

    assert status.st_mode & 0o777 == 0o700
    assert (status.st_uid != 0) == (os.geteuid() == 0) or os.geteuid() != 0


@pytest.mark.parametrize("arguments", [{"code": ""}, {"code": "1", "timeout": 0}, {"code": "1", "timeout": -1}, {}])
async def test_bad_arguments_are_refused(arguments):
    with pytest.raises(ValueError, match="validation error"):
        PythonCoderArgs(**arguments)
