//! Who gets a controller, what it shows, how it reaches namespaces, and what guests and operators see of its errors.

use std::path::Path;

use nvme_spec::command::{GetLogPageCdw10, RwCdw12, SetFeaturesCdw10};
use nvme_spec::event::{AsyncEvent, NoticeEvent};
use nvme_spec::feature::{AsyncEventConfig, FeatureId};
use nvme_spec::identify::Cns;
use nvme_spec::log::LogPageId;
use nvme_spec::{AdminOpcode, NvmOpcode, Sqe, Status};
use serde_json::{Value, json};
use testkit::nvme::{Driver, Options, QueuePair};

use crate::common::{Daemon, NQN, address, directory};

const INVALID: i64 = -32602;
const INTERNAL: i64 = -32603;
const HOST: &str = "nqn.2026-11.io.example:host";
const SET_STATE: &str = "nvmf_subsystem_listener_set_ana_state";

fn connect(socket: &Path) -> testkit::nvme::Result<Driver> {
    Driver::connect(socket, &Options::default())
}

fn guest(socket: &Path) -> (Driver, QueuePair) {
    let mut driver = connect(socket).expect("a controller");
    let queue = driver.create_queue_pair(16, None).expect("a queue pair");
    (driver, queue)
}

/// Reads 4 KiB; the status without flags.
fn read(driver: &Driver, queue: &mut QueuePair, nsid: u32, slba: u64) -> Status {
    let buffer = driver.ram().alloc(4096, 4096).expect("guest memory");
    let mut sqe = Sqe::nvm(NvmOpcode::READ, nsid)
        .with_prps(buffer, 0)
        .with_slba(slba);
    sqe.cdw12 = RwCdw12::new().with_nlb_z(7).into_bits();
    queue.run(&sqe).expect("a completion").status().code()
}

fn log_page(driver: &mut Driver, lid: LogPageId, len: usize) -> Vec<u8> {
    let page = driver.ram().alloc(4096, 4096).expect("guest memory");
    let dwords_z = u16::try_from(len / 4 - 1).expect("a short page");
    let mut sqe = Sqe::admin(AdminOpcode::GET_LOG_PAGE, u32::MAX).with_prps(page, 0);
    sqe.cdw10 = GetLogPageCdw10::new()
        .with_lid(lid)
        .with_numdl(dwords_z)
        .into_bits();
    let cqe = driver.admin(sqe).expect("the log page");
    assert_eq!(cqe.status(), Status::SUCCESS);
    driver.ram().read(page, len)
}

fn active(driver: &mut Driver) -> Vec<u32> {
    let list = driver.identify(Cns::ACTIVE_NAMESPACE_LIST, 0);
    let list = list.expect("a list");
    let nsids = list.chunks_exact(4).map(|at| u32_at(at, 0));
    nsids.take_while(|nsid| *nsid != 0).collect()
}

fn u32_at(page: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([page[at], page[at + 1], page[at + 2], page[at + 3]])
}

/// Asks for events of changes, as Linux does.
fn ask_for_events(driver: &mut Driver) {
    let mut sqe = Sqe::admin(AdminOpcode::SET_FEATURES, 0);
    sqe.cdw10 = SetFeaturesCdw10::new()
        .with_fid(FeatureId::ASYNC_EVENT_CONFIG)
        .into_bits();
    sqe.cdw11 = AsyncEventConfig::new()
        .with_namespace_attribute(true)
        .with_ana_change(true)
        .into_bits();
    assert_eq!(
        driver.admin(sqe).expect("an answer").status(),
        Status::SUCCESS
    );
    request_event(driver);
}

fn request_event(driver: &mut Driver) {
    let request = Sqe::admin(AdminOpcode::ASYNC_EVENT_REQUEST, 0);
    driver.admin_start(request).expect("a free slot");
}

fn event(driver: &mut Driver) -> NoticeEvent {
    let cqe = driver.admin_wait().expect("an event");
    NoticeEvent(AsyncEvent::from_bits(cqe.dw0).info())
}

fn saved_calls(daemon: &mut Daemon, method: &str) -> Vec<Value> {
    let saved = daemon.save_config();
    let subsystems = saved["subsystems"].as_array().expect("a list");
    let calls = subsystems
        .iter()
        .filter_map(|subsystem| subsystem["config"].as_array())
        .flatten();
    let found = calls.filter(|call| call["method"] == method);
    found.map(|call| call["params"].clone()).collect()
}

