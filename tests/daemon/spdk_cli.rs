//! SPDK's `spdkcli`, unmodified, lists what the daemon has. Needs Python's configshell-fb besides a checkout of SPDK.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

use crate::common::{Daemon, NQN, directory};
use crate::spdk_client::client;

/// A Python with what spdkcli needs: the system's, or one made here. Without either, why.
fn python(place: &Path) -> Option<PathBuf> {
    let has = |python: &Path| {
        let mut probe = Command::new(python);
        let output = probe.args(["-c", "import configshell_fb"]).output();
        output.is_ok_and(|output| output.status.success())
    };
    let system = PathBuf::from("python3");
    if has(&system) {
        return Some(system);
    }
    let home = place.join("venv");
    let made = Command::new("python3")
        .args(["-m", "venv"])
        .arg(&home)
        .output();
    if made.is_ok_and(|made| made.status.success()) {
        let pip = Command::new(home.join("bin/pip"))
            .args(["install", "-q", "configshell-fb"])
            .output();
        let python = home.join("bin/python");
        if pip.is_ok_and(|pip| pip.status.success()) && has(&python) {
            return Some(python);
        }
    }
    println!(
        "skipped: spdkcli needs Python's configshell-fb, which is neither here nor can be installed"
    );
    None
}

#[test]
fn spdkcli_lists_disks_and_controllers() {
    let Some(client) = client() else {
        return;
    };
    let place = directory();
    let Some(python) = python(place.path()) else {
        return;
    };
    let sockets = place.path().to_str().expect("a path");
    let mut daemon = Daemon::start(place.path(), &["-S", sockets]);
    daemon.malloc("Malloc7");
    let null = json!({"name": "Null7", "block_size": 512, "num_blocks": 2048});
    daemon.ok("bdev_null_create", null);
    let image = crate::common::file(place.path(), "u.img", 1 << 20);
    let uring = json!({"name": "Uring7", "filename": image, "block_size": 512});
    daemon.ok("bdev_uring_create", uring);
    daemon.subsystem();
    daemon.add_ns("Malloc7");
    daemon.listen(&place.path().join("vm"));
    let controller = json!({"ctrlr": "vhost7", "dev_name": "Null7"});
    daemon.ok("vhost_create_blk_controller", controller);
    let referral = json!({"address": {"trtype": "TCP", "traddr": "192.0.2.7", "trsvcid": "4420"}});
    daemon.ok("nvmf_discovery_add_referral", referral);
    let script = client.with_file_name("spdkcli.py");
    let socket = daemon.socket().to_owned();
    let run = |line: &str| {
        let output = Command::new(&python)
            .arg(&script)
            .arg("-s")
            .arg(&socket)
            .arg(line)
            .output()
            .expect("python runs");
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text).into_owned();
        assert!(output.status.success(), "spdkcli {line}: {text}");
        text
    };
    for (line, expected) in [
        (
            "ls /bdevs",
            &["Malloc7", "Null7", "Uring7", "malloc", "[Bdevs: 1]"][..],
        ),
        (
            "ls /nvmf",
            &[NQN, "VFIOUSER", "Malloc7", "192.0.2.7", "[Referrals: 1]"],
        ),
        ("ls /vhost", &["vhost7", "block", "Null7"]),
        ("ls", &["bdevs", "nvmf", "vhost"]),
        ("/bdevs/malloc create 1 512 Made7", &["Made7"]),
        ("ls /bdevs/malloc", &["Made7", "[Bdevs: 2]"]),
        ("/bdevs/malloc delete Made7", &[]),
    ] {
        let text = run(line);
        for part in expected {
            assert!(text.contains(part), "spdkcli {line} lacks {part:?}: {text}");
        }
    }
    let bdevs = daemon.ok("bdev_get_bdevs", json!({}));
    assert_eq!(bdevs.as_array().map(Vec::len), Some(3), "{bdevs}");
    daemon.stop();
}
