//! Guests on disks that stand on others, while operators inject faults, change latencies, resize and take things away.

use std::sync::atomic::{AtomicBool, Ordering};

use nvme_spec::command::RwCdw12;
use nvme_spec::{NvmOpcode, Sqe, Status, StatusCodeType};
use serde_json::{Value, json};
use testkit::nvme::{Driver, QueuePair};

use crate::common::{Daemon, directory};
use crate::guests::{active, ask_for_event, guest, namespace_event, pattern, transfer};

fn inject(daemon: &mut Daemon, more: Value) {
    let mut params = json!({"name": "EE_P", "io_type": "read", "error_type": "failure"});
    for (key, value) in more.as_object().expect("members") {
        params[key] = value.clone();
    }
    assert_eq!(daemon.ok("bdev_error_inject_error", params), true);
}

/// A guest on the second half of a delay on an error bdev on a passthru on RAM.
fn tower(daemon: &mut Daemon, place: &std::path::Path) -> Driver {
    daemon.subsystem();
    daemon.malloc("M");
    daemon.ok(
        "bdev_passthru_create",
        json!({"name": "P", "base_bdev_name": "M"}),
    );
    daemon.ok("bdev_error_create", json!({"base_name": "P"}));
    let delay = json!({
        "name": "D", "base_bdev_name": "EE_P", "avg_read_latency": 20, "p99_read_latency": 200,
        "avg_write_latency": 20, "p99_write_latency": 200,
    });
    daemon.ok("bdev_delay_create", delay);
    daemon.ok(
        "bdev_split_create",
        json!({"base_bdev": "D", "split_count": 2}),
    );
    daemon.add_ns("Dp1");
    let socket = daemon.listen(&place.join("vm"));
    guest(&socket)
}

/// Starts a read of one block without waiting for its end.
fn start_read(driver: &Driver, queue: &mut QueuePair, cid: u16) {
    let buffer = driver.ram().alloc(4096, 4096).expect("guest memory");
    let mut sqe = Sqe::nvm(NvmOpcode::READ, 1).with_prps(buffer, 0);
    sqe.cdw12 = RwCdw12::new().with_nlb_z(0).into_bits();
    queue.push(&sqe.with_cid(cid));
    queue.ring();
}

#[test]
fn a_guest_sees_what_is_injected_and_nothing_else() {
    let place = directory();
    let mut daemon = Daemon::start(place.path(), &[]);
    let mut driver = tower(&mut daemon, place.path());
    let mut queue = driver.create_queue_pair(16, None).expect("a queue pair");
    let data = pattern(8192);
    let mut run = |opcode, data: &[u8]| transfer(&driver, &mut queue, opcode, 100, data);
    assert_eq!(run(NvmOpcode::WRITE, &data).0, Status::SUCCESS);
    assert!(run(NvmOpcode::READ, &vec![0; 8192]) == (Status::SUCCESS, data.clone()));

    inject(&mut daemon, json!({"num": 2}));
    for _ in 0..2 {
        assert_ne!(run(NvmOpcode::READ, &data).0, Status::SUCCESS);
    }
    assert_eq!(run(NvmOpcode::READ, &data).0, Status::SUCCESS);
    let status = json!({"error_type": "nvme_failure", "nvme_sct": 2, "nvme_sc": 0x81});
    inject(&mut daemon, status);
    let unrecovered = Status::of(StatusCodeType(2), 0x81);
    assert_eq!(run(NvmOpcode::READ, &data).0.code(), unrecovered);

    let corrupt = json!({"error_type": "corrupt_data", "corrupt_offset": 4242, "corrupt_value": 3});
    inject(&mut daemon, corrupt);
    let mut changed = data.clone();
    changed[4242] ^= 3;
    assert!(run(NvmOpcode::READ, &vec![0; 8192]) == (Status::SUCCESS, changed));
    assert!(run(NvmOpcode::READ, &vec![0; 8192]) == (Status::SUCCESS, data.clone()));

    inject(
        &mut daemon,
        json!({"error_type": "nomem", "io_type": "all", "num": 30}),
    );
    assert_eq!(run(NvmOpcode::WRITE, &data).0, Status::SUCCESS);
    assert!(run(NvmOpcode::READ, &vec![0; 8192]) == (Status::SUCCESS, data.clone()));
    let clear = json!({"io_type": "clear"});
    inject(&mut daemon, clear);

    let update = |which| json!({"delay_bdev_name": "D", "latency_type": which, "latency_us": 0});
    daemon.ok("bdev_delay_update_latency", update("avg_read"));
    assert!(run(NvmOpcode::READ, &vec![0; 8192]) == (Status::SUCCESS, data));

    // Both are counted, the one above and the one below.
    let stats = daemon.ok("bdev_get_iostat", json!({"names": ["Dp1"]}));
    assert_ne!(stats["bdevs"][0]["num_read_ops"], 0);
    let stats = daemon.ok("bdev_get_iostat", json!({"names": ["M"]}));
    assert_ne!(stats["bdevs"][0]["num_read_ops"], 0);
    drop(driver);
    daemon.stop();
}

