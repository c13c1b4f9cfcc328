"""Tests of the guest laboratory itself: `python3 -m unittest discover -s tests/guest -t tests` needs no laboratory."""

from __future__ import annotations

import io
import json
import os
import select
import signal
import socket
import struct
import subprocess
import threading
import unittest
import unittest.mock
from pathlib import Path

from guest import bootdisk, process, scratch
from guest.cpio import Archive
from guest import guest as guest_module
from guest.guest import FATAL, TROUBLE, Guest, GuestError, Monitor
from guest.scratch import Scratch
from guest.target import Rpc, RpcError, Target, TargetError


def entries(data: bytes) -> dict[str, tuple[int, bytes]]:
    """What a reader of the format finds: the mode and content of every name before the trailer."""
    found: dict[str, tuple[int, bytes]] = {}
    at = 0
    while True:
        assert data[at : at + 6] == b"070701"
        fields = [int(data[at + 6 + 8 * number : at + 14 + 8 * number], 16) for number in range(13)]
        mode, size, name_size = fields[1], fields[6], fields[11]
        name = data[at + 110 : at + 110 + name_size - 1].decode()
        content = at + (110 + name_size + 3) // 4 * 4
        if name == "TRAILER!!!":
            return found
        found[name] = (mode, data[content : content + size])
        at = content + (size + 3) // 4 * 4


class CpioTest(unittest.TestCase):
    def test_round_trip_with_parents(self) -> None:
        out = io.BytesIO()
        archive = Archive(out)
        archive.file("usr/bin/program", b"12345", 0o755)
        archive.symlink("bin", "usr/bin")
        archive.file("usr/bin/other", b"")
        archive.close()
        found = entries(out.getvalue())
        self.assertEqual(list(found), ["usr", "usr/bin", "usr/bin/program", "bin", "usr/bin/other"])
        self.assertEqual(found["usr/bin/program"], (0o100755, b"12345"))
        self.assertEqual(found["bin"], (0o120777, b"usr/bin"))
        self.assertEqual(found["usr"], (0o040755, b""))

    def test_archives_can_follow_each_other(self) -> None:
        for length in range(5):
            out = io.BytesIO()
            archive = Archive(out)
            archive.file("name", b"x" * length)
            archive.close()
            self.assertEqual(len(out.getvalue()) % 4, 0)


class ConsoleTest(unittest.TestCase):
    def test_what_is_trouble(self) -> None:
        for line in (
            "[   30.1] nvme nvme0: I/O tag 12 (100c) QID 1 timeout, aborting req_op:READ(0) size:4096",
            "[   61.0] nvme nvme0: controller is down; will reset: CSTS=0xffffffff, PCI_STATUS=0xffff",
            "[   61.0] nvme nvme0: Device not ready; aborting reset, CSTS=0x1",
            "[    5.5] I/O error, dev nvme0n1, sector 0 op 0x0:(READ) flags 0x0 phys_seg 1 prio class 2",
            "[    5.5] critical target error, dev nvme0n1, sector 8 op 0x1:(WRITE) flags 0x8800",
            "[    5.5] EXT4-fs error (device nvme0n1): ext4_find_entry:1683",
            "[  242.3] INFO: task fio:123 blocked for more than 120 seconds.",
            "[    2.1] virtio_blk virtio3: probe with driver virtio_blk failed with error -22",
            "[    2.1] virtio_blk: probe of virtio3 failed with error -22",
            "[    9.8] virtio_blk virtio2: req.0:id 7 is not a head!",
        ):
            self.assertRegex(line, TROUBLE)

    def test_what_is_not(self) -> None:
        for line in (
            "[    4.2] nvme nvme0: pci function 0000:00:03.0",
            "[    4.2] nvme nvme0: Shutdown timeout set to 15 seconds",
            "[    4.3] nvme nvme0: 1/0/0 default/read/poll queues",
            "[   90.0] watchdog: BUG: soft lockup - CPU#0 stuck for 26s!",
            "[    3.0] virtio_blk virtio0: 1/0/0 default/read/poll queues",
            "[    3.0] virtio_blk virtio0: [vda] new size: 131072 512-byte logical blocks (67.1 MB/64.0 MiB)",
            "ram-read: (groupid=0, jobs=1): err= 0: pid=172",
        ):
            self.assertNotRegex(line, TROUBLE)
            self.assertNotRegex(line, FATAL)

    def test_what_is_fatal(self) -> None:
        self.assertRegex("[    5.9] Kernel panic - not syncing: sysrq triggered crash", FATAL)
        self.assertRegex("../util/error.c:68: error_setv: Assertion `*errp == NULL' failed.", FATAL)


