"""The guest laboratory that scripts/setup builds: where things lie, and which accelerator works here."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
KERNELS = ("debian12", "debian13", "backports")
DEFAULT_KERNEL = "debian13"
# Works everywhere; one host thread per guest processor.
TCG = "tcg,thread=multi"


class LabError(Exception):
    """The laboratory is missing or incomplete; the text says what to do."""


@dataclass(frozen=True)
class Kernel:
    """A guest kernel: its image, the archive with its modules, its release as `uname -r` prints it."""

    image: Path
    modules: Path
    release: str


def cache() -> Path:
    """The directory everything that is built once lies in, as scripts/common.sh defines it."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("VTARGET_CACHE") or Path(base) / "vtarget")


class Lab:
    """What guests are made of. The directory is resolved once, so a setup meanwhile does not mix two laboratories."""

    def __init__(self) -> None:
        self.directory = (cache() / "lab").resolve()
        if not (self.directory / "programs.cpio").exists():
            raise LabError(f"there is no guest laboratory in {self.directory}; run scripts/setup")

    @property
    def programs(self) -> Path:
        """The archive with the guest's programs."""
        return self.directory / "programs.cpio"

    @property
    def basics(self) -> Path:
        """The archive with no more programs than a shell and busybox."""
        return self.directory / "basics.cpio"

    @property
    def boot(self) -> Path:
        """The directory with GRUB and OVMF."""
        return self.directory / "boot"

    def kernel(self, name: str) -> Kernel:
        """One of KERNELS."""
        directory = self.directory / "kernels" / name
        return Kernel(directory / "vmlinuz", directory / "modules.cpio", (directory / "version").read_text().strip())

    def qemu(self) -> str:
        """The QEMU to run: $VTARGET_QEMU, else the laboratory's own, else the system's (setup saw that it serves)."""
        chosen = os.environ.get("VTARGET_QEMU")
        own = self.directory / "bin/qemu-system-x86_64"
        found = chosen or (str(own) if own.exists() else shutil.which("qemu-system-x86_64"))
        if found is None:
            raise LabError("the QEMU this laboratory was built with is gone; run scripts/setup")
        return found

    def accelerator(self) -> str:
        """QEMU's `-accel`: KVM where a guest really boots with it, TCG elsewhere. Tried once per host kernel and QEMU.

        That /dev/kvm opens proves little: nested and paravirtual hosts offer it and then fail in the guest's first steps.
        """
        if not os.access("/dev/kvm", os.R_OK | os.W_OK):
            return TCG
        version = subprocess.run([self.qemu(), "--version"], check=True, capture_output=True, text=True).stdout.split("\n")[0]
        key = f"{platform.node()} {platform.release()} {version}"
        remembered = cache() / "accelerator"
        if remembered.exists():
            old_key, _, answer = remembered.read_text().strip().partition("\n")
            if old_key == key:
                return answer
        answer = "kvm" if self._kvm_boots() else TCG
        scratch = remembered.with_suffix(f".{os.getpid()}")
        scratch.write_text(f"{key}\n{answer}\n")
        scratch.rename(remembered)
        return answer

    def _kvm_boots(self) -> bool:
        # Here, because guest.py needs this module.
        from guest.guest import Guest, GuestError
        from guest.scratch import Scratch

        with Scratch() as scratch:
            guest = Guest(self, "kvm-probe", scratch.path, "true", accelerator="kvm")
            try:
                guest.start()
                guest.finish(timeout=30)
            except GuestError:
                return False
            finally:
                guest.kill()
        return True
