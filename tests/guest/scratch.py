"""A short-lived directory with a short path, for sockets (whose paths are limited to 107 bytes), removed in the end.

A run that was killed cannot remove its own; the next one does, because the name holds the process that it belonged to.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from pathlib import Path
from types import TracebackType

PREFIX = "vtarget-guest-"


class Scratch:
    """Makes the directory when entered, removes it when left."""

    def __enter__(self) -> Scratch:
        self.path = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-"))
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        shutil.rmtree(self.path, ignore_errors=True)


def sweep() -> None:
    """Removes what runs left that are no longer alive."""
    for path in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        owner = re.match(rf"{PREFIX}(\d+)-", path.name)
        if owner and not Path(f"/proc/{owner.group(1)}").exists():
            shutil.rmtree(path, ignore_errors=True)
