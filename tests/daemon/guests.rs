//! A guest's driver on the daemon's endpoints, while operators change things under it.

use std::path::Path;

use nix::sys::signal::Signal;
use nvme_spec::command::{GetLogPageCdw10, RwCdw12, SetFeaturesCdw10};
use nvme_spec::event::{AsyncEvent, AsyncEventType, NoticeEvent};
use nvme_spec::feature::{AsyncEventConfig, FeatureId};
use nvme_spec::identify::Cns;
use nvme_spec::log::LogPageId;
use nvme_spec::{AdminOpcode, NvmOpcode, Sqe, Status};
use serde_json::{Value, json};
use testkit::nvme::{Driver, Options, QueuePair};

use crate::common::{Daemon, NQN, address, directory, file};

pub(crate) fn guest(socket: &Path) -> Driver {
    Driver::connect(socket, &Options::default()).expect("a controller")
}

/// Runs one read or write of `data.len()` bytes; its status and what the buffer holds then.
pub(crate) fn transfer(
    driver: &Driver,
    queue: &mut QueuePair,
    opcode: NvmOpcode,
    slba: u64,
    data: &[u8],
) -> (Status, Vec<u8>) {
    let ram = driver.ram();
    let buffer = ram.alloc(data.len(), 4096).expect("guest memory");
    ram.write(buffer, data);
    let (prp1, prp2) = ram.prps(buffer, data.len()).expect("guest memory");
    let blocks = u16::try_from(data.len() / 512 - 1).expect("few blocks");
    let mut sqe = Sqe::nvm(opcode, 1).with_prps(prp1, prp2).with_slba(slba);
    sqe.cdw12 = RwCdw12::new().with_nlb_z(blocks).into_bits();
    let cqe = queue.run(&sqe).expect("a completion");
    (cqe.status(), ram.read(buffer, data.len()))
}

/// Starts 32 writes of 4 KiB and waits for the first to end: others may be in flight when whatever comes next comes.
pub(crate) fn start_writes(driver: &Driver, queue: &mut QueuePair) {
    let ram = driver.ram();
    let buffer = ram.alloc(4096, 4096).expect("guest memory");
    ram.write(buffer, &pattern(4096));
    for cid in 0..32 {
        let slba = u64::from(cid) * 8;
        let mut sqe = Sqe::nvm(NvmOpcode::WRITE, 1)
            .with_prps(buffer, 0)
            .with_slba(slba);
        sqe.cdw12 = RwCdw12::new().with_nlb_z(7).into_bits();
        queue.push(&sqe.with_cid(cid));
    }
    queue.ring();
    queue.wait().expect("the first completion");
}

pub(crate) fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at / 7 % 251) as u8).collect()
}

/// NSIDs of Identify's list of active namespaces.
pub(crate) fn active(driver: &mut Driver) -> Vec<u32> {
    let list = driver
        .identify(Cns::ACTIVE_NAMESPACE_LIST, 0)
        .expect("a list");
    let numbers = list
        .chunks_exact(4)
        .map(|n| u32::from_le_bytes([n[0], n[1], n[2], n[3]]));
    numbers.take_while(|nsid| *nsid != 0).collect()
}

/// Asks to be told of the next change of namespaces, as Linux does.
pub(crate) fn ask_for_event(driver: &mut Driver) {
    let mut sqe = Sqe::admin(AdminOpcode::SET_FEATURES, 0);
    sqe.cdw10 = SetFeaturesCdw10::new()
        .with_fid(FeatureId::ASYNC_EVENT_CONFIG)
        .into_bits();
    sqe.cdw11 = AsyncEventConfig::new()
        .with_namespace_attribute(true)
        .into_bits();
    let cqe = driver.admin(sqe).expect("Set Features");
    assert_eq!(cqe.status(), Status::SUCCESS);
    driver
        .admin_start(Sqe::admin(AdminOpcode::ASYNC_EVENT_REQUEST, 0))
        .expect("a free slot");
}

