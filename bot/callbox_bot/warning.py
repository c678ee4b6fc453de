"""Tells the bot that its session is about to end.

The host ends every session at its deadline, whatever the bot does. Some time before, it says so,
and a bot can take its leave: only it knows how. So nothing is done here but to write it down and
to call whoever registered.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from callbox_bot.log import logger


@dataclass(frozen=True, slots=True)
class EndWarning:
    """The session is about to end.

    Parameters:
        ends_in_secs: How long it still has.
        reason: Why it ends, a stable word such as `max-duration`.
    """

    ends_in_secs: float
    reason: str


Hook = Callable[[EndWarning], "Awaitable[None] | None"]

_hooks: list[Hook] = []


class BadWarningError(ValueError):
    """The request is malformed; nobody was told."""


def on_warning(hook: Hook) -> Hook:
    """Register a function (plain or async) that is told when the session is about to end.

    May be called inside `bot()` as well as at the top of the bot file. A hook that raises is
    logged, and the others are told all the same. Usable as a decorator.
    """
    _hooks.append(hook)
    return hook


def parse_warning(body: Any) -> EndWarning:
    """Check the body of a warning.

    Raises:
        BadWarningError: Says what is wrong.
    """
    if not isinstance(body, dict):
        raise BadWarningError("the body of a warning must be a JSON object")
    ends_in_ms, reason = body.get("ends_in_ms"), body.get("reason", "")
    if isinstance(ends_in_ms, bool) or not isinstance(ends_in_ms, int) or ends_in_ms < 0:
        raise BadWarningError("ends_in_ms must be a whole number of milliseconds")
    if not isinstance(reason, str):
        raise BadWarningError("reason must be a string")
    return EndWarning(ends_in_ms / 1000, reason)


async def tell(warning: EndWarning) -> int:
    """Log the warning and call all hooks.

    Returns:
        How many hooks there are.
    """
    heard = f"{len(_hooks)} hooks hear of it" if _hooks else "the bot file has no on_warning"
    logger.warning(f"the session ends in {warning.ends_in_secs:g} s ({warning.reason}); {heard}")
    for hook in list(_hooks):
        try:
            outcome = hook(warning)
            if inspect.isawaitable(outcome):
                await outcome
        except Exception:
            logger.exception(f"the hook {getattr(hook, '__qualname__', hook)} failed")
    return len(_hooks)
