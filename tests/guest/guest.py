"""One guest: a QEMU process that boots a Debian kernel and runs a scenario, and the control channel to it.

    runner ── Guest ──┬── control channel: a socket pair ── ttyS1 ── lib.sh in the guest
                      ├── console: QEMU's standard output ── ttyS0, into console.log
                      └── disks: arguments for QEMU, given by the caller

The guest's side is `initramfs/init` and `initramfs/lib.sh`; the protocol is described in the latter.
"""

from __future__ import annotations

import contextlib
import enum
import json
import queue
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from guest import process
from guest.cpio import Archive
from guest.lab import DEFAULT_KERNEL, REPOSITORY, Lab

INITRAMFS = REPOSITORY / "tests/guest/initramfs"

# A kernel that boots in six seconds on an idle host needs far more on a busy one; deadlines are for what hangs.
BOOT_TIMEOUT = 180.0
SCENARIO_TIMEOUT = 600.0
# QEMU answers at once, unless it waits for somebody itself.
MONITOR_TIMEOUT = 10.0

# The guest will not get any further.
FATAL = re.compile(r"Kernel panic|KVM internal error|Assertion .* failed|error while loading shared")
# The kernel is displeased with its disk or itself. A case that provokes some of these says so (`tolerate`).
TROUBLE = re.compile(
    r"nvme\S*: (?!Shutdown timeout set).*(timeout|timed out|controller is down|not ready|probe failure|[Aa]bort|I/O Error|resetting)"
    r"|virtio\S*: .*(failed|not a head|out of range|error|[Bb]roken|reset)"
    r"|I/O error|critical \S+ error|EXT4-fs (error|warning)|Oops|BUG: (?!soft lockup)|WARNING: |blocked for more than"
)


class Firmware(enum.Enum):
    """What a guest that boots from a disk starts with. Without, QEMU itself loads the kernel."""

    SEABIOS = "pc"
    OVMF = "efi"


class GuestError(Exception):
    """The guest did not do what it should. The text ends with the last lines of its console."""


def kernel_arguments(append: str) -> str:
    """The command line every guest's kernel gets, with `append` behind it."""
    # What the kernel says is shown, so that the console of a guest that stands still tells where; its addresses are the same each
    # time; a panic is final (a guest that reboots on its own would hide it); on a busy host the watchdog would otherwise give up
    # the time stamp counter for a clock that is slow to emulate, and the early check of the timer's interrupt, which a guest under
    # KVM leaves out as well, panic when a few milliseconds come late.
    # A task that waits for a disk in vain is named, with its stack, long before the runner's patience ends.
    fixed = "console=ttyS0 loglevel=7 nokaslr panic=0 tsc=reliable no_timer_check sysctl.kernel.hung_task_timeout_secs=60"
    return f"{fixed} {append}".rstrip()


def write_scenario(path: Path, scenario: str) -> None:
    """Writes the archive that makes a guest of the laboratory's programs and modules: its init and what it shall do."""
    with path.open("wb") as out:
        archive = Archive(out)
        archive.file("init", (INITRAMFS / "init").read_bytes(), 0o755)
        archive.file("lib.sh", (INITRAMFS / "lib.sh").read_bytes())
        archive.file("scenario", scenario.encode())
        archive.close()


@dataclass
class Results:
    """What the scenario reported: one dictionary of figures for each name, and the time the boot took."""

    figures: dict[str, dict[str, str]] = field(default_factory=dict)
    boot_seconds: float = 0.0

    def __getitem__(self, name: str) -> dict[str, str]:
        if name not in self.figures:
            raise GuestError(f"the guest reported no {name}; it reported {', '.join(self.figures) or 'nothing'}")
        return self.figures[name]

    def iops(self, name: str) -> int:
        """Reads and writes per second of the fio job `name`."""
        figures = self[f"fio.{name}"]
        return int(figures["read_iops"]) + int(figures["write_iops"])