#[test]
fn a_command_that_hangs_goes_on_or_goes_with_its_disk() {
    let place = directory();
    let mut daemon = Daemon::start(place.path(), &[]);
    let mut driver = tower(&mut daemon, place.path());
    let mut queue = driver.create_queue_pair(16, None).expect("a queue pair");
    inject(&mut daemon, json!({"error_type": "pending", "num": 1}));
    start_read(&driver, &mut queue, 7);
    // The one that follows overtakes it.
    start_read(&driver, &mut queue, 8);
    assert_eq!(queue.wait().expect("a completion").cid, 8);
    assert!(queue.poll().is_none());
    assert_eq!(
        daemon.ok("bdev_error_resume_pending", json!({"name": "EE_P"})),
        true
    );
    let cqe = queue.wait().expect("a completion");
    assert_eq!((cqe.cid, cqe.status()), (7, Status::SUCCESS));

    // One that hangs does not keep its disk: the deletion from below is answered, the guest told.
    inject(&mut daemon, json!({"error_type": "pending", "num": 1}));
    start_read(&driver, &mut queue, 9);
    start_read(&driver, &mut queue, 10);
    assert_eq!(queue.wait().expect("a completion").cid, 10);
    ask_for_event(&mut driver);
    assert_eq!(daemon.ok("bdev_malloc_delete", json!({"name": "M"})), true);
    let cqe = queue.wait().expect("a completion");
    assert_eq!(cqe.cid, 9);
    assert_ne!(cqe.status(), Status::SUCCESS);
    assert_eq!(namespace_event(&mut driver), [1]);
    assert_eq!(active(&mut driver), [] as [u32; 0]);
    let list = daemon.ok("bdev_get_bdevs", Value::Null);
    assert_eq!(list.as_array().map(Vec::len), Some(0));
    drop(driver);
    daemon.stop();
}

#[test]
fn a_size_goes_up_the_tower() {
    let place = directory();
    let mut daemon = Daemon::start(place.path(), &[]);
    daemon.subsystem();
    let null = json!({"name": "n", "block_size": 4096, "num_blocks": 1024});
    daemon.ok("bdev_null_create", null);
    daemon.ok(
        "bdev_passthru_create",
        json!({"name": "P", "base_bdev_name": "n"}),
    );
    daemon.ok("bdev_error_create", json!({"base_name": "P"}));
    daemon.add_ns("EE_P");
    let socket = daemon.listen(&place.path().join("vm"));
    let mut driver = guest(&socket);
    assert_eq!(driver.geometry(1).expect("a namespace"), (4096, 1024));
    ask_for_event(&mut driver);
    let resize = json!({"name": "n", "new_size": 8});
    assert_eq!(daemon.ok("bdev_null_resize", resize), true);
    assert_eq!(namespace_event(&mut driver), [1]);
    assert_eq!(driver.geometry(1).expect("a namespace"), (4096, 2048));
    let events = daemon.ok("notify_get_notifications", json!({"id": 0, "max": 100}));
    let events = events.as_array().expect("a list").iter();
    let resized = events.filter(|event| event["type"] == "bdev_resize");
    let names: Vec<_> = resized.filter_map(|event| event["ctx"].as_str()).collect();
    assert_eq!(names, ["n", "P", "EE_P"]);
    drop(driver);
    daemon.stop();
}

