"""Child processes that cannot outlive this one."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from typing import IO, Any

# Run after setpriv(1) has asked for the signal: a parent that died before that is noticed here.
GUARD = 'test "$PPID" = "$1" && shift && exec "$@"'


def spawn(command: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
    """Starts `command`; the kernel kills it when the thread that called this ends, however it ends (PR_SET_PDEATHSIG).

    Call it from the main thread. setpriv(1) sets the signal in the child, because Python offers no safe hook there.
    """
    guarded = ["setpriv", "--pdeathsig", "KILL", "--", "sh", "-c", GUARD, "sh", str(os.getpid()), *command]
    return subprocess.Popen(guarded, **options)


def end(process: subprocess.Popen[bytes] | None) -> None:
    """Kills the process if it still runs, and reaps it."""
    if process is None:
        return
    process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout, process.stderr):
        close(stream)


def close(stream: IO[bytes] | None) -> None:
    """Closes the stream, if there is one."""
    if stream is not None:
        stream.close()
