"""What storing costs on the disk of a run: it is a part of what a server that stores costs.

A new file may cost 15 us or 50 times that in one and the same file system: ext4 passes over inodes that were freed in
the last minutes, one by one, so a run right after another one has removed its files pays for it.
"""

import os
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

FILES = 40
SLOW_CREATE_US = 200


@dataclass(frozen=True)
class DiskCosts:
    create_us: float  # CPU time of one new file
    sync_us: float  # until an appended line outlives a power failure

    def __str__(self) -> str:
        costs = f"a new file takes {self.create_us:,.0f} us of CPU, a synced append {self.sync_us:,.0f} us"
        if self.create_us > SLOW_CREATE_US:
            costs += " (SLOW: wait some minutes after deleting many files there, or give another --folder)"
        return costs


def measure(folder: Path) -> DiskCosts:
    """Leaves its files in `folder`: removing them is what makes the next ones dear."""
    creates, syncs = [], []
    for number in range(FILES):
        started = time.thread_time()
        fd = os.open(folder / f"probe-{number}", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        creates.append(time.thread_time() - started)
        os.write(fd, b"x" * 600)
        started = time.perf_counter()
        os.fdatasync(fd)
        syncs.append(time.perf_counter() - started)
        os.close(fd)
    return DiskCosts(median(creates) * 1e6, median(syncs) * 1e6)
