"""A disk that a guest boots from, whatever its firmware: BIOS or UEFI.

    sector 0     GRUB's boot sector and the partition table
    sector 1 …   GRUB for BIOS, whole: what the boot sector loads
    1 MiB …      partition 1, FAT16, the EFI system partition: GRUB for UEFI; its file; the kernel, the file systems
    DATA …       partition 2, up to the end of the disk, for the guest to write to

One and the same GRUB file serves both. Everything is written by mtools, so neither root nor a loop device is needed.
"""

from __future__ import annotations

import os
import struct
import subprocess
from collections.abc import Iterable
from pathlib import Path

from guest.lab import Lab

SECTOR = 512
MIB = 1 << 20
# The system partition: room for the kernel and some programs.
SYSTEM = 1 * MIB
DATA = 96 * MIB
# The boot sector's code ends where the partition table begins. UEFI Specification 2.10, section 5.2.1.
CODE = 440
TABLE = 446
EFI_SYSTEM, LINUX = 0xEF, 0x83
ACTIVE = 0x80

# FAT16 with the largest clusters that leave it that: GRUB reads cluster by cluster, and each read is a turn through the firmware.
FORMAT = ("mformat", "-c", "32", "-h", "255", "-s", "63")

# `vtarget.boot` tells the guest which way it came: GRUB's platform (pc, efi) and the disk it read from.
GRUB_FILE = """\
if [ "$grub_platform" = pc ]; then
	serial --unit=0 --speed=115200
	terminal_output serial
fi
echo "VTARGET-GRUB $grub_platform $root"
linux /vmlinuz vtarget.boot=$grub_platform:$root {append}
initrd {archives}
boot
"""


class BootDiskError(Exception):
    """The disk could not be made."""


def write(path: Path, size: int, lab: Lab, kernel: Path, archives: Iterable[Path], append: str) -> None:
    """Makes the sparse file `path` a disk of `size` bytes that boots `kernel` with these initial file systems."""
    with path.open("wb") as disk:
        os.truncate(disk.fileno(), size)
        disk.write(boot_sector((lab.boot / "boot.img").read_bytes(), size))
        core = (lab.boot / "core.img").read_bytes()
        if SECTOR + len(core) > SYSTEM:
            raise BootDiskError("GRUB does not fit before the first partition")
        disk.write(core)
    partition = f"{path}@@{SYSTEM}"
    _mtools(lab, *FORMAT, "-T", str((DATA - SYSTEM) // SECTOR), "-i", partition, "::")
    for directory in ("grub", "EFI", "EFI/BOOT"):
        _mtools(lab, "mmd", "-i", partition, f"::{directory}")
    _mtools(lab, "mcopy", "-i", partition, str(lab.boot / "BOOTX64.EFI"), "::EFI/BOOT/BOOTX64.EFI")
    _mtools(lab, "mcopy", "-i", partition, str(kernel), "::vmlinuz")
    names = []
    for number, archive in enumerate(archives):
        names.append(f"/{number}.cpio")
        _mtools(lab, "mcopy", "-i", partition, str(archive), f"::{names[-1]}")
    text = GRUB_FILE.format(append=append, archives=" ".join(names))
    _mtools(lab, "mcopy", "-i", partition, "-", "::grub/grub.cfg", text=text)


def boot_sector(grub: bytes, size: int) -> bytes:
    """The first sector: the code of GRUB's own, and the partitions of a disk of `size` bytes."""
    entries = (
        _entry(ACTIVE, EFI_SYSTEM, SYSTEM // SECTOR, (DATA - SYSTEM) // SECTOR),
        _entry(0, LINUX, DATA // SECTOR, (size - DATA) // SECTOR),
    )
    return grub[:CODE].ljust(TABLE, b"\0") + b"".join(entries).ljust(64, b"\0") + b"\x55\xaa"


def _entry(flag: int, kind: int, first: int, sectors: int) -> bytes:
    # Cylinders, heads and sectors are given as out of range: everything reads the logical addresses.
    return struct.pack("<B3sB3sII", flag, b"\xfe\xff\xff", kind, b"\xfe\xff\xff", first, sectors)


def _mtools(lab: Lab, *command: str, text: str | None = None) -> None:
    done = subprocess.run(
        [str(lab.directory / "bin/mtools"), "-c", *command],
        input=text,
        stdin=subprocess.DEVNULL if text is None else None,
        capture_output=True,
        text=True,
        env={"PATH": os.defpath, "MTOOLS_SKIP_CHECK": "1"},
        check=False,
    )
    if done.returncode != 0:
        raise BootDiskError(f"{' '.join(command[:3])} ended with {done.returncode}: {done.stderr.strip()}")
