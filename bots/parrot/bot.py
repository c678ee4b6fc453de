"""A parrot: greets, then repeats everything it hears.

A normal Pipecat bot. It needs no key, no model and no network, and so little computing that a
machine without hardware virtualisation keeps up. Runs under callbox
(`python3 -m callbox_bot bot.py`) and under Pipecat's development runner
(`python3 bot.py -t websocket`).

What comes back is sample for sample what was sent, at 16 kHz. A client that plays at another rate
asks for it in the body of its session: `{"output_sample_rate": 24000}`.
"""

from __future__ import annotations

import io
import shutil
import subprocess
import wave
from collections import deque
from typing import Any

import numpy as np
import soxr
from loguru import logger
from pipecat.frames.frames import (
    Frame,
    InputAudioRawFrame,
    TTSAudioRawFrame,
    TTSStartedFrame,
    TTSStoppedFrame,
)
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineParams, PipelineWorker
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.runner.types import RunnerArguments
from pipecat.runner.utils import create_transport
from pipecat.serializers.protobuf import ProtobufFrameSerializer
from pipecat.transports.base_transport import TransportParams
from pipecat.transports.websocket.fastapi import FastAPIWebsocketParams
from pipecat.workers.runner import WorkerRunner

SAMPLE_RATE = 16_000
GREETING = "Hello! I am a parrot. Say something, and I will repeat it."

SPEECH_LEVEL = 300
"""Mean amplitude (of 32768) from which a frame counts as speech."""
SPEECH_SECS = 0.06
"""Speech shorter than this is a click."""
QUIET_SECS = 0.6
"""Quiet that ends an utterance."""
MAX_SECS = 10.0
"""An utterance that is longer is repeated in pieces."""
MARGIN_SECS = 0.2
"""What is kept before the first loud frame and after the last one."""
SLICE_SECS = 0.5
"""Audio is handed on in slices, so that the first one leaves before the last one is cut up."""


