#!/usr/bin/env python3
"""Runs the real-guest cases: Linux under QEMU, with its own drivers, on disks that the daemon serves.

Each case runs in a process of its own, as many at a time as there are processors for their guests. One line is printed for
each, with its figures; for a failed one also the reason and the end of the guest's console. Consoles, logs and, with --keep,
disks lie in target/guest/CASE. Nothing outlives this process, however it ends.
"""

from __future__ import annotations

import argparse
import contextlib
import fnmatch
import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import traceback
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from guest import process, scratch
from guest.bootdisk import BootDiskError
from guest.case import CASES, Case, CaseFailed, Environment, Peer, Skipped
from guest.guest import GuestError
from guest.lab import REPOSITORY, Lab, LabError
from guest.target import TargetError, binary

# A worker that was told to end gets this long to take its guests down before it is killed.
GRACE = 10.0
# So many lines of a log are shown with a failure.
TAIL = 25


def discover() -> None:
    """Loads every module in cases/; each registers its cases."""
    for path in sorted((Path(__file__).parent / "cases").glob("[a-z]*.py")):
        importlib.import_module(f"guest.cases.{path.stem}")


def artifacts_of(name: str) -> Path:
    """Where the case's consoles, logs and disks lie."""
    base = Path(os.environ.get("CARGO_TARGET_DIR") or REPOSITORY / "target")
    return base / "guest" / name


# --- one case, in its own process ---


def work(selected: Case, arguments: argparse.Namespace) -> None:
    """Runs the case and prints what became of it, as JSON, to the pipe that `--report` names."""

    def leave(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, leave)
    signal.signal(signal.SIGINT, leave)
    peer = Peer(arguments.peer)
    try:
        if selected.daemon_only and peer is not Peer.VTARGET:
            raise Skipped(selected.daemon_only)
        directory = artifacts_of(selected.name)
        with Environment(peer, directory, keep=arguments.keep, echo=arguments.echo, soak=arguments.soak) as environment:
            text = "; ".join([selected.run(environment), *environment.remarks()])
            environment.stop_daemon()
        outcome = "ok"
    except Skipped as reason:
        outcome, text = "skipped", str(reason)
    except (BootDiskError, CaseFailed, GuestError, LabError, TargetError) as reason:
        outcome, text = "FAILED", str(reason)
    except Exception:  # A mistake in the case itself.
        outcome, text = "FAILED", traceback.format_exc()
    with os.fdopen(arguments.report, "w") as report:
        json.dump({"outcome": outcome, "text": text}, report)


# --- all cases ---


@dataclass
class Job:
    """A running worker."""

    case: Case
    worker: subprocess.Popen[bytes]
    report: int
    started: float
    timeout: float

    @property
    def expired(self) -> bool:
        """Whether the case has had all its time."""
        return time.monotonic() - self.started > self.timeout


