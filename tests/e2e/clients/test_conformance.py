"""The table of conformance itself."""

from pathlib import Path

from tests.e2e.clients.conformance import Client, Conformance

OLD, NEW = Client("a client", "1.0", "chat"), Client("a client", "1.1", "chat, tools")


def test_a_table_counts_what_passed_and_tells_what_is_not_supported(tmp_path: Path) -> None:
    table = Conformance(tmp_path / "clients.json")
    table.report(OLD, "test_chat", "passed")
    table.report(OLD, "test_audio", "unsupported", "no audio | here")
    assert table.table().splitlines()[2:] == ["| a client | 1.0 | 1 | chat | no audio / here |"]
    table.report(OLD, "test_tools", "failed")
    assert "| 1 of 2 |" in table.table()


def test_a_later_run_adds_to_what_is_known_of_the_same_version(tmp_path: Path) -> None:
    table = Conformance(tmp_path / "clients.json")
    table.report(OLD, "test_chat", "passed")
    table.save()
    table = Conformance(tmp_path / "clients.json")
    table.report(OLD, "test_tools", "passed")
    table.save()
    assert "| 1.0 | 2 |" in Conformance(tmp_path / "clients.json").table()


def test_a_new_version_begins_anew(tmp_path: Path) -> None:
    table = Conformance(tmp_path / "clients.json")
    table.report(OLD, "test_chat", "passed")
    table.report(NEW, "test_tools", "passed")
    assert table.table().splitlines()[2:] == ["| a client | 1.1 | 1 | chat, tools | – |"]


def test_what_is_tried_anew_is_forgotten_first(tmp_path: Path) -> None:
    table = Conformance(tmp_path / "clients.json")
    table.report(OLD, "test_that_is_gone", "failed")
    table.forget(OLD)
    table.report(OLD, "test_chat", "passed")
    assert table.table().splitlines()[2:] == ["| a client | 1.0 | 1 | chat | – |"]