class RpcTest(unittest.TestCase):
    """The client against a server that answers as scripted."""

    def setUp(self) -> None:
        directory = self.enterContext(Scratch()).path
        self.path = directory / "rpc.sock"
        self.listener = socket.socket(socket.AF_UNIX)
        self.addCleanup(self.listener.close)
        self.listener.bind(str(self.path))
        self.listener.listen()
        self.requests: list[dict[str, object]] = []

    def answer(self, *chunks: bytes) -> Rpc:
        """A client connected to a server that reads one request and sends these chunks, each in a segment of its own."""

        def serve() -> None:
            connection, _ = self.listener.accept()
            with connection:
                self.requests.append(json.loads(connection.recv(1 << 16)))
                for chunk in chunks:
                    connection.sendall(chunk)

        server = threading.Thread(target=serve)
        server.start()
        self.addCleanup(server.join)
        client = Rpc(self.path)
        self.addCleanup(client.close)
        return client

    def test_result_in_pieces(self) -> None:
        client = self.answer(b'{"jsonrpc":"2.0","id":1,"res', b'ult":{"a":[1', b",2]}}\n")
        self.assertEqual(client.call("bdev_get_bdevs", {"name": "x"}), {"a": [1, 2]})
        expected = {"jsonrpc": "2.0", "method": "bdev_get_bdevs", "id": 1, "params": {"name": "x"}}
        self.assertEqual(self.requests, [expected])

    def test_no_parameters_are_left_out(self) -> None:
        self.assertEqual(self.answer(b'{"id":1,"result":true}').call("spdk_get_version", {}), True)
        self.assertNotIn("params", self.requests[0])

    def test_refusal(self) -> None:
        client = self.answer(b'{"id":1,"error":{"code":-19,"message":"No such device"}}')
        with self.assertRaisesRegex(RpcError, r"bdev_malloc_delete was refused: No such device \(-19\)") as caught:
            client.call("bdev_malloc_delete", {"name": "x"})
        self.assertEqual(caught.exception.code, -19)

    def test_close_in_the_middle(self) -> None:
        with self.assertRaisesRegex(TargetError, "closed"):
            self.answer(b'{"id":1,').call("spdk_get_version", {})

    def test_foreign_id(self) -> None:
        with self.assertRaisesRegex(TargetError, "id 7 instead of 1"):
            self.answer(b'{"id":7,"result":true}').call("spdk_get_version", {})


# Answers every call with true and makes the sockets of listeners. Its name says how it leaves.
FAKE_DAEMON = """#!/usr/bin/env python3
import json, os, signal, socket, sys
assert sys.argv[1:3] == ["serve", "-r"]
path, manner = sys.argv[3], os.path.basename(sys.argv[0])
if manner == "stillborn":
    sys.exit("no")
listener = socket.socket(socket.AF_UNIX)
listener.bind(path)
made = [path]
def leave(number, frame):
    for name in made if manner != "untidy" else made[:1]:
        os.unlink(name)
    os._exit(3 if manner == "unhappy" else 0)
signal.signal(signal.SIGTERM, leave)
listener.listen()
connection, _ = listener.accept()
while request := connection.recv(1 << 16):
    request = json.loads(request)
    if request["method"] == "nvmf_subsystem_add_listener":
        made.append(request["params"]["listen_address"]["traddr"] + "/cntrl")
        socket.socket(socket.AF_UNIX).bind(made[-1])
    connection.sendall(json.dumps({"id": request["id"], "result": True}).encode())
signal.pause()
"""


