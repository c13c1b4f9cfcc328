//! A guest's driver on virtio-blk endpoints of both transports, while operators change things under it.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;
use testkit::vhost_user::{self, Frontend};
use testkit::virtio::pci::{self, VirtioPci};
use testkit::virtio::{BlkDriver, BlkQueue, Error, Setup, Transport};

use crate::common::{Daemon, directory};

/// `VIRTIO_BLK_S_IOERR`.
const IOERR: u8 = 1;

/// The words of one transport, and the way to its device.
struct Way<T> {
    create: &'static str,
    set_bdev: &'static str,
    delete: &'static str,
    name: &'static str,
    bdev: &'static str,
    connect: fn(&Path) -> T,
}

fn vfio_user() -> Way<VirtioPci> {
    Way {
        create: "vfu_virtio_create_blk_endpoint",
        set_bdev: "vfu_virtio_blk_set_bdev",
        delete: "vfu_virtio_delete_endpoint",
        name: "name",
        bdev: "bdev_name",
        connect: |socket| VirtioPci::connect(socket, &pci::Options::default()).expect("a device"),
    }
}

fn vhost_user() -> Way<Frontend> {
    Way {
        create: "vhost_create_blk_controller",
        set_bdev: "vhost_blk_controller_set_bdev",
        delete: "vhost_delete_controller",
        name: "ctrlr",
        bdev: "dev_name",
        connect: |socket| {
            Frontend::connect(socket, &vhost_user::Options::default()).expect("a session")
        },
    }
}

impl<T: Transport> Way<T> {
    /// Makes an endpoint `e` over a bdev; its socket.
    fn create(&self, daemon: &mut Daemon, place: &TempDir, bdev: &str) -> PathBuf {
        assert_eq!(daemon.ok(self.create, self.about(bdev)), true);
        place.path().join("e")
    }

    fn about(&self, bdev: &str) -> Value {
        json!({ self.name: "e", self.bdev: bdev })
    }

    fn set_bdev(&self, daemon: &mut Daemon, bdev: &str) {
        assert_eq!(daemon.ok(self.set_bdev, self.about(bdev)), true);
    }

    fn delete(&self, daemon: &mut Daemon, extra: &Value) -> Result<Value, (i64, String)> {
        let mut params = extra.clone();
        params[self.name] = "e".into();
        daemon.call(self.delete, params)
    }

    /// A guest with one queue.
    fn guest(&self, socket: &Path) -> (BlkDriver<T>, BlkQueue) {
        let (driver, mut queues) = self.guest_with(socket, 1);
        (driver, queues.remove(0))
    }

    fn guest_with(&self, socket: &Path, queues: u16) -> (BlkDriver<T>, Vec<BlkQueue>) {
        let setup = Setup {
            size: 64,
            ..Setup::linux(false).queues(queues)
        };
        let mut driver = BlkDriver::start((self.connect)(socket), &setup).expect("a device");
        let queues = driver.queues().expect("queues");
        (driver, queues)
    }
}

fn start(place: &TempDir, more: &[&str]) -> Daemon {
    let sockets = place.path().to_str().expect("a path");
    let args: Vec<&str> = ["-S", sockets]
        .into_iter()
        .chain(more.iter().copied())
        .collect();
    Daemon::start(place.path(), &args)
}

fn null(daemon: &mut Daemon, name: &str, block_size: u32, mib: u64) {
    let blocks = (mib << 20) / u64::from(block_size);
    let params = json!({"name": name, "block_size": block_size, "num_blocks": blocks});
    assert_eq!(daemon.ok("bdev_null_create", params), name);
}

fn pattern(seed: u8) -> Vec<u8> {
    (0..4096usize).map(|at| (at % 251) as u8 ^ seed).collect()
}

fn failed(result: &Result<Vec<u8>, Error>) -> bool {
    matches!(result, Err(Error::Status { status: IOERR, .. }))
}

