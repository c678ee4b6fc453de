"""The HTTP contract of Pipecat's base image, and the wake hook."""

from __future__ import annotations

import base64
import binascii
import inspect
import json
from typing import TYPE_CHECKING, Any

from pipecat.runner.types import (
    DailyRunnerArguments,
    LiveKitRunnerArguments,
    RunnerArguments,
    SmallWebRTCRunnerArguments,
    WebSocketRunnerArguments,
)
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route, Router, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketState

from callbox_bot.log import logger
from callbox_bot.session import NotNowError
from callbox_bot.signalling import Signalling
from callbox_bot.wake import BadWakeError, parse_wake
from callbox_bot.warning import BadWarningError, parse_warning, tell

if TYPE_CHECKING:
    from starlette.datastructures import Headers

    from callbox_bot.botfile import BotFile
    from callbox_bot.session import Life

CLOSE_NORMAL = 1000
CLOSE_POLICY = 1008
CLOSE_FAILED = 1011
CLOSE_TRY_LATER = 1013


def build(bot_file: BotFile, life: Life) -> Router:
    """The ASGI application.

    A bare router: no middleware stands between the socket and the bot.
    """
    contract = _Contract(bot_file, life)
    return Router(
        routes=[
            Route("/livez", contract.livez),
            Route("/readyz", contract.readyz),
            Route("/bot", contract.bot, methods=["POST"]),
            Route("/api/offer", contract.offer, methods=["POST", "PATCH"]),
            WebSocketRoute("/ws", contract.ws),
            Route("/_callbox/wake", contract.wake, methods=["POST"]),
            Route("/_callbox/warning", contract.warning, methods=["POST"]),
        ]
    )


class _Contract:
    def __init__(self, bot_file: BotFile, life: Life):
        self._bot_file = bot_file
        self._life = life
        self._signalling = Signalling()

    async def livez(self, _request: Request) -> JSONResponse:
        return _answer({"status": "ok"})

    async def readyz(self, _request: Request) -> JSONResponse:
        if not self._life.can_serve:
            return _answer({"status": "not ready"}, 503)
        if self._bot_file.readyz is None:
            return _answer({"status": "ok"})
        try:
            said = self._bot_file.readyz()
            if inspect.isawaitable(said):
                said = await said
        except Exception:
            logger.exception("readyz() of the bot file failed")
            said = False
        if isinstance(said, dict):
            return _answer(said, 200 if said.get("ready") else 503)
        return _answer({"status": "ok"}) if said else _answer({"status": "not ready"}, 503)

    async def wake(self, request: Request) -> JSONResponse:
        try:
            wake = parse_wake(await _json(request))
        except BadWakeError as error:
            return _error(400, "bad-request", str(error))
        try:
            reseeded = await self._life.wake(wake)
        except NotNowError as error:
            return _error(409, error.code, str(error))
        except Exception as error:
            # Names the hook, and nothing that was derived from the secret.
            logger.opt(exception=error).error("the wake failed; this process stays unready")
            return _error(500, "not-reseeded", f"reseeding failed: {type(error).__name__}")
        return _answer({"generation_id": wake.generation_id, "reseeded": reseeded})

    async def warning(self, request: Request) -> JSONResponse:
        try:
            warning = parse_warning(await _json(request))
        except BadWarningError as error:
            return _error(400, "bad-request", str(error))
        return _answer({"hooks": await tell(warning)})

    async def bot(self, request: Request) -> JSONResponse:
        body = await _json(request)
        if not isinstance(body, dict):
            return _error(
                422, "bad-request", "the body of /bot must be a JSON object ({} if empty)"
            )
        session_id = request.headers.get("x-daily-session-id")
        by_webrtc = _transport(request.headers) == "webrtc"
        try:
            runner_args = _runner_arguments(request.headers, body, session_id)
        except ValueError as error:
            return _error(422, "bad-request", str(error))
        try:
            self._life.claim(session_id, request.headers.get("x-callbox-incarnation"))
        except NotNowError as error:
            return _error(409 if error.final else 503, error.code, str(error))
        if by_webrtc:
            try:
                self._signalling.open(request.headers.get("x-callbox-room-token", ""))
            except (ImportError, KeyError, TypeError, ValueError) as error:
                logger.opt(exception=error).error("there can be no webrtc here")
                return _error(500, "no-webrtc", f"no webrtc: {type(error).__name__}")
            # The dispatcher bounds how long a client may take to come.
            connection, data = await self._signalling.first()
            runner_args = SmallWebRTCRunnerArguments(
                webrtc_connection=connection, body=data or body, session_id=session_id
            )
        if not await self._life.converse(runner_args):
            return _error(500, "bot-failed", "the bot failed; its log says why")
        return _answer({})

    async def offer(self, request: Request) -> JSONResponse:
        asked = await _json(request)
        if not isinstance(asked, dict):
            return _error(400, "bad-request", "the body must be a JSON object")
        try:
            if request.method == "PATCH":
                await self._signalling.candidates(asked)
                return _answer({"status": "success"})
            return _answer(await self._signalling.offer(asked))
        except HTTPException as error:
            code = "not-ready" if error.status_code == 503 else "bad-offer"
            content = {"detail": error.detail, "error": error.detail, "code": code}
            return _answer(content, error.status_code)

    async def ws(self, websocket: WebSocket) -> None:
        # Accepted before anything else: a client can only read a close code after that.
        await websocket.accept()
        session_id = websocket.headers.get("x-daily-session-id")
        try:
            self._life.claim(session_id, websocket.headers.get("x-callbox-incarnation"))
        except NotNowError as error:
            await websocket.close(CLOSE_POLICY if error.final else CLOSE_TRY_LATER, str(error))
            return
        # Without a type, Pipecat waits for the first messages of a telephony provider to find out
        # which one it is: a plain client would wait for ever.
        telephony = websocket.query_params.get("transport") == "telephony"
        returned = await self._life.converse(
            WebSocketRunnerArguments(
                websocket=websocket,
                transport_type=None if telephony else "websocket",
                body=_decode_body(websocket.query_params.get("body")),
                session_id=session_id,
            )
        )
        await _close(websocket, CLOSE_NORMAL if returned else CLOSE_FAILED)


