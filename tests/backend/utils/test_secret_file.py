import stat
import subprocess
import sys
from pathlib import Path

import pytest

from backend.utils.secret_file import load_or_make_secret


def test_a_configured_secret_is_used_and_nothing_is_written(tmp_path: Path) -> None:
    assert load_or_make_secret(tmp_path / "data", "configured secret value") == "configured secret value"
    assert list(tmp_path.iterdir()) == []


def test_a_secret_is_made_once_and_kept_for_its_owner_alone(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    secret = load_or_make_secret(data_dir, "")
    assert len(secret) >= 32
    assert load_or_make_secret(data_dir, "") == secret
    assert [path.name for path in data_dir.iterdir()] == ["jwt_secret"]
    assert stat.S_IMODE((data_dir / "jwt_secret").stat().st_mode) == 0o600


def test_two_installations_have_different_secrets(tmp_path: Path) -> None:
    assert load_or_make_secret(tmp_path / "one", "") != load_or_make_secret(tmp_path / "two", "")


def test_processes_that_start_at_once_agree_on_one_secret(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from backend.utils.secret_file import load_or_make_secret; "
        "sys.stdout.write('ready\\n'); sys.stdout.flush(); sys.stdin.readline(); "
        f"sys.stdout.write(load_or_make_secret(Path({str(tmp_path / 'data')!r}), ''))"
    )
    processes = [
        subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    secrets = {process.communicate(timeout=30)[0] for process in processes}
    assert len(secrets) == 1
    assert len(secrets.pop()) >= 32
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["jwt_secret"]


def test_a_secret_that_others_can_read_is_closed_to_them_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    secret = load_or_make_secret(tmp_path, "")
    (tmp_path / "jwt_secret").chmod(0o644)
    assert load_or_make_secret(tmp_path, "") == secret
    assert stat.S_IMODE((tmp_path / "jwt_secret").stat().st_mode) == 0o600
    assert "other accounts" in caplog.text
    assert secret not in caplog.text


@pytest.mark.parametrize("content", [b"", b"\n", b"short", b"\xff\xfe" * 20])
def test_a_damaged_secret_stops_the_start_with_one_line_that_says_what_to_do(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "jwt_secret"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(SystemExit) as stopped:
        load_or_make_secret(tmp_path, "")
    message = str(stopped.value)
    assert message.startswith("secret: ")
    assert "JWT_SECRET_KEY" in message
    assert "\n" not in message
    assert path.read_bytes() == content


def test_a_folder_that_cannot_be_made_stops_the_start_with_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(SystemExit, match=r"secret: .*cannot be used"):
        load_or_make_secret(tmp_path / "file" / "data", "")