/// Asks for something until it is so.
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !is_so() {
        assert!(Instant::now() < deadline, "{what} does not come");
    }
}

fn disks_are_exchanged<T: Transport>(way: &Way<T>) {
    let place = directory();
    let mut daemon = start(&place, &[]);
    daemon.malloc("a");
    let larger = json!({"name": "b", "block_size": 512, "num_blocks": 32768});
    daemon.ok("bdev_malloc_create", larger);
    let socket = way.create(&mut daemon, &place, "a");
    let (mut driver, mut queue) = way.guest(&socket);
    assert_eq!(queue.get_id().expect("an ID"), "a");
    assert_eq!(driver.config().expect("its configuration").capacity, 16384);
    queue.write(8, &pattern(1)).expect("written");
    way.set_bdev(&mut daemon, "b");
    let config = driver.wait_config_change().expect("another size");
    assert_eq!(config.capacity, 32768);
    assert_eq!(queue.read(8, 4096).expect("read"), [0; 4096]);
    queue.write(32760, &pattern(2)).expect("written");
    // The former one is nobody's any more; what was written is in it still.
    way.set_bdev(&mut daemon, "a");
    driver.wait_config_change().expect("the former size");
    assert_eq!(queue.read(8, 4096).expect("read"), pattern(1));

    // A disk that goes takes nothing but itself along.
    assert_eq!(daemon.ok("bdev_malloc_delete", json!({"name": "a"})), true);
    assert!(failed(&queue.read(8, 4096)));
    assert!(failed(&queue.read(0, 512)));
    way.set_bdev(&mut daemon, "b");
    assert_eq!(queue.read(32760, 4096).expect("read"), pattern(2));
    drop((driver, queue));

    // So for the next guest, which finds what is there now.
    let (mut driver, mut queue) = way.guest(&socket);
    assert_eq!(driver.config().expect("its configuration").capacity, 32768);
    assert_eq!(queue.read(32760, 4096).expect("read"), pattern(2));
    drop((driver, queue));
    daemon.stop();
}

#[test]
fn disks_are_exchanged_under_a_guest() {
    disks_are_exchanged(&vfio_user());
    disks_are_exchanged(&vhost_user());
}

fn an_endpoint_waits_for_its_disk<T: Transport>(way: &Way<T>) {
    let place = directory();
    let mut daemon = start(&place, &[]);
    let params = json!({ way.name: "e", way.bdev: null });
    assert_eq!(daemon.ok(way.create, params), true);
    let (mut driver, mut queue) = way.guest(&place.path().join("e"));
    assert_eq!(driver.config().expect("its configuration").capacity, 0);
    assert!(failed(&queue.read(0, 512)));
    null(&mut daemon, "coarse", 4096, 8);
    let part = "the guest was told 512";
    daemon.refused(way.set_bdev, way.about("coarse"), -32602, part);
    daemon.malloc("m");
    way.set_bdev(&mut daemon, "m");
    let config = driver.wait_config_change().expect("a disk");
    assert_eq!(config.capacity, 16384);
    queue.write(0, &pattern(3)).expect("written");
    assert_eq!(queue.read(0, 4096).expect("read"), pattern(3));
    drop((driver, queue));
    daemon.stop();
}

#[test]
fn an_endpoint_without_a_disk_waits_for_one() {
    an_endpoint_waits_for_its_disk(&vfio_user());
    an_endpoint_waits_for_its_disk(&vhost_user());
}

