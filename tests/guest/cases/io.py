"""Reads and writes of every shape, by the guest's own NVMe driver."""

from __future__ import annotations

from guest.case import MIB, Environment, case, check


@case("random-reads")
def random_reads(environment: Environment) -> str:
    """Random 4 KiB reads, one at a time and 32 at a time."""
    controller = environment.controller("io", [environment.disk("io", 128 * MIB)])
    scenario = """
    disk=$(disk io)
    run_fio depth1 --filename=$disk --rw=randread --bs=4k --iodepth=1 --time_based --runtime=5
    run_fio depth32 --filename=$disk --rw=randread --bs=4k --iodepth=32 --time_based --runtime=5
    """
    results = environment.run(scenario, [controller])
    return f"depth 1: {results.iops('depth1')} IOPS, depth 32: {results.iops('depth32')} IOPS"


@case("random-writes-verified")
def random_writes(environment: Environment) -> str:
    """Random 4 KiB writes to a file, each block read back and its crc32c compared."""
    controller = environment.controller("io", [environment.disk("io", 64 * MIB, "uring")])
    scenario = """
    run_fio write --filename=$(disk io) --rw=randwrite --bs=4k --iodepth=32 --size=24m --verify=crc32c
    """
    results = environment.run(scenario, [controller])
    figures = results["fio.write"]
    return f"write {figures['write_iops']} IOPS, read back {figures['read_iops']} IOPS"


@case("mixed-sizes")
def mixed_sizes(environment: Environment) -> str:
    """Block sizes from 512 B to 1 MiB, verified, in memory and in a file."""
    disks = [environment.disk("memory", 128 * MIB), environment.disk("file", 128 * MIB, "uring")]
    controllers = [environment.controller(disk.name, [disk]) for disk in disks]
    scenario = """
    for serial in memory file; do
        run_fio $serial --filename=$(disk $serial) --rw=randwrite --bsrange=512-1m --iodepth=16 --size=96m --io_size=96m \\
            --verify=crc32c --randseed=7
        # Reads and writes of mixed sizes side by side; nothing to verify, but each must succeed.
        run_fio $serial-mixed --filename=$(disk $serial) --rw=randrw --bssplit=512/20:4k/40:64k/20:1m/20 --iodepth=16 \\
            --time_based --runtime=3
    done
    """
    results = environment.run(scenario, controllers)
    rates = (f"{name} {int(results[f'fio.{name}-mixed']['read_kib']) // 3072} MiB/s read" for name in ("memory", "file"))
    return ", ".join(rates)


@case("depths")
def depths(environment: Environment) -> str:
    """Depths 1 to 128, verified writes and then reads."""
    controller = environment.controller("io", [environment.disk("io", 64 * MIB)])
    scenario = """
    disk=$(disk io)
    for depth in 1 2 4 8 16 32 64 128; do
        run_fio write$depth --filename=$disk --rw=randwrite --bs=4k --iodepth=$depth --size=4m --verify=crc32c
        run_fio read$depth --filename=$disk --rw=randread --bs=4k --iodepth=$depth --time_based --runtime=1
    done
    """
    results = environment.run(scenario, [controller])
    return "read IOPS " + ", ".join(f"{depth}: {results.iops(f'read{depth}')}" for depth in (1, 2, 4, 8, 16, 32, 64, 128))


@case("several-queues", vcpus=2)
def several_queues(environment: Environment) -> str:
    """Four jobs over the queues of two processors, each verifying its own quarter of the disk."""
    controller = environment.controller("io", [environment.disk("io", 64 * MIB)])
    scenario = """
    disk=$(disk io)
    result queues count=$(cat /sys/class/nvme/$(controller io)/queue_count)
    run_fio jobs --filename=$disk --rw=randwrite --bs=4k --iodepth=16 --numjobs=4 --size=8m --offset_increment=16m \\
        --cpus_allowed=0-1 --cpus_allowed_policy=split --verify=crc32c
    run_fio read --filename=$disk --rw=randread --bs=4k --iodepth=32 --numjobs=2 \\
        --cpus_allowed=0-1 --cpus_allowed_policy=split --time_based --runtime=5
    """
    results = environment.run(scenario, [controller], vcpus=2)
    # The count includes the admin queue.
    queues = int(results["queues"]["count"]) - 1
    check(queues >= 2, f"two processors share {queues} I/O queue")
    return f"{queues} I/O queues, verified write {results.iops('jobs')} IOPS, read {results.iops('read')} IOPS"