#[test]
fn two_paths_to_one_namespace_are_told_apart() {
    let place = directory();
    let mut daemon = Daemon::start(place.path(), &[]);
    daemon.ok("nvmf_create_transport", json!({"trtype": "VFIOUSER"}));
    let subsystem = json!({
        "nqn": NQN, "allow_any_host": true, "ana_reporting": true, "max_namespaces": 4,
    });
    daemon.ok("nvmf_create_subsystem", subsystem);
    for name in ["a", "b"] {
        daemon.malloc(name);
        daemon.add_ns(name);
    }
    let paths = ["one", "other"].map(|name| place.path().join(name));
    let sockets = paths.each_ref().map(|path| daemon.listen(path));
    let [mut one, mut other] = sockets.map(|socket| guest(&socket));
    let id = one.0.identify_controller().expect("Identify");
    assert!(id.cmic.ana() && id.cmic.controllers() && id.anagrpmax == 4);
    let ids =
        [&mut one.0, &mut other.0].map(|it| it.identify_controller().expect("Identify").cntlid);
    assert_eq!(ids, [1, 2]);
    ask_for_events(&mut one.0);
    ask_for_events(&mut other.0);

    let closed = json!({
        "nqn": NQN, "listen_address": address(&paths[0]), "anagrpid": 2, "ana_state": "inaccessible",
    });
    assert_eq!(daemon.ok(SET_STATE, closed), true);
    assert_eq!(event(&mut one.0), NoticeEvent::ANA_CHANGE);
    let page = log_page(&mut one.0, LogPageId::ANA, 96);
    // Group 1 with namespace 1, then group 2: inaccessible.
    assert_eq!(
        (page[8], page[32], u32_at(&page, 48), page[52 + 16]),
        (2, 1, 1, 3)
    );
    assert_eq!(read(&one.0, &mut one.1, 2, 0), Status::ANA_INACCESSIBLE);
    assert_eq!(read(&one.0, &mut one.1, 1, 0), Status::SUCCESS);
    assert_eq!(read(&other.0, &mut other.1, 2, 0), Status::SUCCESS);
    assert!(
        other.0.admin_poll().expect("the queue").is_none(),
        "nothing changed there"
    );
    let listeners = daemon.ok("nvmf_subsystem_get_listeners", json!({"nqn": NQN}));
    let state = |listener: usize, group: usize| listeners[listener]["ana_states"][group].clone();
    assert_eq!(
        state(0, 1),
        json!({"ana_group": 2, "ana_state": "inaccessible"})
    );
    assert_eq!(
        state(0, 3),
        json!({"ana_group": 4, "ana_state": "optimized"})
    );
    assert_eq!(state(1, 1)["ana_state"], "optimized");

    // The namespace moves to a group that is open.
    let group = json!({"nqn": NQN, "nsid": 2, "anagrpid": 3});
    request_event(&mut one.0);
    assert_eq!(daemon.ok("nvmf_subsystem_set_ns_ana_group", group), true);
    assert_eq!(event(&mut one.0), NoticeEvent::ANA_CHANGE);
    assert_eq!(event(&mut other.0), NoticeEvent::ANA_CHANGE);
    assert_eq!(one.0.identify_namespace(2).expect("Identify").anagrpid, 3);
    assert_eq!(read(&one.0, &mut one.1, 2, 0), Status::SUCCESS);
    let shown = daemon.ok("nvmf_get_subsystems", json!({"nqn": NQN}));
    assert_eq!(shown[0]["namespaces"][1]["anagrpid"], 3);

    let all =
        json!({"nqn": NQN, "listen_address": address(&paths[1]), "ana_state": "non_optimized"});
    daemon.ok(SET_STATE, all);
    let saved = saved_calls(&mut daemon, "nvmf_subsystem_add_listener");
    assert_eq!(
        (&saved[0]["ana_state"], &saved[1]["ana_state"]),
        (&Value::Null, &json!("non_optimized"))
    );
    let saved = saved_calls(&mut daemon, SET_STATE);
    assert_eq!(saved.len(), 1);
    assert_eq!(
        (&saved[0]["anagrpid"], &saved[0]["ana_state"]),
        (&json!(2), &json!("inaccessible"))
    );

    let at = address(&paths[0]);
    for (params, code, part) in [
        (
            json!({"ana_state": "inaccessible", "anagrpid": 5}),
            INTERNAL,
            "1 to 4",
        ),
        (json!({"ana_state": "change"}), INVALID, "ana_state"),
        (json!({}), INVALID, "ana_state"),
        (
            json!({"ana_state": "optimized", "listen_address": address(&place.path().join("x"))}),
            INTERNAL,
            "does not listen",
        ),
    ] {
        let mut whole = json!({"nqn": NQN, "listen_address": at});
        for (key, value) in params.as_object().expect("an object") {
            whole[key] = value.clone();
        }
        daemon.refused(SET_STATE, whole, code, part);
    }
    let group = "nvmf_subsystem_set_ns_ana_group";
    for (nsid, anagrpid) in [(2, 0), (2, 5), (3, 1)] {
        let params = json!({"nqn": NQN, "nsid": nsid, "anagrpid": anagrpid});
        daemon.refused(group, params, INVALID, "");
    }
    drop((one, other));
    daemon.stop();
}

