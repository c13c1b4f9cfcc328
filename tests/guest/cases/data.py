"""What the guest writes is what the host has: file systems, files bit for bit, discards, guests that die."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from guest.case import MIB, Controller, Disk, Environment, case, check

# A reset while commands are under way is what these cases are about; the new boot must still be quiet.
REBOOT_SYSRQ = "echo b >/proc/sysrq-trigger; sleep 60"


FILESYSTEM = """
phase=$(sync_host boot)
for serial in $SERIALS; do
    disk=$(disk $serial)
    if [ "$phase" = first ]; then
        mkfs.ext4 -q $disk
        mount -t ext4 $disk /mnt
        mkdir /mnt/copy
        cp -a /usr/bin /usr/sbin /usr/lib/x86_64-linux-gnu/libc*.so* /mnt/copy
        (cd /mnt/copy && find . -type f | sort | xargs sha256sum) >/mnt/sums
        sync
        umount /mnt
    else
        e2fsck -f -n $disk || fail "the file system of $serial is damaged"
        mount -t ext4 -o ro $disk /mnt
        (cd /mnt/copy && sha256sum -c -s /mnt/sums) || fail "the files on $serial have changed"
        result files count=$(wc -l </mnt/sums) mib=$(du -sm /mnt/copy | cut -f1)
        umount /mnt
    fi
done
if [ "$phase" = first ]; then
    reboot -f
    sleep 60
fi
"""


def survives_reboot(environment: Environment, controllers: Sequence[Controller]) -> str:
    """mkfs.ext4, mount, copy, sync, unmount on each disk; reboot of the guest; fsck, checksums compared."""
    scenario = FILESYSTEM.replace("$SERIALS", " ".join(controller.serial for controller in controllers))
    guest = environment.guest(scenario, controllers)
    for phase in ("first", "second"):
        guest.sync("boot")
        guest.go("boot", [phase])
    results = guest.finish()
    return f"{results['files']['count']} files, {results['files']['mib']} MiB the same after a reboot"


@case("filesystem")
def filesystem(environment: Environment) -> str:
    """mkfs.ext4, mount, copy, sync, unmount, reboot of the guest, fsck, checksums compared."""
    return survives_reboot(environment, [environment.controller("fs", [environment.disk("fs", 256 * MIB, "uring")])])


HOST_FILE = """
digest() { dd if=$1 bs=1M iflag=direct 2>/dev/null | sha256sum | cut -d' ' -f1; }
for serial in $SERIALS; do
    disk=$(disk $serial)
    result before.$serial sha256=$(digest $disk)
    # Two of three MiB, so that old and new data lie side by side.
    run_fio $serial --filename=$disk --rw=randwrite --bsrange=4k-256k --iodepth=8 --size=16m --refill_buffers --end_fsync=1
    result after.$serial sha256=$(digest $disk)
done
"""


def random_content(path: Path) -> None:
    """Fills the file with bytes that nothing else holds."""
    path.write_bytes(os.urandom(path.stat().st_size))


def same_on_both_sides(environment: Environment, disks: Sequence[Disk], controllers: Sequence[Controller]) -> str:
    """What the disks' files hold the guest reads, and what the guest writes they hold."""
    before = [disk.sha256() for disk in disks]
    scenario = HOST_FILE.replace("$SERIALS", " ".join(controller.serial for controller in controllers))
    results = environment.run(scenario, controllers)
    for disk, digest in zip(disks, before, strict=True):
        check(
            results[f"before.{disk.name}"]["sha256"] == digest,
            f"{disk.name}: the guest does not read what the host's file held",
        )
        now = disk.sha256()
        check(now != digest, f"{disk.name}: nothing of what the guest wrote is in the host's file")
        check(results[f"after.{disk.name}"]["sha256"] == now, f"{disk.name}: the host's file is not what the guest reads")
    return f"{len(disks)} files of {disks[0].size // MIB} MiB, read and written, the same on both sides"


@case("host-file")
def host_file(environment: Environment) -> str:
    """What the host's file held the guest reads, and what the guest writes the host's file holds, bit for bit."""
    disks = [
        environment.disk("uring", 24 * MIB, "uring", fill=random_content),
        environment.disk("aio", 24 * MIB, "aio", block_size=4096, fill=random_content),
    ]
    return same_on_both_sides(environment, disks, [environment.controller(disk.name, [disk]) for disk in disks])


