"""Forks for ever, and so do all its children, until something stops them.

As a bot file it does so in the session, as a program at once. Outside of a machine set
`CALLBOX_TROUBLE_FORKS` to bound the generations.
"""

import asyncio
import os
import sys
import time
from typing import Any


def multiply() -> None:
    """Double, and double again. Who is refused another child tries again."""
    generations = int(os.environ.get("CALLBOX_TROUBLE_FORKS", sys.maxsize))
    while generations > 0:
        try:
            os.fork()
            generations -= 1
        except OSError:
            time.sleep(0.01)


async def bot(runner_args: Any) -> None:
    """Multiply during a call."""
    await asyncio.to_thread(multiply)


if __name__ == "__main__":
    multiply()
