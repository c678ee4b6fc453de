"""A client that speaks what Pipecat's own websocket clients speak."""

import asyncio
import json
import shutil
import subprocess
import wave
from io import BytesIO
from typing import Any

import numpy as np
import soxr
from pipecat.frames.protobufs import frames_pb2
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

SAMPLE_RATE = 16_000
FRAME_SECS = 0.02
FRAME_BYTES = int(SAMPLE_RATE * FRAME_SECS) * 2


def speech(secs: float) -> bytes:
    """Synthesised speech of exactly this length, 16-bit mono at SAMPLE_RATE."""
    text = "the quick brown fox jumps over the lazy dog and runs away " * 4
    program = shutil.which("espeak-ng")
    assert program is not None, "espeak-ng is needed"
    done = subprocess.run([program, "--stdout", text], capture_output=True, check=True)
    with wave.open(BytesIO(done.stdout)) as spoken:
        rate, pcm = spoken.getframerate(), spoken.readframes(spoken.getnframes())
    samples = soxr.resample(np.frombuffer(pcm, "<i2"), rate, SAMPLE_RATE)
    said: bytes = samples.astype("<i2").tobytes()
    return said[: int(secs * SAMPLE_RATE) * 2]


def silence(secs: float) -> bytes:
    return bytes(int(secs * SAMPLE_RATE) * 2)


def sound(audio: bytes) -> bytes:
    frame = frames_pb2.Frame()
    frame.audio.audio = audio
    frame.audio.sample_rate = SAMPLE_RATE
    frame.audio.num_channels = 1
    return bytes(frame.SerializeToString())


def client_ready(message_id: str) -> bytes:
    frame = frames_pb2.Frame()
    frame.message.data = json.dumps(
        {
            "label": "rtvi-ai",
            "type": "client-ready",
            "id": message_id,
            "data": {"version": "2.1.0", "about": {"library": "test"}},
        }
    )
    return bytes(frame.SerializeToString())


class Ear:
    """Collects what the bot says."""

    def __init__(self, connection: ClientConnection):
        self._connection = connection
        self.messages: list[dict[str, Any]] = []
        self.audio: list[tuple[float, bytes, int]] = []
        self._changed = asyncio.Condition()

    async def listen(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            async for raw in self._connection:
                frame = frames_pb2.Frame.FromString(raw)
                async with self._changed:
                    if frame.WhichOneof("frame") == "audio":
                        heard = frame.audio
                        self.audio.append((loop.time(), heard.audio, heard.sample_rate))
                    elif frame.WhichOneof("frame") == "message":
                        self.messages.append(json.loads(frame.message.data))
                    self._changed.notify_all()
        except ConnectionClosed:
            pass

    async def until(self, predicate: Any, timeout: float = 30.0) -> None:
        async with self._changed:
            await asyncio.wait_for(self._changed.wait_for(lambda: predicate(self)), timeout)

    def count(self, kind: str) -> int:
        return sum(message["type"] == kind for message in self.messages)

    @property
    def pcm(self) -> bytes:
        return b"".join(audio for _, audio, _ in self.audio)


async def talk(connection: ClientConnection, pcm: bytes) -> None:
    """Send audio in frames, in real time."""
    loop = asyncio.get_running_loop()
    due = loop.time()
    for at in range(0, len(pcm), FRAME_BYTES):
        await connection.send(sound(pcm[at : at + FRAME_BYTES]))
        due += FRAME_SECS
        await asyncio.sleep(due - loop.time())
