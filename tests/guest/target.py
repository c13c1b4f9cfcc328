"""The daemon under test, and a small JSON-RPC client for it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

from guest import process
from guest.lab import REPOSITORY

START_TIMEOUT = 30.0
STOP_TIMEOUT = 60.0
RPC_TIMEOUT = 60.0


class TargetError(Exception):
    """The daemon did not do what it should."""


class RpcError(TargetError):
    """The daemon refused a call."""

    def __init__(self, method: str, error: dict[str, Any]) -> None:
        self.code = error.get("code")
        super().__init__(f"{method} was refused: {error.get('message')} ({self.code})")


def binary() -> Path:
    """The daemon's executable: $VTARGET_BINARY, else the release build of this tree."""
    chosen = os.environ.get("VTARGET_BINARY")
    build = Path(os.environ.get("CARGO_TARGET_DIR") or REPOSITORY / "target")
    return Path(chosen) if chosen else build / "release/vtarget"


class Rpc:
    """One connection to a JSON-RPC socket; calls are answered one by one."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(RPC_TIMEOUT)
        try:
            self._socket.connect(str(path))
        except OSError:
            self._socket.close()
            raise
        self._last_id = 0

    def call(self, method: str, params: dict[str, Any]) -> Any:
        """Sends one call and gives its result; raises RpcError when it is refused."""
        self._last_id += 1
        request: dict[str, Any] = {"jsonrpc": "2.0", "method": method, "id": self._last_id}
        if params:
            request["params"] = params
        self._socket.sendall(json.dumps(request).encode())
        reply = self._receive()
        if reply.get("id") != self._last_id:
            raise TargetError(f"{method} was answered with id {reply.get('id')} instead of {self._last_id}")
        if "error" in reply:
            raise RpcError(method, reply["error"])
        return reply["result"]

    def close(self) -> None:
        """Closes the connection."""
        self._socket.close()

    def _receive(self) -> Any:
        # The stream has no delimiters: a reply ends where its JSON value does.
        received = b""
        while True:
            chunk = self._socket.recv(1 << 16)
            if not chunk:
                raise TargetError("the daemon closed its JSON-RPC connection")
            received += chunk
            try:
                return json.loads(received)
            except ValueError:
                continue


class Target:
    """The daemon, in a directory of its own (for its sockets) and with its log among the artifacts."""

    def __init__(self, sockets: Path, artifacts: Path) -> None:
        self.sockets = sockets
        self.log = artifacts / "vtarget.log"
        self._rpc_path = sockets / "rpc.sock"
        self._configuration: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._rpc: Rpc | None = None
        self._endpoints: list[Path] = []

    @property
    def pid(self) -> int:
        """The daemon's process."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Starts `vtarget serve` and waits until it answers."""
        executable = binary()
        if not executable.exists():
            raise TargetError(f"{executable} is missing; run cargo build --release")
        command = [str(executable), "serve", "-r", str(self._rpc_path), "-S", str(self.sockets)]
        if self._configuration is not None:
            command += ["-c", str(self._configuration)]
        with self.log.open("ab") as log:
            self._process = process.spawn(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
        deadline = time.monotonic() + START_TIMEOUT
        while True:
            try:
                self._rpc = Rpc(self._rpc_path)
                return
            except OSError:
                # There is nothing to wait on until the socket exists.
                if self._process.poll() is not None:
                    raise TargetError(f"the daemon ended with status {self._process.returncode}") from None
                if time.monotonic() > deadline:
                    raise TargetError("the daemon does not listen") from None
                time.sleep(0.01)

    def restart(self) -> None:
        """Kills the daemon as a crash would, and starts it again with the configuration it had."""
        self._configuration = self.sockets / "configuration.json"
        names = [entry["subsystem"] for entry in self.call("framework_get_subsystems")]
        saved = [{"subsystem": name, "config": self.call("framework_get_config", name=name)} for name in names]
        self._configuration.write_text(json.dumps({"subsystems": saved}))
        self.kill()
        self.start()

    def call(self, method: str, **params: Any) -> Any:
        """Calls a method with these parameters."""
        assert self._rpc is not None
        try:
            return self._rpc.call(method, params)
        except OSError as error:
            raise TargetError(f"{method}: {error}") from None

    def listen(self, nqn: str, name: str) -> Path:
        """Adds a vfio-user listener to the subsystem; gives the path of its socket."""
        directory = self.sockets / name
        directory.mkdir()
        address = {"trtype": "VFIOUSER", "traddr": str(directory), "trsvcid": "0"}
        self.call("nvmf_subsystem_add_listener", nqn=nqn, listen_address=address)
        return self.endpoint(directory / "cntrl")

    def endpoint(self, path: Path | str) -> Path:
        """Checks that a socket is there, absolute or below the daemon's directory for them, and remembers it for `stop`."""
        endpoint = self.sockets / path
        if not endpoint.is_socket():
            raise TargetError(f"there is no socket {endpoint}")
        self._endpoints.append(endpoint)
        return endpoint

    def stop(self) -> None:
        """Ends the daemon as an operator would and checks that it leaves in order: status 0, no sockets left."""
        assert self._process is not None and self._rpc is not None
        self._rpc.close()
        if self._process.poll() is not None:
            raise TargetError(f"the daemon had ended with status {self._process.returncode}")
        self._process.send_signal(signal.SIGTERM)
        try:
            status = self._process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            raise TargetError("the daemon does not end on SIGTERM") from None
        if status != 0:
            raise TargetError(f"the daemon ended with status {status} on SIGTERM")
        left = [str(path) for path in (self._rpc_path, *self._endpoints) if path.exists()]
        if left:
            raise TargetError(f"the daemon left {', '.join(left)} behind")

    def kill(self) -> None:
        """Ends the daemon at once. Does nothing when it has ended."""
        process.end(self._process)
        if self._rpc is not None:
            self._rpc.close()
