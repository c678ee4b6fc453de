"""Who can be reached, and who comes."""

import os
import socket
import struct
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

AT_ONCE = 16
"""Attempts at the same time: most wait for an answer that never comes."""
EVERYBODY = "0.0.0.0"  # noqa: S104 that somebody else could come is what is tried
HEARD: list[str] = []
"""Who came to what `listen` opened."""


def reach(question: dict[str, Any]) -> dict[str, Any]:
    """Try every place that the question has."""
    patience = float(question.get("patience_s", 3))
    ways: dict[str, Callable[[Any, float], str]] = {"tcp": _tcp, "udp": _udp, "icmp": _icmp}
    tries = [(way, place) for way in ways for place in question.get(way, [])]

    def attempt(one: tuple[str, Any]) -> dict[str, Any]:
        way, place = one
        try:
            said = ways[way](place, patience)
        except OSError as error:
            said = error.strerror or str(error)
        return {"way": way, "place": place, "said": said}

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return {"tried": list(pool.map(attempt, tries))}


def _tcp(place: list[Any], patience: float) -> str:
    with socket.create_connection((place[0], place[1]), timeout=patience):
        return "reached"


def _udp(place: list[Any], patience: float) -> str:
    address, port = place
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as wire:
        wire.settimeout(patience)
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        wire.sendto(b"probe", (address, port))
        # Not connected: a broadcast is answered by somebody else than it was sent to.
        wire.recvfrom(64)
        return "reached"


def _icmp(address: str, patience: float) -> str:
    head = struct.pack("!BBHHH", 8, 0, 0, os.getpid() & 0xFFFF, 1)
    message = head[:2] + struct.pack("!H", checksum(head)) + head[4:]
    with _ping_socket() as wire:
        wire.settimeout(patience)
        wire.connect((address, 0))
        wire.send(message)
        while True:
            answer = wire.recv(256)
            # A raw socket gets the packet's head too, and refusals besides answers.
            if wire.type == socket.SOCK_RAW:
                answer = answer[(answer[0] & 15) * 4 :]
            if answer[0] == 0:
                return "reached"


def _ping_socket() -> socket.socket:
    try:
        return socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    except PermissionError:
        return socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP)


def checksum(data: bytes) -> int:
    """The internet's checksum (RFC 1071)."""
    data += bytes(len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def listen(question: dict[str, Any]) -> dict[str, Any]:
    """Open a port to everybody, by TCP and UDP."""
    port = int(question["port"])
    server = socket.create_server((EVERYBODY, port))
    wire = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    wire.bind((EVERYBODY, port))

    def accept() -> None:
        while True:
            connection, peer = server.accept()
            HEARD.append(f"tcp {peer[0]}")
            connection.close()

    def receive() -> None:
        while True:
            _, peer = wire.recvfrom(64)
            HEARD.append(f"udp {peer[0]}")
            wire.sendto(b"heard", peer)

    for work in (accept, receive):
        threading.Thread(target=work, daemon=True).start()
    return {"listening": port}


def heard(_question: dict[str, Any]) -> dict[str, Any]:
    """Who came."""
    return {"heard": HEARD}
