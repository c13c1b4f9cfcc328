"""virtio-blk by the guest's own driver, over vfio-user and over vhost-user. Several disks share a guest: a boot costs most."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from guest.case import MIB, Controller, Disk, Environment, Face, case, check
from guest.cases import boot, data
from guest.guest import Guest

VIRTIO = (Face.VFU, Face.VHOST)
# VIRTIO 1.3, section 6: the feature bits these cases look at.
EVENT_IDX, VERSION_1, RING_PACKED = 29, 32, 34


@dataclass(frozen=True)
class Setting:
    """One way to attach a disk."""

    face: Face
    packed: bool
    queues: int

    @property
    def name(self) -> str:
        """Tells it from others; the disk's serial number too, which may have 20 characters."""
        return f"{self.face.value}-{'packed' if self.packed else 'split'}-{self.queues}"


SETTINGS = [Setting(face, packed, queues) for face in VIRTIO for packed in (False, True) for queues in (1, 4)]

MATRIX = """
features() { cat /sys/class/block/$(basename $1)/device/features; }
all=
for serial in $SERIALS; do
    disk=$(disk $serial)
    all=$all${all:+:}$disk
    queues=$(ls /sys/class/block/$(basename $disk)/mq | wc -l)
    result seen.$serial queues=$queues features=$(features $disk) bytes=$(blockdev --getsize64 $disk)
    # Each job has a quarter of the disk; jobs are spread over processors and with them over queues.
    run_fio $serial --filename=$disk --rw=randwrite --bsrange=4k-1m --iodepth=16 --size=$((16 / queues))m --numjobs=$queues \\
        --offset_increment=16m --cpus_allowed=0-3 --cpus_allowed_policy=split --verify=crc32c --randseed=7
done
run_fio all --filename=$all --rw=randwrite --bssplit=4k/70:64k/29:1m/1 --iodepth=64 --size=64m --io_size=64m --verify=crc32c
"""


def matrix(environment: Environment, kernel: str) -> str:
    """Every way to attach a virtio disk, in one guest with that kernel: verified writes to each, then to all at once."""
    disks, controllers = [], []
    for number, setting in enumerate(SETTINGS):
        disk = environment.disk(setting.name, 64 * MIB, ("malloc", "uring")[number % 2], (512, 4096)[number % 3 == 0])
        disks.append(disk)
        controllers.append(environment.attach(setting.face, disk, queues=setting.queues, packed=setting.packed))
    scenario = MATRIX.replace("$SERIALS", " ".join(disk.name for disk in disks))
    results = environment.run(scenario, controllers, kernel=kernel, vcpus=4)
    for setting, disk in zip(SETTINGS, disks, strict=True):
        seen = results[f"seen.{disk.name}"]
        check(seen["queues"] == str(setting.queues), f"{disk.name} has {seen['queues']} queues")
        check(seen["bytes"] == str(disk.size), f"{disk.name} has {seen['bytes']} bytes")
        bits = {number for number, bit in enumerate(seen["features"]) if bit == "1"}
        check({VERSION_1, EVENT_IDX} <= bits, f"{disk.name} was negotiated with features {sorted(bits)}")
        check((RING_PACKED in bits) == setting.packed, f"{disk.name} was negotiated with features {sorted(bits)}")
    return f"{environment.lab.kernel(kernel).release}: {len(SETTINGS)} disks, all at once {results.iops('all')} IOPS"


@case("virtio-debian12", vcpus=2)
def debian12(environment: Environment) -> str:
    """Debian 12's kernel: both transports, split and packed, 1 and 4 queues, each verified, then all at once."""
    return matrix(environment, "debian12")


@case("virtio-debian13", vcpus=2)
def debian13(environment: Environment) -> str:
    """Debian 13's kernel: both transports, split and packed, 1 and 4 queues, each verified, then all at once."""
    return matrix(environment, "debian13")


@case("virtio-backports", vcpus=2)
def backports(environment: Environment) -> str:
    """The kernel of Debian 13's backports: both transports, split and packed, 1 and 4 queues, each verified, then all at once."""
    return matrix(environment, "backports")


