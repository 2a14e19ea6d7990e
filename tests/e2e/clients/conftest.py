"""Hands the outcome of each client's checks to the table of conformance."""

from collections.abc import Generator

import pytest

from tests.e2e.clients.conformance import Client, Conformance

CONFORMANCE = pytest.StashKey[Conformance]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    client = getattr(getattr(item, "module", None), "CLIENT", None)
    if isinstance(client, Client) and (report.when == "call" or report.failed):
        table = item.config.stash.setdefault(CONFORMANCE, Conformance())
        check = item.nodeid.partition("::")[2]
        if report.skipped:  # an xfailed test is reported as skipped, too
            reason = report.wasxfail if hasattr(report, "wasxfail") else report.longrepr[2].removeprefix("Skipped: ")
            table.report(client, check, "unsupported", reason.removeprefix("reason: "))
        else:
            table.report(client, check, "passed" if report.passed else "failed")
    return report


def pytest_sessionfinish(session: pytest.Session) -> None:
    if table := session.config.stash.get(CONFORMANCE, None):
        table.save()
