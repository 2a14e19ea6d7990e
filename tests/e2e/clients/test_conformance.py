"""The table of conformance itself."""

from importlib import import_module
from pathlib import Path

import pytest

from tests.e2e.clients.conformance import Client, Conformance, table_in, write_table
from tests.e2e.launch import ROOT

OLD, NEW = Client("a client", "1.0", "chat"), Client("a client", "1.1", "chat, tools")


def test_a_table_counts_what_passed_and_tells_what_is_not_supported(tmp_path: Path) -> None:
    table = Conformance(tmp_path / "clients")
    table.report(OLD, "test_chat", "passed")
    table.report(OLD, "test_audio", "unsupported", "no audio | here")
    assert table.table().splitlines()[2:] == ["| a client | 1.0 | 1 | chat | no audio / here |"]
    table.report(OLD, "test_tools", "failed")
    assert "| 1 of 2 |" in table.table()


def test_a_later_run_adds_to_what_is_known_of_the_same_version(tmp_path: Path) -> None:
    table = Conformance(tmp_path / "clients")
    table.report(OLD, "test_chat", "passed")
    table.save()
    table = Conformance(tmp_path / "clients")
    table.report(OLD, "test_tools", "passed")
    table.save()
    assert "| 1.0 | 2 |" in Conformance(tmp_path / "clients").table()


def test_a_new_version_begins_anew(tmp_path: Path) -> None:
    table = Conformance(tmp_path / "clients")
    table.report(OLD, "test_chat", "passed")
    table.report(NEW, "test_tools", "passed")
    assert table.table().splitlines()[2:] == ["| a client | 1.1 | 1 | chat, tools | – |"]


def test_what_is_tried_anew_is_forgotten_first(tmp_path: Path) -> None:
    table = Conformance(tmp_path / "clients")
    table.report(OLD, "test_that_is_gone", "failed")
    table.forget(OLD)
    table.report(OLD, "test_chat", "passed")
    assert table.table().splitlines()[2:] == ["| a client | 1.0 | 1 | chat | – |"]


def test_a_page_gets_the_table_and_keeps_the_rest(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- conformance -->\nold\nold\n<!-- /conformance -->\nafter\n")
    write_table(page, "| new |")
    assert page.read_text() == "before\n<!-- conformance -->\n| new |\n<!-- /conformance -->\nafter\n"
    page.write_text("no place")
    with pytest.raises(SystemExit, match="conformance"):
        write_table(page, "| new |")


def test_the_readme_tells_of_every_client_that_is_tried() -> None:
    modules = sorted(Path(__file__).parent.glob("test_*.py"))
    clients = [getattr(import_module(f"tests.e2e.clients.{module.stem}"), "CLIENT", None) for module in modules]
    known = {(client.name, client.covers) for client in clients if client}
    rows = [row.strip("|").split("|") for row in table_in((ROOT / "README.md").read_text()).splitlines()[2:]]
    assert {(name.strip(), covers.strip()) for name, _, _, covers, _ in rows} == known