def both(environment: Environment, disks: Sequence[Disk], *, packed: bool = False) -> list[Controller]:
    """Attaches the first disk over vfio-user and the second over vhost-user."""
    return [environment.attach(face, disk, packed=packed) for face, disk in zip(VIRTIO, disks, strict=True)]


@case("virtio-filesystem")
def filesystem(environment: Environment) -> str:
    """mkfs.ext4, mount, copy, sync, unmount, reboot of the guest, fsck, checksums compared, over both transports."""
    disks = [environment.disk(face.value, 256 * MIB, "uring") for face in VIRTIO]
    return data.survives_reboot(environment, both(environment, disks))


@case("virtio-host-file")
def host_file(environment: Environment) -> str:
    """The guest reads what the host's files held, the files hold what the guest writes, over both transports."""
    disks = [environment.disk(face.value, 24 * MIB, "uring", fill=data.random_content) for face in VIRTIO]
    return data.same_on_both_sides(environment, disks, both(environment, disks, packed=True))


@case("virtio-crash")
def crash(environment: Environment) -> str:
    """The machine reset, then its QEMU killed, in the middle of writing over both transports; data verified after each."""
    disks = [environment.disk(face.value, 32 * MIB, "uring") for face in VIRTIO]
    controllers = both(environment, disks)
    guest = environment.guest(data.crash_scenario(controllers, data.REBOOT_SYSRQ), controllers, name="reset")
    for phase in ("write", "verify"):
        guest.sync("phase")
        guest.go("phase", [phase])
    guest.finish()
    guest = environment.guest(data.crash_scenario(controllers, "sync_host writing"), controllers, name="killed")
    guest.sync("phase")
    guest.go("phase", ["verify+write"])
    guest.sync("writing")
    guest.kill()
    guest = environment.guest(data.crash_scenario(controllers, ""), controllers, name="survivor")
    guest.sync("phase")
    guest.go("phase", ["verify"])
    results = guest.finish()
    return f"all blocks whole; write {results.iops('again')} IOPS"


DISK_LIFE = """
not_zero() { in=$1; shift; dd if=$in bs=1M iflag=direct "$@" 2>/dev/null | tr -d '\\0' | wc -c; }
for serial in $SERIALS; do
    disk=$(disk $serial)
    block=/sys/class/block/$(basename $disk)
    result cache.$serial first=$(cat $block/cache_type | tr ' ' _)
    run_fio fill-$serial --filename=$disk --rw=write --bs=1m --iodepth=4 --size=32m --refill_buffers --end_fsync=1
    sync_host filled $serial
    blkdiscard --offset 0 --length 16M $disk
    sync_host discarded $serial
    blkdiscard --zeroout --offset 16M --length 8M $disk
    [ "$(not_zero $disk count=24)" = 0 ] || fail "$serial: discarded and zeroed blocks are not zero"
    [ "$(not_zero $disk count=1 skip=24)" != 0 ] || fail "$serial: too much was discarded or zeroed"
    result limits.$serial discard=$(cat $block/queue/discard_max_bytes) zeroes=$(cat $block/queue/write_zeroes_max_bytes)

    # The write cache may be turned off and on (VIRTIO_BLK_F_CONFIG_WCE), and data stays right either way.
    for cache in "write through" "write back"; do
        echo "$cache" >$block/cache_type
        [ "$(cat $block/cache_type)" = "$cache" ] || fail "$serial: the write cache cannot be set to $cache"
        run_fio cache-$serial --filename=$disk --offset=24m --rw=randwrite --bs=4k --iodepth=8 --size=1m --fsync=16 --verify=crc32c
    done

    before=$(blockdev --getsize64 $disk)
    sync_host grow $serial
    grown() { [ "$(blockdev --getsize64 $disk)" -gt $before ]; }
    within 60 grown || fail "$serial does not grow"
    result size.$serial before=$before after=$(blockdev --getsize64 $disk)
    run_fio after-$serial --filename=$disk --offset=$before --rw=randwrite --bs=4k --iodepth=16 --size=4m --verify=crc32c
done
for serial in $SERIALS; do
    disk=$(disk $serial-ro)
    [ "$(blockdev --getro $disk)" = 1 ] || fail "$serial-ro is writable"
    [ "$(not_zero $disk count=1)" != 0 ] || fail "$serial-ro cannot be read"
done
"""


