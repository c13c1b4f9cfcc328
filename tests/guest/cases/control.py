"""The controller as its administrator sees it: nvme-cli, namespaces that come, go and grow."""

from __future__ import annotations

import os

from guest.case import MIB, Environment, Peer, case, check

NVME_CLI = """
controller=$(controller admin)
disk=$(disk admin)
try() {
    name=$1
    shift
    "$@" >/tmp/out 2>&1 || fail "$* ended with $?: $(tail -1 /tmp/out)"
    cat /tmp/out
    result did.$name status=0
}
write_some() { run_fio $1 --filename=$disk --rw=randwrite --bs=4k --iodepth=16 --size=2m --verify=crc32c; }

try id-ctrl nvme id-ctrl /dev/$controller
result serial $(awk '$1 == "sn" { print "value=" $3 }' /tmp/out)
try id-ns nvme id-ns $disk
result size $(awk '$1 == "nsze" { print "blocks=" $3 }' /tmp/out)
try list nvme list
grep -q "^$disk " /tmp/out || fail "nvme list does not show $disk"
try smart-log nvme smart-log /dev/$controller
try error-log nvme error-log /dev/$controller
# Arbitration, power management, temperature threshold, volatile write cache, number of queues, coalescing, asynchronous events.
for feature in 1 2 4 6 7 8 0xb; do
    try get-feature-$feature nvme get-feature /dev/$controller --feature-id=$feature --human-readable
done
write_some before
try flush nvme flush $disk
try reset nvme reset /dev/$controller
write_some after-reset
"""

# Linux leaves the controller as the subsystem reset left it and notices only when a command has timed out; the controller reset
# that follows here is what an administrator does.
SUBSYSTEM_RESET = """
try subsystem-reset nvme subsystem-reset /dev/$controller
try reset-again nvme reset /dev/$controller
write_some after-subsystem-reset
"""


@case("nvme-cli")
def nvme_cli(environment: Environment) -> str:
    """nvme id-ctrl, id-ns, list, smart-log, error-log, get-feature, flush, reset, subsystem-reset; I/O after each reset."""
    ours = environment.peer is Peer.VTARGET
    # In a file: without a volatile write cache there would be no feature 6 to ask for.
    disk = environment.disk("admin", 64 * MIB, "uring")
    # QEMU's own controller lacks the subsystem reset.
    controller = environment.controller("admin", [disk], **({"enable_nssr": True} if ours else {}))
    results = environment.run(NVME_CLI + (SUBSYSTEM_RESET if ours else ""), [controller], tolerate="reset")
    check(results["serial"]["value"] == "admin", f"the serial number is {results['serial']}")
    blocks = int(results["size"]["blocks"], 0)
    check(blocks == disk.size // disk.block_size, f"the namespace has {blocks} blocks")
    done = [name.removeprefix("did.") for name in results.figures if name.startswith("did.")]
    return f"{len(done)} commands" + ("" if ours else " (no subsystem-reset)")


@case("namespaces", daemon_only="adding namespaces needs the daemon's JSON-RPC")
def namespaces(environment: Environment) -> str:
    """A namespace added, used, removed and added again while the guest runs; the guest learns of it by event, without rescan."""
    first, second = environment.disk("first", 32 * MIB), environment.disk("second", 48 * MIB)
    controller = environment.controller("hot", [first])
    scenario = """
    disk=$(disk hot 1)
    two_gone() { ! find_disk hot 2; }
    for round in 1 2; do
        sync_host without
        second=$(disk hot 2)
        result second$round bytes=$(blockdev --getsize64 $second)
        run_fio second$round --filename=$second --rw=randwrite --bs=4k --iodepth=16 --size=4m --verify=crc32c
        sync_host with
        within 60 two_gone || fail "namespace 2 does not go"
    done
    # The first was there all the time.
    run_fio first --filename=$disk --rw=randwrite --bs=4k --iodepth=16 --size=4m --verify=crc32c
    """
    guest = environment.guest(scenario, [controller])
    daemon = environment.daemon()
    for _ in (1, 2):
        guest.sync("without")
        nsid = daemon.call("nvmf_subsystem_add_ns", nqn=controller.nqn, namespace={"bdev_name": second.name})
        check(nsid == 2, f"the namespace added second is number {nsid}")
        guest.go("without")
        guest.sync("with")
        daemon.call("nvmf_subsystem_remove_ns", nqn=controller.nqn, nsid=nsid)
        guest.go("with")
    results = guest.finish()
    for number in (1, 2):
        check(results[f"second{number}"]["bytes"] == str(second.size), f"the guest sees {results[f'second{number}']}")
    return f"added and removed twice; write {results.iops('second2')} IOPS"


@case("resize", daemon_only="growing a disk needs the daemon's JSON-RPC")
def resize(environment: Environment) -> str:
    """Files that grow while the guest runs: the guest sees the new size by event and uses the new part."""
    disks = [environment.disk(backing, 32 * MIB, backing) for backing in ("uring", "aio")]
    controllers = [environment.controller(disk.name, [disk]) for disk in disks]
    scenario = """
    for serial in uring aio; do
        disk=$(disk $serial)
        before=$(blockdev --getsize64 $disk)
        run_fio before-$serial --filename=$disk --rw=randwrite --bs=4k --iodepth=16 --size=4m --verify=crc32c
        sync_host grow $serial
        grown() { [ "$(blockdev --getsize64 $disk)" -gt $before ]; }
        within 60 grown || fail "$serial does not grow"
        result size.$serial before=$before after=$(blockdev --getsize64 $disk)
        run_fio after-$serial --filename=$disk --offset=$before --rw=randwrite --bs=4k --iodepth=16 --size=4m --verify=crc32c
        run_fio still-$serial --filename=$disk --rw=randwrite --bs=4k --iodepth=16 --size=4m --verify=crc32c --verify_only
    done
    """
    guest = environment.guest(scenario, controllers)
    daemon = environment.daemon()
    for disk in disks:
        check(guest.sync("grow") == [disk.name], "the guest is at another disk")
        assert disk.path is not None
        os.truncate(disk.path, 64 * MIB)
        daemon.call(f"bdev_{disk.name}_rescan", name=disk.name)
        guest.go("grow")
    results = guest.finish()
    for disk in disks:
        seen = results[f"size.{disk.name}"]
        check(
            seen == {"before": str(32 * MIB), "after": str(64 * MIB)},
            f"the guest saw {disk.name} grow like this: {seen}",
        )
    return "two files from 32 to 64 MiB"