class Runner:
    """Starts workers and reports what became of them."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self._arguments = arguments
        self._running: list[Job] = []
        self.passed = 0
        self.failed: list[str] = []
        self.skipped = 0

    def run(self, cases: list[Case]) -> None:
        """Runs them in their order, except that a wide one lets narrow ones pass while there is no room for it."""
        waiting = list(cases)
        while waiting or self._running:
            free = self._arguments.jobs - sum(job.case.vcpus for job in self._running)
            following = next((case for case in waiting if case.vcpus <= free or not self._running), None)
            if following is not None:
                waiting.remove(following)
                self._start(following)
                continue
            self._reap()

    def stop(self) -> None:
        """Ends every worker."""
        self._end(self._running)

    def _start(self, selected: Case) -> None:
        shutil.rmtree(artifacts_of(selected.name), ignore_errors=True)
        reading, writing = os.pipe()
        command = [
            sys.executable,
            __file__,
            "--worker",
            selected.name,
            "--report",
            str(writing),
            "--peer",
            self._arguments.peer,
        ]
        command += [flag for flag in ("--keep", "--echo") if getattr(self._arguments, flag[2:])]
        command += ["--soak", str(self._arguments.soak)] if self._arguments.soak else []
        worker = process.spawn(command, stdin=subprocess.DEVNULL, pass_fds=[writing], start_new_session=True)
        os.close(writing)
        timeout = selected.timeout * (self._arguments.soak or 1)
        self._running.append(Job(selected, worker, reading, time.monotonic(), timeout))

    def _reap(self) -> None:
        """Waits until one worker has ended, or has had its time, and reports it."""
        while True:
            for job in self._running:
                if job.worker.poll() is not None or job.expired:
                    self._running.remove(job)
                    self._finish(job)
                    return
            # Children are all this process waits for; a signal they send is not needed to see their end in good time.
            time.sleep(0.05)

    def _finish(self, job: Job) -> None:
        expired = job.worker.poll() is None
        self._end([job])
        with os.fdopen(job.report, "rb") as report:
            received = report.read()
        if received:
            result = json.loads(received)
            outcome, text = result["outcome"], result["text"]
        else:
            outcome, text = "FAILED", f"the worker ended with status {job.worker.returncode}"
            if expired:
                text = f"not done after {job.timeout:.0f} s"
        seconds = time.monotonic() - job.started
        first, _, rest = text.partition("\n")
        print(f"{outcome:7} {job.case.name} ({seconds:.0f} s) {first}".rstrip(), flush=True)
        if outcome == "FAILED":
            self.failed.append(job.case.name)
            directory = artifacts_of(job.case.name)
            print(rest.rstrip() or last_words(directory, "*.console.log", "|").rstrip())
            print(last_words(directory, "vtarget.log", ">"), end="")
            print(f"        everything of it: {directory}", flush=True)
        elif outcome == "skipped":
            self.skipped += 1
        else:
            self.passed += 1

    @staticmethod
    def _end(jobs: list[Job]) -> None:
        """Asks the workers to end, so that they take down what they made; then kills all that is left."""
        for job in jobs:
            job.worker.terminate()
        deadline = time.monotonic() + GRACE
        for job in jobs:
            with contextlib.suppress(subprocess.TimeoutExpired):
                job.worker.wait(max(deadline - time.monotonic(), 0.1))
            # The worker leads a group of its own; QEMU and the daemon are in it.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(job.worker.pid, signal.SIGKILL)
            job.worker.wait()


def last_words(directory: Path, pattern: str, mark: str) -> str:
    """The end of the log among the artifacts that was written last."""
    logs = sorted(directory.glob(pattern), key=lambda path: path.stat().st_mtime)
    lines = logs[-1].read_text(errors="replace").splitlines()[-TAIL:] if logs else []
    return "".join(f"  {mark} {line}\n" for line in lines)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "-k", metavar="PATTERN", action="append", help="only cases whose name matches (shell pattern; repeatable)"
    )
    parser.add_argument("-j", "--jobs", type=int, default=os.cpu_count() or 1, help="guest processors at a time (default: all)")
    parser.add_argument("--repeat", type=int, default=1, metavar="N", help="run each case N times")
    parser.add_argument("--peer", choices=[peer.value for peer in Peer], default=Peer.VTARGET.value, help="who serves the disks")
    parser.add_argument("--keep", action="store_true", help="keep the disks' files")
    parser.add_argument("--echo", action="store_true", help="show the guests' consoles")
    parser.add_argument("--soak", type=int, metavar="N", help="boot cases: N boots each, failed ones counted")
    parser.add_argument("--list", action="store_true", help="print the cases and stop")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--report", type=int, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> int:
    arguments = parse()
    discover()
    if arguments.worker:
        work(CASES[arguments.worker], arguments)
        return 0
    patterns = arguments.k or ["*"]
    cases = [case for case in CASES.values() if any(fnmatch.fnmatch(case.name, f"*{pattern}*") for pattern in patterns)]
    if arguments.list:
        for selected in cases:
            print(f"{selected.name:24} {selected.summary}")
        return 0
    if not cases:
        print(f"no case matches {' '.join(patterns)}; see --list", file=sys.stderr)
        return 2
    try:
        lab = Lab()
        accelerator = lab.accelerator()
    except LabError as reason:
        print(reason, file=sys.stderr)
        return 2
    if arguments.peer == Peer.VTARGET.value and not binary().exists():
        print(f"{binary()} is missing; run cargo build --release", file=sys.stderr)
        return 2
    scratch.sweep()
    served = "QEMU's own devices" if arguments.peer == Peer.QEMU.value else binary()
    print(f"{len(cases) * arguments.repeat} cases, accelerator {accelerator}, disks served by {served}", flush=True)

    def interrupted(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupted)
    signal.signal(signal.SIGHUP, interrupted)
    runner = Runner(arguments)
    try:
        for _ in range(arguments.repeat):
            runner.run(cases)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    finally:
        runner.stop()
    if runner.failed:
        print(f"failed: {' '.join(runner.failed)}")
    if runner.skipped:
        print(f"{runner.skipped} skipped")
    print(f"{runner.passed} passed, {len(runner.failed)} failed")
    return 1 if runner.failed else 0


if __name__ == "__main__":
    sys.exit(main())
