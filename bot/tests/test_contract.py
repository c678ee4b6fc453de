"""What callbox_bot answers, asked over real sockets."""

import asyncio
import base64
import json
import signal
import socket
import time
from pathlib import Path
from typing import Any

import pytest
from programs import Runner, runner, running
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, ConnectionClosedError, ConnectionClosedOK

ECHO = """
import asyncio, json
from pipecat.runner.types import WebSocketRunnerArguments

def describe(args):
    said = {"kind": type(args).__name__, "session_id": args.session_id, "body": args.body}
    for name in ("room_url", "token", "url", "room_name", "transport_type"):
        if hasattr(args, name):
            said[name] = getattr(args, name)
    return said

async def bot(args):
    said = json.dumps(describe(args))
    print("args " + said, flush=True)
    if isinstance(args, WebSocketRunnerArguments):
        await args.websocket.send_text(said)
        while True:
            message = await args.websocket.receive()
            if message["type"] == "websocket.disconnect" or message.get("text") == "end":
                return
            if message.get("text") == "fail":
                raise RuntimeError("as asked")
            await args.websocket.send_text(message["text"])
"""
SESSION = {"x-daily-session-id": "9e4fd0f7-17b6-4a34-9f9b-1a41f9ee3b0a"}


@pytest.fixture
def bot_file(tmp_path: Path) -> Any:
    def write(text: str) -> Path:
        path = tmp_path / "bot.py"
        path.write_text(text)
        return path

    return write


async def closed(connection: ClientConnection) -> int | None:
    with pytest.raises(ConnectionClosed):
        while True:
            await connection.recv()
    return connection.close_code


def test_probes_answer_and_close_their_connections(bot_file: Any) -> None:
    with runner(bot_file(ECHO)) as bot:
        for path in ("/livez", "/readyz"):
            answer = bot.http.get(path)
            assert (answer.status_code, answer.json()) == (200, {"status": "ok"})
            assert answer.headers["connection"] == "close"
        assert bot.http.get("/nothing").status_code == 404
        assert bot.http.get("/bot").status_code == 405


@pytest.mark.parametrize(
    ("readyz", "status", "body"),
    [
        ("return True", 200, {"status": "ok"}),
        ("return False", 503, {"status": "not ready"}),
        ("return {'ready': True, 'model': 'x'}", 200, {"ready": True, "model": "x"}),
        ("return {'ready': False, 'why': 'y'}", 503, {"ready": False, "why": "y"}),
        ("raise RuntimeError('no')", 503, {"status": "not ready"}),
    ],
)
def test_a_bot_file_can_answer_readyz_itself(
    bot_file: Any, readyz: str, status: int, body: dict[str, Any]
) -> None:
    with runner(bot_file(f"{ECHO}\ndef readyz():\n    {readyz}\n")) as bot:
        answer = bot.http.get("/readyz")
        assert (answer.status_code, answer.json()) == (status, body)


def test_is_unready_until_prepare_has_returned(bot_file: Any, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    text = f"""
{ECHO}
async def prepare():
    print("preparing", flush=True)
    while not __import__("os").path.exists({str(gate)!r}):
        await asyncio.sleep(0.01)
"""
    program = Runner(bot_file(text))
    with running(program):
        program.listening().line("preparing")
        assert program.http.get("/livez").status_code == 200
        assert program.http.get("/readyz").status_code == 503
        assert program.http.post("/bot", json={}).status_code == 503
        gate.touch()
        program.line('"event": "ready"')
        assert program.http.get("/readyz").status_code == 200


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, {"kind": "RunnerArguments"}),
        (
            {"x-daily-room-url": "https://x.daily.co/r", "x-daily-room-token": "t"},
            {"kind": "DailyRunnerArguments", "room_url": "https://x.daily.co/r", "token": "t"},
        ),
        (
            {
                "x-callbox-transport": "livekit",
                "x-callbox-room-url": "wss://lk.example.com",
                "x-callbox-room-token": "t",
                "x-callbox-room-name": "r",
            },
            {
                "kind": "LiveKitRunnerArguments",
                "url": "wss://lk.example.com",
                "token": "t",
                "room_name": "r",
            },
        ),
    ],
)
def test_post_bot_runs_the_bot_and_waits_for_it(
    bot_file: Any, headers: dict[str, str], expected: dict[str, str]
) -> None:
    with runner(bot_file(ECHO)) as bot:
        answer = bot.http.post("/bot", json={"a": 1}, headers={**SESSION, **headers})
        assert (answer.status_code, answer.json()) == (200, {})
        said = json.loads(bot.line("args ").removeprefix("args "))
        assert said == {**expected, "session_id": SESSION["x-daily-session-id"], "body": {"a": 1}}
        log = json.loads(bot.line("the bot returned"))
        assert log["session_id"] == SESSION["x-daily-session-id"]
        # Used up: nobody else gets this machine.
        assert bot.http.post("/bot", json={}).status_code == 409
        assert bot.http.get("/readyz").status_code == 503


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (b"", {}),
        (b"[]", {}),
        (b"{", {}),
        (b"{}", {"x-callbox-transport": "livekit"}),
    ],
)
def test_a_malformed_call_does_not_use_up_the_session(
    bot_file: Any, body: bytes, headers: dict[str, str]
) -> None:
    with runner(bot_file(ECHO)) as bot:
        refused = bot.http.post("/bot", content=body, headers=headers)
        assert (refused.status_code, refused.json()["code"]) == (422, "bad-request")
        assert bot.http.post("/bot", json={}).status_code == 200


