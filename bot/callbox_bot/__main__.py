"""The command line: `python3 -m callbox_bot BOT.py [--host 127.0.0.1] [--port 8080]`."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Callable
from pathlib import Path

from callbox_bot import botfile, log

CANNOT_LISTEN = 4
"""Exit code: the address is in use or not ours."""


LEVELS = ("TRACE", "DEBUG", "INFO", "WARNING", "ERROR")


def main() -> None:
    """Load the bot file, then serve it until the process is told to stop."""
    args = _arguments()
    try:
        log.configure(args.log_level)
        # The bot file's code has no business with our arguments.
        sys.argv = [str(args.bot)]
        bot_file = botfile.load(args.bot)
        # Only now: it imports Pipecat, and a bot file that does not load should say so at once.
        from callbox_bot import server

        listener = server.bind(args.host, args.port)
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(server.serve(bot_file, listener))
    except botfile.BotFileError as error:
        _fail(str(error), error.exit_code, error.trace)
    except OSError as error:
        _fail(f"cannot listen on {args.host}:{args.port}: {error}", CANNOT_LISTEN)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="callbox-bot", description="Runs any Pipecat bot file for exactly one session."
    )
    parser.add_argument("bot", type=Path, help="file that defines `async def bot(runner_args)`")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    parser.add_argument("--port", type=int, default=8080, help="port; 0 takes a free one")
    parser.add_argument(
        "--log-level",
        default=os.environ.get("PIPECAT_LOG_LEVEL", "INFO"),
        type=str.upper,
        help=f"least level that is logged: {', '.join(LEVELS)} (PIPECAT_LOG_LEVEL, or INFO)",
    )
    args = parser.parse_args()
    # Not argparse's choices: they do not look at a default from the environment.
    if args.log_level not in LEVELS:
        parser.error(f"no log level is called '{args.log_level}'")
    return args


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Uvloop where the image has it: it saves a third of what a frame of audio costs."""
    try:
        import uvloop
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


def _fail(message: str, exit_code: int, trace: str = "") -> None:
    sys.stdout.flush()
    # What it comes down to is the last line, where a log's tail shows it.
    sys.stderr.write(f"{trace}callbox-bot: {message}\n")
    raise SystemExit(exit_code)


if __name__ == "__main__":
    main()
