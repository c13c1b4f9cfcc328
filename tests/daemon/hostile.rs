//! Guests that break their memory, their queues and their word: each costs only itself.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nvme_spec::command::{CreateCqCdw11, CreateQueueCdw10, CreateSqCdw11, RwCdw12};
use nvme_spec::event::{AsyncEvent, AsyncEventType, ErrorEvent};
use nvme_spec::{AdminOpcode, NvmOpcode, Sqe, Status};
use serde_json::json;
use tempfile::TempDir;
use testkit::nvme::{Driver, Options, QueuePair};
use testkit::vfio_user::{Client, MapFlags};

use crate::common::{Daemon, address, directory};

/// A daemon with two endpoints, each with a RAM disk of its own: one for the guest that misbehaves, one for its neighbour.
struct Two {
    daemon: Daemon,
    culprit: PathBuf,
    neighbour: PathBuf,
    _place: TempDir,
}

impl Two {
    fn start(args: &[&str]) -> Self {
        let place = directory();
        let mut daemon = Daemon::start(place.path(), args);
        daemon.ok("nvmf_create_transport", json!({"trtype": "VFIOUSER"}));
        let mut endpoint = |name: &str| {
            let nqn = format!("nqn.2026-11.io.example:{name}");
            daemon.ok(
                "nvmf_create_subsystem",
                json!({"nqn": nqn, "allow_any_host": true}),
            );
            daemon.malloc(name);
            daemon.ok(
                "nvmf_subsystem_add_ns",
                json!({"nqn": nqn, "namespace": {"bdev_name": name}}),
            );
            let home = place.path().join(name);
            std::fs::create_dir(&home).expect("a directory");
            daemon.ok(
                "nvmf_subsystem_add_listener",
                json!({"nqn": nqn, "listen_address": address(&home)}),
            );
            home.join("cntrl")
        };
        let (culprit, neighbour) = (endpoint("culprit"), endpoint("neighbour"));
        Self {
            daemon,
            culprit,
            neighbour,
            _place: place,
        }
    }
}

fn guest(socket: &Path) -> Driver {
    Driver::connect(socket, &Options::default()).expect("a controller")
}

/// A one-page read of block 0.
fn read(driver: &Driver, blocks: u16) -> Sqe {
    let len = usize::from(blocks) * 512;
    let buffer = driver.ram().alloc(len, 4096).expect("guest memory");
    let (prp1, prp2) = driver.ram().prps(buffer, len).expect("guest memory");
    let mut sqe = Sqe::nvm(NvmOpcode::READ, 1).with_prps(prp1, prp2);
    sqe.cdw12 = RwCdw12::new().with_nlb_z(blocks - 1).into_bits();
    sqe
}

fn works(driver: &Driver, queue: &mut QueuePair) {
    let sqe = read(driver, 8);
    assert_eq!(
        queue.run(&sqe).expect("a completion").status(),
        Status::SUCCESS
    );
}

/// Waits until the controller reports CSTS.CFS.
fn wait_failed(driver: &mut Driver) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !driver.csts().expect("an answer").cfs() {
        assert!(Instant::now() < deadline, "the controller does not fail");
    }
}

#[test]
fn truncating_the_memory_costs_only_the_guest_that_did_it() {
    let two = Two::start(&["-m", "0x3"]);
    let mut culprit = guest(&two.culprit);
    let mut queues: Vec<_> = (0..4)
        .map(|_| culprit.create_queue_pair(64, None).expect("a queue pair"))
        .collect();
    for queue in &mut queues {
        works(&culprit, queue);
    }
    let mut neighbour = guest(&two.neighbour);
    let mut queue = neighbour.create_queue_pair(64, None).expect("a queue pair");
    works(&neighbour, &mut queue);

    nix::unistd::ftruncate(culprit.ram().memory().fd(), 0).expect("truncated");
    // An idle target looks at the doorbells only; a tail that moves makes it touch the rings.
    for queue in &queues {
        queue.poke(2);
    }
    wait_failed(&mut culprit);
    works(&neighbour, &mut queue);
    drop(culprit);
    let mut next = guest(&two.culprit);
    let mut queue = next
        .create_queue_pair(64, None)
        .expect("a clean controller for the next guest");
    works(&next, &mut queue);
    drop((next, neighbour));
    let log = two.daemon.log();
    assert_eq!(log.matches("truncated").count(), 1, "said once:\n{log}");
    two.daemon.stop();
}