class MonitorTest(unittest.TestCase):
    """The client of QEMU's control channel against one that answers as scripted."""

    def answered(self, *lines: dict[str, object]) -> Monitor:
        ours, theirs = socket.socketpair()
        self.addCleanup(theirs.close)
        for line in ({"QMP": {}}, {"return": {}}, *lines):
            theirs.sendall(json.dumps(line).encode() + b"\n")
        theirs.shutdown(socket.SHUT_WR)
        monitor = Monitor(ours)
        self.addCleanup(monitor.close)
        return monitor

    def test_events_between(self) -> None:
        monitor = self.answered({"event": "STOP"}, {"return": {"status": "active"}}, {"return": 7})
        self.assertEqual(monitor.call("query-migrate"), {"status": "active"})
        self.assertEqual(monitor.call("again"), 7)

    def test_refusal(self) -> None:
        with self.assertRaisesRegex(GuestError, "refused migrate: no such device"):
            self.answered({"error": {"class": "GenericError", "desc": "no such device"}}).call("migrate")

    def test_end_in_the_middle(self) -> None:
        with self.assertRaisesRegex(GuestError, "ended in the middle of stop"):
            self.answered({"event": "SHUTDOWN"}).call("stop")


class BootDiskTest(unittest.TestCase):
    def test_partitions(self) -> None:
        sector = bootdisk.boot_sector(b"\xeb\x63" + bytes(510), 160 * bootdisk.MIB)
        self.assertEqual(len(sector), bootdisk.SECTOR)
        self.assertEqual((sector[:2], sector[-2:]), (b"\xeb\x63", b"\x55\xaa"))
        system, data, *unused = (struct.unpack_from("<B3xB3xII", sector, at) for at in range(446, 510, 16))
        self.assertEqual(system, (0x80, 0xEF, 2048, 95 * 2048))
        self.assertEqual(data, (0, 0x83, 96 * 2048, 64 * 2048))
        self.assertEqual(unused, [(0, 0, 0, 0)] * 2)


class TargetTest(unittest.TestCase):
    """The daemon's keeper against a stand-in."""

    def target(self, manner: str) -> Target:
        directory = self.enterContext(Scratch()).path
        executable = directory / manner
        executable.write_text(FAKE_DAEMON)
        executable.chmod(0o755)
        self.enterContext(unittest.mock.patch.dict(os.environ, VTARGET_BINARY=str(executable)))
        target = Target(directory, directory)
        self.addCleanup(target.kill)
        return target

    def used(self, manner: str) -> Target:
        target = self.target(manner)
        target.start()
        self.assertIs(target.call("nvmf_create_transport", trtype="VFIOUSER"), True)
        self.assertTrue(target.listen("nqn.x", "endpoint").is_socket())
        return target

    def test_orderly_end(self) -> None:
        self.used("tidy").stop()

    def test_sockets_left_behind(self) -> None:
        with self.assertRaisesRegex(TargetError, "left .*/endpoint/cntrl behind"):
            self.used("untidy").stop()

    def test_bad_status(self) -> None:
        with self.assertRaisesRegex(TargetError, "ended with status 3 on SIGTERM"):
            self.used("unhappy").stop()

    def test_early_end(self) -> None:
        with self.assertRaisesRegex(TargetError, "the daemon ended with status 1"):
            self.target("stillborn").start()

    def test_dead_before_it_was_stopped(self) -> None:
        target = self.used("tidy")
        os.kill(target.pid, signal.SIGKILL)
        os.waitid(os.P_PID, target.pid, os.WEXITED | os.WNOWAIT)
        with self.assertRaises(TargetError):
            target.call("spdk_get_version")
        with self.assertRaisesRegex(TargetError, "had ended"):
            target.stop()


class ProcessTest(unittest.TestCase):
    def test_children_die_with_their_parent(self) -> None:
        program = """
from guest import process
import os
print(process.spawn(["sleep", "600"], stdout=open(os.devnull)).pid, flush=True)
os.kill(os.getpid(), 9)
"""
        tests = Path(__file__).resolve().parents[1]
        parent = subprocess.run(["python3", "-c", program], cwd=tests, capture_output=True, text=True, check=False)
        self.assertEqual(parent.returncode, -9)
        child = int(parent.stdout)
        # The orphan's end is seen through a descriptor of it: no waiting by the clock.
        try:
            descriptor = os.pidfd_open(child)
        except ProcessLookupError:
            return
        self.addCleanup(os.close, descriptor)
        self.assertTrue(select.select([descriptor], [], [], 60)[0], "the child outlives its parent")

    def test_end_reaps(self) -> None:
        child = process.spawn(["sleep", "600"])
        process.end(child)
        self.assertEqual(child.returncode, -9)
        process.end(None)


