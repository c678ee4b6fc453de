"""The bots that misbehave, and the one that is just a program."""

import asyncio
import json
import os
import sys
from pathlib import Path

import httpx
import pytest
from client import FRAME_BYTES, Ear, client_ready, silence, sound, speech, talk
from programs import BOTS, Program, Runner, runner, running
from websockets.asyncio.client import connect

TROUBLE = BOTS / "trouble"


def test_exits_at_once() -> None:
    with running(program := Runner(TROUBLE / "exits.py")):
        assert program.wait() == 3
        assert "SystemExit: 7" in program.lines[-1]


def test_never_ready() -> None:
    with runner(TROUBLE / "never_ready.py") as bot:
        assert bot.http.get("/readyz").status_code == 503


def test_garbage_does_not_disturb_the_call() -> None:
    with runner(TROUBLE / "garbage.py") as bot:
        assert bot.http.post("/bot", json={}).status_code == 200
        assert json.loads(bot.line("the bot returned"))["level"] == "INFO"


def test_a_full_disk_ends_the_call_only() -> None:
    with runner(TROUBLE / "fills_disk.py", env={"CALLBOX_TROUBLE_MIB": "3"}) as bot:
        assert bot.http.post("/bot", json={}).status_code == 200
        bot.line("wrote 3 MiB")


def test_eats_memory() -> None:
    argv = [sys.executable, str(TROUBLE / "eats_memory.py")]
    with running(program := Program(argv, {"CALLBOX_TROUBLE_MIB": "16"})):
        assert program.wait() == 0
        assert program.lines == ["trouble: took 8 MiB", "trouble: took 16 MiB"]


@pytest.fixture
def command_argv() -> list[str]:
    bot = str(BOTS / "command" / "bot.py")
    # -I: no path of ours, no packages but the standard library's.
    return [sys.executable, "-I", "-S", bot, "--room-url", "ws://127.0.0.1:0/ws", "--token", "t"]


async def test_any_program_can_be_a_bot(command_argv: list[str]) -> None:
    with running(program := Program(command_argv)):
        port = json.loads(program.line("listening"))["port"]
        async with connect(f"ws://127.0.0.1:{port}/ws") as connection:
            ear = Ear(connection)
            listening = asyncio.create_task(ear.listen())
            await connection.send(client_ready("xyz"))
            said = speech(0.5)
            await talk(connection, said)
            # Longer than a short websocket frame, and in fragments.
            big = sound(silence(3.0))
            await connection.send([big[:70_000], big[70_000:]])
            expected = said + silence(3.0)
            await ear.until(lambda heard: len(heard.pcm) >= len(expected))
            assert ear.pcm == expected
            assert [(m["type"], m["id"]) for m in ear.messages] == [("bot-ready", "xyz")]
            assert len(said) > FRAME_BYTES
            await connection.close()
            await listening
        assert program.wait(10) == 0


async def test_a_program_survives_probes_of_its_port(command_argv: list[str]) -> None:
    with running(program := Program(command_argv)):
        port = json.loads(program.line("listening"))["port"]
        assert httpx.get(f"http://127.0.0.1:{port}/readyz").status_code == 404
        async with connect(f"ws://127.0.0.1:{port}/ws"):
            pass
        assert program.wait(10) == 0


def test_bots_compile_without_our_packages() -> None:
    for path in Path(BOTS).rglob("*.py"):
        compile(path.read_text(), os.fspath(path), "exec")