#[test]
fn doorbells_outside_the_queue_are_an_event_and_nothing_else() {
    let two = Two::start(&[]);
    let mut driver = guest(&two.culprit);
    let mut queue = driver.create_queue_pair(16, None).expect("a queue pair");
    driver
        .admin_start(Sqe::admin(AdminOpcode::ASYNC_EVENT_REQUEST, 0))
        .expect("a free slot");
    for value in [16, 0xffff, u32::MAX] {
        queue.poke(value);
    }
    let event = AsyncEvent::from_bits(driver.admin_wait().expect("an event").dw0);
    assert_eq!(event.event_type(), AsyncEventType::ERROR);
    assert_eq!(event.info(), ErrorEvent::INVALID_DOORBELL_VALUE.0);
    works(&driver, &mut queue);
    assert!(!driver.csts().expect("an answer").cfs());
    drop(driver);
    two.daemon.stop();
}

#[test]
fn prp_lists_that_loop_or_lead_nowhere_end_with_a_status() {
    let two = Two::start(&[]);
    let mut driver = guest(&two.culprit);
    let mut queue = driver.create_queue_pair(16, None).expect("a queue pair");
    let list = driver.ram().alloc(4096, 4096).expect("guest memory");
    let last = list + 4088;
    // The last entry of a list page leads to the next list: here to itself.
    driver.ram().write(last, &last.to_le_bytes());
    let buffer = driver.ram().alloc(4096, 4096).expect("guest memory");
    let mut sqe = Sqe::nvm(NvmOpcode::READ, 1);
    sqe.cdw12 = RwCdw12::new().with_nlb_z(2047).into_bits();
    let mut status = |prp1, prp2| {
        let sqe = sqe.with_prps(prp1, prp2);
        queue.run(&sqe).expect("a completion").status().code()
    };
    assert_eq!(status(buffer, last), Status::PRP_OFFSET_INVALID);
    // A page of the list that is its own successor, aligned: bounded by the transfer's length.
    for at in (list..last).step_by(8) {
        driver.ram().write(at, &buffer.to_le_bytes());
    }
    driver.ram().write(last, &list.to_le_bytes());
    assert_eq!(status(buffer, list), Status::SUCCESS);
    let nowhere = 1 << 60;
    assert_eq!(status(nowhere, list), Status::DATA_TRANSFER_ERROR);
    assert_eq!(status(buffer, nowhere), Status::DATA_TRANSFER_ERROR);
    assert_eq!(status(!4095, list), Status::DATA_TRANSFER_ERROR);
    works(&driver, &mut queue);
    drop(driver);
    two.daemon.stop();
}

#[test]
fn queues_outside_the_memory_are_refused() {
    let two = Two::start(&[]);
    let mut driver = guest(&two.culprit);
    let outside = (1u64 << 40) & !4095;
    let mut create = Sqe::admin(AdminOpcode::CREATE_IO_CQ, 0).with_prps(outside, 0);
    create.cdw10 = CreateQueueCdw10::new()
        .with_qid(1)
        .with_qsize_z(63)
        .into_bits();
    create.cdw11 = CreateCqCdw11::new().with_pc(true).into_bits();
    assert!(
        !driver
            .admin(create)
            .expect("a completion")
            .status()
            .is_success()
    );
    let end = driver.ram().base() + driver.ram().memory().len() as u64 - 4096;
    let mut across = create.with_prps(end, 0);
    across.cdw10 = CreateQueueCdw10::new()
        .with_qid(1)
        .with_qsize_z(1023)
        .into_bits();
    assert!(
        !driver
            .admin(across)
            .expect("a completion")
            .status()
            .is_success()
    );
    let mut queue = driver
        .create_queue_pair(64, None)
        .expect("the next is good");
    works(&driver, &mut queue);
    drop(driver);
    two.daemon.stop();
}

#[test]
fn dma_regions_that_cannot_be_are_refused_and_the_guest_goes_on() {
    let two = Two::start(&[]);
    let mut driver = guest(&two.culprit);
    let mut queue = driver.create_queue_pair(64, None).expect("a queue pair");
    let ram = driver.ram().clone();
    let flags = MapFlags::READ | MapFlags::WRITE;
    for (offset, address, size) in [
        (0, u64::MAX - 4095, 8192),
        (0, ram.base() + 4096, 4096),
        (64 << 20, 1 << 40, 4096),
        (u64::MAX, 1 << 40, 4096),
        (0, 1 << 40, 0),
    ] {
        let fd = Some(ram.memory().fd());
        let refused = driver.client().dma_map(flags, fd, offset, address, size);
        assert!(refused.is_err(), "{offset:#x} {address:#x} {size:#x}");
    }
    works(&driver, &mut queue);
    drop(driver);
    two.daemon.stop();
}

