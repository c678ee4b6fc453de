"""The warning before the end: logged, told to the hooks, never in the way."""

import threading
from pathlib import Path
from typing import Any

import pytest
from programs import runner

BOT = """
import asyncio
from callbox_bot import EndWarning, on_warning

told = asyncio.Event()

@on_warning
def broken(warning):
    raise RuntimeError("no")

async def bot(args):
    @on_warning
    async def leave(warning: EndWarning) -> None:
        print(f"told {warning.ends_in_secs} {warning.reason}", flush=True)
        told.set()
    print("in the session", flush=True)
    await told.wait()
"""


@pytest.fixture
def bot(tmp_path: Path) -> Path:
    path = tmp_path / "bot.py"
    path.write_text(BOT)
    return path


def test_a_hook_inside_the_session_is_told(bot: Path) -> None:
    with runner(bot) as program:
        session = threading.Thread(target=lambda: program.http.post("/bot", json={}))
        session.start()
        program.line("in the session")
        body = {"ends_in_ms": 1500, "reason": "live-timeout"}
        answer = program.http.post("/_callbox/warning", json=body)
        assert (answer.status_code, answer.json()) == (200, {"hooks": 2})
        program.line("the session ends in 1.5 s (live-timeout)")
        program.line("told 1.5 live-timeout")
        session.join(30)
        assert not session.is_alive()


@pytest.mark.parametrize(
    "body", [None, [], {}, {"ends_in_ms": -1}, {"ends_in_ms": "1"}, {"ends_in_ms": 1, "reason": 1}]
)
def test_a_malformed_warning_is_refused(bot: Path, body: Any) -> None:
    with runner(bot) as program:
        answer = program.http.post("/_callbox/warning", json=body)
        assert (answer.status_code, answer.json()["code"]) == (400, "bad-request")
