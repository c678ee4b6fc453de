"""Makes this process different from every other clone of its template.

A clone wakes with the memory of its template, and so with the state of every random generator
in it: two calls would draw the same session keys. The host sends fresh entropy; every generator
that this process holds is seeded from it before the wake is acknowledged.

What cannot be changed in a running interpreter is the secret of `hash(str)`. It guards
dictionaries against crafted keys and nothing else.
"""

from __future__ import annotations

import hashlib
import inspect
import os
import random
import ssl
import sys
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

Hook = Callable[["Wake"], "Awaitable[None] | None"]

MIN_ENTROPY_BYTES = 32

_hooks: list[Hook] = []


@dataclass(frozen=True, slots=True)
class Wake:
    """What makes a clone itself.

    Parameters:
        generation_id: 32 hex digits, new for every machine.
        entropy: At least 32 random bytes from the host. A secret.
    """

    generation_id: str
    entropy: bytes = field(repr=False)

    def derive(self, label: str, size: int) -> bytes:
        """Bytes for one generator, different for every label and every machine.

        The kernel's generator (which was reseeded before) goes in as well, so that a host
        with poor entropy weakens nothing.

        Args:
            label: Name of the generator that the bytes are for.
            size: How many bytes.
        """
        stretched = hashlib.shake_256()
        for part in (self.entropy, self.generation_id.encode(), label.encode(), os.urandom(32)):
            stretched.update(len(part).to_bytes(8, "big") + part)
        return stretched.digest(size)


class BadWakeError(ValueError):
    """The request to wake is malformed; nothing was changed."""


def on_wake(hook: Hook) -> Hook:
    """Register a function (plain or async) that reseeds random state the bot itself keeps.

    Hooks run in the order of registration, after the generators that callbox-bot knows. A hook
    that raises makes the wake fail, and the machine is never used. Usable as a decorator.
    """
    _hooks.append(hook)
    return hook


def parse_wake(body: object) -> Wake:
    """Check the body of a wake request.

    Raises:
        BadWakeError: Says what is wrong, without quoting the secret.
    """
    if not isinstance(body, dict):
        raise BadWakeError("the body of a wake must be a JSON object")
    generation_id, entropy = body.get("generation_id"), body.get("entropy")
    if not isinstance(generation_id, str) or len(_unhex(generation_id, "generation_id")) != 16:
        raise BadWakeError("generation_id must be 32 hex digits")
    if not isinstance(entropy, str):
        raise BadWakeError("entropy must be a string of hex digits")
    secret = _unhex(entropy, "entropy")
    if len(secret) < MIN_ENTROPY_BYTES:
        raise BadWakeError(f"entropy must be at least {MIN_ENTROPY_BYTES} bytes")
    return Wake(generation_id, secret)


async def reseed(wake: Wake) -> list[str]:
    """Reseed every generator of this process, then run the hooks.

    Returns:
        The names of what was reseeded, in order.

    Raises:
        Exception: Whatever went wrong. The process must then not serve a session.
    """
    done = []
    for name, reseed_one in _GENERATORS.items():
        if reseed_one(wake):
            done.append(name)
    for hook in _hooks:
        outcome = hook(wake)
        if inspect.isawaitable(outcome):
            await outcome
        done.append(f"hook:{getattr(hook, '__qualname__', repr(hook))}")
    return done


def rehearse() -> None:
    """Use what a wake uses for the first time before it counts, and change nothing by it.

    What is imported, read from the disk and looked up here is in the template then. OpenSSL only
    ever gains by being seeded; the other generators may have been put into their state by the bot
    file, so that others of their kind stand in for them.
    """
    wake = Wake("0" * 32, os.urandom(MIN_ENTROPY_BYTES))
    _reseed_openssl(wake)
    _reseed_cryptography(wake)
    random.Random().seed(wake.derive("random", 64))  # noqa: S311
    if (numpy_random := sys.modules.get("numpy.random")) is not None:
        numpy_random.RandomState().seed(_words(wake.derive("numpy", 64)))
    if (torch := sys.modules.get("torch")) is not None:
        torch.Generator().manual_seed(0)


def _unhex(digits: str, name: str) -> bytes:
    try:
        return bytes.fromhex(digits)
    except ValueError:
        raise BadWakeError(f"{name} must be hex digits") from None


def _reseed_openssl(wake: Wake) -> bool:
    # RAND_add reseeds OpenSSL's primary generator. The one that RAND_bytes reads follows when it
    # sees that its parent has changed, so draw once here and let a failure show.
    seed = wake.derive("openssl", 64)
    ssl.RAND_add(seed, float(len(seed)))
    ssl.RAND_bytes(32)
    if not ssl.RAND_status():
        raise RuntimeError("OpenSSL says that its generator is not seeded")
    return True


def _reseed_cryptography(wake: Wake) -> bool:
    # This package brings an OpenSSL of its own. WebRTC draws its keys from it.
    if "cryptography.hazmat.bindings._rust" not in sys.modules:
        return False
    from cryptography.hazmat.bindings.openssl.binding import Binding

    seed = wake.derive("cryptography", 64)
    library = Binding().lib
    library.RAND_add(seed, len(seed), float(len(seed)))
    if not library.RAND_status():
        raise RuntimeError("the OpenSSL of cryptography says that its generator is not seeded")
    return True


def _reseed_random(wake: Wake) -> bool:
    random.seed(wake.derive("random", 64))
    return True


def _reseed_tempfile(wake: Wake) -> bool:
    # The names of temporary files come from a generator of their own that is made on first use.
    # There is no public way to make it again.
    tempfile._name_sequence = None  # type: ignore[attr-defined]
    return True


def _reseed_numpy(wake: Wake) -> bool:
    # Only if it is loaded: its generator would be seeded by the kernel on first import.
    numpy_random = sys.modules.get("numpy.random")
    if numpy_random is None:
        return False
    numpy_random.seed(_words(wake.derive("numpy", 64)))
    return True


def _words(seed: bytes) -> list[int]:
    return [int.from_bytes(seed[at : at + 4], "big") for at in range(0, len(seed), 4)]


def _reseed_torch(wake: Wake) -> bool:
    torch = sys.modules.get("torch")
    if torch is None:
        return False
    # Seeds the generators of all devices. It takes a signed 64-bit number.
    torch.manual_seed(int.from_bytes(wake.derive("torch", 8), "big", signed=True))
    return True


_GENERATORS: dict[str, Callable[[Wake], bool]] = {
    "openssl": _reseed_openssl,
    "cryptography": _reseed_cryptography,
    "random": _reseed_random,
    "tempfile": _reseed_tempfile,
    "numpy": _reseed_numpy,
    "torch": _reseed_torch,
}
