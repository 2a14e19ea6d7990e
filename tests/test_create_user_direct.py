"""The command line as people and scripts run it: a process of its own, with and without a terminal."""

import os
import pty
import re
import select
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import create_user_direct

PROGRAM = Path(create_user_direct.__file__)
Run = Callable[..., subprocess.CompletedProcess[str]]


def environment(data_dir: Path) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "DATA_DIR": str(data_dir), "BCRYPT_ROUNDS": "4"}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    def run(*arguments: str, password: str | bytes = "", **more: str) -> subprocess.CompletedProcess[str]:
        given = password if isinstance(password, bytes) else password.encode()
        return subprocess.run(
            [sys.executable, PROGRAM, *arguments],
            input=given.decode("utf-8", "surrogateescape"),
            capture_output=True,
            text=True,
            errors="surrogateescape",
            cwd=tmp_path,
            env={**environment(tmp_path / "data"), **more},
            timeout=60,
        )

    return run


def add(run: Run, username: str = "alice", role: str = "user") -> None:
    assert run("--username", username, "--role", role, "--password-stdin", password="correct horse").returncode == 0


def test_a_script_makes_an_admin_and_is_told_where(run: Run, tmp_path: Path) -> None:
    made = run("--username", "alice", "--role", "admin", "--password-stdin", password="correct horse\n")
    assert (made.returncode, made.stderr) == (0, "")
    assert made.stdout == f"Made alice (admin) in sqlite:///{tmp_path}/data/app.db\n"
    listed = run("--list")
    assert re.search(r"^alice +admin +enabled +\d{4}-\d\d-\d\d \d\d:\d\d$", listed.stdout, re.MULTILINE)


def test_a_script_that_names_no_role_makes_a_user(run: Run) -> None:
    assert "alice (user)" in run("--username", "alice", "--password-stdin", password="x").stdout


@pytest.mark.parametrize(
    ("username", "password", "said"),
    [
        ("alice", "", "empty"),
        ("alice", "🔑" * 18 + "x", "73 bytes"),
        ("alice", b"\xff\xfe", "Unicode"),
        ("al ice", "x", "1 to 64 characters"),
    ],
)
def test_a_refusal_is_one_line_and_code_1(run: Run, username: str, password: str | bytes, said: str) -> None:
    refused = run("--username", username, "--password-stdin", password=password)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr.startswith("create_user_direct: ")
    assert refused.stderr.count("\n") == 1
    assert said in refused.stderr


def test_a_taken_name_is_refused_and_keeps_its_password(run: Run) -> None:
    add(run)
    refused = run("--username", "ALICE", "--password-stdin", password="other")
    assert refused.returncode == 1
    assert "taken" in refused.stderr


@pytest.mark.parametrize("option", ["--delete", "--reset-password", "--disable", "--enable", "--make-key"])
def test_an_unknown_name_is_refused(run: Run, option: str) -> None:
    stdin = ["--password-stdin"] if option == "--reset-password" else []
    refused = run(option, "nobody", *stdin, password="x")
    assert (refused.returncode, refused.stderr) == (1, "create_user_direct: There is no user nobody.\n")


@pytest.mark.parametrize(
    "arguments",
    [
        ["--username", "alice"],
        ["--reset-password", "alice"],
        [],
        ["--password-stdin"],
        ["--list", "--username", "alice"],
        ["--list", "--password-stdin"],
        ["--list", "--delete", "alice"],
        ["--username", "alice", "--role", "root", "--password-stdin"],
        ["--password", "secret"],
        ["--username", "alice", "--password-stdin=secret"],
        ["alice"],
    ],
)
def test_wrong_usage_is_code_2_and_changes_nothing(
    tmp_path: Path, arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DATA_DIR", str(tmp_path / "data"))
    with pytest.raises(SystemExit) as refused:
        create_user_direct.main(arguments)
    assert refused.value.code == 2
    assert "usage:" in capsys.readouterr().err
    assert not (tmp_path / "data").exists()


def test_an_account_is_disabled_enabled_and_deleted(run: Run) -> None:
    add(run, role="admin")  # the last one, too: whoever has this command line has the server
    assert run("--disable", "alice").stdout == "alice is disabled.\n"
    assert "disabled" in run("--list").stdout
    assert run("--enable", "ALICE").stdout == "alice is enabled.\n"
    assert run("--delete", "alice").stdout == "alice is deleted.\n"
    assert "alice" not in run("--list").stdout


def test_a_new_key_is_all_that_is_printed(run: Run) -> None:
    add(run)
    made = run("--make-key", "alice")
    assert re.fullmatch(r"sk-[A-Za-z0-9_-]{48}\n", made.stdout)
    assert made.stderr == ""
    run("--disable", "alice")
    assert "disabled" in run("--make-key", "alice").stderr


def test_a_reset_password_is_the_only_one_that_works_then(run: Run, tmp_path: Path) -> None:
    add(run)
    assert run("--reset-password", "alice", "--password-stdin", password="battery staple\r\n").returncode == 0
    code = (
        "import asyncio, pathlib, sys\n"
        "from tests.support.accounts import opened_accounts\n"
        "async def main():\n"
        "    async with opened_accounts(pathlib.Path(sys.argv[1])) as opened:\n"
        "        user = await opened.users.get('alice')\n"
        "        verify = opened.accounts.passwords.verify\n"
        "        print([await verify(word, user.password_hash) for word in ('correct horse', 'battery staple')])\n"
        "asyncio.run(main())\n"
    )
    checked = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "data")], capture_output=True, text=True, timeout=60
    )
    assert checked.stdout == "[False, True]\n", checked.stderr


