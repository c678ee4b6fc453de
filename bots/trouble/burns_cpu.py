"""Computes without a pause, in several processes.

As a bot file it does so in the session, as a program at once. Outside of a machine set
`CALLBOX_TROUBLE_SECS` to bound it.
"""

import asyncio
import os
import time
from typing import Any

PROCESSES = 4


def burn() -> None:
    """Multiply numbers until the time is over, if there is one."""
    ends = time.monotonic() + float(os.environ.get("CALLBOX_TROUBLE_SECS", "inf"))
    for _ in range(PROCESSES - 1):
        if os.fork() == 0:
            break
    number = 3
    while time.monotonic() < ends:
        for _ in range(10_000):
            number = number * number % 1_000_003


async def bot(runner_args: Any) -> None:
    """Burn processor time during a call."""
    await asyncio.to_thread(burn)


if __name__ == "__main__":
    burn()
