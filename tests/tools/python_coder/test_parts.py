"""The parts that can be looked at on their own: frames, the filter's table, what is visible, texts, the folder."""

import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tools.python_coder import frames, workspace
from tools.python_coder.interpreter_client import Ending
from tools.python_coder.output import clean, shorten
from tools.python_coder.results import Call, File, build_result
from tools.sandbox import seccomp, walls
from tools.sandbox.syscalls import allowed_syscalls
from tools.sandbox.walls import default_uid

HEADERS = {
    "x86_64": Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
    "aarch64": Path("/usr/include/asm-generic/unistd.h"),
}
UID = default_uid()


@given(st.lists(st.binary(max_size=40), min_size=1, max_size=5))
def test_a_frame_comes_out_as_it_went_in(fields):
    packed = frames.pack(*fields)

    assert frames.frame_length(packed) == len(packed) - frames.HEADER
    assert frames.unpack(packed[frames.HEADER :], len(fields)) == fields


@given(st.binary(max_size=60), st.integers(1, 5))
def test_rubbish_is_a_bad_frame_or_adds_up(body, count):
    try:
        fields = frames.unpack(body, count)
    except frames.BadFrame:
        return
    assert frames.pack(*fields)[frames.HEADER :] == body


def test_a_frame_longer_than_any_may_be_is_refused_by_its_header():
    with pytest.raises(frames.BadFrame):
        frames.frame_length(b"\xff\xff\xff\xff")


@pytest.mark.parametrize("machine", HEADERS)
def test_the_numbers_of_system_calls_are_those_of_the_kernels_headers(machine):
    if not HEADERS[machine].exists():
        pytest.skip("the kernel's headers are not installed")
    text = HEADERS[machine].read_text()
    direct = dict(re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", text))

    for name, number in allowed_syscalls(machine).items():
        known = {direct.get(name), direct.get(name.removeprefix("new")), direct.get(f"{name}64")}
        assert str(number) in known, name


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_a_filter_is_a_whole_number_of_instructions_and_not_too_long(machine):
    program = seccomp.build_filter(machine=machine, signal_pid=7)

    assert len(program) % 8 == 0
    assert len(program) // 8 < 4096


def test_an_unknown_machine_has_no_filter():
    with pytest.raises(ValueError, match="sparc"):
        seccomp.build_filter(machine="sparc")


def test_what_is_hidden_below_a_system_folder_leaves_its_neighbours_in_sight(tmp_path):
    for name in ("bin", "src/app/data", "src/other"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "link").symlink_to("bin")

    seen = walls._without(tmp_path, [tmp_path / "src/app"])

    assert sorted(path.relative_to(tmp_path).as_posix() for path in seen) == ["bin", "link", "src/other"]


def test_terminal_codes_go_and_text_stays():
    text = "a\x1b[1;31mb\x1b[0m\tc\r\n\x1b]0;title\x07d\x1b]52;c;cm0=\x1b\\e\x00\x08f\x9bg\x1bMh ü…"

    assert clean(text) == "ab\tc\r\ndefgh ü…"


def test_a_text_is_cut_in_its_middle_and_says_so():
    assert shorten("x" * 10, 10) == "x" * 10
    cut = shorten("a" * 50 + "b" * 50, 20, "stdout-1.txt")

    assert cut == "a" * 10 + "\n… [80 characters left out; whole in stdout-1.txt] …\n" + "b" * 10


def test_files_that_are_not_listed_are_counted():
    call = Call("s", Ending(0), {"stdout": "", "stderr": "", "value": ""}, _many_files(130), 0.1, {}, ())

    result = build_result(call)

    assert len(result.data["files"]) == 100
    assert result.metadata["files_not_listed"] == 30


def _many_files(count: int) -> tuple[File, ...]:
    return tuple(File(f"{number}.txt", 1) for number in range(count))


def test_a_folder_over_its_bounds_loses_what_the_call_made_and_keeps_what_was_there(tmp_path):
    folder = tmp_path / "s"
    workspace.prepare(folder, UID)
    (folder / "old.bin").write_bytes(bytes(1 << 20))
    before = workspace.list_files(folder, UID)
    (folder / "sub").mkdir()
    (folder / "sub/new.bin").write_bytes(bytes(2 << 20))

    after = workspace.trim(folder, UID, before, 2 << 20)

    assert set(after.files) == {"old.bin"}
    assert list(folder.iterdir()) == [folder / "old.bin"]


def test_folders_nested_without_end_are_removed(tmp_path):
    folder = tmp_path / "s"
    workspace.prepare(folder, UID)
    before = workspace.list_files(folder, UID)
    here = os.open(folder, os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)

    assert workspace.find_excess(workspace.list_files(folder, UID), 1 << 30)
    workspace.trim(folder, UID, before, 1 << 30)

    assert list(folder.iterdir()) == []


def test_a_link_in_the_folder_leads_nowhere(tmp_path):
    folder, outside = tmp_path / "s", tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("x")
    workspace.prepare(folder, UID)
    (folder / "link").symlink_to(outside)
    listing = workspace.list_files(folder, UID)

    assert listing.files == {}
    assert (outside / "file").stat().st_uid == os.geteuid()


def test_a_folder_that_is_a_link_is_refused(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "s").symlink_to(tmp_path / "real")

    with pytest.raises(OSError, match="s"):
        workspace.prepare(tmp_path / "s", UID)


def test_uploads_become_the_codes_own(tmp_path):
    folder = tmp_path / "s"
    workspace.prepare(folder, UID)
    (folder / "upload.csv").write_text("a")
    workspace.list_files(folder, UID)

    assert (folder / "upload.csv").stat().st_uid == UID
