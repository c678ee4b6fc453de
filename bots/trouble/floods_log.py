"""Prints lines as fast as anybody reads them.

As a bot file it does so in the session, as a program at once. Outside of a machine set
`CALLBOX_TROUBLE_MIB` to bound it.
"""

import asyncio
import os
import sys
from typing import Any

LINES = b"trouble: nobody wants to read this line, and there are many more\n" * 1024


def flood() -> None:
    """Print until told otherwise."""
    limit = int(os.environ.get("CALLBOX_TROUBLE_MIB", sys.maxsize >> 20)) << 20
    while limit > 0:
        limit -= os.write(1, LINES)


async def bot(runner_args: Any) -> None:
    """Flood the log during a call."""
    await asyncio.to_thread(flood)


if __name__ == "__main__":
    flood()
