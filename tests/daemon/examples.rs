//! The examples for operators in docs/examples: a daemon takes the configurations, and what they say of each other is true.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::common::{Daemon, directory, file};

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/examples")
}

fn read(name: &str) -> String {
    std::fs::read_to_string(examples().join(name)).expect(name)
}

/// A daemon that was started with an example, whose paths lie in a directory of the test.
fn start(place: &Path, name: &str) -> Daemon {
    file(place, "disk0.img", 1 << 20);
    std::fs::create_dir(place.join("vm0")).expect("a directory");
    let directory = place.to_str().expect("a path");
    let text = read(name)
        .replace("/var/lib/vtarget", directory)
        .replace("/run/vtarget", directory);
    let config = place.join("config.json");
    std::fs::write(&config, text).expect("written");
    let config = config.to_str().expect("a path");
    Daemon::start(place, &["-c", config, "--vhost-dir", directory])
}

#[test]
fn the_nvme_example_is_loaded() {
    let place = directory();
    let mut daemon = start(place.path(), "vtarget.json");
    assert!(place.path().join("vm0/cntrl").exists());
    let subsystems = daemon.ok("nvmf_get_subsystems", Value::Null);
    let ours = subsystems.as_array().into_iter().flatten();
    let mut ours = ours.filter(|it| it["nqn"] == "nqn.2026-11.io.vtarget:vm0");
    let namespaces = ours.next().map(|it| it["namespaces"].clone());
    assert_eq!(
        namespaces.and_then(|it| it.as_array().map(Vec::len)),
        Some(2)
    );
    daemon.stop();
}

#[test]
fn the_virtio_example_is_loaded() {
    let place = directory();
    let mut daemon = start(place.path(), "vtarget-virtio-blk.json");
    assert!(place.path().join("vm1-disk0").exists());
    assert!(place.path().join("vm1-disk1").exists());
    let disks = daemon.ok("bdev_get_bdevs", json!({"name": "disk0"}));
    assert_eq!(disks[0]["num_blocks"], (1 << 20) / 512);
    daemon.stop();
}

/// Sockets that VMMs are told of are sockets that the configurations make.
#[test]
fn vmms_are_led_to_sockets_that_exist() {
    let made = [
        "/run/vtarget/vm0/cntrl",
        "/run/vtarget/vm1-disk0",
        "/run/vtarget/vm1-disk1",
    ];
    let mut seen = 0;
    for name in [
        "qemu-vfio-user",
        "qemu-vhost-user",
        "cloud-hypervisor",
        "libvirt-vhost-user.xml",
        "libvirt-vfio-user.xml",
    ] {
        let text = read(name);
        for (at, _) in text.match_indices("/run/vtarget/") {
            let path = &text[at..];
            let end = path.find(|c: char| !c.is_ascii_alphanumeric() && !"/-".contains(c));
            let path = &path[..end.unwrap_or(path.len())];
            assert!(made.contains(&path), "{name}: {path}");
            seen += 1;
        }
        // Guest memory that is not shared is the most frequent mistake.
        assert!(
            ["share=on", "shared=on", "<access mode='shared'/>"]
                .iter()
                .any(|it| text.contains(it)),
            "{name}"
        );
    }
    assert!(seen >= 5);
    // The device that the laboratory's guests use, word for word.
    let device = r#"{"driver":"vfio-user-pci","socket":{"type":"unix","path":""#;
    for name in ["qemu-vfio-user", "libvirt-vfio-user.xml"] {
        assert!(read(name).contains(device), "{name}");
    }
}
