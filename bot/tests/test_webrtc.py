"""SmallWebRTC: the offer and the session that it belongs to, with a real peer."""

import asyncio
import json
from typing import Any

import httpx
from aiortc import RTCPeerConnection, RTCSessionDescription
from programs import PARROT, runner

SESSION = "6f9619ff-8b86-4d01-b42d-00cf4fc964ff"
HEADERS = {
    "x-daily-session-id": SESSION,
    "x-daily-transport-type": "webrtc",
    "x-callbox-transport": "webrtc",
    "x-callbox-room-token": json.dumps({"iceServers": []}),
}


async def heard(track: Any) -> int:
    """Listens until something loud comes."""
    while True:
        frame = await track.recv()
        if (level := int(abs(frame.to_ndarray()).max())) > 1000:
            return level


async def test_a_client_that_offers_before_there_is_a_session_hears_the_bot() -> None:
    with runner(PARROT) as bot:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{bot.port}", timeout=60) as http:
            peer = RTCPeerConnection()
            tracks: asyncio.Queue[Any] = asyncio.Queue()
            peer.on("track", tracks.put_nowait)
            peer.addTransceiver("audio", direction="sendrecv")
            peer.createDataChannel("chat")
            await peer.setLocalDescription(await peer.createOffer())
            offer = {"sdp": peer.localDescription.sdp, "type": "offer", "pc_id": None}
            offering = asyncio.create_task(http.post("/api/offer", json=offer))
            serving = asyncio.create_task(http.post("/bot", json={}, headers=HEADERS))
            answer = await offering
            assert answer.status_code == 200, answer.text
            said = answer.json()
            assert said["type"] == "answer"
            await peer.setRemoteDescription(RTCSessionDescription(said["sdp"], said["type"]))
            track = await asyncio.wait_for(tracks.get(), 30)
            assert await asyncio.wait_for(heard(track), 30)

            ends = {"pc_id": said["pc_id"], "candidates": []}
            assert (await http.patch("/api/offer", json=ends)).json() == {"status": "success"}
            unknown = await http.patch("/api/offer", json={"pc_id": "other", "candidates": []})
            assert unknown.status_code == 404
            second = await http.post("/api/offer", json=offer)
            assert second.status_code == 400, "one session, one connection"

            await peer.close()
            left = await asyncio.wait_for(serving, 30)
            assert left.status_code == 200, "the bot returns when its client is gone"


async def test_what_is_no_offer_is_refused() -> None:
    with runner(PARROT) as bot:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{bot.port}", timeout=60) as http:
            serving = asyncio.create_task(http.post("/bot", json={}, headers=HEADERS))
            for body in ({"sdp": "x", "type": "offer", "more": 1}, {}, [1]):
                answer = await http.post("/api/offer", json=body)
                assert answer.status_code == 400, answer.text
                assert answer.headers["content-type"] == "application/json"
            serving.cancel()