def _runner_arguments(
    headers: Headers, body: dict[str, Any], session_id: str | None
) -> RunnerArguments:
    url, token = headers.get("x-daily-room-url"), headers.get("x-daily-room-token")
    if _transport(headers) == "livekit":
        url = headers.get("x-callbox-room-url") or url
        token = headers.get("x-callbox-room-token") or token
        room = headers.get("x-callbox-room-name")
        if not (url and token and room):
            raise ValueError(
                "livekit needs the headers x-callbox-room-url, x-callbox-room-token "
                "and x-callbox-room-name"
            )
        return LiveKitRunnerArguments(
            url=url, token=token, room_name=room, body=body, session_id=session_id
        )
    if url and _transport(headers) != "webrtc":
        return DailyRunnerArguments(
            room_url=url, token=token or None, body=body, session_id=session_id
        )
    return RunnerArguments(body=body, session_id=session_id)


def _transport(headers: Headers) -> str | None:
    return headers.get("x-callbox-transport") or headers.get("x-daily-transport-type")


def _decode_body(encoded: str | None) -> Any:
    """The `body` of a websocket's query. Like the base image: what cannot be read is None."""
    if not encoded:
        return {}
    # Both alphabets, with or without padding; an unescaped plus arrives as a space.
    alphabet = encoded.replace(" ", "+").replace("-", "+").replace("_", "/").rstrip("=")
    try:
        raw = base64.b64decode(alphabet + "=" * (-len(alphabet) % 4), validate=True)
        return json.loads(raw)
    except (binascii.Error, ValueError):
        logger.warning("the query's body is not base64 of JSON; the bot gets None")
        return None


async def _json(request: Request) -> Any:
    try:
        return json.loads(await request.body())
    except ValueError:
        return None


async def _close(websocket: WebSocket, code: int) -> None:
    """Close what neither the client nor the bot's transport has closed."""
    connected = WebSocketState.CONNECTED
    if websocket.client_state is not connected or websocket.application_state is not connected:
        return
    try:
        await websocket.close(code)
    except Exception as error:  # The client can go at any moment.
        logger.debug(f"closing the websocket failed: {error}")


def _answer(content: Any, status: int = 200) -> JSONResponse:
    # An idle connection must not survive into a template.
    return JSONResponse(content, status, headers={"connection": "close"})


def _error(status: int, code: str, message: str) -> JSONResponse:
    return _answer({"error": message, "code": code}, status)