@case("discard")
def discard(environment: Environment) -> str:
    """blkdiscard on a disk in a file: the file takes less space on the host, and the guest reads zeros there."""
    disks = [environment.disk("uring", 64 * MIB, "uring"), environment.disk("aio", 64 * MIB, "aio")]
    controllers = [environment.controller(disk.name, [disk]) for disk in disks]
    scenario = """
    not_zero() { in=$1; shift; dd if=$in bs=1M iflag=direct "$@" 2>/dev/null | tr -d '\\0' | wc -c; }
    for serial in uring aio; do
        disk=$(disk $serial)
        run_fio fill-$serial --filename=$disk --rw=write --bs=1m --iodepth=4 --size=32m --refill_buffers --end_fsync=1
        sync_host filled $serial
        blkdiscard --offset 0 --length 24M $disk
        sync_host discarded $serial
        [ "$(not_zero $disk count=24)" = 0 ] || fail "discarded blocks are not zero"
        [ "$(not_zero $disk count=1 skip=24)" != 0 ] || fail "too much was discarded"
    done
    """
    guest = environment.guest(scenario, controllers)
    figures = []
    for disk in disks:
        guest.sync("filled")
        filled = disk.allocated()
        guest.go("filled")
        guest.sync("discarded")
        left = disk.allocated()
        guest.go("discarded")
        check(filled >= 32 * MIB, f"{disk.name}: 32 MiB were written but the file takes {filled} bytes")
        check(
            left <= filled - 24 * MIB + MIB,
            f"{disk.name}: after the discard the file takes {left} bytes, before {filled}",
        )
        figures.append(f"{disk.name} {filled // MIB} to {left // MIB} MiB")
    guest.finish()
    return ", ".join(figures)


# Writes that fio can verify at any time later, whoever wrote the block last: neither the seed nor the number of the write is
# compared, only that each block is whole, at its place and has the right checksum.
STEADY = (
    "--rw=randwrite --bs=4k --iodepth=16 --size=8m --randseed=7 --verify=crc32c --verify_header_seed=0 --verify_write_sequence=0"
)

# The host says what to do after each boot: verify, write or both.
CRASH = f"""
phase=$(sync_host phase)
sectors() {{ awk '{{ print $7 }}' /sys/class/block/$(basename $1)/stat; }}
flowing() {{ [ "$(sectors $1)" -gt $(($2 + 4096)) ]; }}
for serial in $SERIALS; do
    disk=$(disk $serial)
    case $phase in
    *verify*)
        run_fio settled --filename=$disk --offset=0 {STEADY} --verify_only
        run_fio unsettled --filename=$disk --offset=16m {STEADY} --verify_only
        ;;
    esac
    run_fio again --filename=$disk --offset=0 {STEADY}
    case $phase in
    *write*)
        run_fio unsettled --filename=$disk --offset=16m {STEADY}
        fio --name=background --filename=$disk --offset=16m --ioengine=libaio --direct=1 {STEADY} --do_verify=0 \\
            --time_based --runtime=300 >/dev/null &
        # What is under way now is cut off: see that writes really flow.
        within 60 flowing $disk $(sectors $disk) || fail "the background writes to $serial do not flow"
        ;;
    esac
done
case $phase in
*write*)
    $CUT
    sleep 300
    ;;
esac
"""


def crash_scenario(controllers: Sequence[Controller], cut: str) -> str:
    """The scenario for these disks; `cut` is what the guest does in the middle of writing."""
    serials = " ".join(controller.serial for controller in controllers)
    return CRASH.replace("$SERIALS", serials).replace("$CUT", cut)


@case("killed-while-writing")
def killed(environment: Environment) -> str:
    """The guest's QEMU killed in the middle of writing, twice, and started again on the same endpoint; data verified."""
    controller = environment.controller("crash", [environment.disk("crash", 32 * MIB, "uring")])
    scenario = crash_scenario([controller], "sync_host writing")
    for number in (1, 2):
        guest = environment.guest(scenario, [controller], name=f"killed{number}")
        guest.sync("phase")
        guest.go("phase", ["write"])
        guest.sync("writing")
        guest.kill()
    guest = environment.guest(scenario, [controller], name="survivor")
    guest.sync("phase")
    guest.go("phase", ["verify"])
    results = guest.finish()
    return f"all blocks whole after 2 kills; write {results.iops('again')} IOPS"


@case("reset-while-writing")
def reset(environment: Environment) -> str:
    """The machine reset in the middle of writing, without any shutdown of the controller; data verified after the new boot."""
    controller = environment.controller("crash", [environment.disk("crash", 32 * MIB, "uring")])
    guest = environment.guest(crash_scenario([controller], REBOOT_SYSRQ), [controller])
    for phase in ("write", "verify"):
        guest.sync("phase")
        guest.go("phase", [phase])
    results = guest.finish()
    return f"all blocks whole after a reset; write {results.iops('again')} IOPS"
