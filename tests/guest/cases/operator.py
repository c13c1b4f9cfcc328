"""What an operator does to disks and what he makes of them, as the guest sees it: limits, delays, injected errors, layers, partitions."""

from __future__ import annotations

import struct
import uuid
import zlib
from pathlib import Path

from guest.case import MIB, Disk, Environment, Face, case, check

# A job's rate over some seconds also holds its start and its end, and a guest without KVM is not prompt.
SLACK = 0.12


def near(rate: float, limit: float, could: float) -> bool:
    """Whether a job ran as fast as its limit: not faster, and not much slower if the guest could do twice as much."""
    return rate <= (1 + SLACK / 2) * limit and (rate >= (1 - SLACK) * limit or could < 2 * limit)


LIMITS = """
disks=
for serial in $SERIALS; do
    disk=$(disk $serial)
    disks="$disks $disk"
    run_fio free-$serial --filename=$disk --rw=randread --bs=4k --iodepth=32 --time_based --runtime=2
    sync_host limit $serial ios
    run_fio ios-$serial --filename=$disk --rw=randrw --bs=4k --iodepth=32 --time_based --runtime=4
    sync_host limit $serial write
    run_fio written-$serial --filename=$disk --rw=write --bs=64k --iodepth=8 --time_based --runtime=4
    run_fio unlimited-$serial --filename=$disk --rw=randread --bs=4k --iodepth=32 --time_based --runtime=2
    # Lifted while the job runs: what waits goes on.
    run_fio lifted-$serial --filename=$disk --rw=write --bs=64k --iodepth=32 --size=24m &
    sync_host limit $serial none
    wait $!
    run_fio whole-$serial --filename=$disk --rw=randwrite --bs=4k --iodepth=16 --size=2m --verify=crc32c
done
"""


@case("limits", daemon_only="limits are set over the daemon's JSON-RPC")
def limits(environment: Environment) -> str:
    """Limits of operations and of bytes written, set and lifted under a running guest, as fio measures them in there."""
    faces = {face.value: environment.disk(face.value, 32 * MIB) for face in (Face.NVME, Face.VHOST)}
    controllers = [environment.attach(Face(name), disk) for name, disk in faces.items()]
    guest = environment.guest(LIMITS.replace("$SERIALS", " ".join(faces)), controllers)
    daemon = environment.daemon()
    none = {"rw_ios_per_sec": 0, "rw_mbytes_per_sec": 0, "r_mbytes_per_sec": 0, "w_mbytes_per_sec": 0}
    settings = {"ios": {"rw_ios_per_sec": 1000}, "write": {"w_mbytes_per_sec": 4}, "none": {}}
    for name in faces:
        for kind, setting in settings.items():
            check(guest.sync("limit") == [name, kind], "the guest is somewhere else")
            daemon.call("bdev_set_qos_limit", name=name, **{**none, **setting})
            shown = daemon.call("bdev_get_bdevs", name=name)[0]["assigned_rate_limits"]
            check(shown == {**none, **setting}, f"bdev_get_bdevs shows {shown}")
            guest.go("limit")
    results = guest.finish()
    report = []
    for name in faces:
        free, unlimited = results.iops(f"free-{name}"), results.iops(f"unlimited-{name}")
        ios = results.iops(f"ios-{name}")
        check(near(ios, 1000, min(free, unlimited)), f"{name}: {ios} IOPS at a limit of 1000, {free} and {unlimited} without")
        written = int(results[f"fio.written-{name}"]["written_kib"]) / 4
        # 64 KiB each.
        could = 64 * results.iops(f"lifted-{name}")
        check(near(written, 4096, could), f"{name}: {written} KiB/s written at a limit of 4096, {could} without")
        check(unlimited > 2 * 4096 / 4 or unlimited > free / 3, f"{name}: a limit of writes slows reads: {unlimited} IOPS, else {free}")
        report.append(f"{name} {ios} of 1000 IOPS, {written:.0f} of 4096 KiB/s")
    return ", ".join(report)


DELAYS = """
for serial in $SERIALS; do
    disk=$(disk $serial)
    run_fio read-$serial --filename=$disk --rw=randread --bs=4k --iodepth=1 --time_based --runtime=3
    run_fio write-$serial --filename=$disk --rw=randwrite --bs=4k --iodepth=1 --time_based --runtime=3
    sync_host faster $serial
    run_fio faster-$serial --filename=$disk --rw=randread --bs=4k --iodepth=1 --time_based --runtime=3
done
"""


