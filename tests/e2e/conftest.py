from collections.abc import Iterator
from pathlib import Path

import pytest
from openai import OpenAI

from tests.e2e.launch import Copy, launch


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whole servers and a real model take their time on a busy machine."""
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here):
            item.add_marker(pytest.mark.timeout(300))


@pytest.fixture(scope="session")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Copy]:
    """One copy of everything for the tests that leave it as it is."""
    with launch(tmp_path_factory.mktemp("copy") / "data") as running:
        yield running


@pytest.fixture(scope="session")
def client(copy: Copy) -> OpenAI:
    return OpenAI(base_url=f"{copy.main_url}/v1", api_key=copy.make_key("alice"), max_retries=0, timeout=120)