class ScratchTest(unittest.TestCase):
    def test_gone_when_left_and_swept_when_its_owner_is_dead(self) -> None:
        with Scratch() as mine:
            self.assertTrue(mine.path.is_dir())
            # The process number of one that has ended and been reaped.
            ended = subprocess.Popen(["true"])
            ended.wait()
            orphan = mine.path.parent / f"{scratch.PREFIX}{ended.pid}-orphan"
            orphan.mkdir()
            scratch.sweep()
            self.assertFalse(orphan.exists())
            self.assertTrue(mine.path.is_dir())
        self.assertFalse(mine.path.exists())


# Stands in for QEMU: says what its console is to say, answers on its monitor, and is stuck unless it was started before.
FAKE_QEMU = """
import json, pathlib, re, socket, sys, threading, time
here = pathlib.Path(sys.argv[0]).parent
fds = {name: int(fd) for name, fd in re.findall(r"socket,id=(\\w+),fd=(\\d+)", " ".join(sys.argv))}
print((here / "says").read_text(), flush=True)
first = not (here / "started").exists()
(here / "started").touch()
def monitor():
    line = socket.socket(fileno=fds["monitor"]).makefile("rwb", buffering=0)
    line.write(b'{"QMP": {}}\\n')
    for _ in line:
        line.write(json.dumps({"return": "CPU#0 RIP=ffff HLT=1"}).encode() + b"\\n")
if (here / "answers").exists():
    threading.Thread(target=monitor, daemon=True).start()
if first:
    time.sleep(60)
socket.socket(fileno=fds["control"]).sendall(b"ready kernel=none\\nexit 0\\n")
"""


class StandstillTest(unittest.TestCase):
    def boot(self, says: str, answers: bool) -> Guest:
        """Boots a guest that is stuck the first time."""
        scratch = self.enterContext(Scratch())
        (scratch.path / "says").write_text(says)
        if answers:
            (scratch.path / "answers").touch()
        program = scratch.path / "qemu"
        program.write_text(f"#!/usr/bin/env python3\n{FAKE_QEMU}")
        program.chmod(0o755)
        lab = unittest.mock.Mock()
        lab.qemu.return_value = str(program)
        for part in (lab.programs, lab.kernel.return_value.modules):
            part.open.side_effect = lambda _: io.BytesIO()
        self.enterContext(unittest.mock.patch.object(guest_module, "BOOT_TIMEOUT", 1.0))
        guest = Guest(lab, "stuck", scratch.path, "", accelerator="tcg")
        self.addCleanup(guest.kill)
        guest.start()
        guest.finish()
        return guest

    def test_a_kernel_that_stands_still_before_its_disks_is_started_again(self) -> None:
        guest = self.boot("[    1.9] ACPI: IRQ 4 override", answers=True)
        self.assertIn("stood still", guest.again)
        first = guest.console.with_suffix(".first.log").read_text()
        self.assertIn("IRQ 4", first)
        self.assertIn("RIP=ffff HLT=1", first)

    def test_a_guest_that_may_wait_for_a_disk_has_failed(self) -> None:
        for said in ("VTARGET-INIT", "nvme nvme0: pci function 0000:00:03.0", "virtio_blk virtio0: [vda]"):
            with self.assertRaisesRegex(GuestError, "got nowhere while booting"):
                self.boot(said, answers=True)

    def test_a_qemu_that_does_not_answer_has_failed(self) -> None:
        with unittest.mock.patch.object(guest_module, "MONITOR_TIMEOUT", 0.5), self.assertRaisesRegex(GuestError, "monitor does not answer"):
            self.boot("", answers=False)


if __name__ == "__main__":
    unittest.main()