/// Waits for the event and takes its log page, as Linux does; NSIDs that have changed.
pub(crate) fn namespace_event(driver: &mut Driver) -> Vec<u32> {
    let cqe = driver.admin_wait().expect("an event");
    let event = AsyncEvent::from_bits(cqe.dw0);
    assert_eq!(event.event_type(), AsyncEventType::NOTICE);
    assert_eq!(event.info(), NoticeEvent::NAMESPACE_ATTRIBUTE_CHANGED.0);
    let lid = LogPageId::CHANGED_NAMESPACE_LIST;
    assert_eq!(event.lid(), lid);
    let page = driver.ram().alloc(4096, 4096).expect("guest memory");
    let mut sqe = Sqe::admin(AdminOpcode::GET_LOG_PAGE, u32::MAX).with_prps(page, 0);
    sqe.cdw10 = GetLogPageCdw10::new()
        .with_lid(lid)
        .with_numdl(1023)
        .into_bits();
    let cqe = driver.admin(sqe).expect("the log page");
    assert_eq!(cqe.status(), Status::SUCCESS);
    let list = driver.ram().read(page, 4096);
    let numbers = list
        .chunks_exact(4)
        .map(|n| u32::from_le_bytes([n[0], n[1], n[2], n[3]]));
    numbers.take_while(|nsid| *nsid != 0).collect()
}

#[test]
fn a_guest_finds_what_the_operator_made() {
    let place = directory();
    let mut daemon = Daemon::start(place.path(), &[]);
    let transport = json!({
        "trtype": "VFIOUSER", "max_queue_depth": 512, "max_io_size": 262_144, "max_io_qpairs_per_ctrlr": 3,
    });
    daemon.ok("nvmf_create_transport", transport);
    let subsystem = json!({
        "nqn": NQN, "serial_number": "SERIAL 7", "model_number": "MODEL 9", "min_cntlid": 17, "max_namespaces": 5,
        "allow_any_host": true,
    });
    daemon.ok("nvmf_create_subsystem", subsystem);
    daemon.malloc("a");
    daemon.add_ns("a");
    let socket = daemon.listen(&place.path().join("vm"));
    let mut driver = guest(&socket);
    assert_eq!(driver.cap().mqes_z(), 511);
    let identity = driver.identify_controller().expect("Identify");
    assert!(identity.sn.starts_with(b"SERIAL 7 "));
    assert!(identity.mn.starts_with(b"MODEL 9 "));
    assert_eq!(identity.cntlid, 17);
    assert_eq!(identity.mdts, 6);
    assert_eq!(identity.nn, 5);
    assert!(identity.subnqn.starts_with(NQN.as_bytes()));
    assert_eq!(active(&mut driver), [1]);
    assert_eq!(driver.geometry(1).expect("a namespace"), (512, 16384));

    let controllers = daemon.ok("nvmf_subsystem_get_controllers", json!({"nqn": NQN}));
    assert_eq!(controllers[0]["cntlid"], 17);
    assert_eq!(controllers[0]["num_io_qpairs"], 0);
    let pair = driver.create_queue_pair(16, None).expect("a queue pair");
    let controllers = daemon.ok("nvmf_subsystem_get_controllers", json!({"nqn": NQN}));
    assert_eq!(controllers[0]["num_io_qpairs"], 1);
    let queues = daemon.ok("nvmf_subsystem_get_qpairs", json!({"nqn": NQN}));
    let queues = queues.as_array().expect("a list");
    let numbers: Vec<u64> = queues
        .iter()
        .filter_map(|queue| queue["qid"].as_u64())
        .collect();
    assert_eq!(numbers, [0, 1]);
    for queue in queues {
        assert_eq!(queue["cntlid"], 17);
        assert_eq!(queue["state"], "enabled");
        assert_eq!(queue["thread"], "reactor_0");
        assert_eq!(
            queue["listen_address"]["traddr"],
            json!(place.path().join("vm"))
        );
    }
    driver.delete_queue_pair(pair).expect("deleted");
    drop(driver);
    daemon.stop();
}

