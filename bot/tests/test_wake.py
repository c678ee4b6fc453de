"""Waking: after it no generator continues what its template had."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from programs import BOT_DIR, Runner, runner
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

# A bot whose generators are all in a known state when its template is taken.
TEMPLATE = """
import json, os, random, tempfile
import numpy
from callbox_bot import on_wake

random.seed(1)
numpy.random.seed(1)
names = tempfile._get_candidate_names()
names._rng, names._rng_pid = random.Random(1), os.getpid()
own = random.Random(1)

@on_wake
def reseed_own(wake):
    own.seed(wake.derive("own", 32))

@on_wake
async def reseed_slowly(wake):
    pass

async def bot(args):
    print("drawn " + json.dumps({
        "random": random.random(),
        "numpy": float(numpy.random.random()),
        "tempfile": next(tempfile._get_candidate_names()),
        "own": own.random(),
    }), flush=True)
"""
GENERATION = "0123456789abcdef0123456789abcdef"


@pytest.fixture
def template(tmp_path: Path) -> Path:
    path = tmp_path / "bot.py"
    path.write_text(TEMPLATE)
    return path


def draw(bot: Path, entropy: str | None) -> dict[str, Any]:
    with runner(bot) as clone:
        if entropy is not None:
            answer = clone.http.post(
                "/_callbox/wake", json={"generation_id": GENERATION, "entropy": entropy}
            )
            assert answer.status_code == 200
            assert answer.json()["generation_id"] == GENERATION
            assert answer.json()["reseeded"] == [
                "openssl",
                "random",
                "tempfile",
                "numpy",
                "hook:reseed_own",
                "hook:reseed_slowly",
            ]
            assert clone.http.get("/readyz").status_code == 200
        assert clone.http.post("/bot", json={}).status_code == 200
        drawn: dict[str, Any] = json.loads(clone.line("drawn ").removeprefix("drawn "))
        assert entropy is None or entropy not in clone.output
        assert "rehearsal failed" not in clone.output
        return drawn


def test_clones_draw_the_same_unless_they_are_woken(template: Path) -> None:
    asleep = draw(template, None)
    assert draw(template, None) == asleep
    first = draw(template, "aa" * 64)
    second = draw(template, "bb" * 64)
    for name in asleep:
        assert len({str(asleep[name]), str(first[name]), str(second[name])}) == 3, name


@pytest.mark.parametrize(
    "body",
    [
        {},
        [],
        {"generation_id": GENERATION},
        {"generation_id": GENERATION, "entropy": "aa" * 31},
        {"generation_id": GENERATION, "entropy": "zz" * 64},
        {"generation_id": GENERATION, "entropy": 7},
        {"generation_id": "short", "entropy": "aa" * 64},
        {"generation_id": None, "entropy": "aa" * 64},
    ],
)
def test_a_malformed_wake_changes_nothing(template: Path, body: Any) -> None:
    with runner(template) as clone:
        answer = clone.http.post("/_callbox/wake", json=body)
        assert (answer.status_code, answer.json()["code"]) == (400, "bad-request")
        assert clone.http.get("/readyz").status_code == 200


def wake(clone: Runner) -> int:
    entropy = os.urandom(64).hex()
    answer = clone.http.post(
        "/_callbox/wake", json={"generation_id": GENERATION, "entropy": entropy}
    )
    return answer.status_code


def test_wakes_again_until_there_is_a_session(template: Path) -> None:
    # A machine of a reserve: when it is made, and when a session takes it.
    with runner(template) as clone:
        assert [wake(clone), wake(clone), wake(clone)] == [200, 200, 200]
        assert clone.http.get("/readyz").status_code == 200


def test_does_not_wake_after_a_session(template: Path) -> None:
    with runner(template) as clone:
        clone.http.post("/bot", json={})
        assert wake(clone) == 409


@pytest.mark.parametrize("kind", ["def", "async def"])
async def test_a_failed_hook_makes_the_process_useless(template: Path, kind: str) -> None:
    with template.open("a") as file:
        file.write(f"\n@on_wake\n{kind} broken(wake):\n    raise RuntimeError('no')\n")
    with runner(template) as clone:
        assert wake(clone) == 500
        assert clone.http.get("/readyz").status_code == 503
        assert clone.http.get("/livez").status_code == 200
        assert wake(clone) == 409
        assert clone.http.post("/bot", json={}).status_code == 409
        async with connect(clone.ws_url) as connection:
            with pytest.raises(ConnectionClosed):
                await connection.recv()
            assert connection.close_code == 1008


FORKS = """
import asyncio, os, sys
from callbox_bot.wake import Wake, reseed
{}

draw()

def clone(entropy):
    read, write = os.pipe()
    if os.fork() == 0:
        if entropy is not None:
            asyncio.run(reseed(Wake("0" * 32, entropy)))
        os.write(write, draw())
        os._exit(0)
    os.wait()
    return os.read(read, 64).hex()

print(clone(None), clone(None), clone(b"a" * 64), clone(b"b" * 64))
"""
SAME_PID = "int getpid(void) { return 4242; }"


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
@pytest.mark.parametrize(
    "draw",
    [
        "import ssl\ndef draw(): return ssl.RAND_bytes(16)",
        "from cryptography.hazmat.primitives.asymmetric import ec\n"
        "def draw(): return ec.generate_private_key(ec.SECP256R1())"
        ".private_numbers().private_value.to_bytes(32)",
    ],
    ids=["ssl", "cryptography"],
)
def test_openssl_forgets_its_template(tmp_path: Path, draw: str) -> None:
    """OpenSSL notices a fork by its pid; with that hidden, a fork is as good as a clone."""
    source, library = tmp_path / "pid.c", tmp_path / "pid.so"
    source.write_text(SAME_PID)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source], check=True)
    done = subprocess.run(
        [sys.executable, "-c", FORKS.format(draw)],
        env={**os.environ, "LD_PRELOAD": str(library), "PYTHONPATH": str(BOT_DIR)},
        capture_output=True,
        text=True,
        check=True,
    )
    asleep, again, first, second = done.stdout.split()
    if asleep != again:
        pytest.skip("this OpenSSL notices a fork in another way")
    assert len({asleep, first, second}) == 3
