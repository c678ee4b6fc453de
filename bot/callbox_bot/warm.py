"""Walks the paths that are slow the first time, before a template is taken.

The first session of a fresh interpreter pays for lazy imports, the compilation of protobuf and
pydantic schemas, and for pages of memory that nobody has touched. A rehearsal pays for it here:
a real Pipecat pipeline on the real websocket transport, with a client that exists in memory only.
"""

from __future__ import annotations

import asyncio
import gc
import os
import time
from typing import Any

from pipecat.frames.frames import Frame, InputAudioRawFrame, OutputAudioRawFrame
from pipecat.frames.protobufs import frames_pb2
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineParams, PipelineWorker
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.runner.types import WebSocketRunnerArguments
from pipecat.runner.utils import create_transport
from pipecat.serializers.protobuf import ProtobufFrameSerializer
from pipecat.transports.websocket.fastapi import FastAPIWebsocketParams
from pipecat.workers.runner import WorkerRunner
from starlette.websockets import WebSocket

from callbox_bot import wake
from callbox_bot.log import logger

DEADLINE_SECS = 60.0
SAMPLE_RATE = 16_000
CLIENT_READY = (
    '{"label":"rtvi-ai","type":"client-ready","id":"rehearsal","data":{"version":"2.1.0",'
    '"about":{"library":"callbox-bot"}}}'
)


async def warm(host: str, port: int) -> None:
    """Rehearse a wake and a call, then move everything alive out of the garbage collector's way.

    Nothing here is needed for a session to work, so a failure is logged and nothing more.

    Args:
        host: Where this process serves.
        port: Where this process serves.
    """
    started = time.perf_counter()
    wake.rehearse()
    try:
        await asyncio.wait_for(_ask_in_vain(host, port), DEADLINE_SECS)
        # Hooks of the user's own would take the rehearsal for a call.
        if not os.environ.get("PIPECAT_SETUP_FILES"):
            await asyncio.wait_for(_rehearse(), DEADLINE_SECS)
    except Exception as error:
        logger.opt(exception=error).warning("the rehearsal failed; the first call starts slower")
    # What is alive now stays alive: never look at it again, and never write to its pages, which
    # all clones of a template share.
    gc.collect()
    gc.freeze()
    logger.info(f"warm after {time.perf_counter() - started:.2f} s")


async def _ask_in_vain(host: str, port: int) -> None:
    """Walk the way of a wake through sockets, server and routes, with a request that is refused."""
    reader, writer = await asyncio.open_connection(host, port)
    head = f"POST /_callbox/wake HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n"
    writer.write(f"{head}Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{{}}".encode())
    try:
        answer = await reader.read()
    finally:
        writer.close()
    if not answer.startswith(b"HTTP/1.1 400 "):
        raise RuntimeError(f"a wake without content was answered {answer[:80]!r}")


async def _rehearse() -> None:
    client = _ClientInMemory()
    transport: Any = await create_transport(
        WebSocketRunnerArguments(websocket=await client.connect(), transport_type="websocket"),
        {"websocket": _transport_params},
    )
    worker = PipelineWorker(
        Pipeline([transport.input(), _Echo(), transport.output()]),
        params=PipelineParams(audio_in_sample_rate=SAMPLE_RATE, audio_out_sample_rate=SAMPLE_RATE),
    )

    @transport.event_handler("on_client_disconnected")
    async def hang_up(_transport: object, _websocket: object) -> None:
        await worker.cancel()

    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(worker)
    running = asyncio.create_task(runner.run())
    try:
        await client.talk()
    finally:
        client.leave()
        await running


def _transport_params() -> FastAPIWebsocketParams:
    return FastAPIWebsocketParams(
        audio_in_enabled=True, audio_out_enabled=True, serializer=ProtobufFrameSerializer()
    )


class _Echo(FrameProcessor):
    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, InputAudioRawFrame):
            frame = OutputAudioRawFrame(frame.audio, frame.sample_rate, frame.num_channels)
        await self.push_frame(frame, direction)


class _ClientInMemory:
    """The far end of a websocket that never touches the network."""

    def __init__(self) -> None:
        self._to_bot: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._from_bot: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    async def connect(self) -> WebSocket:
        scope = {"type": "websocket", "path": "/ws", "query_string": b"", "headers": []}
        websocket = WebSocket(scope, self._to_bot.get, self._hear)
        self._to_bot.put_nowait({"type": "websocket.connect"})
        await websocket.accept()
        return websocket

    async def talk(self) -> None:
        """Say that we are ready, send some sound, and wait for an answer to both."""
        ready, sound = frames_pb2.Frame(), frames_pb2.Frame()
        ready.message.data = CLIENT_READY
        sound.audio.audio = b"\x01\x02" * (SAMPLE_RATE // 5)
        sound.audio.sample_rate = SAMPLE_RATE
        sound.audio.num_channels = 1
        self._say(ready)
        self._say(sound)
        missing = {"message", "audio"}
        while missing:
            message = await self._from_bot.get()
            if message["type"] == "websocket.send":
                frame = frames_pb2.Frame.FromString(message["bytes"])
                missing.discard(frame.WhichOneof("frame"))

    def leave(self) -> None:
        self._to_bot.put_nowait({"type": "websocket.disconnect", "code": 1000})

    def _say(self, frame: Any) -> None:
        self._to_bot.put_nowait({"type": "websocket.receive", "bytes": frame.SerializeToString()})

    async def _hear(self, message: Any) -> None:
        self._from_bot.put_nowait(message)