def test_post_bot_says_that_the_bot_failed(bot_file: Any) -> None:
    secret = "tok" + "en-1234"
    text = f"async def bot(args):\n    hidden = {secret!r}\n    raise ValueError(len(hidden))\n"
    with runner(bot_file(text)) as bot:
        answer = bot.http.post("/bot", json={}, headers=SESSION)
        assert (answer.status_code, answer.json()["code"]) == (500, "bot-failed")
        log = json.loads(bot.line("the bot failed"))
        assert log["session_id"] == SESSION["x-daily-session-id"]
        assert "ValueError" in log["exception"]
        assert "hidden =" not in log["message"]


@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
@pytest.mark.parametrize("body", [{"a": "b"}, {"text": "~~~???>>>üü"}, [1], {}])
async def test_websocket_gets_its_body(bot_file: Any, encode: Any, body: Any) -> None:
    with runner(bot_file(ECHO)) as bot:
        query = encode(json.dumps(body, ensure_ascii=False).encode()).decode().rstrip("=")
        url = f"{bot.ws_url}?body={query}"
        async with connect(url, additional_headers=SESSION) as connection:
            assert json.loads(await connection.recv()) == {
                "kind": "WebSocketRunnerArguments",
                "session_id": SESSION["x-daily-session-id"],
                "body": body,
                "transport_type": "websocket",
            }


@pytest.mark.parametrize(
    ("query", "body", "kind"),
    [
        ("", {}, "websocket"),
        ("?body=%21%21", None, "websocket"),
        ("?body=e30&transport=telephony", {}, None),
    ],
)
async def test_websocket_query(bot_file: Any, query: str, body: Any, kind: str | None) -> None:
    with runner(bot_file(ECHO)) as bot:
        async with connect(bot.ws_url + query) as connection:
            said = json.loads(await connection.recv())
            assert (said["body"], said["transport_type"]) == (body, kind)


@pytest.mark.parametrize(("word", "code"), [("end", 1000), ("fail", 1011)])
async def test_the_bots_end_closes_the_socket(bot_file: Any, word: str, code: int) -> None:
    with runner(bot_file(ECHO)) as bot:
        async with connect(bot.ws_url) as connection:
            await connection.recv()
            await connection.send(word)
            assert await closed(connection) == code


async def test_a_second_client_is_turned_away_and_the_first_keeps_its_call(bot_file: Any) -> None:
    with runner(bot_file(ECHO)) as bot:
        async with connect(bot.ws_url) as first:
            await first.recv()
            async with connect(bot.ws_url) as second:
                assert await closed(second) == 1008
            assert bot.http.post("/bot", json={}).status_code == 409
            await first.send("still there")
            assert await first.recv() == "still there"
        bot.line("the bot returned")
        async with connect(bot.ws_url) as late:
            assert await closed(late) == 1008


async def test_secrets_of_the_session_are_in_the_environment(bot_file: Any, tmp_path: Path) -> None:
    secrets = tmp_path / "env.json"
    text = f"""
import os
from pathlib import Path
from callbox_bot import session
session.Life.__init__.__defaults__ = (Path({str(secrets)!r}),)
assert "API_KEY" not in os.environ
async def bot(args):
    await args.websocket.send_text(os.environ["API_KEY"])
"""
    with runner(bot_file(text)) as bot:
        secrets.write_text('{"API_KEY": "k"}')
        async with connect(bot.ws_url) as connection:
            assert await connection.recv() == "k"


STUBBORN = """
import asyncio, time
async def bot(args):
    await args.websocket.send_text("started")
    {}
"""


