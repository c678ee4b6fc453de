"""What this process can do to its machine."""

import ctypes
import glob
import os
import socket
import subprocess
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

LIBC = ctypes.CDLL(None, use_errno=True)
SYS_IOPL, SYS_INIT_MODULE = 172, 175
PTRACE_SEIZE, PTRACE_DETACH = 0x4206, 17
CLONE_NEWUSER = 0x10000000
BLOCK = 512


def rights(_question: dict[str, Any]) -> dict[str, Any]:
    """Try everything, and undo what worked."""
    tried = {}
    for what, attempt in _attempts().items():
        # In a child, so that nothing that works changes who tries the next one.
        reader, writer = os.pipe()
        if os.fork() == 0:
            os.write(writer, _outcome(attempt).encode())
            os._exit(0)
        os.close(writer)
        with os.fdopen(reader) as answer:
            said = answer.read()
        os.wait()
        tried[what] = {"worked": said == "worked", "said": said}
    return {"tried": tried, "of_callbox": _names("/run/callbox")}


def _outcome(attempt: Callable[[], None]) -> str:
    try:
        attempt()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "worked"


def _attempts() -> dict[str, Callable[[], None]]:
    attempts: dict[str, Callable[[], None]] = {
        "read the kernel's memory": lambda: _read("/dev/mem"),
        "read the machine's ports": lambda: _read("/dev/port"),
        "get at the machine's ports": lambda: _call(LIBC.syscall(SYS_IOPL, 3)),
        "mount a file system": lambda: _call(LIBC.mount(b"none", b"/mnt", b"tmpfs", 0, None)),
        "load a kernel module": _load_module,
        "trace process 1": _trace,
        "read the memory of process 1": lambda: _read("/proc/1/mem"),
        "read the environment of process 1": lambda: _read("/proc/1/environ"),
        "signal process 1": lambda: os.kill(1, 0),
        "write the root file system": lambda: _write("/etc/passwd"),
        "say what a crash runs": lambda: _write("/proc/sys/kernel/core_pattern"),
        "pull the emergency cord": lambda: _write("/proc/sysrq-trigger"),
        "become root": lambda: os.setuid(0),
        "become root by a program": _substitute_user,
        "set the clock": lambda: time.clock_settime(time.CLOCK_REALTIME, time.time()),
        "name the machine": lambda: socket.sethostname(socket.gethostname()),
        # Not a command that there is: it is refused for that by who would be allowed one.
        "restart the machine": lambda: _call(LIBC.reboot(0x12345), allowed=22),
        "make packets": lambda: _socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP),
        "make frames": lambda: _socket(socket.AF_PACKET, socket.SOCK_RAW),
        "make a user namespace": lambda: _call(LIBC.unshare(CLONE_NEWUSER)),
    }
    for port in sorted(glob.glob("/dev/vport*")) or ["/dev/vport0p1", "/dev/vport0p2"]:
        attempts[f"speak as the agent ({port})"] = partial(_open, port, os.O_RDWR)
    for disk in sorted(glob.glob("/dev/vd?")) or ["/dev/vda"]:
        attempts[f"read the image's device ({disk})"] = partial(_read, disk)
        attempts[f"write the image ({disk})"] = partial(_write_block, disk)
    return attempts


def _call(result: int, allowed: int = 0) -> None:
    error = ctypes.get_errno()
    if result < 0 and error != allowed:
        raise OSError(error, os.strerror(error))


def _open(path: str, flags: int) -> None:
    os.close(os.open(path, flags | os.O_NONBLOCK))


def _write(path: str) -> None:
    """Opening is enough to know."""
    _open(path, os.O_WRONLY)


def _read(path: str) -> None:
    with open(path, "rb", buffering=0) as file:
        try:
            file.read(1)
        except OSError as error:
            # Nothing is mapped at address 0 of a process; opening it was the point.
            if path != "/proc/1/mem":
                raise error


def _write_block(path: str) -> None:
    """Writes what is there already, through to the disk."""
    reader = os.open(path, os.O_RDONLY)
    block = os.pread(reader, BLOCK, 0)
    writer = os.open(path, os.O_WRONLY | os.O_SYNC)
    os.pwrite(writer, block, 0)


def _load_module() -> None:
    # "Not a module" is what somebody hears who would be allowed one.
    _call(LIBC.syscall(SYS_INIT_MODULE, b"no module", 9, b""), allowed=8)


def _trace() -> None:
    _call(LIBC.ptrace(PTRACE_SEIZE, 1, None, None))
    LIBC.ptrace(PTRACE_DETACH, 1, None, None)


def _substitute_user() -> None:
    subprocess.run(
        ["su", "-c", "true"], stdin=subprocess.DEVNULL, capture_output=True, check=True, timeout=20
    )


def _socket(*kind: int) -> None:
    socket.socket(*kind).close()


def _names(directory: str) -> list[str]:
    try:
        return sorted(entry.name for entry in Path(directory).iterdir())
    except OSError as error:
        return [error.strerror or str(error)]
