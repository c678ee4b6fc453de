"""Loads the user's bot file."""

from __future__ import annotations

import importlib.util
import inspect
import sys
import traceback
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

NOT_A_BOT = 2
"""Exit code: there is no such file, or it has no usable `bot`."""
DOES_NOT_LOAD = 3
"""Exit code: the file was found and its code failed."""


@dataclass(frozen=True, slots=True)
class BotFile:
    """What a bot file offers.

    Parameters:
        path: The file.
        bot: `async def bot(runner_args)`.
        readyz: Its own word on whether it is ready (a bool, or an object with `ready`), if any.
        prepare: `async def prepare()`, run once before the process is ready, if any.
    """

    path: Path
    bot: Callable[[Any], Awaitable[object]]
    readyz: Callable[[], object] | None
    prepare: Callable[[], Awaitable[object]] | None


class BotFileError(Exception):
    """The bot file cannot be used.

    Parameters:
        message: What was attempted and what came of it.
        exit_code: What this process should exit with.
        trace: The traceback through the bot's own code, if that is what failed.
    """

    def __init__(self, message: str, exit_code: int, trace: str = ""):
        super().__init__(message)
        self.exit_code = exit_code
        self.trace = trace


def load(path: Path) -> BotFile:
    """Import a bot file as the module `bot`, with its folder first on the import path.

    Raises:
        BotFileError: It is not there, fails, or has no `async def bot(runner_args)`.
    """
    if not path.is_file():
        raise BotFileError(f"no bot file at '{path}'", NOT_A_BOT)
    path = path.resolve()
    spec = importlib.util.spec_from_file_location("bot", path)
    if spec is None or spec.loader is None:
        raise BotFileError(f"'{path}' is not a Python file (its name must end in .py)", NOT_A_BOT)
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.parent))
    sys.modules["bot"] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise failed(f"loading '{path.name}'", error) from error

    bot = getattr(module, "bot", None)
    if not inspect.iscoroutinefunction(bot):
        found = "has no `bot`" if bot is None else "has a `bot` that is not an async function"
        raise BotFileError(
            f"'{path.name}' {found}; a bot file defines `async def bot(runner_args)`", NOT_A_BOT
        )
    prepare = getattr(module, "prepare", None)
    return BotFile(
        path=path,
        bot=bot,
        readyz=getattr(module, "readyz", None),
        # Only a function without arguments is ours: `prepare` is a common word.
        prepare=prepare if _takes_nothing(prepare) else None,
    )


def failed(doing: str, error: BaseException) -> BotFileError:
    """Describe an error in the bot's own code, with its traceback."""
    trace = "".join(traceback.format_exception(error))
    kind = type(error).__name__
    hint = ""
    if isinstance(error, ModuleNotFoundError):
        hint = f" (is '{error.name}' installed in the image?)"
    return BotFileError(f"{doing} failed: {kind}: {error}{hint}", DOES_NOT_LOAD, trace)


def _takes_nothing(function: object) -> bool:
    return inspect.iscoroutinefunction(function) and not inspect.signature(function).parameters
