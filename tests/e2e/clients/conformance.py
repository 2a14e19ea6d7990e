"""What each client was seen to do with this server, collected while its tests run.

A module of tests for a client says which one it is, and that is all:

    CLIENT = Client("openai-python", version("openai"), "chat, streaming, tools")

Each of its tests is a check. One that passes counts; one that is skipped or xfailed by its own body is a feature that
is not supported, and its reason stands in the table. What never began (a client that cannot be had here) is not told.
`conftest.py` hands the outcomes over, and they are kept in pytest's cache. The table for the README:

    .venv/bin/python -m tests.e2e.clients.conformance
"""

import json
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

KEPT_IN = Path(__file__).parents[3] / ".pytest_cache" / "d" / "conformance" / "clients.json"
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
    """The records of all clients. A run of some tests adds to what earlier runs found with the same versions."""

    def __init__(self, kept_in: Path = KEPT_IN) -> None:
        self._kept_in = kept_in
        self._records: dict[str, Record] = {}
        self._changed = False
        if kept_in.exists():
            for entry in json.loads(kept_in.read_text()):
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
            record.reasons[check] = " ".join(reason.split()).replace("|", "/")
        self._changed = True

    def save(self) -> None:
        if self._changed:
            self._kept_in.parent.mkdir(parents=True, exist_ok=True)
            self._kept_in.write_text(json.dumps([asdict(record) for record in self._records.values()], indent=1))

    def table(self) -> str:
        head = [
            "| client | version | checks passed | what was tried | not supported |",
            "| --- | --- | --- | --- | --- |",
        ]
        rows = [self._records[name].row() for name in sorted(self._records, key=str.lower)]
        return "\n".join([*head, *rows])


if __name__ == "__main__":
    sys.stdout.write(Conformance().table() + "\n")
