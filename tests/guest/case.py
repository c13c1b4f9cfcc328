"""What a case is, and the environment it runs in: disks, controllers, guests, all taken down in the end."""

from __future__ import annotations

import enum
import hashlib
import json
import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any

from guest import bootdisk
from guest.guest import SCENARIO_TIMEOUT, Guest, Results, kernel_arguments, write_scenario
from guest.lab import DEFAULT_KERNEL, Lab
from guest.scratch import Scratch
from guest.target import Target

MIB = 1 << 20
SEED_CHUNK = MIB


class Peer(enum.Enum):
    """Who serves the disks. QEMU's own devices stand in for the daemon to try out the cases themselves."""

    VTARGET = "vtarget"
    QEMU = "qemu"


class Face(enum.Enum):
    """What a guest sees of a disk, and the transport it comes over."""

    # An NVMe controller over vfio-user.
    NVME = "nvme"
    # A virtio-blk PCI device over vfio-user.
    VFU = "vfu"
    # virtio-blk over vhost-user: QEMU has the PCI device, the daemon the queues.
    VHOST = "vhost"


class CaseFailed(Exception):
    """A check of the case did not hold."""


class Skipped(Exception):
    """The case cannot be run with this peer; the text says why."""


@dataclass(frozen=True)
class Case:
    """A named case. `run` raises when it fails, else returns its figures for the report line."""

    name: str
    run: Callable[[Environment], str]
    # Virtual processors of all its guests together: what may run at the same time is reckoned with it.
    vcpus: int
    # Needs what only our daemon offers.
    daemon_only: str | None
    timeout: float

    @property
    def summary(self) -> str:
        """The first line of the case's documentation."""
        return (self.run.__doc__ or "").strip().split("\n")[0]


CASES: dict[str, Case] = {}


def case(
    name: str, *, vcpus: int = 1, daemon_only: str | None = None, timeout: float = 900.0
) -> Callable[[Callable[[Environment], str]], Callable[[Environment], str]]:
    """Registers a function as the case `name`. `daemon_only` says why QEMU's own devices cannot stand in."""

    def register(run: Callable[[Environment], str]) -> Callable[[Environment], str]:
        if name in CASES:
            raise ValueError(f"two cases are called {name}")
        CASES[name] = Case(name, run, vcpus, daemon_only, timeout)
        return run

    return register


def check(holds: bool, text: str) -> None:
    """Fails the case with `text` unless `holds`."""
    if not holds:
        raise CaseFailed(text)


@dataclass
class Disk:
    """A block device of the host. `path` is its file, unless it lives in the daemon's memory."""

    name: str
    size: int
    block_size: int
    path: Path | None

    def sha256(self) -> str:
        """The digest of what the file holds."""
        assert self.path is not None
        with self.path.open("rb") as content:
            return hashlib.file_digest(content, "sha256").hexdigest()

    def allocated(self) -> int:
        """The bytes the file takes on the host."""
        assert self.path is not None
        return self.path.stat().st_blocks * 512


@dataclass
class Controller:
    """A device with one or more disks, found by its serial number, and QEMU's arguments to give it to a guest."""

    serial: str
    # Of the subsystem, where it is NVMe.
    nqn: str = ""
    arguments: list[str] = field(default_factory=list)


