#!/usr/bin/env python3
"""The demonstration that scripts/demo runs: one daemon, two disks, one guest, fio."""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from guest import scratch
from guest.case import MIB, CaseFailed, Environment, Peer, check
from guest.guest import GuestError
from guest.lab import REPOSITORY, LabError
from guest.target import TargetError

MESSAGE = "Hello from inside the guest."

SCENARIO = f"""
ram=$(disk ram) file=$(disk file)
echo; echo "# lsblk"; lsblk -o NAME,SIZE,LOG-SEC,MODEL,SERIAL $ram $file
watch() {{
    name=$1 kind=$2; shift 2
    echo; echo "# fio --name=$name $*"
    fio --name=$name --ioengine=libaio --direct=1 --group_reporting --eta=always --eta-newline=1 "$@" >/tmp/fio.pipe &
    tee /tmp/out </tmp/fio.pipe
    wait $! || fail "fio $name failed"
    result $name rate=$(sed -n "s/^ *$kind: IOPS=\\([^,]*\\),.*/\\1/p" /tmp/out)
}}
mkfifo /tmp/fio.pipe
watch ram-read read --filename=$ram --rw=randread --bs=4k --iodepth=32 --time_based --runtime=SECONDS
watch file-read read --filename=$file --rw=randread --bs=4k --iodepth=32 --time_based --runtime=SECONDS
watch file-verified write --filename=$file --rw=randwrite --bs=4k --iodepth=32 --size=16m --verify=crc32c
# What a person can look at afterwards in the host's file.
echo "{MESSAGE}" | dd of=$file bs=4096 conv=sync,fsync oflag=direct 2>/dev/null
"""


def say(text: str) -> None:
    """A line of this program's own, told apart from the guest's."""
    mark, reset = ("\033[1;34m", "\033[0m") if sys.stdout.isatty() else ("", "")
    print(f"{mark}== {text}{reset}", flush=True)


def demonstrate(environment: Environment, seconds: int) -> None:
    """Does it all; raises when something is not as it should be."""
    if environment.peer is Peer.VTARGET:
        say("starting the daemon")
        environment.daemon()
    say("a disk in memory, 256 MiB, and a disk in a file, 256 MiB, each on an NVMe controller of its own")
    disks = [environment.disk("ram", 256 * MIB), environment.disk("file", 256 * MIB, "uring")]
    controllers = [environment.controller(disk.name, [disk]) for disk in disks]
    say(f"booting a guest ({environment.lab.kernel('debian13').release}, accelerator {environment.lab.accelerator()})")
    guest = environment.guest(SCENARIO.replace("SECONDS", str(seconds)), controllers)
    results = guest.finish()
    say(f"the guest was up after {results.boot_seconds:.1f} s and has powered itself off")
    for name, what in (
        ("ram-read", "random reads, memory:"),
        ("file-read", "random reads, file:"),
        ("file-verified", "random writes, file, all verified:"),
    ):
        check("rate" in results[name], f"fio {name} printed no rate")
        say(f"{what:35} {results[name]['rate']:>6} IOPS")
    path = disks[1].path
    assert path is not None
    with path.open("rb") as file:
        found = file.read(len(MESSAGE)).decode(errors="replace")
    check(found == MESSAGE, f"the host's file should begin with the guest's message, but begins with {found!r}")
    say(f"the host's file begins with what the guest wrote: {found}")
    environment.stop_daemon()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=5, help="how long each fio job runs")
    parser.add_argument("--peer", choices=[peer.value for peer in Peer], default=Peer.VTARGET.value)
    arguments = parser.parse_args()

    def interrupted(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupted)
    signal.signal(signal.SIGHUP, interrupted)
    scratch.sweep()
    artifacts = Path(os.environ.get("CARGO_TARGET_DIR") or REPOSITORY / "target") / "guest" / f"demo-{os.getpid()}"
    try:
        with Environment(Peer(arguments.peer), artifacts, echo=True) as environment:
            demonstrate(environment, arguments.seconds)
    except KeyboardInterrupt:
        say("stopped")
        return 130
    except (CaseFailed, GuestError, LabError, TargetError) as reason:
        print(f"the demonstration failed: {reason}", file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(artifacts, ignore_errors=True)
    say("done: guest and daemon have ended, their sockets and disks are removed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