#[test]
fn states_are_refused_where_no_host_would_know() {
    let place = directory();
    let mut daemon = Daemon::start(place.path(), &[]);
    daemon.subsystem();
    daemon.listen(&place.path().join("vm"));
    let at = address(&place.path().join("vm"));
    let params = json!({"nqn": NQN, "listen_address": at, "ana_state": "inaccessible"});
    daemon.refused(SET_STATE, params, INTERNAL, "ana_reporting");
    daemon.stop();
}

#[test]
fn only_hosts_that_are_allowed_get_a_controller() {
    let place = directory();
    let mut daemon = Daemon::start(place.path(), &[]);
    daemon.ok("nvmf_create_transport", json!({"trtype": "VFIOUSER"}));
    daemon.ok("nvmf_create_subsystem", json!({"nqn": NQN}));
    let nameless = daemon.listen(&place.path().join("nameless"));
    let named = place.path().join("named");
    std::fs::create_dir(&named).expect("a directory");
    let add = "nvmf_subsystem_add_listener";
    let params = json!({"nqn": NQN, "listen_address": address(&named), "hostnqn": HOST});
    daemon.ok(add, params);
    let bad = json!({"nqn": NQN, "listen_address": address(&named), "hostnqn": "x"});
    daemon.refused(add, bad, INVALID, "nqn.");
    let named = named.join("cntrl");
    assert!(connect(&nameless).is_err() && connect(&named).is_err());
    assert!(daemon.log().contains("nvmf_subsystem_allow_any_host"));

    let host = json!({"nqn": NQN, "host": HOST});
    daemon.ok("nvmf_subsystem_add_host", host.clone());
    assert!(connect(&nameless).is_err());
    let mut driver = connect(&named).expect("a controller");
    let controllers = daemon.ok("nvmf_subsystem_get_controllers", json!({"nqn": NQN}));
    assert_eq!(controllers[0]["hostnqn"], HOST);
    let queues = daemon.ok("nvmf_subsystem_get_qpairs", json!({"nqn": NQN}));
    assert_eq!(
        (&queues[0]["qid"], &queues[0]["hostnqn"]),
        (&json!(0), &json!(HOST))
    );
    driver.identify_controller().expect("Identify");
    daemon.ok("nvmf_subsystem_remove_host", host);
    // The connection ends: a register cannot be read any more.
    while driver.csts().is_ok() {}
    drop(driver);
    assert!(connect(&named).is_err());

    let any = json!({"nqn": NQN, "allow_any_host": true});
    daemon.ok("nvmf_subsystem_allow_any_host", any);
    let mut driver = connect(&nameless).expect("a controller");
    let controllers = daemon.ok("nvmf_subsystem_get_controllers", json!({"nqn": NQN}));
    assert_eq!(
        controllers[0]["hostnqn"], "",
        "as SPDK shows who has no name"
    );
    // As in SPDK, this alone turns nobody out.
    let none = json!({"nqn": NQN, "allow_any_host": false});
    daemon.ok("nvmf_subsystem_allow_any_host", none);
    driver.identify_controller().expect("Identify");
    let saved = saved_calls(&mut daemon, add);
    assert_eq!(
        (&saved[0]["hostnqn"], &saved[1]["hostnqn"]),
        (&Value::Null, &json!(HOST))
    );
    drop(driver);
    daemon.stop();
}

