#!/usr/bin/env python3
"""Builds the guest's file systems from unpacked Debian packages: archives of programs, one of modules for each kernel.

The archives stay uncompressed: without KVM the guest would spend longer unpacking than the host needs to hand over the bytes.
The guest's `init` is not in here; it travels with each run's scenario (see `guest.py`), so editing it rebuilds nothing.
"""

from __future__ import annotations

import argparse
import lzma
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from guest.cpio import Archive

# Beside busybox, whose applets are linked in wherever no program of this list has the name. The shell is dash, because
# busybox's takes its own applets before any program of that name.
BASICS = ("usr/bin/dash",)
PROGRAMS = (
    *BASICS,
    "usr/bin/fio",
    "usr/sbin/nvme",
    "usr/sbin/mke2fs",
    "usr/sbin/e2fsck",
    "usr/sbin/resize2fs",
    "usr/sbin/blkdiscard",
    "usr/sbin/blockdev",
    "usr/bin/lsblk",
    "usr/bin/findmnt",
)
BASIC_LINKS = {"usr/bin/sh": "dash"}
LINKS = {**BASIC_LINKS, "usr/sbin/mkfs.ext4": "mke2fs", "usr/sbin/fsck.ext4": "e2fsck"}

# What the stock kernels do not carry inside. NVMe, ext4 and the serial ports are built in; virtio-blk is there as the peer to
# compare with. A name that a kernel has built in is skipped.
MODULES = ("virtio_pci", "virtio_blk")


def library_path(root: Path) -> list[Path]:
    """Where the programs of the unpacked packages find their libraries; Ceph, which fio links, keeps a private directory."""
    base = root / "usr/lib/x86_64-linux-gnu"
    return [base, base / "ceph"]


def libraries(root: Path, program: Path) -> list[Path]:
    """The shared libraries `program` loads, asked of the unpacked packages' own dynamic linker."""
    linker = root / "usr/lib64/ld-linux-x86-64.so.2"
    search = ":".join(str(path) for path in library_path(root))
    command = [str(linker), "--inhibit-cache", "--library-path", search, "--list", str(program)]
    listing = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return [Path(path) for path in re.findall(r"=> (/\S+)", listing)]


def write_programs(root: Path, out: Path, programs: Sequence[str], links: dict[str, str]) -> None:
    """Writes an archive with busybox, the programs, their libraries and the directories `init` mounts on."""
    with out.open("wb") as sink:
        archive = Archive(sink)
        for path in ("dev", "proc", "sys", "run", "tmp", "mnt", "etc", "usr/bin", "usr/sbin", "usr/lib", "usr/lib64"):
            archive.directory(path)
        # Merged /usr, as Debian has it.
        for name in ("bin", "sbin", "lib", "lib64"):
            archive.symlink(name, f"usr/{name}")
        # mke2fs wants /etc/mtab; e2fsck looks there for mounted file systems.
        archive.symlink("etc/mtab", "/proc/self/mounts")
        archive.file("etc/mke2fs.conf", (root / "etc/mke2fs.conf").read_bytes())

        busybox = root / "usr/bin/busybox"
        archive.file("usr/bin/busybox", busybox.read_bytes(), 0o755)
        taken = {Path(path).name for path in (*programs, *links)} | {"busybox"}
        applets = subprocess.run([busybox, "--list"], check=True, capture_output=True, text=True).stdout.split()
        for applet in sorted(set(applets) - taken):
            archive.symlink(f"usr/bin/{applet}", "busybox")

        needed: set[Path] = set()
        for name in programs:
            program = root / name
            archive.file(name, program.read_bytes(), 0o755)
            needed.update(libraries(root, program))
        for link, target in links.items():
            archive.symlink(link, target)
        for library in sorted(needed, key=lambda path: path.name):
            if not library.name.startswith("ld-linux"):
                archive.file(f"usr/lib/x86_64-linux-gnu/{library.name}", library.read_bytes(), 0o755)
        archive.file("usr/lib64/ld-linux-x86-64.so.2", (root / "usr/lib64/ld-linux-x86-64.so.2").read_bytes(), 0o755)
        archive.close()


def read_module(path: Path) -> bytes:
    """The module's object file, unpacked if Debian packed it."""
    data = path.read_bytes()
    return lzma.decompress(data) if path.suffix == ".xz" else data


def write_modules(tree: Path, out: Path) -> None:
    """Writes the archive with MODULES and what they depend on; `/modules/order` lists them in loading order.

    The order comes from the modules themselves (`depends=` in their .modinfo section), because modules.dep exists only after
    a package's installation scripts have run, and nothing here runs them.
    """
    found = {re.sub(r"\.ko(\.xz)?$", "", path.name).replace("-", "_"): path for path in tree.rglob("*.ko*")}
    order: list[str] = []
    data: dict[str, bytes] = {}

    def add(name: str) -> None:
        if name in data or name not in found:
            return
        data[name] = read_module(found[name])
        depends = re.search(rb"\0depends=([^\0]*)\0", data[name])
        for needed in depends.group(1).decode().split(",") if depends else ():
            add(needed.replace("-", "_"))
        order.append(name)

    for module in MODULES:
        add(module)
    with out.open("wb") as sink:
        archive = Archive(sink)
        for name in order:
            archive.file(f"modules/{name}.ko", data[name])
        archive.file("modules/order", "".join(f"{name}\n" for name in order).encode())
        archive.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, what in (
        ("programs", "directory the packages were unpacked in"),
        # A tenth of it, for guests whose firmware has to load it.
        ("basics", "directory the packages were unpacked in"),
        ("modules", "a kernel's module directory"),
    ):
        command = commands.add_parser(name)
        command.add_argument("tree", type=Path, help=what)
        command.add_argument("out", type=Path, help="archive to write")
    arguments = parser.parse_args()
    match arguments.command:
        case "programs":
            write_programs(arguments.tree, arguments.out, PROGRAMS, LINKS)
        case "basics":
            write_programs(arguments.tree, arguments.out, BASICS, BASIC_LINKS)
        case "modules":
            write_modules(arguments.tree, arguments.out)


if __name__ == "__main__":
    main()
