import os
import subprocess
import sys
from pathlib import Path

import pytest

from backend.utils.paths import UnsafePath, open_beneath, remove_tree, safe_join

UNSAFE = [
    "",
    ".",
    "..",
    "../x",
    "a/../../x",
    "a/..",
    "/etc/passwd",
    "//x",
    "a//b",
    "a/",
    "./a",
    "a\x00b",
    "a\nb",
    "\x7f",
    "\ud800",
    "x" * 256,
    "ü" * 128,
    "/".join(["x" * 100] * 11),
]
# Look-alikes and things that are special elsewhere: here they are ordinary characters of a name.
ORDINARY = [
    "a",
    "a/b/c.txt",
    "...",
    "..a",
    "．．／x",
    "․․∕x",
    "..\\x",
    "~",
    "$HOME",
    "%2e%2e%2fx",
    "C:",
    "\u202ea",
    "x" * 255,
    "ü",
]


@pytest.mark.parametrize("name", UNSAFE)
def test_a_name_that_is_no_path_inside_the_folder_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UnsafePath):
        safe_join(tmp_path, name)
    with pytest.raises(UnsafePath):
        open_beneath(tmp_path, name)


@pytest.mark.parametrize("name", ORDINARY)
def test_an_ordinary_name_stays_inside_the_folder(tmp_path: Path, name: str) -> None:
    path = safe_join(tmp_path, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")
    assert path.resolve().is_relative_to(tmp_path)
    with open_beneath(tmp_path, name) as file:
        assert file.read() == b"x"


def test_only_ordinary_files_are_opened_and_no_link_is_followed(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "folder").mkdir(parents=True)
    (tmp_path / "secret").write_text("x")
    (root / "link").symlink_to(tmp_path / "secret")
    (root / "inside").symlink_to("folder")
    (root / "folder" / "up").symlink_to(tmp_path)
    os.mkfifo(root / "pipe")
    open_before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    for name in ("link", "inside/x", "folder/up/secret", "pipe", "folder", "missing", "link/x", "missing/x"):
        with pytest.raises(FileNotFoundError):
            open_beneath(root, name)
    with pytest.raises(FileNotFoundError):
        open_beneath(tmp_path / "none", "x")
    assert len(os.listdir("/proc/self/fd")) == open_before  # noqa: PTH208


def test_a_tree_is_removed_and_what_its_links_point_to_is_not(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "file").touch()
    (tmp_path / "tree" / "deep").mkdir(parents=True)
    (tmp_path / "tree" / "deep" / "link").symlink_to(tmp_path / "kept")
    remove_tree(tmp_path / "tree")
    remove_tree(tmp_path / "tree")
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
    assert (tmp_path / "kept" / "file").exists()


CLOSED_TREE = """
import os, sys, tempfile
from pathlib import Path
if os.getuid() == 0:
    os.setuid(65534)
from backend.utils.paths import remove_tree
with tempfile.TemporaryDirectory() as root:
    tree = Path(root, "tree")
    (tree / "a" / "b").mkdir(parents=True)
    (tree / "a" / "b" / "file").touch()
    (tree / "a" / "link").symlink_to("/")
    (tree / "a" / "b").chmod(0)
    (tree / "a").chmod(0o500)
    remove_tree(tree)
    print(tree.exists())
"""


def test_a_tree_whose_maker_closed_its_folders_is_removed_too() -> None:
    command = [sys.executable, "-c", "import backend.utils.paths" + CLOSED_TREE]
    ran = subprocess.run(
        command, capture_output=True, text=True, cwd=Path(__file__).parents[3], timeout=30, check=False
    )
    assert ran.stdout == "False\n", ran.stderr