/// A guest that checks every block it reads, until it is told to stop or its disk is gone.
fn verify(driver: &Driver, queue: &mut QueuePair, stop: &AtomicBool) -> (u64, Status) {
    let ram = driver.ram();
    let buffer = ram.alloc(8192, 4096).expect("guest memory");
    let mut run = |opcode, slba, at| {
        let mut sqe = Sqe::nvm(opcode, 1).with_prps(at, 0).with_slba(slba);
        sqe.cdw12 = RwCdw12::new().with_nlb_z(7).into_bits();
        queue.run(&sqe).expect("a completion").status()
    };
    let mut rounds = 0;
    while !stop.load(Ordering::Relaxed) {
        let slba = rounds * 8 % 4096;
        let data: Vec<u8> = (0..4096u64).map(|at| (at * 7 + rounds) as u8).collect();
        ram.write(buffer, &data);
        let status = run(NvmOpcode::WRITE, slba, buffer);
        if status != Status::SUCCESS {
            return (rounds, status);
        }
        let status = run(NvmOpcode::READ, slba, buffer + 4096);
        if status != Status::SUCCESS {
            return (rounds, status);
        }
        assert!(ram.read(buffer + 4096, 4096) == data, "round {rounds}");
        rounds += 1;
    }
    (rounds, Status::SUCCESS)
}

#[test]
fn towers_change_under_load() {
    let place = directory();
    let mut daemon = Daemon::start(place.path(), &[]);
    let mut driver = tower(&mut daemon, place.path());
    let mut queue = driver.create_queue_pair(16, None).expect("a queue pair");
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let load = scope.spawn(|| verify(&driver, &mut queue, &stop));
        for round in 0..20 {
            // What the guest's disk stands on is not to be had,
            for (method, params) in [
                (
                    "bdev_passthru_create",
                    json!({"name": "Q", "base_bdev_name": "M"}),
                ),
                ("bdev_error_create", json!({"base_name": "Dp1"})),
            ] {
                assert!(daemon.call(method, params).is_err());
            }
            // what is beside it is,
            daemon.ok(
                "bdev_passthru_create",
                json!({"name": "Q", "base_bdev_name": "Dp0"}),
            );
            daemon.ok(
                "bdev_split_create",
                json!({"base_bdev": "Q", "split_count": 2}),
            );
            // and lack of memory and other latencies are not noticed.
            inject(
                &mut daemon,
                json!({"error_type": "nomem", "io_type": "all", "num": 5}),
            );
            for which in ["avg_read", "avg_write"] {
                let update = json!({"delay_bdev_name": "D", "latency_type": which, "latency_us": round * 10});
                daemon.ok("bdev_delay_update_latency", update);
            }
            assert_eq!(
                daemon.ok("bdev_passthru_delete", json!({"name": "Q"})),
                true
            );
        }
        stop.store(true, Ordering::Relaxed);
        let (rounds, status) = load.join().expect("every block was right");
        assert_eq!(status, Status::SUCCESS);
        assert!(rounds > 0);
    });
    // The middle goes under load: the guest's disk ends, and everything below is free.
    stop.store(false, Ordering::Relaxed);
    std::thread::scope(|scope| {
        let load = scope.spawn(|| verify(&driver, &mut queue, &stop));
        assert_eq!(
            daemon.ok("bdev_error_delete", json!({"name": "EE_P"})),
            true
        );
        let (_, status) = load.join().expect("every block was right");
        assert_ne!(status, Status::SUCCESS);
    });
    let shown = daemon.ok("bdev_get_bdevs", json!({"name": "P"}));
    assert_eq!(shown[0]["claimed"], false);
    daemon.add_ns("P");
    let (status, _) = transfer(&driver, &mut queue, NvmOpcode::READ, 0, &[0; 4096]);
    assert_eq!(status, Status::SUCCESS);
    drop(driver);
    daemon.stop();
}
