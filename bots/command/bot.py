"""A bot that is just a program: no Pipecat, nothing but the standard library.

callbox starts it as `bot.py --room-url ws://127.0.0.1:8080/ws --token T`; the process is the
session. It listens at that address, says that it is ready, echoes every audio frame, and ends
when the client leaves.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import hashlib
import json
import sys
from urllib.parse import urlsplit

HANDSHAKE_KEY = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
MAX_MESSAGE = 1 << 20

# First byte of Pipecat's `Frame` message: the number of the field and "a length follows".
AUDIO, MESSAGE = 2 << 3 | 2, 4 << 3 | 2
# The same for the only field inside its `message`.
DATA = 1 << 3 | 2


async def serve_one_call(host: str, port: int, path: str) -> None:
    """Listen until one client has come and gone."""
    done = asyncio.get_running_loop().create_future()

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if await shake_hands(reader, writer, path):
                await echo(reader, writer)
                if not done.done():
                    done.set_result(None)
        except (ConnectionError, asyncio.IncompleteReadError):
            if not done.done():
                done.set_result(None)
        finally:
            writer.close()

    server = await asyncio.start_server(take, host, port)
    port = server.sockets[0].getsockname()[1]
    print(json.dumps({"event": "listening", "host": host, "port": port}), flush=True)
    async with server:
        await done


async def shake_hands(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, path: str
) -> bool:
    """Answer the upgrade request; anything else (a probe of the port) is turned away."""
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        return False
    request, *lines = head.split("\r\n")
    headers = {
        name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)
    }
    key = headers.get("sec-websocket-key")
    if key is None or urlsplit(request.split(" ")[1]).path != path:
        writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        await writer.drain()
        return False
    # The protocol asks for SHA-1; nothing is secret here.
    proof = hashlib.sha1(key.encode() + HANDSHAKE_KEY, usedforsecurity=False).digest()
    writer.write(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + base64.b64encode(proof) + b"\r\n\r\n"
    )
    await writer.drain()
    return True


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send audio back as it is; answer client-ready; until the client closes."""
    while True:
        opcode, payload = await receive(reader)
        if opcode == CLOSE:
            send(writer, CLOSE, payload[:2])
            await writer.drain()
            return
        if opcode == PING:
            send(writer, PONG, payload)
        elif opcode == BINARY and payload[:1] == bytes([AUDIO]):
            send(writer, BINARY, payload)
        elif opcode == BINARY and payload[:1] == bytes([MESSAGE]):
            answer(writer, payload)
        await writer.drain()


def answer(writer: asyncio.StreamWriter, payload: bytes) -> None:
    """Say that the bot is ready when the client says that it is."""
    # Both lengths in front of the JSON have at most a few bytes.
    message = json.loads(payload[payload.index(b"{") :])
    if message.get("type") != "client-ready":
        return
    ready = {
        "label": "rtvi-ai",
        "type": "bot-ready",
        "id": message["id"],
        "data": {"version": "1.0.0", "about": {"library": "callbox-command-bot"}},
    }
    data = field(DATA, json.dumps(ready).encode())
    send(writer, BINARY, field(MESSAGE, data))


def field(tag: int, content: bytes) -> bytes:
    """One length-delimited field of a protobuf message."""
    length, size = len(content), bytearray()
    while length > 127:
        size.append(length & 127 | 128)
        length >>= 7
    size.append(length)
    return bytes([tag]) + bytes(size) + content


async def receive(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """Read one message, put together from its fragments (control frames come in between)."""
    opcode, message = 0, b""
    while True:
        first, second = await reader.readexactly(2)
        size = second & 127
        if size > 125:
            size = int.from_bytes(await reader.readexactly(2 if size == 126 else 8), "big")
        if size + len(message) > MAX_MESSAGE:
            raise ConnectionError("message too long")
        mask = await reader.readexactly(4) if second & 128 else b"\0\0\0\0"
        payload = unmask(await reader.readexactly(size), mask)
        if first & 15 >= CLOSE:
            return first & 15, payload
        opcode = first & 15 or opcode
        message += payload
        if first & 128:
            return opcode, message


def unmask(payload: bytes, mask: bytes) -> bytes:
    """Undo the client's masking, all bytes at once."""
    if not payload:
        return payload
    whole = (mask * (len(payload) // 4 + 1))[: len(payload)]
    plain = int.from_bytes(payload, "big") ^ int.from_bytes(whole, "big")
    return plain.to_bytes(len(payload), "big")


def send(writer: asyncio.StreamWriter, opcode: int, payload: bytes) -> None:
    """Write one unfragmented frame."""
    size = len(payload)
    if size < 126:
        head = bytes([128 | opcode, size])
    elif size < 1 << 16:
        head = bytes([128 | opcode, 126]) + size.to_bytes(2, "big")
    else:
        head = bytes([128 | opcode, 127]) + size.to_bytes(8, "big")
    writer.write(head + payload)


def main() -> None:
    """Read the command line and serve the call."""
    parser = argparse.ArgumentParser(description="Echoes the audio of one call.")
    parser.add_argument("--room-url", required=True, help="where to listen: ws://host:port/path")
    # The socket is inside the machine, where nobody else is; a room elsewhere would need it.
    parser.add_argument("--token", default="", help="key to the room (not needed for ws)")
    url = urlsplit(parser.parse_args().room_url)
    if url.scheme != "ws" or url.hostname is None or url.port is None:
        sys.exit(f"--room-url must be ws://host:port/path, not '{url.geturl()}'")
    asyncio.run(serve_one_call(url.hostname, url.port, url.path or "/"))


if __name__ == "__main__":
    main()