def test_the_other_settings_are_the_servers(run: Run, tmp_path: Path) -> None:
    made = run(
        *("--username", "alice", "--password-stdin"), password="x", DATABASE_URL=f"sqlite:///{tmp_path}/other.db"
    )
    assert "other.db" in made.stdout
    assert (tmp_path / "other.db").exists()
    assert not (tmp_path / "data" / "app.db").exists()


def test_a_wrong_setting_and_an_unusable_folder_are_one_line(run: Run, tmp_path: Path) -> None:
    refused = run("--list", BCRYPT_ROUNDS="99")
    assert (refused.returncode, refused.stderr.count("\n")) == (1, 1)
    assert "BCRYPT_ROUNDS" in refused.stderr
    (tmp_path / "data").write_text("a file in the way")
    refused = run("--list")
    assert (refused.returncode, refused.stderr.count("\n")) == (1, 1)
    (tmp_path / "data").unlink()
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "app.db").write_text("not a database, and long enough to be looked at as one" * 50)
    refused = run("--list")
    assert (refused.returncode, refused.stderr.count("\n")) == (1, 1)


def test_help_shows_examples(run: Run) -> None:
    shown = run("--help")
    assert shown.returncode == 0
    for option in ("--password-stdin", "--reset-password", "--make-key", "examples:"):
        assert option in shown.stdout


class Terminal:
    """A person at a terminal: waits for a prompt, types an answer."""

    def __init__(self, data_dir: Path, *arguments: str) -> None:
        self._ours, theirs = pty.openpty()
        self._process = subprocess.Popen(
            [sys.executable, PROGRAM, *arguments],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=environment(data_dir),
            start_new_session=True,
        )
        os.close(theirs)
        self.seen = ""

    def answer(self, prompt: str, text: str) -> None:
        self._read_until(lambda: prompt in self.seen)
        self.seen = self.seen[self.seen.index(prompt) + len(prompt) :]
        os.write(self._ours, text.encode() + b"\n")

    def finish(self) -> int:
        self._read_until(lambda: False)
        os.close(self._ours)
        return self._process.wait(timeout=10)

    def _read_until(self, done: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 30
        while not done():
            ready, _, _ = select.select([self._ours], [], [], deadline - time.monotonic())
            assert ready, f"still waiting after: {self.seen!r}"
            try:
                piece = os.read(self._ours, 4096)
            except OSError:  # the other end is closed
                return
            self.seen += piece.decode()


def test_a_person_is_asked_until_the_answers_are_good_and_no_password_is_shown(tmp_path: Path, run: Run) -> None:
    terminal = Terminal(tmp_path / "data")
    terminal.answer("Username: ", "al ice")
    terminal.answer("Username: ", "alice")
    terminal.answer("Password (hidden): ", "🔑" * 19)
    terminal.answer("Password (hidden): ", "correct horse")
    terminal.answer("The same again: ", "correct house")
    terminal.answer("Password (hidden): ", "correct horse")
    terminal.answer("The same again: ", "correct horse")
    terminal.answer("user or admin [user]: ", "king")
    terminal.answer("user or admin [user]: ", "admin")
    assert terminal.finish() == 0
    assert "Made alice (admin)" in terminal.seen
    assert "alice" in run("--list").stdout


def test_what_is_typed_as_a_password_is_not_echoed(tmp_path: Path) -> None:
    terminal = Terminal(tmp_path / "data", "--username", "alice", "--role", "user")
    terminal.answer("Password (hidden): ", "correct horse")
    terminal.answer("The same again: ", "correct horse")
    assert terminal.finish() == 0
    assert "horse" not in terminal.seen


def test_a_person_is_asked_before_everything_is_deleted(tmp_path: Path, run: Run) -> None:
    add(run)
    for answer, code in (("n", 1), ("", 1), ("y", 0)):
        terminal = Terminal(tmp_path / "data", "--delete", "alice")
        terminal.answer("[y/N] ", answer)
        assert terminal.finish() == code
        assert ("alice" in run("--list").stdout) == (code == 1)


def test_leaving_with_ctrl_c_changes_nothing(tmp_path: Path) -> None:
    terminal = Terminal(tmp_path / "data", "--username", "alice")
    terminal.answer("Password (hidden): ", "\x04")
    assert terminal.finish() == 1
    assert "Nothing was changed." in terminal.seen
    assert not (tmp_path / "data").exists()


def test_a_chat_uis_key_forwards_users_and_the_option_goes_with_a_key_alone(run: Run, tmp_path: Path) -> None:
    run("--username", "webui", "--password-stdin", password="correct horse")
    assert run("--make-key", "webui", "--forwards-users").stdout.startswith("sk-")
    with sqlite3.connect(tmp_path / "data" / "app.db") as database:
        assert database.execute("SELECT forwards_users FROM key_options").fetchall() == [(1,)]
    assert run("--list", "--forwards-users").returncode == 2
