"""What a deck is made from comes out of its session's folder, whatever code in there has linked to."""

from pathlib import Path

import pytest

from backend.core.contracts import ToolFailure
from tools.ppt_maker.material import read_material


def test_links_lead_to_no_file_and_to_no_name_of_a_file_elsewhere(tmp_path: Path) -> None:
    workspace, elsewhere = tmp_path / "own", tmp_path / "elsewhere"
    for folder in (workspace / "charts", elsewhere):
        folder.mkdir(parents=True)
    (elsewhere / "salaries.csv").write_text("name,pay\nalice,1\n")
    (workspace / "charts" / "sales.csv").write_text("month,sales\nMay,1\nJune,2\n")
    (workspace / "folder").symlink_to(elsewhere)
    (workspace / "file.csv").symlink_to(elsewhere / "salaries.csv")
    for name in ("folder/salaries.csv", "file.csv", "../elsewhere/salaries.csv", "missing.csv"):
        with pytest.raises(ToolFailure) as refused:
            read_material(workspace, [name], [], "")
        assert "There are: charts/sales.csv." in str(refused.value)
    read = read_material(workspace, [], [], "From charts/sales.csv, folder/salaries.csv and file.csv")
    assert [table.name for table in read.tables] == ["charts/sales.csv"]
    assert not read.sources
