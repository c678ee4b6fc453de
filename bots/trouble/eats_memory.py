"""Takes memory until something stops it: the kernel, or a limit.

As a bot file it does so in the session, as a program at once. Outside of a machine set
`CALLBOX_TROUBLE_MIB` to bound it.
"""

import asyncio
import os
import sys
from typing import Any

STEP_MIB = 8


def eat() -> None:
    """Take memory and touch every page of it."""
    limit = int(os.environ.get("CALLBOX_TROUBLE_MIB", sys.maxsize))
    eaten: list[bytearray] = []
    while len(eaten) * STEP_MIB < limit:
        eaten.append(bytearray(os.urandom(4096) * (STEP_MIB << 8)))
        print(f"trouble: took {len(eaten) * STEP_MIB} MiB", flush=True)


async def bot(runner_args: Any) -> None:
    """Eat all memory during a call."""
    await asyncio.to_thread(eat)


if __name__ == "__main__":
    eat()
