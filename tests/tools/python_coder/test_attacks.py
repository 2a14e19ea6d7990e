"""Every attack of the two tables in the real sandbox: as whoever runs the tests, as an ordinary user, and without
namespaces."""

import asyncio
import os
import re
import sys
import tempfile
from pathlib import Path

import pytest
import pytest_asyncio

from tests.tools.python_coder import attacks_inside, attacks_outside
from tests.tools.python_coder.attack import SECRET, Attack
from tests.tools.python_coder.coder import Coder, started_coder
from tools.python_coder.args import PythonCoderArgs

ATTACKS = attacks_outside.ATTACKS + attacks_inside.ATTACKS
ROOT = Path(__file__).parents[3]
TIER = int(os.environ.get("ATTACKS_TIER", "1"))
INNER = "ATTACKS_TIER" in os.environ  # one of the runs that the last tests of this file start

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(120)]


class Prey:
    """What the attacks are after: everything that they touch is noticed."""

    def __init__(self, coder: Coder, words: dict[str, str]) -> None:
        self.coder = coder
        self.words = words
        self.visitors = 0

    def visit(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.visitors += 1
        writer.close()

    def is_whole(self) -> bool:
        data = self.coder.data_dir
        files = [data / ".env", data / "jwt_secret", data / "app.db", data / "scratch/neighbour/diary.txt"]
        return self.visitors == 0 and all(file.read_text() == SECRET for file in files)


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def prey():
    os.environ["SERVER_SECRET"] = SECRET
    with tempfile.TemporaryDirectory(prefix="coder-") as folder:
        data = Path(folder, "data")
        (data / "scratch/neighbour").mkdir(parents=True)
        for name in (".env", "jwt_secret", "app.db", "scratch/neighbour/diary.txt"):
            (data / name).write_text(SECRET)
        async with started_coder(data, first_tier=TIER) as coder:
            assert coder.tool.status().details["tier"] == TIER
            prey = Prey(coder, {"data": str(data), "scratch": str(data / "scratch"), "root": str(ROOT)})
            tcp = await asyncio.start_server(prey.visit, "127.0.0.1", 0)
            unix = await asyncio.start_unix_server(prey.visit, f"{folder}/unix")
            abstract = await asyncio.start_unix_server(prey.visit, f"\0coder-{os.getpid()}")
            prey.words |= {"nap": f"31337.{os.getpid()}"}  # for how long a daemon sleeps: its name in the process list
            prey.words |= {"unix": f"{folder}/unix", "abstract": f"coder-{os.getpid()}"}
            prey.words |= {"port": str(tcp.sockets[0].getsockname()[1]), "server": str(os.getpid())}
            yield prey
            for server in (tcp, unix, abstract):
                server.close()
    del os.environ["SERVER_SECRET"]


def _label(attack: Attack) -> str:
    return re.sub(r"\W+", "-", attack.name)


@pytest.mark.parametrize("attack", ATTACKS, ids=_label)
async def test_an_attack_fails_and_the_session_lives_on(prey: Prey, attack: Attack):
    session = f"attack-{_label(attack)}"
    code = re.sub(r"@(\w+)@", lambda match: prey.words.get(match[1], match[0]), attack.code)

    result = await prey.coder.run(code, session, timeout=attack.timeout or 10)

    assert len(list(Path("/proc/self/fd").iterdir())) < 80  # whatever it sent us, we do not hold it
    assert attack.holds(result), result
    assert SECRET not in repr(result)
    assert prey.is_whole()
    assert await _no_process_like(prey.words["nap"])
    after = await prey.coder.run("print('well')\n40 + 2", session)
    if not after.success:  # what it broke was its own interpreter: that was replaced, and the next call must work
        after = await prey.coder.run("print('well')\n40 + 2", session)
    assert (after.data["value"], after.data["stdout"]) == ("42", "well\n"), after


async def test_code_of_ten_megabytes_is_refused_before_it_runs():
    with pytest.raises(ValueError, match="at most"):
        PythonCoderArgs(code="#" * 10_000_000)


@pytest.mark.skipif(os.geteuid() != 0 or INNER, reason="starts as root and becomes somebody else")
@pytest.mark.timeout(400)
async def test_the_attacks_fail_for_an_ordinary_user_too_with_namespaces_and_without():
    outcomes = await asyncio.gather(_run_as_user(tier=1), _run_as_user(tier=2))

    for code, text in outcomes:
        assert code == 0, text[-6000:]
        assert int(re.search(r"(\d+) passed", text)[1]) > len(ATTACKS)


async def _run_as_user(tier: int) -> tuple[int, str]:
    command = [sys.executable, "-m", "tests.tools.python_coder.as_user", sys.executable, "-m", "pytest"]
    process = await asyncio.create_subprocess_exec(
        *command,
        *("-p", "no:cacheprovider", str(Path(__file__).relative_to(ROOT))),
        cwd=ROOT,
        env=os.environ | {"ATTACKS_TIER": str(tier)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        text, _ = await asyncio.wait_for(process.communicate(), 380)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return process.returncode, text.decode(errors="replace")


async def _no_process_like(word: str) -> bool:
    """Whether none is left. What was killed may take a moment to go; a daemon would sleep for hours."""
    for _ in range(100):
        if not await asyncio.to_thread(_processes_like, word):
            return True
        await asyncio.sleep(0.05)
    return False


def _processes_like(word: str) -> list[str]:
    found = []
    for folder in Path("/proc").iterdir():
        try:
            line = (folder / "cmdline").read_bytes() if folder.name.isdigit() else b""
        except OSError:
            continue
        if word.encode() in line:
            found.append(line.decode(errors="replace"))
    return found