def speak(text: str) -> bytes:
    """Synthesise speech: 16-bit mono at SAMPLE_RATE. Without espeak-ng, a beep."""
    program = shutil.which("espeak-ng")
    if program is None:
        logger.warning("espeak-ng is not installed: greeting with a beep")
        at = np.arange(SAMPLE_RATE // 2) / SAMPLE_RATE
        return (8000 * np.sin(2 * np.pi * 440 * at)).astype("<i2").tobytes()
    done = subprocess.run([program, "--stdout", text], capture_output=True, check=True)
    with wave.open(io.BytesIO(done.stdout)) as spoken:
        rate, pcm = spoken.getframerate(), spoken.readframes(spoken.getnframes())
    samples: np.ndarray = soxr.resample(np.frombuffer(pcm, "<i2"), rate, SAMPLE_RATE)
    return samples.astype("<i2").tobytes()


# Spoken while the file is loaded: it is in the template, and no call waits for it.
GREETING_PCM = speak(GREETING)


class Ear:
    """Finds utterances in a stream of frames by their energy alone."""

    def __init__(self) -> None:
        self._before: deque[InputAudioRawFrame] = deque()
        self._utterance: list[InputAudioRawFrame] = []
        self._loud_secs = 0.0
        self._quiet_secs = 0.0
        self._secs = 0.0

    def hear(self, frame: InputAudioRawFrame) -> list[InputAudioRawFrame] | None:
        """Take the next frame; returns the frames of an utterance that has just ended."""
        secs = len(frame.audio) / (2 * frame.num_channels * frame.sample_rate)
        loud = _level(frame.audio) >= SPEECH_LEVEL
        self._loud_secs = self._loud_secs + secs if loud else 0.0
        self._quiet_secs = 0.0 if loud else self._quiet_secs + secs
        if not self._utterance:
            self._wait_for_speech(frame, secs)
            return None
        self._utterance.append(frame)
        self._secs += secs
        if self._quiet_secs < QUIET_SECS and self._secs < MAX_SECS:
            return None
        return self._finish(secs)

    def _wait_for_speech(self, frame: InputAudioRawFrame, secs: float) -> None:
        self._before.append(frame)
        if len(self._before) * secs > MARGIN_SECS + SPEECH_SECS:
            self._before.popleft()
        if self._loud_secs >= SPEECH_SECS:
            self._utterance = list(self._before)
            self._secs = len(self._utterance) * secs
            self._before.clear()

    def _finish(self, secs: float) -> list[InputAudioRawFrame]:
        utterance, self._utterance = self._utterance, []
        # Keep a margin of the quiet that ended it.
        surplus = int((self._quiet_secs - MARGIN_SECS) / secs)
        return utterance[:-surplus] if surplus > 0 else utterance


def _level(pcm: bytes) -> float:
    # Every fourth sample tells loud from quiet just as well.
    samples = memoryview(pcm).cast("h")[::4]
    return sum(map(abs, samples)) / max(len(samples), 1)


class Parrot(FrameProcessor):
    """Repeats every utterance it hears."""

    def __init__(self) -> None:
        super().__init__()
        self._ear = Ear()

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Listen to the client's audio, pass everything else on."""
        await super().process_frame(frame, direction)
        if not isinstance(frame, InputAudioRawFrame):
            await self.push_frame(frame, direction)
        elif utterance := self._ear.hear(frame):
            pcm = b"".join(heard.audio for heard in utterance)
            logger.info(f"repeating {len(pcm) / (2 * frame.sample_rate):.1f} s")
            for answer in sounds(pcm, frame.sample_rate):
                await self.push_frame(answer)


def sounds(pcm: bytes, sample_rate: int) -> list[Frame]:
    """The frames that make the bot say this."""
    step = int(SLICE_SECS * sample_rate) * 2
    slices = [pcm[at : at + step] for at in range(0, len(pcm), step)]
    return [
        TTSStartedFrame(),
        *(TTSAudioRawFrame(audio, sample_rate, 1) for audio in slices),
        TTSStoppedFrame(),
    ]


def _websocket() -> FastAPIWebsocketParams:
    return FastAPIWebsocketParams(
        audio_in_enabled=True,
        audio_out_enabled=True,
        # Pipecat sends one packet ahead of the clock and never makes up for a delay. Long packets
        # are few, and carry the client over the moments in which a busy host forgets us.
        audio_out_10ms_chunks=20,
        audio_out_end_silence_secs=0,
        serializer=ProtobufFrameSerializer(),
    )


def _webrtc() -> TransportParams:
    return TransportParams(audio_in_enabled=True, audio_out_enabled=True)


def _daily() -> TransportParams:
    from pipecat.transports.daily.transport import DailyParams

    return DailyParams(audio_in_enabled=True, audio_out_enabled=True)


def _livekit() -> TransportParams:
    from pipecat.transports.livekit.transport import LiveKitParams

    return LiveKitParams(audio_in_enabled=True, audio_out_enabled=True)


TRANSPORTS = {"websocket": _websocket, "webrtc": _webrtc, "daily": _daily, "livekit": _livekit}


async def bot(runner_args: RunnerArguments) -> None:
    """Serve one call."""
    transport: Any = await create_transport(runner_args, TRANSPORTS)
    body = runner_args.body if isinstance(runner_args.body, dict) else {}
    worker = PipelineWorker(
        Pipeline([transport.input(), Parrot(), transport.output()]),
        params=PipelineParams(
            audio_in_sample_rate=SAMPLE_RATE,
            audio_out_sample_rate=int(body.get("output_sample_rate", SAMPLE_RATE)),
        ),
        # Every observer is told of every frame. Turns are not needed, and whoever started the
        # session bounds its length.
        enable_turn_tracking=False,
        idle_timeout_secs=None,
    )

    @transport.event_handler("on_client_connected")
    async def greet(_transport: object, _client: object) -> None:
        await worker.queue_frames(sounds(GREETING_PCM, SAMPLE_RATE))

    @transport.event_handler("on_client_disconnected")
    async def hang_up(_transport: object, _client: object) -> None:
        await worker.cancel()

    runner = WorkerRunner(handle_sigint=runner_args.handle_sigint)
    await runner.add_workers(worker)
    await runner.run()


if __name__ == "__main__":
    from pipecat.runner.run import main

    main()
