"""Starts bots as real processes and stops them again."""

import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

BOT_DIR = Path(__file__).resolve().parent.parent
BOTS = BOT_DIR.parent / "bots"
PARROT = BOTS / "parrot" / "bot.py"
DEADLINE_SECS = 60.0


class Program:
    """A running program whose lines of output can be waited for."""

    def __init__(self, argv: list[str], env: dict[str, str] | None = None, **popen: Any):
        path = os.pathsep.join([str(BOT_DIR), os.environ.get("PYTHONPATH", "")])
        self.process = subprocess.Popen(
            argv,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1", **(env or {})},
            **popen,
        )
        self.lines: list[str] = []
        self._queue: queue.Queue[str | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._queue.put(line.decode(errors="replace").rstrip("\n"))
        self._queue.put(None)

    def line(self, having: str, timeout: float = DEADLINE_SECS) -> str:
        """Wait for a line that contains this text, among those not waited for yet."""
        until = time.monotonic() + timeout
        while True:
            try:
                line = self._queue.get(timeout=max(0.01, until - time.monotonic()))
            except queue.Empty:
                raise AssertionError(f"no line with {having!r} in time: {self.lines}") from None
            if line is None:
                self._queue.put(None)
                raise AssertionError(f"ended without a line with {having!r}: {self.lines}")
            self.lines.append(line)
            if having in line:
                return line

    def wait(self, timeout: float = DEADLINE_SECS) -> int:
        code = self.process.wait(timeout)
        self._reader.join(timeout)
        while (line := self._queue.get()) is not None:
            self.lines.append(line)
        return code

    def signal(self, number: int = signal.SIGTERM) -> None:
        self.process.send_signal(number)

    @property
    def output(self) -> str:
        return "\n".join(self.lines)


class Runner(Program):
    """callbox_bot with a bot file, on a free port."""

    def __init__(self, bot: Path, *more: str, env: dict[str, str] | None = None, **popen: Any):
        argv = [sys.executable, "-m", "callbox_bot", str(bot), "--port", "0", *more]
        super().__init__(argv, env, **popen)

    def listening(self) -> "Runner":
        self.port = json.loads(self.line('"event": "listening"'))["port"]
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=DEADLINE_SECS)
        self.ws_url = f"ws://127.0.0.1:{self.port}/ws"
        return self

    def ready(self) -> "Runner":
        self.listening().line('"event": "ready"')
        return self


@contextmanager
def running(program: Program) -> Iterator[Program]:
    """End the program in any case."""
    try:
        yield program
    finally:
        if program.process.poll() is None:
            program.process.kill()
        program.process.wait()


@contextmanager
def runner(bot: Path, *more: str, env: dict[str, str] | None = None) -> Iterator[Runner]:
    """callbox_bot, ready."""
    program = Runner(bot, *more, env=env)
    with running(program):
        yield program.ready()


def free_port() -> int:
    """A port for programs that cannot choose one themselves."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
        return port