#[test]
fn what_a_guest_writes_is_in_the_file() {
    let place = directory();
    let path = file(place.path(), "disk.img", 8 << 20);
    let mut daemon = Daemon::start(place.path(), &[]);
    daemon.subsystem();
    let disk = json!({"name": "u", "filename": path, "block_size": 512});
    daemon.ok("bdev_uring_create", disk);
    daemon.add_ns("u");
    let socket = daemon.listen(&place.path().join("vm"));
    let mut driver = guest(&socket);
    let mut queue = driver.create_queue_pair(16, None).expect("a queue pair");
    let data = pattern(64 << 10);
    let (status, _) = transfer(&driver, &mut queue, NvmOpcode::WRITE, 100, &data);
    assert_eq!(status, Status::SUCCESS);
    let (status, read) = transfer(
        &driver,
        &mut queue,
        NvmOpcode::READ,
        100,
        &vec![0; data.len()],
    );
    assert_eq!(status, Status::SUCCESS);
    assert!(read == data, "the guest reads what it wrote");
    let stats = daemon.ok(
        "bdev_get_iostat",
        json!({"names": ["u"], "reset_mode": "all"}),
    );
    assert_eq!(stats["bdevs"][0]["num_read_ops"], 1);
    assert_eq!(stats["bdevs"][0]["bytes_read"], data.len());
    assert_eq!(stats["bdevs"][0]["num_write_ops"], 1);
    assert_eq!(stats["bdevs"][0]["bytes_written"], data.len());
    let stats = daemon.ok("bdev_get_iostat", json!({"names": ["u"]}));
    assert_eq!(stats["bdevs"][0]["num_read_ops"], 0);
    drop(driver);
    daemon.stop();
    let found = std::fs::read(&path).expect("the file");
    assert!(
        found[100 * 512..][..data.len()] == data,
        "the file holds what the guest wrote"
    );
    assert!(found[..100 * 512].iter().all(|byte| *byte == 0));
}

#[test]
fn namespaces_come_and_go_under_a_guest() {
    let place = directory();
    let mut daemon = Daemon::start(place.path(), &[]);
    daemon.subsystem();
    daemon.malloc("a");
    daemon.add_ns("a");
    let socket = daemon.listen(&place.path().join("vm"));
    let mut driver = guest(&socket);
    assert_eq!(active(&mut driver), [1]);

    ask_for_event(&mut driver);
    let null = json!({"name": "n", "block_size": 4096, "num_blocks": 2048});
    daemon.ok("bdev_null_create", null);
    assert_eq!(daemon.add_ns("n"), 2);
    assert_eq!(namespace_event(&mut driver), [2]);
    assert_eq!(active(&mut driver), [1, 2]);
    assert_eq!(driver.geometry(2).expect("a namespace"), (4096, 2048));

    ask_for_event(&mut driver);
    assert_eq!(
        daemon.ok("bdev_null_resize", json!({"name": "n", "new_size": 16})),
        true
    );
    assert_eq!(namespace_event(&mut driver), [2]);
    assert_eq!(driver.geometry(2).expect("a namespace"), (4096, 4096));

    ask_for_event(&mut driver);
    assert_eq!(
        daemon.ok("nvmf_subsystem_remove_ns", json!({"nqn": NQN, "nsid": 2})),
        true
    );
    assert_eq!(namespace_event(&mut driver), [2]);
    assert_eq!(active(&mut driver), [1]);

    // A bdev that is deleted takes its namespace along, also when the guest has used it.
    let mut queue = driver.create_queue_pair(16, None).expect("a queue pair");
    let data = pattern(4096);
    assert_eq!(
        transfer(&driver, &mut queue, NvmOpcode::WRITE, 0, &data).0,
        Status::SUCCESS
    );
    ask_for_event(&mut driver);
    assert_eq!(daemon.ok("bdev_malloc_delete", json!({"name": "a"})), true);
    assert_eq!(namespace_event(&mut driver), [1]);
    assert_eq!(active(&mut driver), [] as [u32; 0]);
    let (status, _) = transfer(&driver, &mut queue, NvmOpcode::READ, 0, &data);
    assert_ne!(status, Status::SUCCESS);

    // Another disk under the old number is another disk.
    daemon.malloc("b");
    assert_eq!(daemon.add_ns("b"), 1);
    let (status, read) = transfer(&driver, &mut queue, NvmOpcode::READ, 0, &data);
    assert_eq!(status, Status::SUCCESS);
    assert!(
        read.iter().all(|byte| *byte == 0),
        "nothing of the former disk is seen"
    );
    drop(driver);
    daemon.stop();
}

