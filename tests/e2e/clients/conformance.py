"""What each client was seen to do with this server, collected while its tests run.

A module of tests for a client says which one it is, and that is all:

    CLIENT = Client("openai-python", version("openai"), "chat, streaming, tools")

Each of its tests is a check. One that passes counts; one that is skipped or xfailed by its own body is a feature that
is not supported, and its reason stands in the table. What never began (a client that cannot be had here) is not told.
`conftest.py` hands the outcomes over, and they are kept in pytest's cache. The table for the README:

    .venv/bin/python -m tests.e2e.clients.conformance                      shows it
    .venv/bin/python -m tests.e2e.clients.conformance --write README.md    puts it between the two comments there
"""

import json
import re
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

KEPT_IN = Path(__file__).parents[3] / ".pytest_cache" / "d" / "conformance"
BEGIN, END = "<!-- conformance -->", "<!-- /conformance -->"
Outcome = Literal["passed", "failed", "unsupported"]


@dataclass(frozen=True, slots=True)
class Client:
    name: str
    version: str
    covers: str  # what is tried with it, in a few words


@dataclass(slots=True)
class Record:
    """What is known of one version of a client."""

    client: Client
    checks: dict[str, Outcome] = field(default_factory=dict)  # by the test's id
    reasons: dict[str, str] = field(default_factory=dict)  # of those that are not supported

    def row(self) -> str:
        passed = sum(outcome == "passed" for outcome in self.checks.values())
        tried = sum(outcome != "unsupported" for outcome in self.checks.values())
        count = f"{passed}" if passed == tried else f"{passed} of {tried}"
        reasons = "; ".join(sorted(set(self.reasons.values()))) or "–"
        return f"| {self.client.name} | {self.client.version} | {count} | {self.client.covers} | {reasons} |"


class Conformance:
    """The records of all clients. A run of some tests adds to what earlier runs found with the same versions.

    Each client has a file of its own: several processes run tests at the same time.
    """

    def __init__(self, kept_in: Path = KEPT_IN) -> None:
        self._kept_in = kept_in
        self._records: dict[str, Record] = {}
        self._changed: set[str] = set()
        for file in kept_in.glob("*.json"):
            entry = json.loads(file.read_text())
            client = Client(**entry["client"])
            self._records[client.name] = Record(client, entry["checks"], entry["reasons"])

    def forget(self, client: Client) -> None:
        """All of its checks are about to be made again."""
        self._records.pop(client.name, None)

    def report(self, client: Client, check: str, outcome: Outcome, reason: str = "") -> None:
        record = self._records.get(client.name)
        if record is None or record.client.version != client.version:
            record = Record(client)
        self._records[client.name] = Record(client, record.checks, record.reasons)
        record.checks[check] = outcome
        record.reasons.pop(check, None)
        if outcome == "unsupported":
            record.reasons[check] = " ".join(reason.split()).replace("|", "/").rstrip(".")
        self._changed.add(client.name)

    def save(self) -> None:
        self._kept_in.mkdir(parents=True, exist_ok=True)
        for name in self._changed:
            file = self._kept_in / f"{re.sub(r'[^a-z0-9]+', '-', name.lower())}.json"
            file.write_text(json.dumps(asdict(self._records[name]), indent=1))

    def table(self) -> str:
        head = [
            "| client | version | checks passed | what was tried | not supported |",
            "| --- | --- | --- | --- | --- |",
        ]
        rows = [self._records[name].row() for name in sorted(self._records, key=str.lower)]
        return "\n".join([*head, *rows])


def table_in(text: str) -> str:
    """The table that stands between the two comments of a page."""
    return text.partition(BEGIN)[2].partition(END)[0].strip()


def write_table(page: Path, table: str) -> None:
    text = page.read_text()
    if BEGIN not in text or END not in text:
        raise SystemExit(f"{page} has no {BEGIN} and {END}.")
    page.write_text(re.sub(f"{BEGIN}.*{END}", lambda _: f"{BEGIN}\n{table}\n{END}", text, flags=re.DOTALL))


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["--write", page]:
            write_table(Path(page), Conformance().table())
        case []:
            sys.stdout.write(Conformance().table() + "\n")
        case _:
            sys.exit("usage: python -m tests.e2e.clients.conformance [--write PAGE]")