@pytest.mark.parametrize(
    ("waits", "code"),
    [
        ("await asyncio.sleep(60)", 0),
        ("time.sleep(60)", 143),
        (
            "while True:\n        try: await asyncio.sleep(60)\n"
            "        except asyncio.CancelledError: pass",
            143,
        ),
    ],
    ids=["cancellable", "blocks-the-loop", "swallows-cancellation"],
)
async def test_sigterm_ends_a_session_within_three_seconds(
    bot_file: Any, waits: str, code: int
) -> None:
    with runner(bot_file(STUBBORN.format(waits))) as bot:
        async with connect(bot.ws_url) as connection:
            assert await connection.recv() == "started"
            began = time.monotonic()
            bot.signal(signal.SIGTERM)
            assert await asyncio.to_thread(bot.wait, 10) == code
            assert time.monotonic() - began < 3
            with pytest.raises((ConnectionClosedError, ConnectionClosedOK)):
                await connection.recv()


def test_sigterm_ends_an_idle_process(bot_file: Any) -> None:
    with runner(bot_file(ECHO)) as bot:
        began = time.monotonic()
        bot.signal(signal.SIGTERM)
        assert bot.wait(10) == 0
        assert time.monotonic() - began < 1


def test_sigterm_ends_a_process_that_prepares(bot_file: Any) -> None:
    text = f"{ECHO}\nasync def prepare():\n    print('preparing')\n    await asyncio.sleep(60)\n"
    with running(program := Runner(bot_file(text))):
        program.listening().line("preparing")
        began = time.monotonic()
        program.signal(signal.SIGTERM)
        assert program.wait(10) == 0
        assert time.monotonic() - began < 2


def test_keeps_no_connection_open_while_idle(bot_file: Any) -> None:
    with runner(bot_file(ECHO)) as bot:
        bot.http.get("/readyz")
        listening = f"0100007F:{bot.port:04X}"
        established = "01"
        rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        assert [row for row in rows if row[1] == listening and row[3] == established] == []


@pytest.mark.parametrize(
    ("text", "code", "says"),
    [
        ("x = 1", 2, "has no `bot`"),
        ("def bot(args): pass", 2, "not an async function"),
        ("async def bot(:", 3, "SyntaxError"),
        ("import no_such_module\nasync def bot(args): pass", 3, "'no_such_module' installed"),
        ("raise RuntimeError('boom')", 3, "boom"),
        ("async def bot(args): pass\nasync def prepare(): 1 / 0", 3, "prepare() failed"),
    ],
)
def test_an_unusable_bot_file_says_so_and_exits(
    bot_file: Any, text: str, code: int, says: str
) -> None:
    with running(program := Runner(bot_file(text))):
        assert program.wait() == code
        assert says in program.lines[-1]
        assert program.lines[-1].startswith("callbox-bot: ")


def test_a_missing_bot_file_says_so_and_exits(tmp_path: Path) -> None:
    with running(program := Runner(tmp_path / "none.py")):
        assert program.wait() == 2
        assert program.output == f"callbox-bot: no bot file at '{tmp_path}/none.py'"


def test_an_address_in_use_says_so_and_exits(bot_file: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        with running(program := Runner(bot_file(ECHO), "--port", port)):
            assert program.wait() == 4
            assert f"cannot listen on 127.0.0.1:{port}" in program.lines[-1]


def test_an_unknown_log_level_says_so_and_exits(bot_file: Any) -> None:
    with running(program := Runner(bot_file(ECHO), env={"PIPECAT_LOG_LEVEL": "loud"})):
        assert program.wait() == 2
        assert "no log level is called 'LOUD'" in program.lines[-1]


def test_every_line_is_json_and_names_the_session(bot_file: Any) -> None:
    text = """
import logging
from loguru import logger
async def bot(args):
    logging.getLogger("old.library").warning("%d%% {done}", 5)
    logger.bind(turn=3).info("two\\nlines")
    logger.debug("unheard")
"""
    with runner(bot_file(text)) as bot:
        bot.http.post("/bot", json={}, headers=SESSION)
        bot.line("the bot returned")
        lines = [json.loads(line) for line in bot.lines]
        said = [line for line in lines if "session_id" in line]
        assert [(line["logger"], line["message"]) for line in said[:2]] == [
            ("old.library", "5% {done}"),
            ("bot", "two\nlines"),
        ]
        assert said[1]["extra"] == {"turn": 3}
        assert "unheard" not in bot.output


def test_a_bot_may_replace_the_loggers_first_handler(bot_file: Any) -> None:
    text = f"""
import sys
from loguru import logger
logger.remove(0)
logger.add(sys.stdout, format="own {{message}}")
{ECHO}
logger.info("hello")
"""
    with runner(bot_file(text)) as bot:
        assert "own hello" in bot.output
