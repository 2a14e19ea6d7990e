"""What every test has: a watch for blocking calls on the event loop, and no settings from this machine."""

import os
from collections.abc import Iterator

import pytest
from blockbuster import BlockBuster, blockbuster_ctx

import config


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What is quick to fail comes first; and servers that the end-to-end tests keep running are nobody else's noise."""
    items.sort(key=lambda item: "e2e" in item.path.parts)


@pytest.fixture(autouse=True)
def no_blocking_call_on_the_event_loop() -> Iterator[BlockBuster]:
    with blockbuster_ctx(["backend", "tools"]) as watch:
        watch.functions["os.path.abspath"].deactivate()  # asks the kernel for a name, not the disk
        yield watch


@pytest.fixture(autouse=True, scope="session")
def no_settings_from_this_machine() -> Iterator[None]:
    for name in config.Settings.model_fields:
        os.environ.pop(name, None)
    return
