"""Pipecat's contract (readyz, wake, ws) with the standard library alone; echoes what it hears.

What it gets wrong on purpose is named in TINY_FAULTS, separated by commas:
  readyz        is never ready
  wake-refused  answers a wake with 500
  wake-garbage  answers a wake with something that is not JSON
  wake-other    acknowledges another wake than the one it got
  silent        accepts a websocket and says nothing
  drop          closes a websocket's connection in the middle of a frame
"""

import base64
import hashlib
import json
import os
import struct
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

FAULTS = set(filter(None, os.environ.get("TINY_FAULTS", "").split(",")))
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.path == "/livez":
            self.answer(200, b"{}")
        elif self.path == "/readyz":
            self.answer(503 if "readyz" in FAULTS else 200, b"{}")
        elif self.path.split("?")[0] == "/ws" and "Sec-WebSocket-Key" in self.headers:
            self.websocket()
        else:
            self.answer(404, b"{}")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path == "/_callbox/wake":
            self.wake(json.loads(body))
        elif self.path == "/bot":
            self.answer(200, b"{}")
        else:
            self.answer(404, b"{}")

    def wake(self, wake: dict[str, Any]) -> None:
        if "wake-refused" in FAULTS:
            self.answer(500, b'{"error":"refused on purpose"}')
        elif "wake-garbage" in FAULTS:
            self.answer(200, b"<html>")
        else:
            generation = "0" * 32 if "wake-other" in FAULTS else wake.get("generation_id")
            self.answer(200, json.dumps({"generation_id": generation, "reseeded": []}).encode())

    def answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def websocket(self) -> None:
        key = self.headers["Sec-WebSocket-Key"].encode()
        accept = base64.b64encode(hashlib.sha1(key + GUID, usedforsecurity=False).digest())
        self.send_response(101)
        self.send_header("Upgrade", "websocket")
        self.send_header("Connection", "Upgrade")
        self.send_header("Sec-WebSocket-Accept", accept.decode())
        self.end_headers()
        self.close_connection = True
        print("tiny: in a call", flush=True)
        while True:
            kind, payload = self.receive()
            if kind is None or kind == CLOSE:
                break
            if "silent" in FAULTS:
                continue
            if "drop" in FAULTS:
                self.wfile.write(bytes([0x80 | BINARY, 126, 0xFF, 0xFF, 1, 2, 3]))
                break
            if kind in (TEXT, BINARY):
                self.send(kind, payload)
            elif kind == PING:
                self.send(PONG, payload)
        if kind == CLOSE:
            self.send(CLOSE, payload[:2])
        print("tiny: call over", flush=True)

    def receive(self) -> tuple[int | None, bytes]:
        head = self.rfile.read(2)
        if len(head) < 2:
            return None, b""
        size = head[1] & 0x7F
        if size == 126:
            (size,) = struct.unpack("!H", self.rfile.read(2))
        elif size == 127:
            (size,) = struct.unpack("!Q", self.rfile.read(8))
        mask = self.rfile.read(4) if head[1] & 0x80 else bytes(4)
        payload = self.rfile.read(size)
        return head[0] & 0x0F, bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))

    def send(self, kind: int, payload: bytes) -> None:
        size = len(payload)
        if size < 126:
            head = struct.pack("!BB", 0x80 | kind, size)
        elif size < 1 << 16:
            head = struct.pack("!BBH", 0x80 | kind, 126, size)
        else:
            head = struct.pack("!BBQ", 0x80 | kind, 127, size)
        self.wfile.write(head + payload)

    def log_message(self, format: str, *args: object) -> None:
        """Not every request is news."""


class Server(ThreadingHTTPServer):
    """Threads of open calls do not hold up the end."""

    daemon_threads = True
    request_queue_size = 64


if __name__ == "__main__":
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 8080
    server = Server(("127.0.0.1", port), Handler)
    print(f"tiny: listening on 127.0.0.1:{port}", flush=True)
    server.serve_forever()
