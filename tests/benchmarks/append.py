"""What it costs to append to a conversation, and to read its end, at different lengths.

    .venv/bin/python -m tests.benchmarks.append [--rounds 200] [--folder DIR]

Lengths take turns within each round, so that what else the machine does falls on all of them alike; each conversation
grows by one message with each round. Ends with an error if appending to the longest costs over 1.5 times what it costs
on the shortest. The folder decides which disk is measured.
"""

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from sqlalchemy import insert

from backend.core.messages import Message
from backend.core.storage.conversations import Conversation, StoredMessage
from backend.core.storage.database import Database
from backend.core.storage.sessions import Sessions, new_session_id
from backend.core.storage.tables import users

LENGTHS = (10, 1_000, 10_000, 100_000)
WINDOW = 20
MAX_RATIO = 1.5
IN_FLIGHT = 64
PAIRS_EACH = 40
PASSES = 3

QUESTION = Message("user", "What does it cost to append to a long conversation? " * 8)
ANSWER = Message("assistant", "As much as to a short one, since only the end is touched. " * 8)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=200, help="measurements for each length")
    parser.add_argument("--folder", type=Path, help="where to write; default: the system's temporary folder")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        ratio = compare_lengths(Path(folder), options.rounds)
        asyncio.run(measure_pairs(Path(folder)))
    if ratio > MAX_RATIO:
        sys.exit(f"Appending to {LENGTHS[-1]:,} messages costs {ratio:.2f} times what it costs at {LENGTHS[0]}.")


def compare_lengths(folder: Path, rounds: int) -> float:
    """Print the table and return the worse ratio of the longest to the shortest."""
    conversations = {length: make_conversation(folder, length) for length in LENGTHS}
    message = StoredMessage.from_message(ANSWER)
    columns: dict[str, Callable[[Conversation], object]] = {
        "append": lambda conversation: conversation.append([message]),
        "append, durable": lambda conversation: conversation.append([message], durable=True),
        f"read newest {WINDOW}": lambda conversation: conversation.read(WINDOW),
    }
    medians: dict[str, list[float]] = {}
    print(f"{'messages':>10}" + "".join(f"{name + ' us':>24}{'p99':>8}" for name in columns))
    taken = {name: {length: [0.0] * rounds for length in LENGTHS} for name in columns}
    for name, action in columns.items():
        for number in range(rounds):
            for length, conversation in conversations.items():
                began = time.perf_counter()
                action(conversation)
                taken[name][length][number] = (time.perf_counter() - began) * 1e6
        medians[name] = [statistics.median(taken[name][length]) for length in LENGTHS]
    for length in LENGTHS:
        cells = [taken[name][length] for name in columns]
        print(f"{length:>10,}" + "".join(f"{statistics.median(cell):>24.1f}{percentile(cell):>8.0f}" for cell in cells))
    ratios = {name: values[-1] / values[0] for name, values in medians.items()}
    print(f"{'ratio':>10}" + "".join(f"{ratio:>24.2f}{'':>8}" for ratio in ratios.values()))
    return max(ratio for name, ratio in ratios.items() if name.startswith("append"))


def make_conversation(folder: Path, length: int) -> Conversation:
    conversation = Conversation(folder, new_session_id())
    messages = [StoredMessage.from_message(ANSWER if number % 2 else QUESTION) for number in range(length)]
    conversation.create("alice", messages, created_at=time.time())
    return conversation


def percentile(values: list[float], share: float = 0.99) -> float:
    return sorted(values)[int(len(values) * share)]


async def measure_pairs(folder: Path) -> None:
    """Print what a new session with a question and its answer costs, index and all, with many at once."""
    database = Database(f"sqlite:///{folder}/app.db")
    await database.open()
    user = {"username": "alice", "password_hash": "", "role": "user", "created_at": 0.0}
    await database.write_rows([(insert(users), user)])
    sessions = Sessions(database, folder)
    for durable in (False, True):
        passes = [await measure_pass(sessions, durable=durable) for _ in range(PASSES)]
        cpu_us, wall_us = (min(values) for values in zip(*passes, strict=True))
        kind = "durable" if durable else "not durable"
        print(f"create + append, {IN_FLIGHT} in flight, {kind}: {cpu_us:.0f} us CPU, {wall_us:.0f} us wall a pair")
    await sessions.close()
    await database.close()


async def measure_pass(sessions: Sessions, *, durable: bool) -> tuple[float, float]:
    async def converse() -> None:
        for _ in range(PAIRS_EACH):
            session_id = new_session_id()
            await sessions.create("alice", session_id, [StoredMessage.from_message(QUESTION)])
            answer = StoredMessage.from_message(ANSWER, model="m", backend="ollama", agent="chat", finish_reason="stop")
            await sessions.append(session_id, [answer], durable=durable, prefix_digest=session_id[-32:])

    cpu, wall = time.process_time(), time.perf_counter()
    await asyncio.gather(*(converse() for _ in range(IN_FLIGHT)))
    pairs = IN_FLIGHT * PAIRS_EACH
    return (time.process_time() - cpu) / pairs * 1e6, (time.perf_counter() - wall) / pairs * 1e6


if __name__ == "__main__":
    main()
