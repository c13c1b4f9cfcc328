//! An independent front-end: rust-vmm's.

use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;

use vhost::vhost_user::message::{
    VhostUserConfigFlags, VhostUserHeaderFlag, VhostUserInflight, VhostUserProtocolFeatures,
};
use vhost::vhost_user::{Frontend, VhostUserFrontend};
use vhost::{VhostBackend, VhostUserDirtyLogRegion, VhostUserMemoryRegionInfo, VringConfigData};
use vmm_sys_util::eventfd::EventFd;

use crate::client::{F_LOG_ALL, F_PROTOCOL, GUEST, RAM, USER};
use crate::fake::{CONFIG, QUEUES};
use crate::harness::{Server, guest_memory};

fn region(memory: &guest_memory::SharedMemory, at: u64) -> VhostUserMemoryRegionInfo {
    VhostUserMemoryRegionInfo {
        guest_phys_addr: GUEST + at,
        memory_size: RAM,
        userspace_addr: USER + at,
        mmap_offset: 0,
        mmap_handle: memory.fd().as_raw_fd(),
    }
}

fn connect(server: &Server) -> Frontend {
    let stream = UnixStream::connect(server.path()).unwrap();
    let mut frontend = Frontend::from_stream(stream, QUEUES.into());
    let features = frontend.get_features().unwrap();
    frontend.set_owner().unwrap();
    let protocol = frontend.get_protocol_features().unwrap();
    frontend.set_protocol_features(protocol).unwrap();
    frontend.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
    frontend
        .set_features(features & !F_LOG_ALL & !(1 << 34))
        .unwrap();
    frontend
}

fn ring(index: usize) -> VringConfigData {
    let at = (index as u64) << 16;
    VringConfigData {
        queue_max_size: 256,
        queue_size: 256,
        flags: 0,
        desc_table_addr: USER + at,
        used_ring_addr: USER + at + 0xc000,
        avail_ring_addr: USER + at + 0x8000,
        log_addr: None,
    }
}

#[test]
fn a_whole_session() {
    let server = Server::start();
    let mut frontend = connect(&server);
    assert_eq!(frontend.get_queue_num().unwrap(), u64::from(QUEUES));
    assert_eq!(frontend.get_max_mem_slots().unwrap(), 509);
    let (memory, more) = (guest_memory(RAM), guest_memory(RAM));
    frontend.set_mem_table(&[region(&memory, 0)]).unwrap();
    frontend.add_mem_region(&region(&more, RAM)).unwrap();

    let buffer = [0; CONFIG];
    let flags = VhostUserConfigFlags::WRITABLE;
    let (_, config) = frontend
        .get_config(0, CONFIG as u32, flags, &buffer)
        .unwrap();
    assert_eq!(config, (0..CONFIG as u8).collect::<Vec<_>>());
    frontend.set_config(32, flags, &[1]).unwrap();

    let (ours, theirs) = UnixStream::pair().unwrap();
    frontend.set_backend_request_fd(&theirs).unwrap();
    drop(theirs);

    let wanted = VhostUserInflight::new(0, 0, QUEUES, 256);
    let (granted, file) = frontend.get_inflight_fd(&wanted).unwrap();
    frontend
        .set_inflight_fd(&granted, file.as_raw_fd())
        .unwrap();

    let events: Vec<[EventFd; 3]> = (0..QUEUES)
        .map(|_| std::array::from_fn(|_| EventFd::new(0).unwrap()))
        .collect();
    for (index, [kick, call, error]) in events.iter().enumerate() {
        frontend.set_vring_num(index, 256).unwrap();
        frontend.set_vring_addr(index, &ring(index)).unwrap();
        frontend.set_vring_base(index, 0).unwrap();
        frontend.set_vring_call(index, call).unwrap();
        frontend.set_vring_kick(index, kick).unwrap();
        frontend.set_vring_err(index, error).unwrap();
        frontend.set_vring_enable(index, true).unwrap();
    }
    assert_eq!(server.device.started().len(), usize::from(QUEUES));

    let log = guest_memory(4096);
    let logged = VhostUserDirtyLogRegion {
        mmap_size: 4096,
        mmap_offset: 0,
        mmap_handle: log.fd().as_raw_fd(),
    };
    frontend.set_log_base(0, Some(logged)).unwrap();
    let features = frontend.get_features().unwrap() & !(1 << 34);
    frontend.set_features(features).unwrap();
    let started = server.device.started();
    assert!(started.iter().all(|(_, setup)| setup.log.is_some()));
    frontend.set_features(features & !F_LOG_ALL).unwrap();

    frontend.remove_mem_region(&region(&more, RAM)).unwrap();
    for index in 0..usize::from(QUEUES) {
        frontend.set_vring_enable(index, false).unwrap();
        frontend.get_vring_base(index).unwrap();
    }
    frontend.reset_device().unwrap();
    frontend.reset_owner().unwrap();
    drop(ours);
}

#[test]
fn its_requests_are_refused_as_it_expects() {
    let server = Server::start();
    let frontend = connect(&server);
    let memory = guest_memory(RAM);
    assert!(frontend.set_vring_addr(0, &ring(0)).is_err());
    let mut too_long = region(&memory, 0);
    too_long.memory_size += 4096;
    assert!(frontend.set_mem_table(&[too_long]).is_err());
    assert!(frontend.set_vring_num(0, 4096).is_err());
    frontend.set_vring_num(0, 256).unwrap();
    // Without the feature it does not wait for answers, and is disconnected.
    drop(frontend);
    let stream = UnixStream::connect(server.path()).unwrap();
    let mut frontend = Frontend::from_stream(stream, QUEUES.into());
    let features = frontend.get_features().unwrap();
    assert_ne!(features & F_PROTOCOL, 0);
    frontend.set_features(features & !F_LOG_ALL).unwrap();
    frontend
        .set_protocol_features(VhostUserProtocolFeatures::MQ)
        .unwrap();
    assert_eq!(frontend.get_queue_num().unwrap(), u64::from(QUEUES));
    frontend.set_vring_num(0, 4096).unwrap();
    assert!(frontend.get_features().is_err());
}
