"""The guest's firmware and kernel find the disk, time and again, and the first I/O is right."""

from __future__ import annotations

from guest.case import MIB, CaseFailed, Environment, Face, case
from guest.guest import GuestError

BOOTS = 5

# Short, and wrong data would be noticed.
VERIFIED_WRITE = """
disk=$(disk boot)
run_fio verified --filename=$disk --rw=randwrite --bs=4k --iodepth=16 --size=4m --verify=crc32c
run_fio read --filename=$disk --rw=randread --bs=4k --iodepth=16 --size=4m
"""


def boots(environment: Environment, *, default_devices: bool, face: Face = Face.NVME, count: int = BOOTS) -> str:
    """Boots guests one after another on the same endpoint; gives the seconds each took and the rates of the last.

    In a soak (`environment.soak`) a failed boot is counted and the next one tried; otherwise it ends the case.
    """
    controller = environment.attach(face, environment.disk("boot", 64 * MIB))
    seconds: list[float] = []
    failures: list[str] = []
    rates = ""
    for number in range(1, (environment.soak or count) + 1):
        try:
            results = environment.run(VERIFIED_WRITE, [controller], name=f"boot{number}", default_devices=default_devices)
        except GuestError as reason:
            if environment.soak is None:
                raise
            failures.append(str(reason))
            environment.progress(f"boot {number}: {str(reason).splitlines()[0]}")
            continue
        seconds.append(results.boot_seconds)
        rates = f"write {results.iops('verified')} IOPS, read {results.iops('read')} IOPS"
        environment.progress(f"boot {number}: {results.boot_seconds:.1f} s, {rates}")
    if environment.soak is None:
        return f"boot {' '.join(f'{second:.1f}' for second in seconds)} s; {rates}"
    count = f"{len(seconds)} of {environment.soak} boots good"
    if failures:
        raise CaseFailed(f"{count}; the first failure:\n{failures[0]}")
    return f"{count}, {min(seconds):.1f} to {max(seconds):.1f} s"


@case("boot-default-devices")
def default_devices(environment: Environment) -> str:
    """Five boots in a row with QEMU's default VGA and network card, whose option ROMs make the firmware remap memory."""
    return boots(environment, default_devices=True)


@case("boot-bare")
def bare(environment: Environment) -> str:
    """Five boots in a row without VGA and network card."""
    return boots(environment, default_devices=False)


def kernel(environment: Environment, name: str) -> str:
    """One boot of that kernel."""
    controller = environment.controller("boot", [environment.disk("boot", 64 * MIB)])
    results = environment.run(VERIFIED_WRITE, [controller], kernel=name)
    release = environment.lab.kernel(name).release
    return (
        f"{release}: boot {results.boot_seconds:.1f} s, write {results.iops('verified')} IOPS, read {results.iops('read')} IOPS"
    )


@case("kernel-debian12")
def debian12(environment: Environment) -> str:
    """Debian 12's kernel, 6.1."""
    return kernel(environment, "debian12")


@case("kernel-debian13")
def debian13(environment: Environment) -> str:
    """Debian 13's kernel, 6.12."""
    return kernel(environment, "debian13")


@case("kernel-backports")
def backports(environment: Environment) -> str:
    """The kernel of Debian 13's backports, 7.x."""
    return kernel(environment, "backports")