fn disks_that_do_not_fit<T: Transport>(way: &Way<T>) {
    let place = directory();
    let mut daemon = start(&place, &[]);
    daemon.malloc("m");
    null(&mut daemon, "coarse", 4096, 8);
    let path = crate::common::file(place.path(), "readonly.img", 8 << 20);
    let aio = json!({"name": "fixed", "filename": path, "block_size": 512, "readonly": true});
    daemon.ok("bdev_aio_create", aio);
    let socket = way.create(&mut daemon, &place, "m");
    let (driver, mut queue) = way.guest(&socket);
    let part = "has blocks of 4096 bytes, but the guest was told 512";
    daemon.refused(way.set_bdev, way.about("coarse"), -32602, part);
    let part = "can only be read";
    daemon.refused(way.set_bdev, way.about("fixed"), -32602, part);
    queue.write(0, &pattern(1)).expect("nothing has changed");
    drop((driver, queue));
    // Nobody was told anything who is still there.
    until("the guest's end", || {
        daemon.call(way.set_bdev, way.about("coarse")).is_ok()
    });
    let (mut driver, queue) = way.guest(&socket);
    let block_size = driver.config().expect("its configuration").blk_size;
    assert_eq!(block_size, 4096);
    drop((driver, queue));
    daemon.stop();
}

#[test]
fn a_disk_that_a_guest_cannot_take_is_refused() {
    disks_that_do_not_fit(&vfio_user());
    disks_that_do_not_fit(&vhost_user());
}

fn sizes_change<T: Transport>(way: &Way<T>) {
    let place = directory();
    let mut daemon = start(&place, &[]);
    null(&mut daemon, "n", 512, 8);
    let socket = way.create(&mut daemon, &place, "n");
    let (mut driver, queue) = way.guest(&socket);
    daemon.ok("bdev_null_resize", json!({"name": "n", "new_size": 16}));
    let config = driver.wait_config_change().expect("another size");
    assert_eq!(config.capacity, 32768);
    drop((driver, queue));
    daemon.stop();
}

#[test]
fn a_resize_reaches_the_guest() {
    sizes_change(&vfio_user());
    sizes_change(&vhost_user());
}

/// With two reactors, two queues, and traffic: what operators see of it.
fn operators_see<T: Transport>(way: &Way<T>) -> (Daemon, BlkDriver<T>, Vec<BlkQueue>, TempDir) {
    let place = directory();
    let mut daemon = start(&place, &["-m", "0x3"]);
    daemon.malloc("m");
    let socket = way.create(&mut daemon, &place, "m");
    let (driver, mut queues) = way.guest_with(&socket, 2);
    for queue in &mut queues {
        queue.write(0, &pattern(1)).expect("written");
        queue.read(0, 4096).expect("read");
    }
    let stats = daemon.ok("bdev_get_iostat", json!({"names": ["m"]}))["bdevs"][0].clone();
    assert_eq!(
        (&stats["bytes_written"], &stats["num_read_ops"]),
        (&json!(8192), &json!(2)),
        "{stats}"
    );
    let pollers = daemon.ok("thread_get_pollers", Value::Null).to_string();
    let path = socket.to_str().expect("a path");
    assert!(
        pollers.matches(path).count() >= 4,
        "endpoint, session, workers: {pollers}"
    );
    (daemon, driver, queues, place)
}

#[test]
fn endpoints_tell_of_their_guest() {
    let (mut daemon, driver, queues, _place) = operators_see(&vfio_user());
    let shown = daemon.ok("vfu_get_endpoints", Value::Null)[0].clone();
    assert_eq!(shown["connected"], true);
    assert_eq!(shown["features"], format!("{:#x}", driver.features()));
    let served = shown["queues"].as_array().expect("a list");
    assert_eq!(served.len(), 2, "{shown}");
    for (index, queue) in served.iter().enumerate() {
        assert_eq!(queue["index"], index);
        assert_eq!(
            (&queue["size"], &queue["packed"]),
            (&json!(64), &json!(false))
        );
        assert_eq!(queue["in_flight"], 0);
    }
    assert_ne!(
        served[0]["lcore"], served[1]["lcore"],
        "spread over reactors"
    );
    drop((driver, queues));
    until("the guest's end", || {
        daemon.ok("vfu_get_endpoints", Value::Null)[0]["connected"] == false
    });
    daemon.stop();
}

