"""Writes until its disk is full, says how much that was, and ends.

As a bot file it does so in the session, as a program at once. Outside of a machine set
`CALLBOX_TROUBLE_MIB` to bound it.
"""

import asyncio
import os
import sys
import tempfile
from typing import Any

CHUNK = bytes(1 << 20)


def fill() -> None:
    """Write a file until there is no space left."""
    limit = int(os.environ.get("CALLBOX_TROUBLE_MIB", sys.maxsize))
    written = 0
    with tempfile.NamedTemporaryFile(prefix="trouble-", buffering=0) as file:
        try:
            while written < limit:
                file.write(CHUNK)
                written += 1
        except OSError as error:
            print(f"trouble: {error.strerror} after {written} MiB", flush=True)
            return
    print(f"trouble: wrote {written} MiB and the disk is not full", flush=True)


async def bot(runner_args: Any) -> None:
    """Fill the disk during a call."""
    await asyncio.to_thread(fill)


if __name__ == "__main__":
    fill()
