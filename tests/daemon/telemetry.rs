//! One picture of everything: `vtarget_get_telemetry`.

use serde_json::{Value, json};
use testkit::nvme::{Driver, Options};
use testkit::virtio::Setup;

use crate::common::{Daemon, NQN, directory};
use crate::guests::start_writes;
use crate::virtio::{Guest, Rig, Vfio, Vhost};

fn look(daemon: &mut Daemon) -> Value {
    daemon.ok("vtarget_get_telemetry", Value::Null)
}

#[test]
fn an_nvme_guest_is_seen_coming_working_and_going() {
    let place = directory();
    let mut daemon = Daemon::start(place.path(), &["-m", "0x3"]);
    daemon.subsystem();
    daemon.malloc("disk");
    daemon.add_ns("disk");
    let socket = daemon.listen(&place.path().join("vm"));

    let picture = look(&mut daemon);
    let pid = picture["pid"].as_u64().expect("a process");
    assert_eq!(pid, u64::from(daemon.pid()));
    assert_eq!(picture["version"], env!("CARGO_PKG_VERSION"));
    let lcores: Vec<_> = (0..2).map(|at| &picture["reactors"][at]["lcore"]).collect();
    assert_eq!(lcores, [&json!(0), &json!(1)]);
    assert_eq!(picture["reactors"][0]["mode"], "adaptive");
    let controller = &picture["controllers"][0];
    assert_eq!(controller["kind"], "nvme");
    assert_eq!(controller["subsystem"], NQN);
    assert_eq!(controller["state"], "listening");
    assert_eq!(controller["responding"], true);
    assert_eq!(controller["connections"], 0);
    assert_eq!(controller["namespaces"][0]["bdev"], "disk");
    let bdev = &picture["bdevs"][0];
    assert_eq!(bdev["name"], "disk");
    assert_eq!(bdev["claimed"], true);
    assert_eq!(
        (&bdev["block_size"], &bdev["num_blocks"]),
        (&json!(512), &json!(16384))
    );
    assert_eq!(bdev["write"]["ops"], 0);

    let mut driver = Driver::connect(&socket, &Options::default()).expect("a controller");
    let mut queue = driver.create_queue_pair(64, None).expect("a queue pair");
    start_writes(&driver, &mut queue);
    for _ in 1..32 {
        queue.wait().expect("a completion");
    }
    let picture = look(&mut daemon);
    let controller = &picture["controllers"][0];
    assert_eq!(controller["state"], "enabled");
    assert_eq!(controller["connections"], 1);
    let qids = controller["queues"].as_array().expect("queues").iter();
    let qids: Vec<u64> = qids.filter_map(|queue| queue["qid"].as_u64()).collect();
    assert_eq!(qids, [0, 1]);
    let bdev = &picture["bdevs"][0];
    assert_eq!(bdev["write"]["ops"], 32);
    assert_eq!(bdev["write"]["bytes"], 32 * 4096);
    assert_eq!(bdev["read"]["ops"], 0);

    drop(queue);
    drop(driver);
    // The daemon hears of it in its own time.
    while look(&mut daemon)["controllers"][0]["state"] != "listening" {}
    let picture = look(&mut daemon);
    assert_eq!(picture["controllers"][0]["queues"], json!([]));
    assert_eq!(picture["bdevs"][0]["write"]["ops"], 32);
    assert!(picture["rpc"]["requests"].as_u64().is_some_and(|it| it > 5));
    daemon.stop();
}

#[test]
fn virtio_guests_of_both_transports_are_seen() {
    let mut rig = Rig::start(&[]);
    rig.malloc("a");
    rig.malloc("b");
    let vfio = rig.endpoint::<Vfio>("one", "a");
    let vhost = rig.endpoint::<Vhost>("two", "b");
    let mut first = Guest::<Vfio>::start(&vfio, &Setup::linux(false).queues(2));
    let mut second = Guest::<Vhost>::start(&vhost, &Setup::linux(true));
    first.works();
    second.works();
    let picture = look(&mut rig.daemon);
    let find = |kind: &str| {
        let mut all = picture["controllers"].as_array().expect("a list").iter();
        all.find(|it| it["kind"] == kind).expect("it is there")
    };
    let (one, two) = (find("vfu_virtio_blk"), find("vhost_blk"));
    assert_eq!((&one["name"], &two["name"]), (&json!("one"), &json!("two")));
    for controller in [one, two] {
        assert_eq!(controller["state"], "enabled");
        assert_eq!(controller["responding"], true);
    }
    assert_eq!(one["queues"].as_array().map(Vec::len), Some(2));
    assert_eq!(one["address"], vfio.to_str().expect("a path"));
    assert_eq!(two["namespaces"][0]["bdev"], "b");
    drop((first, second));
    rig.daemon.stop();
}

#[test]
fn the_method_takes_no_parameters() {
    let place = directory();
    let mut daemon = Daemon::start(place.path(), &[]);
    daemon.refused("vtarget_get_telemetry", json!({"x": 1}), -32602, "");
    daemon.stop();
}