#[test]
fn unmapping_under_load_waits_for_the_disk_and_hurts_nobody() {
    let two = Two::start(&["-m", "0x3"]);
    let mut driver = guest(&two.culprit);
    let mut queue = driver.create_queue_pair(64, None).expect("a queue pair");
    let more = testkit::nvme::GuestRam::new(1 << 40, 1 << 20).expect("memory");
    let flags = MapFlags::READ | MapFlags::WRITE;
    for round in 0..200 {
        let fd = Some(more.memory().fd());
        driver
            .client()
            .dma_map(flags, fd, 0, more.base(), 1 << 20)
            .expect("mapped");
        let mut sqe = read(&driver, 8).with_prps(more.base() + (round % 200) * 4096, 0);
        for cid in 0..32 {
            sqe = sqe.with_cid(cid);
            queue.push(&sqe);
        }
        queue.ring();
        driver
            .client()
            .dma_unmap(more.base(), 1 << 20)
            .expect("unmapped");
        let mut ended = 0;
        while ended < 32 {
            let status = queue.wait().expect("a completion").status().code();
            assert!(
                [Status::SUCCESS, Status::DATA_TRANSFER_ERROR].contains(&status),
                "{status:?}"
            );
            ended += 1;
        }
    }
    works(&driver, &mut queue);
    drop(driver);
    two.daemon.stop();
}

#[test]
fn a_guest_that_dies_with_commands_in_flight_leaves_a_clean_device() {
    let mut two = Two::start(&["-m", "0x3"]);
    for round in 0..20 {
        let mut driver = guest(&two.culprit);
        let mut queue = driver.create_queue_pair(64, None).expect("a queue pair");
        for cid in 0..60 {
            queue.push(&read(&driver, 2).with_cid(cid));
        }
        queue.ring();
        if round % 2 == 0 {
            works_eventually(&mut queue);
        }
    }
    let mut driver = guest(&two.culprit);
    let mut queue = driver.create_queue_pair(64, None).expect("a queue pair");
    works(&driver, &mut queue);
    drop(driver);
    let stats = two.daemon.ok("framework_get_reactors", json!(null));
    assert_eq!(stats["reactors"].as_array().map(Vec::len), Some(2));
    two.daemon.stop();
}

/// One completion, whichever.
fn works_eventually(queue: &mut QueuePair) {
    assert_eq!(
        queue.wait().expect("a completion").status(),
        Status::SUCCESS
    );
}

#[test]
fn as_many_queues_as_offered_work_on_two_reactors() {
    let two = Two::start(&["-m", "0x3"]);
    let mut driver = guest(&two.culprit);
    let mut queues = Vec::new();
    for _ in 0..127 {
        queues.push(driver.create_queue_pair(32, None).expect("a queue pair"));
    }
    for queue in &mut queues {
        works(&driver, queue);
    }
    for queue in queues {
        driver.delete_queue_pair(queue).expect("deleted");
    }
    drop(driver);
    two.daemon.stop();
}

#[test]
fn several_submission_queues_share_a_completion_queue() {
    let two = Two::start(&["-m", "0x3"]);
    let mut driver = guest(&two.culprit);
    let mut first = driver.create_queue_pair(64, None).expect("a queue pair");
    let ring = driver.ram().alloc(4096, 4096).expect("guest memory");
    let mut create = Sqe::admin(AdminOpcode::CREATE_IO_SQ, 0).with_prps(ring, 0);
    create.cdw10 = CreateQueueCdw10::new()
        .with_qid(9)
        .with_qsize_z(15)
        .into_bits();
    create.cdw11 = CreateSqCdw11::new()
        .with_pc(true)
        .with_cqid(first.qid())
        .into_bits();
    assert!(
        driver
            .admin(create)
            .expect("a completion")
            .status()
            .is_success()
    );
    let sqe = read(&driver, 8).with_cid(77);
    driver.ram().memory().write(driver.ram().offset(ring), &sqe);
    driver
        .client()
        .region_write(0, 0x1000 + 9 * 8, &1u32.to_le_bytes())
        .expect("a trapped doorbell works beside mapped ones");
    let cqe = first.wait().expect("a completion");
    assert_eq!((cqe.sqid, cqe.cid, cqe.status()), (9, 77, Status::SUCCESS));
    works(&driver, &mut first);
    drop(driver);
    two.daemon.stop();
}

#[test]
fn nonsense_on_the_socket_does_not_keep_the_next_guest_out() {
    let two = Two::start(&[]);
    for bytes in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        &[0xff; 64],
        &[1, 0, 1, 0],
        &[0; 16],
    ] {
        let mut client = Client::connect_only(&two.culprit).expect("connected");
        // The server may have closed already: that is an answer, too.
        let _ = client.wire().send_bytes(bytes, &[]);
        drop(client);
    }
    let mut driver = guest(&two.culprit);
    let mut queue = driver.create_queue_pair(16, None).expect("a queue pair");
    works(&driver, &mut queue);
    drop(driver);
    two.daemon.stop();
}