#[test]
fn a_grown_file_reaches_the_guest_by_rescan() {
    let place = directory();
    let path = file(place.path(), "disk.img", 8 << 20);
    let mut daemon = Daemon::start(place.path(), &[]);
    daemon.subsystem();
    let disk = json!({"name": "u", "filename": path, "block_size": 512});
    daemon.ok("bdev_aio_create", disk);
    daemon.add_ns("u");
    let socket = daemon.listen(&place.path().join("vm"));
    let mut driver = guest(&socket);
    assert_eq!(driver.geometry(1).expect("a namespace"), (512, 16384));
    ask_for_event(&mut driver);
    let grown = std::fs::OpenOptions::new()
        .write(true)
        .open(&path)
        .expect("the file");
    grown.set_len(16 << 20).expect("room");
    assert_eq!(daemon.ok("bdev_aio_rescan", json!({"name": "u"})), true);
    assert_eq!(namespace_event(&mut driver), [1]);
    assert_eq!(driver.geometry(1).expect("a namespace"), (512, 32768));
    drop(driver);
    daemon.stop();
}

#[test]
fn two_endpoints_of_a_subsystem_share_its_disks() {
    let place = directory();
    let mut daemon = Daemon::start(place.path(), &[]);
    daemon.subsystem();
    daemon.malloc("a");
    daemon.add_ns("a");
    let sockets = [
        daemon.listen(&place.path().join("vm0")),
        daemon.listen(&place.path().join("vm1")),
    ];
    let [mut first, mut second] = sockets.map(|socket| guest(&socket));
    let cntlid = |driver: &mut Driver| driver.identify_controller().expect("Identify").cntlid;
    assert_ne!(cntlid(&mut first), cntlid(&mut second));
    let mut writer = first.create_queue_pair(16, None).expect("a queue pair");
    let mut reader = second.create_queue_pair(16, None).expect("a queue pair");
    let data = pattern(8192);
    assert_eq!(
        transfer(&first, &mut writer, NvmOpcode::WRITE, 3, &data).0,
        Status::SUCCESS
    );
    let (status, read) = transfer(
        &second,
        &mut reader,
        NvmOpcode::READ,
        3,
        &vec![0; data.len()],
    );
    assert_eq!(status, Status::SUCCESS);
    assert!(read == data, "one guest reads what the other wrote");
    let controllers = daemon.ok("nvmf_subsystem_get_controllers", json!({"nqn": NQN}));
    assert_eq!(controllers.as_array().map(Vec::len), Some(2));
    drop((first, second));
    daemon.stop();
}

#[test]
fn the_next_guest_finds_a_clean_controller() {
    let place = directory();
    let mut daemon = Daemon::start(place.path(), &[]);
    daemon.subsystem();
    daemon.malloc("a");
    daemon.add_ns("a");
    let socket = daemon.listen(&place.path().join("vm"));
    for _ in 0..3 {
        let mut driver = guest(&socket);
        assert_eq!(driver.identify_controller().expect("Identify").cntlid, 1);
        let mut queue = driver.create_queue_pair(16, None).expect("a queue pair");
        let data = pattern(4096);
        assert_eq!(
            transfer(&driver, &mut queue, NvmOpcode::WRITE, 0, &data).0,
            Status::SUCCESS
        );
    }
    daemon.stop();
}

