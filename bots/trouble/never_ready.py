"""Is never ready: answers /readyz with 503 for ever."""

from typing import Any


def readyz() -> bool:
    """Say no."""
    return False


async def bot(runner_args: Any) -> None:
    """Never reached by a dispatcher that waits for readiness."""