@case("delays", daemon_only="delays are the daemon's")
def delays(environment: Environment) -> str:
    """Injected latency, changed while the guest runs, as fio in there sees it."""
    daemon = environment.daemon()
    controllers = []
    for face in (Face.NVME, Face.VFU):
        base = environment.disk(f"{face.value}-base", 32 * MIB)
        waits = {"avg_read_latency": 20_000, "p99_read_latency": 20_000, "avg_write_latency": 50_000, "p99_write_latency": 50_000}
        daemon.call("bdev_delay_create", name=face.value, base_bdev_name=base.name, **waits)
        controllers.append(environment.attach(face, Disk(face.value, base.size, base.block_size, None)))
    guest = environment.guest(DELAYS.replace("$SERIALS", " ".join(it.serial for it in controllers)), controllers)
    for controller in controllers:
        guest.sync("faster")
        for kind in ("avg_read", "p99_read"):
            daemon.call("bdev_delay_update_latency", delay_bdev_name=controller.serial, latency_type=kind, latency_us=0)
        guest.go("faster")
    results = guest.finish()
    report = []
    for name in (controller.serial for controller in controllers):
        read, write, faster = (results.iops(f"{job}-{name}") for job in ("read", "write", "faster"))
        # 20 and 50 ms each, one at a time.
        check(25 <= read <= 51, f"{name}: {read} reads a second of 20 ms each")
        check(10 <= write <= 21, f"{name}: {write} writes a second of 50 ms each")
        check(faster > 4 * read, f"{name}: {faster} reads a second without the delay, {read} with it")
        report.append(f"{name} {read}, {write} and {faster} IOPS")
    return ", ".join(report)


ERRORS = """
controller=$(controller errors)
disk=$(disk errors)
read_one() { dd if=$disk of=/dev/null bs=4096 count=1 skip=$1 iflag=direct 2>/dev/null; }
write_one() { dd if=/dev/zero of=$disk bs=4096 count=1 seek=$1 oflag=direct 2>/dev/null; }
read_one 3 || fail "a read fails before anything was injected"
sync_host inject read
! read_one 5 || fail "a read succeeds in spite of the injected error"
sync_host inject write
! write_one 7 || fail "a write succeeds in spite of the injected error"
sync_host inject none
read_one 5 || fail "reads go on failing"
write_one 7 || fail "writes go on failing"
run_fio after --filename=$disk --rw=randwrite --bs=4k --iodepth=16 --size=2m --verify=crc32c
nvme error-log /dev/$controller --log-entries=16 >/tmp/log || fail "nvme error-log ended with $?"
cat /tmp/log
awk '$1 == "error_count" { count = $3 } $1 == "status_field" { status = $3 } $1 == "lba" { lba = $3 }
    $1 == "nsid" && count > 0 { print "entry." count, "status=" status, "lba=" lba, "nsid=" $3 }' /tmp/log >/tmp/entries
while read -r line; do result $line; done </tmp/entries
nvme smart-log /dev/$controller >/tmp/smart
cat /tmp/smart
result smart $(awk -F: '/media_errors|num_err_log_entries|data_units_read|host_read_commands/ { gsub(/[ \\t,]/, ""); sub(/\\(.*/, ""); print }' \\
    /tmp/smart | tr : = | tr '\\n' ' ')
"""


