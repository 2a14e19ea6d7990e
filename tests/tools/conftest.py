import pytest

from tests.tools.python_coder.machine import note_elders


@pytest.fixture(autouse=True)
def elders() -> None:
    note_elders()
