"""SmallWebRTC: the offers of one session's client, and the connection that comes of them.

`POST /bot` says that there is a session and with which servers ways are looked for; the client's
offer follows at `/api/offer`. The two come by different ways, so an offer that is first waits.
"""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

from starlette.exceptions import HTTPException

if TYPE_CHECKING:
    from pipecat.transports.smallwebrtc.connection import IceServer, SmallWebRTCConnection
    from pipecat.transports.smallwebrtc.request_handler import SmallWebRTCRequestHandler

WAIT_SECS = 60.0
"""How long an offer waits for its session; less than the dispatcher waits for the answer."""


class Signalling:
    """Takes offers as soon as it is open, and hands over the first connection."""

    def __init__(self) -> None:
        self._handler: asyncio.Future[SmallWebRTCRequestHandler] | None = None
        self._first: asyncio.Future[tuple[SmallWebRTCConnection, Any]] | None = None

    def open(self, ice_config: str) -> None:
        """Take offers from now on.

        Args:
            ice_config: JSON `{"iceServers": […]}`, or nothing.

        Raises:
            ValueError: It is neither.
            ImportError: The image has no aiortc.
        """
        # It brings codecs of 100 MB along, so only those sessions load it that need it.
        from pipecat.transports.smallwebrtc.request_handler import (
            ConnectionMode,
            SmallWebRTCRequestHandler,
        )

        handler = SmallWebRTCRequestHandler(
            ice_servers=_ice_servers(ice_config), connection_mode=ConnectionMode.SINGLE
        )
        self._opened().set_result(handler)

    async def first(self) -> tuple[SmallWebRTCConnection, Any]:
        """The client's connection and the data of its offer, as soon as there is one."""
        return await self._connected()

    async def offer(self, request: dict[str, Any]) -> dict[str, str]:
        """Answer an offer.

        Raises:
            HTTPException: It cannot be answered, now or ever, by its status.
        """
        from pipecat.transports.smallwebrtc.request_handler import SmallWebRTCRequest

        handler = await self._when_open()
        try:
            parsed = SmallWebRTCRequest.from_dict(dict(request))
        except TypeError as error:
            raise HTTPException(400, f"this is no offer: {error}") from None

        async def connected(connection: SmallWebRTCConnection) -> None:
            if not self._connected().done():
                self._connected().set_result((connection, parsed.request_data))

        answer = await handler.handle_web_request(parsed, connected)
        if answer is None:
            raise HTTPException(500, "there is no answer to this offer")
        return answer

    async def candidates(self, request: dict[str, Any]) -> None:
        """Take more of the client's addresses.

        Raises:
            HTTPException: They belong to no connection, or are none.
        """
        from pipecat.transports.smallwebrtc.request_handler import (
            IceCandidate,
            SmallWebRTCPatchRequest,
        )

        handler = await self._when_open()
        try:
            listed = [IceCandidate(**one) for one in request.get("candidates", [])]
            parsed = SmallWebRTCPatchRequest(pc_id=request["pc_id"], candidates=listed)
        except (TypeError, KeyError) as error:
            raise HTTPException(400, f"these are no candidates: {error}") from None
        await handler.handle_patch_request(parsed)

    async def _when_open(self) -> SmallWebRTCRequestHandler:
        try:
            return await asyncio.wait_for(asyncio.shield(self._opened()), WAIT_SECS)
        except TimeoutError:
            raise HTTPException(503, "no session over webrtc has begun here") from None

    # Made when they are needed: by then there is a loop.
    def _opened(self) -> asyncio.Future[SmallWebRTCRequestHandler]:
        if self._handler is None:
            self._handler = asyncio.get_running_loop().create_future()
        return self._handler

    def _connected(self) -> asyncio.Future[tuple[SmallWebRTCConnection, Any]]:
        if self._first is None:
            self._first = asyncio.get_running_loop().create_future()
        return self._first


def _ice_servers(ice_config: str) -> list[IceServer]:
    from pipecat.transports.smallwebrtc.connection import IceServer

    if not ice_config:
        return []
    servers = json.loads(ice_config)["iceServers"]
    return [IceServer(**server) for server in servers]