@case("errors", daemon_only="errors are injected over the daemon's JSON-RPC")
def errors(environment: Environment) -> str:
    """Injected errors reach the guest with their status, and its error log and health log tell of them."""
    daemon = environment.daemon()
    base = environment.disk("base", 32 * MIB)
    daemon.call("bdev_error_create", base_name=base.name)
    disk = Disk(f"EE_{base.name}", base.size, base.block_size, None)
    controller = environment.controller("errors", [disk])
    guest = environment.guest(ERRORS, [controller], tolerate="nvme|[Ee]rror|Buffer I/O")
    # Unrecovered Read Error; Write Fault (NVM Command Set 1.0c, figure "Status Code – Media and Data Integrity Error Values").
    # Linux tries again what may succeed, five times.
    injections = {"read": {"nvme_sct": 2, "nvme_sc": 0x81}, "write": {"nvme_sct": 2, "nvme_sc": 0x80}}
    for kind in ("read", "write"):
        check(guest.sync("inject") == [kind], "the guest is somewhere else")
        daemon.call("bdev_error_inject_error", name=disk.name, io_type=kind, error_type="nvme_failure", num=64, **injections[kind])
        guest.go("inject")
    check(guest.sync("inject") == ["none"], "the guest is somewhere else")
    daemon.call("bdev_error_inject_error", name=disk.name, io_type="clear", error_type="failure")
    guest.go("inject")
    results = guest.finish()
    entries = {name: entry for name, entry in results.figures.items() if name.startswith("entry.")}
    check(bool(entries), "the error log is empty")
    seen = {(int(entry["lba"], 0) // (4096 // base.block_size), int(entry["nsid"], 0)) for entry in entries.values()}
    check(seen == {(5, 1), (7, 1)}, f"the error log tells of blocks and namespaces {seen}")
    # The status field of the log carries the phase tag in bit 0; nvme-cli may or may not have shifted it away.
    status = {int(entry["status"].split("(")[0], 0) & 0x7FF for entry in entries.values()}
    wanted = {0x281, 0x280}
    check(status in (wanted, {value << 1 & 0x7FF for value in wanted}), f"the error log tells of status {[hex(it) for it in status]}")
    smart = results["smart"]
    check(int(smart["num_err_log_entries"]) >= len(entries), f"the health log counts {smart}")
    check(int(smart["media_errors"]) >= len(entries), f"the health log counts {smart}")
    return f"{len(entries)} entries in the error log, {smart['media_errors']} media errors in the health log"


# The type by which SPDK knows its own partitions.
SPDK_PARTITION = uuid.UUID("6527994e-2c5a-4eec-9613-8f5944074e8b")


def partition_table(path: Path, size: int, sectors: list[tuple[int, int]]) -> None:
    """Writes a GUID partition table (UEFI 2.10, chapter 5) for blocks of 512 bytes, with both headers."""
    last = size // 512 - 1
    entries = b"".join(
        struct.pack("<16s16sQQQ72s", SPDK_PARTITION.bytes_le, uuid.uuid4().bytes_le, first, end, 0, f"part{number}".encode("utf-16-le"))
        for number, (first, end) in enumerate(sectors, 1)
    ).ljust(128 * 128, b"\0")
    identity = uuid.uuid4().bytes_le

    def header(at: int, other: int, table: int) -> bytes:
        def fields(checksum: int) -> bytes:
            numbers = (b"EFI PART", 0x10000, 92, checksum, 0, at, other, 34, last - 33, identity, table, 128, 128, zlib.crc32(entries))
            return struct.pack("<8sIIIIQQQQ16sQIII", *numbers)

        return fields(zlib.crc32(fields(0))).ljust(512, b"\0")

    with path.open("r+b") as disk:
        protective = struct.pack("<BBBBBBBBII", 0, 0, 2, 0, 0xEE, 0xFF, 0xFF, 0xFF, 1, last)
        disk.seek(446)
        disk.write(protective.ljust(64, b"\0") + b"\x55\xaa")
        disk.write(header(1, last, 2) + entries)
        disk.seek((last - 32) * 512)
        disk.write(entries + header(last, 1, last - 32))


@case("layers", daemon_only="layers are the daemon's")
def layers(environment: Environment) -> str:
    """Partitions, splits and a passthru of one file each, as disks of one guest: each has its own data and its own end."""
    size = 96 * MIB
    parts = [(2048, 2048 + 2 * 32768 - 1), (2048 + 2 * 32768, 2048 + 2 * 65536 - 1)]
    table = environment.disk("table", size, "uring", fill=lambda path: partition_table(path, size, parts))
    whole = environment.disk("whole", 64 * MIB, "uring")
    under = environment.disk("under", 32 * MIB, "uring")
    daemon = environment.daemon()
    check(daemon.call("bdev_split_create", base_bdev=whole.name, split_count=2) == ["wholep0", "wholep1"], "the halves have other names")
    daemon.call("bdev_passthru_create", name="over", base_bdev_name=under.name)
    daemon.call("bdev_wait_for_examine")
    shown = {disk["name"]: disk for disk in daemon.call("bdev_get_bdevs")}
    check({"tablep1", "tablep2"} <= set(shown), f"no partitions were found: {sorted(shown)}")
    names = ("tablep1", "tablep2", "wholep0", "wholep1", "over")
    disks = [Disk(name, shown[name]["num_blocks"] * 512, 512, None) for name in names]
    check([disk.size // MIB for disk in disks] == [32, 32, 32, 32, 32], f"sizes are {[disk.size for disk in disks]}")
    controllers = [environment.attach(face, disk) for face, disk in zip([Face.NVME, Face.VHOST, Face.VFU] * 2, disks, strict=False)]
    scenario = """
    mark() { printf '%-512s' "this is $1" | dd of=$(disk $1) bs=512 seek=$2 oflag=direct conv=notrunc 2>/dev/null; }
    for serial in $SERIALS; do
        disk=$(disk $serial)
        run_fio $serial --filename=$disk --rw=randwrite --bs=4k --iodepth=16 --size=8m --verify=crc32c --randseed=7
        mark $serial 65535
    done
    """
    environment.run(scenario.replace("$SERIALS", " ".join(names)), controllers)
    environment.stop_daemon()
    # The last block of each lies where it should in the file.
    places = [(table, 512 * (parts[0][1] + 1)), (table, 512 * (parts[1][1] + 1)), (whole, 32 * MIB), (whole, 64 * MIB), (under, 32 * MIB)]
    for name, (disk, end) in zip(names, places, strict=True):
        assert disk.path is not None
        with disk.path.open("rb") as content:
            content.seek(end - 512)
            found = content.read(512).rstrip().decode(errors="replace")
        check(found == f"this is {name}", f"the last block of {name} holds {found[:40]!r}")
    return f"{len(names)} disks on 3 files"
