"""Serves one process's contract, and ends on SIGTERM within a few seconds."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
import threading
from typing import TYPE_CHECKING

import uvicorn

from callbox_bot import app, log, warm
from callbox_bot.botfile import BotFile, BotFileError, failed
from callbox_bot.log import logger
from callbox_bot.session import Life

if TYPE_CHECKING:
    from collections.abc import Generator

CANCEL_PATIENCE_SECS = 1.5
"""How long a bot may take to end after it was cancelled."""
FORCED_EXIT_SECS = 2.5
"""After SIGTERM the process is gone by then, whatever the bot's code does."""
FORCED_EXIT_CODE = 128 + signal.SIGTERM


def bind(host: str, port: int) -> socket.socket:
    """Bind the server's socket; port 0 takes a free one.

    Raises:
        OSError: The address is in use or not ours.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, port), family=family)
    # Accepted sockets inherit it. asyncio would set it by itself only on sockets that name their
    # protocol, and without it the first audio waits 40 ms for an acknowledgement.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


async def serve(bot_file: BotFile, listener: socket.socket) -> None:
    """Prepare the bot, then serve until SIGTERM or SIGINT.

    Raises:
        BotFileError: The bot's own `prepare()` failed.
    """
    life = Life(bot_file)
    server = _Server(_config(bot_file, life))
    _stop_on_signals(server)
    serving = asyncio.create_task(server.serve(sockets=[listener]), name="server")
    serving.add_done_callback(lambda _: server.stop.set())
    host, port = listener.getsockname()[:2]
    log.announce(f"listening on {host}:{port}", event="listening", host=host, port=port)
    preparing = asyncio.create_task(_prepare(bot_file, life, host, port), name="prepare")
    stopping = asyncio.create_task(server.stop.wait(), name="stop")
    try:
        await asyncio.wait({preparing, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if preparing.done():
            preparing.result()
            await stopping
            logger.info("stopping")
            await life.cancel(CANCEL_PATIENCE_SECS)
        else:
            preparing.cancel()
    finally:
        server.stop.set()
        await serving


async def _prepare(bot_file: BotFile, life: Life, host: str, port: int) -> None:
    if bot_file.prepare is not None:
        try:
            await bot_file.prepare()
        except (Exception, SystemExit) as error:
            raise failed("prepare()", error) from error
    await warm.warm(host, port)
    life.prepared()
    log.announce("ready", event="ready")


def _config(bot_file: BotFile, life: Life) -> uvicorn.Config:
    return uvicorn.Config(
        app.build(bot_file, life),
        # httptools where the image has it: it takes a quarter off what a wake costs the bot.
        http="auto",
        # The one without threads and tasks of its own; unmasks in C.
        ws="websockets-sansio",
        # Speech does not compress, and a slow machine has better things to do.
        ws_per_message_deflate=False,
        # The other end is in the same machine: if it dies, the connection is reset. A machine
        # that is short of processor time must not lose its call to a late pong.
        ws_ping_interval=None,
        lifespan="off",
        access_log=False,
        log_config=None,
        server_header=False,
        date_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=1,
    )


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers and its ten wake-ups a second."""

    def __init__(self, config: uvicorn.Config):
        super().__init__(config)
        self.stop = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        yield

    async def main_loop(self) -> None:
        await self.stop.wait()


def _stop_on_signals(server: _Server) -> None:
    loop = asyncio.get_running_loop()

    def stop(_number: int, _frame: object) -> None:
        # Code that blocks the loop, or swallows its cancellation, ends with the process.
        deadline = threading.Timer(FORCED_EXIT_SECS, _exit_now)
        deadline.daemon = True
        deadline.start()
        loop.call_soon_threadsafe(server.stop.set)

    # Not through the loop: a handler there waits for a loop that the bot may be blocking.
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)


def _exit_now() -> None:
    sys.stdout.flush()
    sys.stderr.write("callbox-bot: the bot did not end in time; leaving without it\n")
    sys.stderr.flush()
    os._exit(FORCED_EXIT_CODE)


__all__ = ["BotFileError", "bind", "serve"]
