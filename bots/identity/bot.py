"""Says everything by which machines could be told apart, for `cargo xtask vm-test clones`.

Not a bot that anybody would talk to. Its template holds generators that have been used, so that
clones that are not reseeded give themselves away. A client asks over the websocket: the text
`who` is answered with one JSON object, `time` with the machine's clock in nanoseconds.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import secrets
import socket
import ssl
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any

import numpy as np
from callbox_bot import Wake, on_wake
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

GENERATOR = np.random.default_rng()
"""A generator of the bot's own: nobody but this file knows of it."""
WOKEN: list[str] = []
"""The generations that this process was reseeded for."""


@on_wake
def reseed(wake: Wake) -> None:
    """Reseed what only this file knows of, and remember for whom."""
    global GENERATOR
    GENERATOR = np.random.default_rng(list(wake.derive("identity", 32)))
    WOKEN.append(wake.generation_id)


def draw() -> dict[str, Any]:
    """Draw from everything that is random, and read every name."""
    return {
        "getrandom": os.getrandom(16).hex(),
        "kernel_uuid": _read("/proc/sys/kernel/random/uuid"),
        "uuid4": str(uuid.uuid4()),
        "secrets": secrets.token_hex(16),
        "python_random": [random.random() for _ in range(4)],  # noqa: S311
        "numpy_global": [float(np.random.random()) for _ in range(4)],
        "numpy_own": [float(GENERATOR.random()) for _ in range(4)],
        "tempfile": _temporary_name(),
        "openssl_bytes": ssl.RAND_bytes(16).hex(),
        "openssl_key": _key(),
        "tls_client_hello": _client_hello_random(),
        "machine_id": _read("/etc/machine-id"),
        "hostname": socket.gethostname(),
        "boot_id": _read("/proc/sys/kernel/random/boot_id"),
        # None for a bot that was never woken: the control of the test.
        "generation_id": WOKEN[-1] if WOKEN else None,
    }


def _read(path: str) -> str:
    return Path(path).read_text().strip()


def _temporary_name() -> str:
    with tempfile.NamedTemporaryFile() as file:
        return file.name


def _key() -> str:
    """A new key's public half, as a digest: `cryptography` brings an OpenSSL of its own."""
    public = ec.generate_private_key(ec.SECP256R1()).public_key()
    encoded = public.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    return hashlib.sha256(encoded).hexdigest()


def _client_hello_random() -> str:
    """The 32 bytes that a TLS client begins with, as they would go over the wire."""
    sent = ssl.MemoryBIO()
    connection = ssl.create_default_context().wrap_bio(
        ssl.MemoryBIO(), sent, server_hostname="example.com"
    )
    # It waits for a server then. What it says first is all that is wanted.
    with contextlib.suppress(ssl.SSLWantReadError):
        connection.do_handshake()
    hello = sent.read()
    # Record header (5), type and length of the handshake message (4), version (2).
    if hello[0] != 22 or hello[5] != 1:
        raise RuntimeError("a TLS client did not begin with a ClientHello")
    return hello[11:43].hex()


# Everything is used once while the template is made.
random.seed(1)
np.random.seed(1)
AT_TEMPLATE_TIME = draw()


def identity() -> dict[str, Any]:
    """What this machine draws, beside what its template drew."""
    return {"drawn": draw(), "template": AT_TEMPLATE_TIME}


async def bot(runner_args: Any) -> None:
    """Answer until the client hangs up."""
    async for question in runner_args.websocket.iter_text():
        answer = str(time.time_ns()) if question == "time" else json.dumps(identity())
        await runner_args.websocket.send_text(answer)