#[test]
fn controllers_tell_of_their_sessions() {
    let way = vhost_user();
    let (mut daemon, driver, queues, place) = operators_see(&way);
    let sessions = |daemon: &mut Daemon| {
        daemon.ok("vhost_get_controllers", json!({"name": "e"}))[0]["sessions"].clone()
    };
    let session = |vid: u32, id: u32, queues: u32| {
        json!([{
            "vid": vid, "id": id, "name": format!("es{vid}"), "started": queues > 0, "max_queues": queues,
            "inflight_task_cnt": 0,
        }])
    };
    assert_eq!(sessions(&mut daemon), session(0, 0, 2));
    // Another controller's session has a number of its own.
    daemon.ok(way.create, json!({"ctrlr": "f", "dev_name": "m"}));
    let other = way.guest(&place.path().join("f"));
    let all = daemon.ok("vhost_get_controllers", Value::Null);
    assert_eq!(all[1]["sessions"][0]["name"], "fs1");
    drop((driver, queues));
    until("the guest's end", || sessions(&mut daemon) == json!([]));
    // The number that became free is the next one's; sessions of a controller are counted.
    let (driver, queue) = way.guest(&place.path().join("e"));
    assert_eq!(sessions(&mut daemon), session(0, 1, 1));
    let coalescing = json!({"ctrlr": "e", "delay_base_us": 20, "iops_threshold": 1000});
    assert_eq!(
        daemon.ok("vhost_controller_set_coalescing", coalescing),
        true
    );
    drop((driver, queue, other));
    daemon.stop();
}

fn an_endpoint_stays<T: Transport>(way: &Way<T>, list: impl Fn(&mut Daemon) -> Value) {
    let place = directory();
    let mut daemon = start(&place, &["-m", "0x3"]);
    daemon.malloc("m");
    let mut params = way.about("m");
    params["cpumask"] = "0x2".into();
    assert_eq!(daemon.ok(way.create, params), true);
    let (driver, mut served) = way.guest_with(&place.path().join("e"), 3);
    for queue in &mut served {
        queue.read(0, 4096).expect("read");
    }
    let pollers = daemon.ok("thread_get_pollers", Value::Null);
    let first = &pollers["threads"][0]["active_pollers"];
    assert_eq!(first, &json!([]), "nothing is on the other reactor");
    let listed = list(&mut daemon);
    assert!(listed.to_string().contains("0x2"), "{listed}");
    drop((driver, served));
    daemon.stop();
}

#[test]
fn a_mask_says_where_an_endpoint_works() {
    an_endpoint_stays(&vfio_user(), |daemon| {
        daemon.ok("vfu_get_endpoints", Value::Null)
    });
    an_endpoint_stays(&vhost_user(), |daemon| {
        daemon.ok("vhost_get_controllers", Value::Null)
    });
}

fn endpoints_go<T: Transport>(way: &Way<T>) {
    let place = directory();
    let mut daemon = start(&place, &[]);
    daemon.malloc("m");
    let socket = way.create(&mut daemon, &place, "m");
    let (driver, mut queue) = way.guest(&socket);
    queue.write(0, &pattern(1)).expect("written");
    let no_wait = match way.delete {
        "vhost_delete_controller" => json!({"grace_ms": 0}),
        _ => json!({}),
    };
    assert_eq!(way.delete(&mut daemon, &no_wait), Ok(json!(true)));
    assert!(!socket.exists());
    // The next one of that name is another.
    way.create(&mut daemon, &place, "m");
    let (again, mut fresh) = way.guest(&socket);
    assert_eq!(fresh.read(0, 4096).expect("read"), pattern(1));
    drop((driver, queue, again, fresh));
    daemon.stop();
}

#[test]
fn an_endpoint_goes_under_its_guest() {
    endpoints_go(&vfio_user());
    endpoints_go(&vhost_user());
}

