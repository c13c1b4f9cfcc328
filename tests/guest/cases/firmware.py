"""Guests that boot *from* the disk: their firmware reads the boot loader, and the boot loader through it all the rest."""

from __future__ import annotations

from guest.case import MIB, Environment, Face, case, check
from guest.guest import Firmware

# The kernel that came from the disk writes to it, too, and reads back what is on the medium.
USE = """
disk=$(disk root)
data=$(partition $disk 2)
digest() { dd bs=256k iflag=direct "$@" 2>/dev/null | sha256sum; }
result boot way=$(argument vtarget.boot) efi=$(test -d /sys/firmware/efi && echo yes || echo no)
dd if=/dev/urandom of=/tmp/written bs=256k count=32 2>/dev/null
dd if=/tmp/written of=$data bs=256k oflag=direct 2>/dev/null
sync
[ "$(digest if=$data count=32)" = "$(sha256sum </tmp/written)" ] || fail "the disk holds something else than what was written"
"""


def boots_from(environment: Environment, firmware: Firmware, face: Face) -> str:
    """Boots from the disk with that face and checks that it was this firmware that did it."""
    disk = environment.bootable("root", 112 * MIB, USE)
    controller = environment.attach(face, disk, bootindex=1)
    results = environment.run("", [controller], firmware=firmware)
    way = results["boot"]["way"]
    expected = {Firmware.SEABIOS: ("pc:hd0", "no"), Firmware.OVMF: ("efi:hd0", "yes")}[firmware]
    check(way.startswith(expected[0]) and results["boot"]["efi"] == expected[1], f"the guest came by {results['boot']}")
    return f"up after {results.boot_seconds:.1f} s by {way}"


@case("boots-from-nvme-seabios")
def nvme_seabios(environment: Environment) -> str:
    """SeaBIOS boots from NVMe over vfio-user."""
    return boots_from(environment, Firmware.SEABIOS, Face.NVME)


@case("boots-from-nvme-ovmf")
def nvme_ovmf(environment: Environment) -> str:
    """OVMF boots from NVMe over vfio-user."""
    return boots_from(environment, Firmware.OVMF, Face.NVME)


@case("boots-from-vfu-seabios")
def vfu_seabios(environment: Environment) -> str:
    """SeaBIOS boots from virtio-blk over vfio-user."""
    return boots_from(environment, Firmware.SEABIOS, Face.VFU)


@case("boots-from-vfu-ovmf")
def vfu_ovmf(environment: Environment) -> str:
    """OVMF boots from virtio-blk over vfio-user."""
    return boots_from(environment, Firmware.OVMF, Face.VFU)


@case("boots-from-vhost-seabios")
def vhost_seabios(environment: Environment) -> str:
    """SeaBIOS boots from virtio-blk over vhost-user."""
    return boots_from(environment, Firmware.SEABIOS, Face.VHOST)


@case("boots-from-vhost-ovmf")
def vhost_ovmf(environment: Environment) -> str:
    """OVMF boots from virtio-blk over vhost-user."""
    return boots_from(environment, Firmware.OVMF, Face.VHOST)
