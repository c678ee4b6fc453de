"""Datagrams and frames that claim to come from somebody else."""

import socket
import struct
from pathlib import Path
from typing import Any

from reach import checksum

IP_FREEBIND = 15
ETHERNET_IP, ETHERNET_IPV6, ETHERNET_VLAN = 0x0800, 0x86DD, 0x8100
SOURCE_PORT = 4242


def spoof(question: dict[str, Any]) -> dict[str, Any]:
    """Send with every source of the question to its places; whether any arrived is seen there."""
    tried = []
    for source in question["from"]:
        for place in question["to"]:
            if _family(source) != _family(place[0]):
                continue
            for way, send in (("datagram", _datagram), ("frame", _frame), ("vlan", _vlan)):
                try:
                    send(source, place[0], place[1])
                    said = "sent"
                except OSError as error:
                    said = error.strerror or str(error)
                tried.append({"way": way, "from": source, "to": place, "said": said})
    return {"tried": tried}


def _datagram(source: str, address: str, port: int) -> None:
    """As any user may try it."""
    with socket.socket(_family(address), socket.SOCK_DGRAM) as wire:
        wire.setsockopt(socket.IPPROTO_IP, IP_FREEBIND, 1)
        wire.bind((source, 0))
        wire.sendto(f"spoofed {source}".encode(), (address, port))


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def _frame(source: str, address: str, port: int) -> None:
    """As root may: past the kernel's own ideas of what can be sent."""
    kind = ETHERNET_IPV6 if ":" in address else ETHERNET_IP
    _send(struct.pack("!H", kind) + _packet(source, address, port))


def _vlan(source: str, address: str, port: int) -> None:
    """The same behind a tag."""
    kind = ETHERNET_IPV6 if ":" in address else ETHERNET_IP
    _send(struct.pack("!HHH", ETHERNET_VLAN, 1, kind) + _packet(source, address, port))


def _packet(source: str, address: str, port: int) -> bytes:
    data = f"spoofed {source}".encode()
    family = _family(address)
    own, other = socket.inet_pton(family, source), socket.inet_pton(family, address)
    length = 8 + len(data)
    pseudo = own + other + struct.pack("!HH", socket.IPPROTO_UDP, length)
    head = struct.pack("!HHH", SOURCE_PORT, port, length)
    datagram = head + struct.pack("!H", checksum(pseudo + head + data)) + data
    if family == socket.AF_INET6:
        return (
            struct.pack("!IHBB", 6 << 28, length, socket.IPPROTO_UDP, 64) + own + other + datagram
        )
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + length, 1, 0, 64, socket.IPPROTO_UDP, 0)
    check = checksum(head + own + other)
    return head[:-2] + struct.pack("!H", check) + own + other + datagram


def _send(frame: bytes) -> None:
    card = _card()
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as wire:
        wire.bind((card, 0))
        wire.send(_gateway() + _address(card) + frame)


def _card() -> str:
    cards = sorted(entry.name for entry in Path("/sys/class/net").iterdir() if entry.name != "lo")
    if not cards:
        raise OSError("no network card")
    return cards[0]


def _address(card: str) -> bytes:
    return _bytes(Path(f"/sys/class/net/{card}/address").read_text().strip())


def _gateway() -> bytes:
    """The hardware address of the way out, which has been used before."""
    for line in Path("/proc/net/arp").read_text().splitlines()[1:]:
        hardware = line.split()[3]
        if hardware != "00:00:00:00:00:00":
            return _bytes(hardware)
    raise OSError("no gateway is known")


def _bytes(written: str) -> bytes:
    return bytes.fromhex(written.replace(":", ""))
