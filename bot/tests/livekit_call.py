"""A call over LiveKit by LiveKit's own client, for `cargo xtask test rooms`.

    python livekit_call.py <dispatcher> <key> <bot>

Starts a session, joins with the token of the answer, hears the bot, says something and compares
what comes back. Prints what it saw as JSON.
"""

import asyncio
import json
import sys
import time
from typing import Any

import httpx
import numpy as np
from client import SAMPLE_RATE, silence, speech
from livekit import rtc
from resemblance import Heard, resemblance

FRAME = SAMPLE_RATE // 100
GREETING_SECS = 2.0
SAID_SECS = 2.5


async def call(dispatcher: str, key: str, bot: str) -> dict[str, Any]:
    async with httpx.AsyncClient(
        base_url=dispatcher, headers={"authorization": f"Bearer {key}"}, timeout=60
    ) as api:
        began = time.monotonic()
        answer = await api.post("/start", json={"bot": bot, "transport": "livekit"})
        answer.raise_for_status()
        join = answer.json()
        seen: dict[str, Any] = {"keys": sorted(join), "session": join["sessionId"]}
        room = rtc.Room()
        heard = Heard(SAMPLE_RATE)
        listeners = []

        @room.on("track_subscribed")
        def listen(track: rtc.Track, *_: object) -> None:
            if track.kind == rtc.TrackKind.KIND_AUDIO:
                listeners.append(asyncio.create_task(_listen(track, heard)))

        await room.connect(join["url"], join["token"])
        seen["joined_s"] = time.monotonic() - began
        source = rtc.AudioSource(SAMPLE_RATE, 1)
        track = rtc.LocalAudioTrack.create_audio_track("microphone", source)
        options = rtc.TrackPublishOptions(source=rtc.TrackSource.SOURCE_MICROPHONE)
        await room.local_participant.publish_track(track, options)

        await heard.until_loud(GREETING_SECS, timeout=120)
        seen["greeted_s"] = time.monotonic() - began
        await heard.until_quiet(1.0, timeout=60)
        view = (await api.get(f"/v1/sessions/{join['sessionId']}")).json()
        seen["live"] = {"state": view["state"], "moments": view["moments"]}
        mark = heard.mark()
        said = speech(SAID_SECS)
        await _say(source, said + silence(2.0))
        await heard.until_loud(SAID_SECS / 2, timeout=60, since=mark)
        await heard.until_quiet(1.0, timeout=60)
        seen["echo"] = resemblance(np.frombuffer(said, "<i2"), heard.since(mark), SAMPLE_RATE)

        await room.disconnect()
        for listener in listeners:
            listener.cancel()
        ended = await api.get(
            f"/v1/sessions/{join['sessionId']}?wait=ended&timeout_ms=60000", timeout=90
        )
        seen["ended"] = {k: ended.json().get(k) for k in ("state", "end_reason")}
        return seen


async def _listen(track: rtc.Track, heard: Heard) -> None:
    async for event in rtc.AudioStream(track, sample_rate=SAMPLE_RATE, num_channels=1):
        heard.hear(np.frombuffer(event.frame.data, "<i2"))


async def _say(source: rtc.AudioSource, pcm: bytes) -> None:
    for at in range(0, len(pcm) - 2 * FRAME + 1, 2 * FRAME):
        frame = rtc.AudioFrame(pcm[at : at + 2 * FRAME], SAMPLE_RATE, 1, FRAME)
        # It takes what its queue has room for, and so keeps the time.
        await source.capture_frame(frame)


if __name__ == "__main__":
    print(json.dumps(asyncio.run(call(*sys.argv[1:4]))))