class Monitor:
    """QEMU's own control channel: one command at a time (QMP). Greeted on first use."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._lines = connection.makefile("rb")
        self._greeted = False

    def call(self, command: str, timeout: float = BOOT_TIMEOUT, **arguments: Any) -> Any:
        """Sends one command; gives what it returns."""
        self._connection.settimeout(timeout)
        if not self._greeted:
            self._greeted = True
            json.loads(self._lines.readline())
            self.call("qmp_capabilities")
        self._connection.sendall(json.dumps({"execute": command, "arguments": arguments}).encode() + b"\n")
        while line := self._lines.readline():
            answer = json.loads(line)
            if "error" in answer:
                raise GuestError(f"QEMU refused {command}: {answer['error'].get('desc')}")
            # Anything else is an event.
            if "return" in answer:
                return answer["return"]
        raise GuestError(f"QEMU ended in the middle of {command}")

    def close(self) -> None:
        """Closes the connection."""
        self._lines.close()
        self._connection.close()


class Guest:
    """A virtual machine. Start it from the main thread (see `process.spawn`); `kill` it in the end, whatever happened."""

    def __init__(
        self,
        lab: Lab,
        name: str,
        directory: Path,
        scenario: str,
        devices: Sequence[str] = (),
        *,
        kernel: str = DEFAULT_KERNEL,
        vcpus: int = 1,
        memory_mib: int = 512,
        default_devices: bool = False,
        firmware: Firmware | None = None,
        incoming: Path | None = None,
        append: str = "",
        accelerator: str | None = None,
        tolerate: str | None = None,
        echo: bool = False,
    ) -> None:
        """`devices` are QEMU's arguments for the disks; `default_devices` leaves QEMU's default VGA and network card in;
        `firmware` boots from the first of the disks with a boot index, which brings the scenario (`Environment.bootable`);
        `incoming` waits on that socket for the guest that another `migrate`s there, instead of booting;
        `append` goes to the kernel's command line; console lines that match `tolerate` are no trouble; `echo` copies the
        console to standard output."""
        self.name = name
        self.results = Results()
        # What the report should tell of this boot.
        self.again = ""
        self._lab = lab
        self._directory = directory
        self._scenario = scenario
        self._devices = list(devices)
        self._kernel = lab.kernel(kernel)
        self._vcpus = vcpus
        self._memory_mib = memory_mib
        self._default_devices = default_devices
        self._firmware = firmware
        self._incoming = incoming
        self._append = append
        self._accelerator = accelerator or lab.accelerator()
        self._tolerate = re.compile(tolerate) if tolerate else None
        self._echo = echo
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: socket.socket | None = None
        self._monitor: Monitor | None = None
        self._threads: list[threading.Thread] = []
        self._events: queue.Queue[tuple[str, str]] = queue.Queue()
        self._trouble: list[str] = []
        self._exit: int | None = None
        self._started = 0.0

    @property
    def console(self) -> Path:
        """The file that holds the whole console."""
        return self._directory / f"{self.name}.console.log"

    @property
    def firmware_log(self) -> Path:
        """What the firmware said, if the guest was booted by one."""
        return self._directory / f"{self.name}.firmware.log"

    @property
    def pid(self) -> int:
        """QEMU's process."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Starts QEMU."""
        ours, theirs = socket.socketpair()
        monitor, monitored = socket.socketpair()
        with theirs, monitored:
            command = self._command(theirs.fileno(), monitored.fileno())
            self._started = time.monotonic()
            self._process = process.spawn(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=[theirs.fileno(), monitored.fileno()],
            )
        self._channel = ours
        self._monitor = Monitor(monitor)
        for reader in (self._read_console, self._read_channel):
            thread = threading.Thread(target=reader, name=f"{self.name} {reader.__name__}", daemon=True)
            thread.start()
            self._threads.append(thread)

    def sync(self, name: str, timeout: float = SCENARIO_TIMEOUT) -> list[str]:
        """Waits until the scenario says `sync_host NAME words…`; gives the words. Boots on the way are waited for as well."""
        words = self._wait("sync", time.monotonic() + timeout).split()
        if words[0] != name:
            raise self._error(f"expected the guest at {name}, but it is at {words[0]}")
        return words[1:]

    def go(self, name: str, words: Iterable[str] = ()) -> None:
        """Answers the sync of that name: the scenario goes on, with `words` as what sync_host prints."""
        assert self._channel is not None
        self._channel.sendall(" ".join(("go", name, *words)).encode() + b"\n")

    def migrate(self, other: Guest, timeout: float = SCENARIO_TIMEOUT) -> dict[str, Any]:
        """Moves the running guest to `other`, which waits for it; gives QEMU's account. The scenario goes on over there."""
        assert other._incoming is not None
        assert self._monitor is not None and other._monitor is not None
        # It answers when it listens.
        other._monitor.call("query-status")
        deadline = time.monotonic() + timeout
        self._monitor.call("migrate", uri=f"unix:{other._incoming}")
        # QEMU has an event for its end, but only where a capability asks for events.
        while (account := self._monitor.call("query-migrate")).get("status") != "completed":
            if account.get("status") in ("failed", "cancelled"):
                why = account.get("error-desc", "QEMU says no more")
                raise self._error(f"the migration failed: {why}\n{other.tail()}")
            if time.monotonic() > deadline:
                raise self._error(f"the migration does not end: {account}")
            time.sleep(0.05)
        other.results = self.results
        return account

    def finish(self, timeout: float = SCENARIO_TIMEOUT) -> Results:
        """Waits until the scenario has ended well and the guest has powered itself off."""
        assert self._process is not None
        deadline = time.monotonic() + timeout
        self._wait("end", deadline)
        try:
            status = self._process.wait(max(deadline - time.monotonic(), 1.0))
        except subprocess.TimeoutExpired:
            raise self._error("the guest did not power off") from None
        self._join()
        if self._exit is None:
            raise self._error(f"the guest ended before its scenario did (QEMU's exit status {status})")
        if status != 0:
            raise self._error(f"QEMU ended with status {status}")
        self._check_console()
        return self.results

    def kill(self) -> None:
        """Ends QEMU at once, as a crash of the host would. Does nothing when it has ended."""
        process.end(self._process)
        self._join()
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        if self._monitor is not None:
            self._monitor.close()
        self._initrd.unlink(missing_ok=True)
        self._variables.unlink(missing_ok=True)

    @property
    def _initrd(self) -> Path:
        return self._directory / f"{self.name}.initrd"

    @property
    def _variables(self) -> Path:
        return self._directory / f"{self.name}.variables"

    def _command(self, channel: int, monitor: int) -> list[str]:
        kvm = self._accelerator == "kvm"
        return [
            *(self._lab.qemu(), "-name", self.name),
            *("-machine", "q35,memory-backend=memory", "-accel", self._accelerator, "-cpu", "host" if kvm else "max"),
            *("-smp", str(self._vcpus), "-m", f"{self._memory_mib}M"),
            # Shared and by descriptor: a vfio-user server maps the guest's memory.
            *("-object", f"memory-backend-memfd,id=memory,size={self._memory_mib}M,share=on"),
            *("-display", "none", "-serial", "stdio"),
            *("-chardev", f"socket,id=control,fd={channel}", "-serial", "chardev:control"),
            *(() if self._default_devices else ("-vga", "none", "-nic", "none")),
            *(self._direct_boot() if self._firmware is None else self._firmware_boot(self._firmware)),
            *("-chardev", f"socket,id=monitor,fd={monitor}", "-mon", "chardev=monitor,mode=control"),
            *(("-incoming", f"unix:{self._incoming}") if self._incoming is not None else ()),
            *self._devices,
        ]

    def _direct_boot(self) -> list[str]:
        own = self._directory / f"{self.name}.scenario"
        write_scenario(own, self._scenario)
        # The kernel unpacks one archive after the other.
        with self._initrd.open("wb") as out:
            for part in (self._lab.programs, self._kernel.modules, own):
                with part.open("rb") as source:
                    shutil.copyfileobj(source, out, 1 << 20)
        own.unlink()
        append = kernel_arguments(self._append)
        return ["-kernel", str(self._kernel.image), "-initrd", str(self._initrd), "-append", append]

    def _firmware_boot(self, firmware: Firmware) -> list[str]:
        # Where SeaBIOS writes what it does; OVMF too, if it was built with its messages.
        log = ["-chardev", f"file,id=firmware,path={self.firmware_log}", "-device", "isa-debugcon,iobase=0x402,chardev=firmware"]
        if firmware is Firmware.SEABIOS:
            return log
        shutil.copyfile(self._lab.boot / "OVMF_VARS_4M.fd", self._variables)
        flash = "if=pflash,format=raw"
        return [
            *log,
            *("-drive", f"{flash},unit=0,readonly=on,file={self._lab.boot / 'OVMF_CODE_4M.fd'}"),
            *("-drive", f"{flash},unit=1,file={self._variables}"),
        ]

    def _read_console(self) -> None:
        assert self._process is not None and self._process.stdout is not None
        with self.console.open("wb") as log:
            for line in self._process.stdout:
                log.write(line)
                log.flush()
                text = line.decode(errors="replace").rstrip()
                if self._echo:
                    print(text, file=sys.stdout, flush=True)
                if FATAL.search(text):
                    self._events.put(("fatal", text))
                elif TROUBLE.search(text) and not (self._tolerate and self._tolerate.search(text)):
                    self._trouble.append(text)

    def _read_channel(self) -> None:
        assert self._channel is not None
        with self._channel.makefile("rb") as lines:
            try:
                for line in lines:
                    kind, _, rest = line.decode(errors="replace").strip().partition(" ")
                    self._events.put((kind, rest))
            except OSError:
                pass  # A killed QEMU resets the connection.
        self._events.put(("end", ""))

    def _wait(self, wanted: str, deadline: float) -> str:
        """Takes events until one of that kind arrives; gives its words."""
        assert self._process is not None
        while True:
            try:
                # A boot has its own, shorter deadline.
                limit = deadline if self.results.boot_seconds else min(deadline, self._started + BOOT_TIMEOUT)
                kind, rest = self._events.get(timeout=max(limit - time.monotonic(), 0.01))
            except queue.Empty:
                state = f"waiting for {wanted}" if self.results.boot_seconds else "booting"
                where, answers = self._standstill()
                if self.results.boot_seconds == 0.0 and answers and self._is_before_disks() and not self.again:
                    self._start_again(where)
                    continue
                raise self._error(f"the guest got nowhere while {state}\n{where}") from None
            if kind == "ready":
                self.results.boot_seconds = self.results.boot_seconds or time.monotonic() - self._started
            elif kind == "result":
                name, *figures = rest.split()
                self.results.figures[name] = dict(figure.partition("=")[::2] for figure in figures)
            elif kind == "exit":
                self._exit = int(rest)
                if self._exit != 0:
                    why = self.results.figures.get("failure", {}).get("why", f"exit status {rest}").replace("_", " ")
                    raise self._error(f"the scenario failed: {why}")
            elif kind == "fatal":
                # Its last words explain it; a guest that panicked stays, one whose QEMU failed is gone.
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._process.wait(1)
                raise self._error(rest)
            elif kind == wanted:
                return rest
            elif kind == "end":
                raise self._error(f"the guest ended while the runner waited for its {wanted}")
            elif kind == "sync":
                raise self._error(f"the guest waits at {rest}, which the runner did not expect")

    def _standstill(self) -> tuple[str, bool]:
        """Where processors and threads are, for a guest that does not go on, and whether QEMU at least answers.

        It may be stuck itself, or QEMU with it, waiting for somebody else.
        """
        assert self._process is not None and self._monitor is not None
        lines, answers = [], True
        for _ in range(2):
            try:
                registers = self._monitor.call("human-monitor-command", MONITOR_TIMEOUT, **{"command-line": "info registers -a"})
            except (OSError, ValueError, GuestError) as error:
                lines.append(f"QEMU's monitor does not answer: {error}")
                answers = False
                break
            lines.append(" ".join(re.findall(r"CPU#\d+|\b(?:RIP|RSP|RFL)=\S+|HLT=\d", registers)))
        for task in sorted(Path(f"/proc/{self._process.pid}/task").glob("*")):
            with contextlib.suppress(OSError):
                lines.append(" ".join((task / name).read_text().strip() for name in ("comm", "wchan", "syscall")))
        return "\n".join(f"  {line}" for line in lines), answers

    def _is_before_disks(self) -> bool:
        """Whether the guest's kernel has not come to the drivers of our disks: it is no disk that it waits for.

        Linux starts its built-in NVMe driver before the first process, which loads the one for virtio.
        """
        said = self.console.read_text(errors="replace")
        return self._firmware is None and self._incoming is None and not re.search(r"VTARGET-INIT|nvme nvme|virtio_blk", said)

    def _start_again(self, where: str) -> None:
        """Boots once more, once: a kernel on emulated processors can miss a beat. The runner's report tells of it."""
        said = self.console.read_text(errors="replace")
        self.kill()
        self._events = queue.Queue()
        self._threads.clear()
        self.again = f"{self.name}'s kernel stood still before it had come to any disk, and was started again"
        self.console.with_suffix(".first.log").write_text(f"{said}\n{where}\n")
        self.start()

    def _check_console(self) -> None:
        if self._trouble:
            raise self._error("the guest's kernel complained: " + "; ".join(self._trouble[:3]))

    def _join(self) -> None:
        for thread in self._threads:
            thread.join(timeout=10)

    def _error(self, text: str) -> GuestError:
        return GuestError(f"{self.name}: {text}\n{self.tail()}")

    def tail(self, lines: int = 25) -> str:
        """The last lines of the console."""
        if not self.console.exists():
            return "  (no console)"
        shown = self.console.read_text(errors="replace").splitlines()[-lines:]
        text = "\n".join(f"  | {line}" for line in shown)
        if self.results.boot_seconds == 0.0 and self.firmware_log.exists():
            said = self.firmware_log.read_text(errors="replace").splitlines()[-lines:]
            text += "\n  the firmware said:\n" + "\n".join(f"  | {line}" for line in said)
        return text