#[test]
fn a_namespace_is_shown_to_the_hosts_that_were_named() {
    let place = directory();
    let mut daemon = Daemon::start(place.path(), &[]);
    daemon.subsystem();
    daemon.malloc("a");
    daemon.malloc("b");
    assert_eq!(daemon.add_ns("a"), 1);
    let hidden = json!({"nqn": NQN, "namespace": {"bdev_name": "b", "no_auto_visible": true}});
    assert_eq!(daemon.ok("nvmf_subsystem_add_ns", hidden), 2);
    let nameless = daemon.listen(&place.path().join("nameless"));
    let named = place.path().join("named");
    std::fs::create_dir(&named).expect("a directory");
    let params = json!({"nqn": NQN, "listen_address": address(&named), "hostnqn": HOST});
    daemon.ok("nvmf_subsystem_add_listener", params);
    let mut nameless = guest(&nameless);
    let mut named = guest(&named.join("cntrl"));
    assert_eq!(
        (active(&mut nameless.0), active(&mut named.0)),
        (vec![1], vec![1])
    );
    let status = read(&named.0, &mut named.1, 2, 0);
    assert_eq!(status, Status::INVALID_NAMESPACE_OR_FORMAT);

    ask_for_events(&mut named.0);
    let host = json!({"nqn": NQN, "nsid": 2, "host": HOST});
    assert_eq!(daemon.ok("nvmf_ns_add_host", host.clone()), true);
    assert_eq!(
        event(&mut named.0),
        NoticeEvent::NAMESPACE_ATTRIBUTE_CHANGED
    );
    let changed = log_page(&mut named.0, LogPageId::CHANGED_NAMESPACE_LIST, 4096);
    assert_eq!((u32_at(&changed, 0), u32_at(&changed, 4)), (2, 0));
    assert_eq!(
        (active(&mut nameless.0), active(&mut named.0)),
        (vec![1], vec![1, 2])
    );
    assert_eq!(read(&named.0, &mut named.1, 2, 0), Status::SUCCESS);
    assert_eq!(
        saved_calls(&mut daemon, "nvmf_ns_add_host"),
        std::slice::from_ref(&host)
    );

    request_event(&mut named.0);
    assert_eq!(daemon.ok("nvmf_ns_remove_host", host), true);
    event(&mut named.0);
    assert_eq!(active(&mut named.0), [1]);
    for (params, part) in [
        (
            json!({"nqn": NQN, "nsid": 1, "host": HOST}),
            "no_auto_visible",
        ),
        (
            json!({"nqn": NQN, "nsid": 3, "host": HOST}),
            "no namespace 3",
        ),
        (json!({"nqn": NQN, "nsid": 2, "host": "x"}), "nqn."),
        (json!({"nqn": NQN, "nsid": 2}), "host"),
    ] {
        daemon.refused("nvmf_ns_add_host", params.clone(), INVALID, part);
        daemon.refused("nvmf_ns_remove_host", params, INVALID, part);
    }
    drop((nameless, named));
    daemon.stop();
}

#[test]
fn errors_and_work_are_in_the_guests_logs_and_in_the_operators() {
    let place = directory();
    let mut daemon = Daemon::start(place.path(), &[]);
    daemon.subsystem();
    daemon.malloc("a");
    daemon.add_ns("a");
    let socket = daemon.listen(&place.path().join("vm"));
    let (mut driver, mut queue) = guest(&socket);
    for slba in 0..5 {
        assert_eq!(read(&driver, &mut queue, 1, slba), Status::SUCCESS);
    }
    assert_eq!(
        read(&driver, &mut queue, 1, 16380),
        Status::LBA_OUT_OF_RANGE
    );
    let log = log_page(&mut driver, LogPageId::ERROR_INFORMATION, 128);
    assert_eq!(
        (log[0], log[8], u32_at(&log, 16), u32_at(&log, 24)),
        (1, 1, 16384, 1)
    );
    assert_eq!((log[14], log[64]), (40, 0), "SLBA; no other entry");
    let health = log_page(&mut driver, LogPageId::SMART_HEALTH, 512);
    // Data units, reads, power cycles, unsafe shutdowns, log entries.
    assert_eq!(
        [32, 64, 112, 144, 176].map(|at| health[at]),
        [1, 5, 1, 0, 1]
    );
    let stats = daemon.ok("nvmf_get_stats", Value::Null);
    let groups = stats["poll_groups"].as_array().expect("groups");
    let sum = |key: &str| {
        groups
            .iter()
            .filter_map(|group| group[key].as_u64())
            .sum::<u64>()
    };
    assert_eq!(
        (sum("current_admin_qpairs"), sum("current_io_qpairs")),
        (1, 1)
    );
    assert!(sum("completed_nvme_io") >= 6);
    assert_eq!(groups[0]["transports"][0]["trtype"], "VFIOUSER");
    // The guest's machine loses its power.
    drop((driver, queue));
    let mut driver = connect(&socket).expect("a controller");
    let health = log_page(&mut driver, LogPageId::SMART_HEALTH, 512);
    assert_eq!(
        [32, 64, 112, 144, 176].map(|at| health[at]),
        [1, 5, 2, 1, 1]
    );
    daemon.refused(
        "nvmf_get_stats",
        json!({"tgt_name": "x"}),
        INTERNAL,
        "target",
    );
    drop(driver);
    daemon.stop();
}
