import asyncio
import base64
import os
import sys
import time
from collections.abc import Iterator

import httpx
import pytest
from client import Ear, client_ready, silence, speech, talk
from programs import DEADLINE_SECS, PARROT, Program, free_port, runner, running
from websockets.asyncio.client import connect


@pytest.fixture(params=["callbox-bot", "development-runner", "callbox-serve"])
def parrot(request: pytest.FixtureRequest) -> Iterator[str]:
    """The address of a parrot, run by us, by Pipecat itself, and in a machine of its own."""
    if request.param == "callbox-serve":
        yield start_session()
        return
    if request.param == "callbox-bot":
        with runner(PARROT) as program:
            yield program.ws_url
        return
    port = free_port()
    argv = [sys.executable, str(PARROT), "-t", "websocket", "--port", str(port)]
    with running(Program(argv, cwd=PARROT.parent)) as program:
        program.line("Application startup complete")
        until = httpx.HTTPTransport(retries=5)
        with httpx.Client(transport=until, timeout=DEADLINE_SECS) as http:
            assert http.get(f"http://localhost:{port}/status").json()["transports"] == ["websocket"]
        yield f"ws://localhost:{port}/ws-client"


def start_session() -> str:
    """Starts as any client does, at the dispatcher that `cargo xtask test web` runs for us."""
    dispatcher = os.environ.get("CALLBOX_URL")
    if dispatcher is None:
        pytest.skip("CALLBOX_URL names no dispatcher; `cargo xtask test web` runs one and sets it")
    key = os.environ.get("CALLBOX_KEY")
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    start = f"{dispatcher.rstrip('/')}/start"
    answer = httpx.post(start, json={"transport": "websocket"}, headers=headers)
    join = answer.raise_for_status().json()
    return f"{join['wsUrl']}?token={join['token']}"


async def test_greets_and_repeats_every_sample(parrot: str) -> None:
    said = speech(2.0)
    async with connect(parrot, compression=None) as connection, asyncio.TaskGroup() as tasks:
        ear = Ear(connection)
        tasks.create_task(ear.listen())
        await connection.send(client_ready("abc"))

        await ear.until(lambda heard: heard.count("bot-stopped-speaking") == 1)
        ready = next(message for message in ear.messages if message["type"] == "bot-ready")
        assert ready["id"] == "abc"
        greeting = len(ear.pcm)
        assert greeting > len(silence(2.0))
        assert any(ear.pcm)

        await talk(connection, silence(0.5) + said + silence(1.0))
        await ear.until(lambda heard: heard.count("bot-stopped-speaking") == 2)
        repeated = ear.pcm[greeting:].rstrip(b"\0")
        assert {rate for _, _, rate in ear.audio} == {16_000}
        # It may leave out the quiet before the first word and after the last, nothing else.
        whole = silence(0.5) + said + silence(1.0)
        assert repeated in whole
        assert len(repeated) > 0.9 * len(said)
        await connection.close()


async def test_answers_in_real_time(parrot: str) -> None:
    """What is said comes back once, at the speed of speech."""
    async with connect(parrot, compression=None) as connection, asyncio.TaskGroup() as tasks:
        ear = Ear(connection)
        tasks.create_task(ear.listen())
        opened = asyncio.get_running_loop().time()
        await ear.until(lambda heard: heard.count("bot-stopped-speaking") == 1)
        first, last = ear.audio[0][0], ear.audio[-1][0]
        assert first - opened < 3.0
        length = len(ear.pcm) / 2 / 16_000
        assert last - first == pytest.approx(length, abs=1.0)
        await connection.close()


async def test_sigterm_ends_a_call() -> None:
    with runner(PARROT) as program:
        async with connect(program.ws_url, compression=None) as connection:
            await connection.recv()
            began = time.monotonic()
            program.signal()
            assert await asyncio.to_thread(program.wait, 10) == 0
            assert time.monotonic() - began < 3


async def test_another_output_rate_on_request() -> None:
    query = base64.urlsafe_b64encode(b'{"output_sample_rate": 24000}').decode()
    with runner(PARROT) as program:
        url = f"{program.ws_url}?body={query}"
        async with connect(url, compression=None) as connection, asyncio.TaskGroup() as tasks:
            ear = Ear(connection)
            tasks.create_task(ear.listen())
            await ear.until(lambda heard: heard.audio)
            assert ear.audio[0][2] == 24_000
            await connection.close()