@case("blocks-4096")
def blocks_4096(environment: Environment) -> str:
    """Disks with 4 KiB blocks, in memory and in a file."""
    disks = [
        environment.disk("memory", 64 * MIB, block_size=4096),
        environment.disk("file", 64 * MIB, "uring", block_size=4096),
    ]
    controllers = [environment.controller(disk.name, [disk]) for disk in disks]
    scenario = """
    for serial in memory file; do
        disk=$(disk $serial)
        result blocks.$serial size=$(blockdev --getss $disk) bytes=$(blockdev --getsize64 $disk)
        run_fio $serial --filename=$disk --rw=randwrite --bsrange=4k-64k --iodepth=16 --size=24m --verify=crc32c
    done
    """
    results = environment.run(scenario, controllers)
    for disk in disks:
        seen = results[f"blocks.{disk.name}"]
        check(seen == {"size": "4096", "bytes": str(disk.size)}, f"the guest sees {disk.name} as {seen}")
    return f"memory {results.iops('memory')} IOPS, file {results.iops('file')} IOPS"


@case("intx")
def intx(environment: Environment) -> str:
    """The legacy interrupt instead of MSI-X (kernel parameter pci=nomsi)."""
    controller = environment.controller("io", [environment.disk("io", 64 * MIB)])
    scenario = """
    disk=$(disk io)
    run_fio verified --filename=$disk --rw=randwrite --bs=4k --iodepth=16 --size=4m --verify=crc32c
    run_fio read --filename=$disk --rw=randread --bs=4k --iodepth=32 --time_based --runtime=3
    result interrupts lines=$(grep nvme /proc/interrupts | grep -c IO-APIC) msi=$(grep nvme /proc/interrupts | grep -c MSI || true)
    """
    results = environment.run(scenario, [controller], append="pci=nomsi")
    seen = results["interrupts"]
    check(seen == {"lines": "1", "msi": "0"}, f"the guest's interrupts are {seen}")
    return f"verified write {results.iops('verified')} IOPS, read {results.iops('read')} IOPS"


@case("trapped-doorbells", daemon_only="QEMU's own controller never maps its doorbells")
def trapped_doorbells(environment: Environment) -> str:
    """The doorbell page not mapped (disable_mappable_bar0): every doorbell is trapped or, mostly, a shadow doorbell."""
    environment.daemon(disable_mappable_bar0=True)
    controller = environment.controller("io", [environment.disk("io", 64 * MIB)])
    scenario = """
    disk=$(disk io)
    result features oacs=$(nvme id-ctrl /dev/$(controller io) | awk '$1 == "oacs" { print $3 }')
    run_fio verified --filename=$disk --rw=randwrite --bs=4k --iodepth=16 --size=4m --verify=crc32c
    run_fio depth1 --filename=$disk --rw=randread --bs=4k --iodepth=1 --time_based --runtime=3
    run_fio depth32 --filename=$disk --rw=randread --bs=4k --iodepth=32 --time_based --runtime=3
    """
    results = environment.run(scenario, [controller])
    # NVM Express Base Specification 2.0, Identify Controller, OACS bit 8: Doorbell Buffer Config.
    check(int(results["features"]["oacs"], 0) & 0x100 != 0, "the controller offers no shadow doorbells")
    return f"depth 1: {results.iops('depth1')} IOPS, depth 32: {results.iops('depth32')} IOPS"


@case("two-guests", vcpus=2)
def two_guests(environment: Environment) -> str:
    """Two guests on two endpoints at once; each verifies its own data and finds only its own disk."""
    scenario = """
    disk=$(disk $(sync_host serial))
    [ "$(ls -d /sys/class/nvme/nvme* | wc -l)" = 1 ] || fail "more than one controller"
    run_fio write --filename=$disk --rw=randwrite --bs=4k --iodepth=16 --size=16m --verify=crc32c
    sync_host written
    # The other guest has written meanwhile.
    run_fio again --filename=$disk --rw=randwrite --bs=4k --iodepth=16 --size=16m --verify=crc32c --verify_only
    """
    names = ("left", "right")
    controllers = [environment.controller(name, [environment.disk(name, 32 * MIB)]) for name in names]
    guests = [environment.guest(scenario, [controller], name=controller.serial) for controller in controllers]
    for guest in guests:
        guest.sync("serial")
        guest.go("serial", [guest.name])
    for guest in guests:
        guest.sync("written")
    for guest in guests:
        guest.go("written")
    results = [guest.finish() for guest in guests]
    return ", ".join(f"{name} {result.iops('write')} IOPS" for name, result in zip(names, results, strict=True))