@case("virtio-disk", daemon_only="growing a disk needs the daemon's JSON-RPC")
def disk_life(environment: Environment) -> str:
    """Over both transports: discards seen on the host, zeroes, write cache off and on, growth by event, read-only disks."""
    disks = [environment.disk(face.value, 48 * MIB, "uring") for face in VIRTIO]
    sealed = [environment.disk(f"{face.value}-ro", 8 * MIB, "uring", fill=data.random_content) for face in VIRTIO]
    controllers = both(environment, disks)
    controllers += [environment.attach(face, disk, readonly=True) for face, disk in zip(VIRTIO, sealed, strict=True)]
    digests = [disk.sha256() for disk in sealed]
    guest = environment.guest(DISK_LIFE.replace("$SERIALS", " ".join(disk.name for disk in disks)), controllers)
    for disk in disks:
        guest.sync("filled")
        filled = disk.allocated()
        guest.go("filled")
        guest.sync("discarded")
        left = disk.allocated()
        guest.go("discarded")
        check(filled >= 32 * MIB, f"{disk.name}: 32 MiB were written but the file takes {filled} bytes")
        check(left <= filled - 15 * MIB, f"{disk.name}: after the discard the file takes {left} bytes, before {filled}")
        guest.sync("grow")
        assert disk.path is not None
        os.truncate(disk.path, 64 * MIB)
        environment.daemon().call("bdev_uring_rescan", name=disk.name)
        guest.go("grow")
    results = guest.finish()
    for disk in disks:
        grown = results[f"size.{disk.name}"]
        check(grown == {"before": str(48 * MIB), "after": str(64 * MIB)}, f"the guest saw {disk.name} grow like this: {grown}")
        check(results[f"cache.{disk.name}"]["first"] == "write_back", f"{disk.name} has no write cache to begin with")
        limits = results[f"limits.{disk.name}"]
        check("0" not in limits.values(), f"{disk.name}: the guest sees as limits {limits}")
    check([disk.sha256() for disk in sealed] == digests, "a read-only disk has changed")
    return f"discard {results['limits.vfu']['discard']}, write zeroes {results['limits.vfu']['zeroes']} bytes at most"


@case("vfu-boots-default-devices")
def default_devices(environment: Environment) -> str:
    """Three boots with QEMU's default VGA and network card, whose option ROMs make the firmware remap memory, over vfio-user."""
    return boot.boots(environment, default_devices=True, face=Face.VFU, count=3)


@case("vfu-intx")
def intx(environment: Environment) -> str:
    """The legacy interrupt instead of MSI-X (kernel parameter pci=nomsi), over vfio-user."""
    controllers = [
        environment.attach(Face.VFU, environment.disk(name, 64 * MIB), packed=name == "packed") for name in ("split", "packed")
    ]
    scenario = """
    for serial in split packed; do
        disk=$(disk $serial)
        run_fio verified-$serial --filename=$disk --rw=randwrite --bs=4k --iodepth=16 --size=4m --verify=crc32c
        run_fio read-$serial --filename=$disk --rw=randread --bs=4k --iodepth=32 --time_based --runtime=2
    done
    result interrupts lines=$(grep virtio /proc/interrupts | grep -c IO-APIC) msi=$(grep virtio /proc/interrupts | grep -c MSI || true)
    """
    results = environment.run(scenario, controllers, append="pci=nomsi")
    seen = results["interrupts"]
    check(seen["lines"] != "0" and seen["msi"] == "0", f"the guest's interrupts are {seen}")
    return f"read IOPS split {results.iops('read-split')}, packed {results.iops('read-packed')}"


# --- the daemon dies, the guest moves ---