#[test]
fn a_guest_has_the_stated_time_to_leave() {
    let way = vhost_user();
    let place = directory();
    let mut daemon = start(&place, &[]);
    daemon.malloc("m");
    let socket = way.create(&mut daemon, &place, "m");
    let (driver, mut queue) = way.guest(&socket);
    let mut other = daemon.connect();
    let grace = json!({"ctrlr": "e", "grace_ms": 3_600_000});
    let deletion = std::thread::spawn(move || other.call("vhost_delete_controller", grace));
    // It is on its way, but its guest goes on and others are in nobody's way.
    let busy = |daemon: &mut Daemon| daemon.call(way.delete, json!({"ctrlr": "e"}));
    until("the deletion", || {
        let set = daemon.call(way.set_bdev, way.about("m"));
        set.is_err_and(|(_, text)| text.contains("already being deleted"))
    });
    let (code, text) = busy(&mut daemon).expect_err("it is being deleted");
    assert!(
        code == -32602 && text.contains("Device or resource busy"),
        "{text}"
    );
    queue.write(0, &pattern(1)).expect("it still works");
    daemon.ok(way.create, json!({"ctrlr": "f", "dev_name": "m"}));
    drop((driver, queue));
    let deleted = deletion.join().expect("no panic").expect("an answer");
    assert_eq!(deleted, true);
    assert!(!socket.exists());
    daemon.stop();
}

/// A signal ends the daemon under its guests, in order.
#[test]
fn a_signal_ends_the_daemon_under_its_guests() {
    let place = directory();
    let mut daemon = start(&place, &[]);
    daemon.malloc("m");
    let (vfu, vhost) = (vfio_user(), vhost_user());
    let about = |name: &str, key: &str, bdev: &str| json!({key: name, bdev: "m"});
    daemon.ok(vfu.create, about("a", "name", "bdev_name"));
    daemon.ok(vhost.create, about("b", "ctrlr", "dev_name"));
    let (first, mut queue) = vfu.guest(&place.path().join("a"));
    queue.write(0, &pattern(1)).expect("written");
    let (second, mut other) = vhost.guest(&place.path().join("b"));
    assert_eq!(other.read(0, 4096).expect("read"), pattern(1));
    daemon.stop();
    assert!(!place.path().join("a").exists() && !place.path().join("b").exists());
    drop((first, queue, second, other));
}

fn towers_go<T: Transport>(way: &Way<T>) {
    let place = directory();
    let mut daemon = start(&place, &[]);
    null(&mut daemon, "n", 512, 8);
    let params = json!({"name": "P", "base_bdev_name": "n"});
    daemon.ok("bdev_passthru_create", params);
    daemon.ok("bdev_error_create", json!({"base_name": "P"}));
    let socket = way.create(&mut daemon, &place, "EE_P");
    let (mut driver, mut queue) = way.guest(&socket);
    assert_eq!(driver.config().expect("its configuration").capacity, 16384);
    // A size goes up.
    daemon.ok("bdev_null_resize", json!({"name": "n", "new_size": 16}));
    let config = driver.wait_config_change().expect("another size");
    assert_eq!(config.capacity, 32768);
    assert!(queue.read(32760, 4096).is_ok());
    // A fault comes up.
    let inject = json!({"name": "EE_P", "io_type": "read", "error_type": "failure"});
    daemon.ok("bdev_error_inject_error", inject);
    assert!(failed(&queue.read(0, 4096)));
    assert!(queue.read(0, 4096).is_ok());
    // The end comes up.
    assert_eq!(daemon.ok("bdev_null_delete", json!({"name": "n"})), true);
    assert!(failed(&queue.read(0, 4096)));
    daemon.malloc("m");
    way.set_bdev(&mut daemon, "m");
    assert!(queue.read(0, 4096).is_ok());
    drop((driver, queue));
    daemon.stop();
}

#[test]
fn what_happens_below_a_disk_reaches_its_guest() {
    towers_go(&vfio_user());
    towers_go(&vhost_user());
}
