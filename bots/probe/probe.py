"""Tries what no machine may, and says what became of it. README.md has the questions.

What surrounds the questions (HTTP, the websocket, the wake) is the bot of the image `tiny`.
"""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import eats_memory
import frames
import http_bot
import reach
import rights

TROUBLE = {
    "processes": "forks.py",
    "disk": "fills_disk.py",
    "log": "floods_log.py",
    "console": "floods_log.py",
    "cpu": "burns_cpu.py",
}


def look(_question: dict[str, Any]) -> dict[str, Any]:
    """Who this is, and what it sees of a network."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {
        "uid": status["Uid"].split()[0],
        "capabilities": status["CapEff"].strip(),
        "interfaces": sorted(entry.name for entry in Path("/sys/class/net").iterdir()),
        "routes": Path("/proc/net/route").read_text().splitlines()[1:],
        "ipv6": _ipv6_addresses(),
    }


def _ipv6_addresses() -> list[str]:
    try:
        lines = Path("/proc/net/if_inet6").read_text().splitlines()
    except FileNotFoundError:
        return []
    return [line.split()[0] for line in lines if line.split()[-1] != "lo"]


def hog(question: dict[str, Any]) -> dict[str, Any]:
    """Take all that there is of something."""
    what = question["what"]
    if what == "memory":
        # In this process, as it is the one whose end is the end of the session.
        threading.Thread(target=eats_memory.eat, daemon=True).start()
    else:
        program = [sys.executable, f"/app/trouble/{TROUBLE[what]}"]
        # Whoever is root need not go through the agent.
        out = os.open("/dev/ttyS0", os.O_WRONLY) if what == "console" else None
        subprocess.Popen(program, stdin=subprocess.DEVNULL, stdout=out)
    return {"took": what}


QUESTIONS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "look": look,
    "reach": reach.reach,
    "listen": reach.listen,
    "heard": reach.heard,
    "spoof": frames.spoof,
    "rights": rights.rights,
    "hog": hog,
}


class Handler(http_bot.Handler):
    """What the other bot would say back is a question here, if it is text."""

    def send(self, kind: int, payload: bytes) -> None:
        """Answer."""
        if kind == http_bot.TEXT:
            question = json.loads(payload)
            payload = json.dumps(QUESTIONS[question["do"]](question)).encode()
        super().send(kind, payload)


if __name__ == "__main__":
    http_bot.Server(("127.0.0.1", 8080), Handler).serve_forever()