# Runs that go on until the host has had its way, each of them written and read back three times over.
STEADY_RUN = """
steady() {
    while [ ! -e /tmp/stop ]; do
        fio --name=steady --filename=$1 --size=8m --ioengine=libaio --direct=1 --rw=randwrite --iodepth=16 \\
            --bssplit=4k/80:64k/20 --verify=crc32c --verify_fatal=1 --loops=3 --randseed=7 || return 1
    done
}
done_io() { awk '{ print $1 + $5 }' /sys/class/block/$(basename $1)/stat; }
flowing() { [ "$(done_io $1)" -gt $(($2 + 500)) ]; }
settle() {
    for serial in $SERIALS; do
        disk=$(disk $serial)
        within 120 flowing $disk $(done_io $disk) || fail "I/O to $serial does not go on: $(tail -3 /tmp/steady-$serial)"
    done
}
for serial in $SERIALS; do
    steady $(disk $serial) >/tmp/steady-$serial 2>&1 &
    echo $! >/tmp/pid-$serial
done
settle
while [ "$(sync_host steady)" = again ]; do
    settle
done
touch /tmp/stop
for serial in $SERIALS; do
    wait "$(cat /tmp/pid-$serial)" || fail "fio on $serial found errors: $(tail -3 /tmp/steady-$serial)"
    run_fio after-$serial --filename=$(disk $serial) --rw=randwrite --bs=4k --iodepth=16 --size=2m --verify=crc32c
done
"""


def steady_run(controllers: Sequence[Controller]) -> str:
    """The scenario for these disks."""
    return STEADY_RUN.replace("$SERIALS", " ".join(controller.serial for controller in controllers))


def step(guest: Guest, word: str) -> None:
    """Waits until I/O flows on all disks, then lets it go on (`again`) or end (`enough`)."""
    guest.sync("steady")
    guest.go("steady", [word])


@case("vhost-daemon-killed", vcpus=2, daemon_only="QEMU's own devices cannot die alone")
def daemon_killed(environment: Environment) -> str:
    """The daemon killed and started again, three times, under a guest that writes and verifies over vhost-user."""
    controllers = []
    for packed in (False, True):
        for queues in (1, 2):
            disk = environment.disk(f"{'packed' if packed else 'split'}-{queues}", 32 * MIB, "uring")
            controllers.append(environment.attach(Face.VHOST, disk, packed=packed, queues=queues))
    guest = environment.guest(steady_run(controllers), controllers, vcpus=2)
    for _ in range(3):
        guest.sync("steady")
        environment.daemon().restart()
        guest.go("steady", ["again"])
    step(guest, "enough")
    results = guest.finish()
    return f"write {results.iops('after-split-1')} IOPS split, {results.iops('after-packed-1')} packed after 3 restarts"


@case("vhost-migration", vcpus=2, daemon_only="QEMU's own devices lock their files")
def migration(environment: Environment) -> str:
    """A guest that writes and verifies moves to another QEMU and back over vhost-user; the daemon logs what it dirtied."""
    disks = [environment.disk(name, 32 * MIB, "uring") for name in ("split", "packed")]

    def controllers(side: str) -> list[Controller]:
        return [
            environment.attach(Face.VHOST, disk, packed=disk.name == "packed", queues=2, name=f"{disk.name}-{side}")
            for disk in disks
        ]

    left, right = controllers("left"), controllers("right")
    scenario = steady_run(left)
    guest = environment.guest(scenario, left, name="first")
    accounts = []
    for number, there in enumerate((right, left)):
        guest.sync("steady")
        arrival = environment.guest(scenario, there, name=f"move{number}", incoming=environment.socket(f"move{number}"))
        # The scenario waits at its sync; I/O goes on in the background, and with it what has to be copied again.
        accounts.append(guest.migrate(arrival))
        guest.kill()
        guest = arrival
        guest.go("steady", ["again"])
    step(guest, "enough")
    results = guest.finish()
    downtimes = ", ".join(f"{account['downtime']} ms" for account in accounts)
    return f"moved twice, down {downtimes}; write {results.iops('after-split')} IOPS"
