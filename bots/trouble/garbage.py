"""Prints binary garbage, endless lines and half lines, and is a working bot besides.

As a bot file it prints while it is loaded and again in the session; as a program it prints and
ends.
"""

import os
from typing import Any

LINE = b"x" * 100_000


def spew() -> None:
    """Write what no log should choke on."""
    for stream in (1, 2):
        for rubbish in (
            bytes(range(256)) * 64,
            LINE,
            b"\n",
            b"\xff\xfe\x00\n" * 100,
            b"no newline",
        ):
            _write(stream, rubbish)
    _write(1, b"\n")


def _write(stream: int, rubbish: bytes) -> None:
    while rubbish:
        rubbish = rubbish[os.write(stream, rubbish) :]


spew()


async def bot(runner_args: Any) -> None:
    """Print more of it and hang up."""
    spew()