#[test]
fn namespaces_made_while_nobody_was_connected_are_there() {
    let place = directory();
    let mut daemon = Daemon::start(place.path(), &[]);
    daemon.subsystem();
    let socket = daemon.listen(&place.path().join("vm"));
    drop(guest(&socket));
    daemon.malloc("a");
    assert_eq!(daemon.add_ns("a"), 1);
    let mut driver = guest(&socket);
    assert_eq!(active(&mut driver), [1]);
    drop(driver);
    assert_eq!(
        daemon.ok("nvmf_subsystem_remove_ns", json!({"nqn": NQN, "nsid": 1})),
        true
    );
    assert_eq!(active(&mut guest(&socket)), [] as [u32; 0]);
    daemon.stop();
}

#[test]
fn an_endpoint_goes_with_its_guest() {
    let place = directory();
    let mut daemon = Daemon::start(place.path(), &[]);
    daemon.subsystem();
    daemon.malloc("a");
    daemon.add_ns("a");
    let home = place.path().join("vm");
    let socket = daemon.listen(&home);
    let mut driver = guest(&socket);
    let _queue = driver.create_queue_pair(16, None).expect("a queue pair");
    let params = json!({"nqn": NQN, "listen_address": address(&home)});
    assert_eq!(daemon.ok("nvmf_subsystem_remove_listener", params), true);
    assert!(!socket.exists());
    assert!(driver.csts().is_err(), "the connection is closed");
    // The directory can be used again.
    let socket = daemon.listen(&home);
    let driver = guest(&socket);
    assert_eq!(
        daemon.ok("nvmf_delete_subsystem", json!({"nqn": NQN})),
        true
    );
    assert!(!socket.exists());
    drop(driver);
    assert_eq!(daemon.ok("bdev_malloc_delete", json!({"name": "a"})), true);
    assert_eq!(daemon.ok("bdev_get_bdevs", Value::Null), json!([]));
    daemon.stop();
}

#[test]
fn a_signal_ends_the_daemon_under_its_guests() {
    let place = directory();
    let path = file(place.path(), "disk.img", 8 << 20);
    let mut daemon = Daemon::start(place.path(), &[]);
    daemon.subsystem();
    daemon.ok(
        "bdev_uring_create",
        json!({"name": "u", "filename": path, "block_size": 512}),
    );
    daemon.add_ns("u");
    let socket = daemon.listen(&place.path().join("vm"));
    let mut driver = guest(&socket);
    let mut queue = driver.create_queue_pair(64, None).expect("a queue pair");
    start_writes(&driver, &mut queue);
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.wait(), Some(0), "the log:\n{}", daemon.log());
    assert!(!socket.exists(), "the endpoint's socket is left");
    assert!(!daemon.socket().exists(), "the RPC socket is left");
    assert!(driver.csts().is_err(), "the connection is closed");
}

#[test]
fn doorbells_can_be_kept_from_being_mapped() {
    let place = directory();
    let mut daemon = Daemon::start(place.path(), &[]);
    daemon.ok(
        "nvmf_create_transport",
        json!({"trtype": "VFIOUSER", "disable_mappable_bar0": true}),
    );
    daemon.ok(
        "nvmf_create_subsystem",
        json!({"nqn": NQN, "allow_any_host": true}),
    );
    daemon.malloc("a");
    daemon.add_ns("a");
    let socket = daemon.listen(&place.path().join("vm"));
    let mut driver = guest(&socket);
    let bar = driver.client().region_info(0).expect("BAR 0");
    assert!(bar.areas.is_empty(), "nothing of it may be mapped");
    assert_eq!(active(&mut driver), [1]);
    drop(driver);
    daemon.stop();
}