class Environment:
    """Where one case runs. Everything made through it is gone when it is left."""

    def __init__(self, peer: Peer, artifacts: Path, *, keep: bool = False, echo: bool = False, soak: int | None = None) -> None:
        """`keep` leaves the disks' files, `echo` shows the consoles, `soak` asks the boot cases for that many boots."""
        self.peer = peer
        self.artifacts = artifacts
        self.soak = soak
        self.lab = Lab()
        self._keep = keep
        self._echo = echo
        self._stack = ExitStack()
        self._target: Target | None = None
        self._disks: list[Disk] = []
        self._guests: list[Guest] = []

    def __enter__(self) -> Environment:
        self.artifacts.mkdir(parents=True, exist_ok=True)
        self._scratch = self._stack.enter_context(Scratch())
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self._stack.close()
        if not self._keep:
            for disk in self._disks:
                if disk.path is not None:
                    disk.path.unlink(missing_ok=True)

    def progress(self, text: str) -> None:
        """Tells a person how far a long run is."""
        if self.soak is not None:
            print(f"        {self.artifacts.name}: {text}", flush=True)

    def remarks(self) -> list[str]:
        """What the report should tell besides the case's figures."""
        return [guest.again for guest in self._guests if guest.again]

    def daemon(self, **transport: Any) -> Target:
        """The daemon, started on first use; `transport` are parameters for nvmf_create_transport then."""
        if self.peer is not Peer.VTARGET:
            raise Skipped("needs the daemon")
        if self._target is None:
            self._target = Target(self._scratch.path, self.artifacts)
            self._stack.callback(self._target.kill)
            self._target.start()
            self._target.call("nvmf_create_transport", trtype="VFIOUSER", **transport)
        return self._target

    def stop_daemon(self) -> None:
        """Ends the daemon in order and checks that it does. Done for every case after it has passed, if it has not been done."""
        if self._target is not None:
            self._target.stop()
            self._target = None

    def disk(
        self,
        name: str,
        size: int,
        backing: str = "malloc",
        block_size: int = 512,
        fill: Callable[[Path], None] | None = None,
    ) -> Disk:
        """Makes a disk of `size` bytes: `malloc` (the daemon's memory), `uring` or `aio` (a sparse file).

        `fill` writes the file before anybody opens it."""
        path = None
        if backing != "malloc" or self.peer is Peer.QEMU:
            path = self.artifacts / f"{name}.img"
            path.unlink(missing_ok=True)
            path.touch()
            os.truncate(path, size)
            if fill is not None:
                fill(path)
        disk = Disk(name, size, block_size, path)
        self._disks.append(disk)
        if self.peer is Peer.VTARGET:
            if backing == "malloc":
                self.daemon().call("bdev_malloc_create", name=name, num_blocks=size // block_size, block_size=block_size)
            else:
                # Without `fallocate` an aio disk offers no discard, as in SPDK.
                options = {"fallocate": True} if backing == "aio" else {}
                self.daemon().call(f"bdev_{backing}_create", name=name, filename=str(path), block_size=block_size, **options)
        return disk

    def controller(self, serial: str, disks: Sequence[Disk], **subsystem: Any) -> Controller:
        """Makes a controller that a guest finds by its serial number; the disks are its namespaces 1, 2, …"""
        if self.peer is Peer.QEMU:
            return Controller(serial, arguments=self._qemu_controller(serial, disks))
        nqn = self.subsystem(serial, disks, **subsystem)
        return Controller(serial, nqn, self.endpoint(nqn, serial))

    def subsystem(self, serial: str, disks: Sequence[Disk], **options: Any) -> str:
        """Makes a subsystem with the disks as its namespaces 1, 2, …; gives its qualified name."""
        daemon = self.daemon()
        nqn = f"nqn.2026-01.org.vtarget:{serial}"
        daemon.call("nvmf_create_subsystem", nqn=nqn, serial_number=serial, allow_any_host=True, **options)
        for disk in disks:
            daemon.call("nvmf_subsystem_add_ns", nqn=nqn, namespace={"bdev_name": disk.name})
        return nqn

    def endpoint(self, nqn: str, name: str, **properties: Any) -> list[str]:
        """Adds a listener to the subsystem; gives QEMU's arguments for a device on it."""
        return vfio_user_device(self.daemon().listen(nqn, name), properties)

    def bootable(self, name: str, size: int, scenario: str, *, backing: str = "uring", append: str = "") -> Disk:
        """Makes a disk that a guest boots from, by whatever firmware, and that brings `scenario` along.

        The scenario has no programs but the shell and busybox: what the firmware has to read counts.
        """
        kernel = self.lab.kernel(DEFAULT_KERNEL)
        own = self.artifacts / f"{name}.scenario"
        write_scenario(own, scenario)

        def fill(path: Path) -> None:
            archives = (self.lab.basics, kernel.modules, own)
            bootdisk.write(path, size, self.lab, kernel.image, archives, kernel_arguments(append))

        disk = self.disk(name, size, backing, fill=fill)
        own.unlink()
        return disk

    def attach(
        self,
        face: Face,
        disk: Disk,
        *,
        queues: int = 1,
        packed: bool = False,
        readonly: bool = False,
        name: str | None = None,
        **properties: Any,
    ) -> Controller:
        """Gives the disk that face; the guest finds it by the disk's name as serial number.

        `queues`, `packed` and `readonly` are for virtio; `name` is the endpoint's, if the disk's is taken; `properties` are
        QEMU's for the device.
        """
        name = name or disk.name
        controller = Controller(disk.name)
        if self.peer is Peer.QEMU:
            if face is Face.NVME:
                return replace(controller, arguments=self._qemu_controller(disk.name, [disk], properties))
            return replace(controller, arguments=self._qemu_virtio(disk, queues, packed, properties))
        if face is Face.NVME:
            nqn = self.subsystem(disk.name, [disk])
            return replace(controller, nqn=nqn, arguments=self.endpoint(nqn, disk.name, **properties))
        daemon = self.daemon()
        settings = {"packed_ring": packed, "readonly": readonly}
        if face is Face.VFU:
            daemon.call("vfu_virtio_create_blk_endpoint", name=name, bdev_name=disk.name, num_queues=queues, **settings)
            return replace(controller, arguments=vfio_user_device(daemon.endpoint(name), properties))
        daemon.call("vhost_create_blk_controller", ctrlr=name, dev_name=disk.name, **settings)
        arguments = vhost_user_device(daemon.endpoint(name), name, {"num-queues": queues, "packed": packed, **properties})
        return replace(controller, arguments=arguments)

    def socket(self, name: str) -> Path:
        """A path for a socket of that name."""
        return self._scratch.path / name

    def guest(self, scenario: str, controllers: Sequence[Controller], name: str = "guest", **options: Any) -> Guest:
        """Starts a guest with these controllers. The options are Guest's."""
        devices = [argument for controller in controllers for argument in controller.arguments]
        guest = Guest(self.lab, name, self.artifacts, scenario, devices, echo=self._echo, **options)
        self._stack.callback(guest.kill)
        self._guests.append(guest)
        guest.start()
        return guest

    def run(self, scenario: str, controllers: Sequence[Controller], timeout: float = SCENARIO_TIMEOUT, **options: Any) -> Results:
        """Starts a guest and waits until its scenario has ended well."""
        guest = self.guest(scenario, controllers, **options)
        results = guest.finish(timeout)
        guest.kill()
        return results

    def _qemu_controller(self, serial: str, disks: Sequence[Disk], properties: dict[str, Any] | None = None) -> list[str]:
        arguments = device({"driver": "nvme", "id": serial, "serial": serial, "max_ioqpairs": 16, **(properties or {})})
        for disk in disks:
            namespace = {"driver": "nvme-ns", "bus": serial, "drive": disk.name}
            arguments += [*drive(disk), *device({**namespace, **block_sizes(disk)})]
        return arguments

    def _qemu_virtio(self, disk: Disk, queues: int, packed: bool, properties: dict[str, Any]) -> list[str]:
        virtio = {"driver": "virtio-blk-pci", "drive": disk.name, "serial": disk.name, "num-queues": queues, "packed": packed}
        return [*drive(disk), *device({**virtio, **block_sizes(disk), **properties})]


def device(properties: dict[str, Any]) -> list[str]:
    """QEMU's arguments for a device with these properties."""
    return ["-device", json.dumps(properties)]


def block_sizes(disk: Disk) -> dict[str, int]:
    """QEMU's properties for the sizes of its own device's blocks."""
    return {"logical_block_size": disk.block_size, "physical_block_size": max(disk.block_size, 4096)}


def drive(disk: Disk) -> list[str]:
    """QEMU's arguments for the disk's file, for devices of its own."""
    return ["-drive", f"if=none,id={disk.name},file={disk.path},format=raw,cache=none,aio=io_uring,discard=unmap"]


def vfio_user_device(socket: Path, properties: dict[str, Any]) -> list[str]:
    """QEMU's arguments for the device behind a vfio-user socket."""
    return device({"driver": "vfio-user-pci", "socket": {"type": "unix", "path": str(socket)}, **properties})


def vhost_user_device(socket: Path, name: str, properties: dict[str, Any]) -> list[str]:
    """QEMU's arguments for a virtio-blk device whose queues are worked behind a vhost-user socket.

    QEMU looks for a daemon that went away ten times a second.
    """
    chardev = f"socket,id={name},path={socket},reconnect-ms=100"
    return ["-chardev", chardev, *device({"driver": "vhost-user-blk-pci", "chardev": name, **properties})]
