#!/usr/bin/env python3
"""Installs the Debian package into a clean Debian 12, runs the service there, and removes it again.

Usage: tests/package/run.py PACKAGE

The Debian 12 comes from mmdebstrap and is kept in $VTARGET_CACHE. There is no systemd as process 1 in it: its unit is judged by
Debian 12's own `systemd-analyze`, and its command is run as the unit says it, with the unit's user, environment and directories,
without capabilities, and with a socket for its notifications. What the unit's name spaces and system call filter would forbid
is not tried here.

Needs root, or user name spaces with subordinate ids (newuidmap). Leaves no processes and no mounts.
"""

import json
import os
import re
import shlex
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

CACHE = Path(os.environ.get("VTARGET_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vtarget")
# The part of its name that changes with the recipe.
ROOT_TAR = CACHE / "debian12-root-1.tar"
PATIENCE = 60


def say(text):
    print(f"package: {text}", file=sys.stderr, flush=True)


def debian_root():
    """The clean system, as an archive."""
    if not ROOT_TAR.exists():
        say("fetching a clean Debian 12")
        CACHE.mkdir(parents=True, exist_ok=True)
        fresh = ROOT_TAR.with_suffix(f".{os.getpid()}.tar")
        excluded = ["/usr/share/man/*", "/usr/share/locale/*"]
        options = [f"--dpkgopt=path-exclude={path}" for path in excluded]
        command = ["mmdebstrap", "--quiet", "--variant=minbase", "--include=systemd", *options, "bookworm", str(fresh)]
        subprocess.run(command, check=True)
        fresh.rename(ROOT_TAR)
    return ROOT_TAR


class System:
    """The unpacked system."""

    def __init__(self, root):
        self.root = root

    def run(self, *command, **options):
        return subprocess.run(["chroot", self.root, *command], check=True, text=True, stdout=subprocess.PIPE, **options).stdout

    def path(self, path):
        return self.root / path.lstrip("/")

    def files(self):
        """All files but those that change by themselves."""
        skipped = ("proc", "dev", "run", "sys", "tmp", "var/log", "var/cache", "var/lib/dpkg")
        found = set()
        for directory, directories, names in os.walk(self.root):
            here = os.path.relpath(directory, self.root)
            directories[:] = [name for name in directories if os.path.normpath(f"{here}/{name}") not in skipped]
            found.update(os.path.normpath(f"/{here}/{name}") for name in names + directories)
        return found

    def mount(self):
        subprocess.run(["mount", "-t", "proc", "proc", self.path("proc")], check=True)
        # Which processors there are.
        subprocess.run(["mount", "--rbind", "/sys", self.path("sys")], check=True)
        for name in ("null", "zero", "full", "random", "urandom"):
            node = self.path(f"dev/{name}")
            node.touch()
            subprocess.run(["mount", "--bind", f"/dev/{name}", node], check=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", self.path("run")], check=True)


def unit_settings(text):
    """The settings of a unit, each a list."""
    settings = {}
    for line in text.replace("\\\n", " ").splitlines():
        if match := re.match(r"(\w+)=(.*)", line):
            settings.setdefault(match[1], []).append(match[2].strip())
    return settings


class Service:
    """The daemon, as the unit starts it."""

    def __init__(self, system, unit):
        self.system = system
        self.notified = {}
        environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "NOTIFY_SOCKET": "/run/notify"}
        for line in unit["Environment"]:
            environment.update(word.split("=", 1) for word in shlex.split(line))
        for name in unit["EnvironmentFile"]:
            for line in system.path(name.lstrip("-")).read_text().splitlines():
                if line.strip() and not line.startswith("#"):
                    environment.update([shlex.split(line)[0].split("=", 1)])
        words = []
        for word in shlex.split(unit["ExecStart"][0]):
            words += environment[word[1:]].split() if word.startswith("$") else [word]
        # What a unit with these settings gets.
        user, group, mode = unit["User"][0], unit["Group"][0], unit["RuntimeDirectoryMode"][0]
        system.run("install", "-d", "-o", user, "-g", group, "-m", mode, "/run/" + unit["RuntimeDirectory"][0])
        mode = unit["StateDirectoryMode"][0]
        system.run("install", "-d", "-o", user, "-g", group, "-m", mode, "/var/lib/" + unit["StateDirectory"][0])
        where = system.path("run/notify")
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.settimeout(PATIENCE)
        where.unlink(missing_ok=True)
        self.socket.bind(str(where))
        where.chmod(0o777)
        drop = ["setpriv", f"--reuid={user}", f"--regid={group}", "--init-groups", "--no-new-privs", "--inh-caps=-all",
                "--bounding-set=-all"]
        self.process = subprocess.Popen(["chroot", system.root, *drop, *words], env=environment, stdin=subprocess.DEVNULL,
                                        umask=int(unit["UMask"][0], 8))

    def wait_for(self, key):
        """The notification that has this key."""
        while key not in self.notified:
            lines = self.socket.recv(4096).decode().splitlines()
            self.notified.update(line.split("=", 1) for line in lines)
        return self.notified[key]

    def stop(self):
        self.process.terminate()
        assert self.wait_for("STOPPING") == "1"
        assert self.process.wait(PATIENCE) == 0
        self.socket.close()


def check(system, package):
    before = system.files()
    version = subprocess.run(["dpkg-deb", "--field", package, "Version"], check=True, text=True, stdout=subprocess.PIPE).stdout.strip()
    (system.path("tmp") / "vtarget.deb").write_bytes(Path(package).read_bytes())
    say(f"installing version {version}")
    system.run("dpkg", "--install", "/tmp/vtarget.deb")
    assert system.run("dpkg", "--verify", "vtarget") == ""
    assert system.run("vtarget", "--version").strip().endswith(version)
    assert system.run("id", "-nG", "vtarget").split() == ["vtarget", "vtarget-admin", "vtarget-monitor"]
    wanted = system.path("etc/systemd/system/multi-user.target.wants/vtarget.service")
    assert os.readlink(wanted).endswith("/lib/systemd/system/vtarget.service"), "it is to start with the system"
    assert os.readlink(system.path("var/tmp/spdk.sock")) == "/run/vtarget/rpc.sock"
    for name in ("usr/share/man/man1/vtarget-serve.1.gz", "usr/share/bash-completion/completions/vtarget",
                 "usr/share/doc/vtarget/OPERATING.md", "usr/share/doc/vtarget/examples/vtarget.json"):
        assert system.path(name).stat().st_size > 0, name

    say("its unit, as Debian 12's systemd sees it")
    unit = "/lib/systemd/system/vtarget.service"
    verdict = subprocess.run(["chroot", system.root, "systemd-analyze", "verify", "--man=no", unit], text=True, capture_output=True)
    complaints = [line for line in verdict.stderr.splitlines() if "vtarget" in line]
    assert verdict.returncode == 0 and not complaints, verdict.stderr
    # 10 is a service without any protection; the threshold is times ten.
    security = system.run("systemd-analyze", "security", "--offline=yes", "--threshold=30", "--no-pager", unit)
    say(security.splitlines()[-1].strip())

    say("the service")
    unit = unit_settings(system.path(unit).read_text())
    service = Service(system, unit)
    assert service.wait_for("READY") == "1"
    assert "listening on /run/vtarget/rpc.sock" in service.wait_for("STATUS"), service.notified
    rights = system.run("stat", "--format=%a %U %G", "/run/vtarget/rpc.sock", "/run/vtarget/monitor.sock")
    assert rights.splitlines() == ["660 vtarget vtarget-admin", "660 vtarget vtarget-monitor"], rights

    def rpc(*words, socket="/var/tmp/spdk.sock"):
        return system.run("vtarget", "rpc", "--socket", socket, *words)

    rpc("bdev_malloc_create", "name=disk0", "block_size=512", "num_blocks=8192")
    rpc("vhost_create_blk_controller", "ctrlr=vm0", "dev_name=disk0")
    rights = system.run("stat", "--format=%a %U %G", "/run/vtarget/vm0").strip()
    assert rights in ("770 vtarget vtarget", "660 vtarget vtarget"), rights
    monitor = "/run/vtarget/monitor.sock"
    assert json.loads(rpc("bdev_get_bdevs", socket=monitor))[0]["name"] == "disk0"
    refused = subprocess.run(["chroot", system.root, "vtarget", "rpc", "--socket", monitor, "bdev_malloc_delete", "name=disk0"],
                             text=True, capture_output=True)
    assert refused.returncode != 0 and "read-only" in refused.stderr, refused.stderr
    nobody = subprocess.run(["chroot", "--userspec=nobody:nogroup", system.root, "vtarget", "rpc", "spdk_get_version"], text=True,
                            capture_output=True)
    assert nobody.returncode != 0 and "ermission denied" in nobody.stderr, nobody.stderr
    member = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--groups=vtarget-admin", "vtarget", "rpc", "spdk_get_version"]
    assert "version" in system.run(*member)

    say("the same after a restart")
    service.stop()
    service = Service(system, unit)
    service.wait_for("READY")
    assert json.loads(rpc("vhost_get_controllers"))[0]["ctrlr"] == "vm0"
    service.stop()

    say("an upgrade, and the removal")
    system.run("dpkg", "--install", "/tmp/vtarget.deb")
    system.run("dpkg", "--remove", "vtarget")
    assert not system.path("usr/bin/vtarget").exists()
    assert system.path("etc/default/vtarget").exists() and system.path("var/lib/vtarget").exists()
    system.run("dpkg", "--purge", "vtarget")
    left = {path for path in system.files() - before if not re.match(r"/etc/(passwd|group|shadow|gshadow|subuid|subgid)-?$", path)}
    assert not left, f"left behind: {sorted(left)}"


def main():
    if len(sys.argv) == 2:
        debian_root()
        unshare = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--propagation=private"]
        if os.geteuid() != 0:
            unshare += ["--map-root-user", "--map-auto"]
        return subprocess.run([*unshare, sys.executable, __file__, sys.argv[1], "inside"]).returncode
    package = sys.argv[1]
    with tempfile.TemporaryDirectory(prefix="vtarget-package-") as place:
        root = Path(place)
        # In memory, and gone with this name space.
        subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755,size=1G", "tmpfs", root], check=True)
        try:
            subprocess.run(["tar", "--extract", "--file", debian_root(), "--directory", root, "--exclude=./dev/*",
                            # What was left out of the system is not to be left out of the package.
                            "--exclude=./etc/dpkg/dpkg.cfg.d/99mmdebstrap"], check=True)
            system = System(root)
            system.mount()
            check(system, package)
        finally:
            subprocess.run(["umount", "--recursive", "--lazy", root], check=True)
    say("ok")
    return 0


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    sys.exit(main())
