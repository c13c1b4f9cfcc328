//! virtio-blk over vhost-user.

use std::os::fd::AsFd;

use guest_memory::SharedMemory;
use nix::sys::signal::Signal;
use testkit::ram::GuestRam;
use testkit::vhost_user::{Frontend, Wire, code, protocol};
use testkit::virtio::{BlkDriver, Buffer, Setup};
use virtio_spec::blk::{S_OK, T_IN};
use virtio_spec::feature::VHOST_LOG_ALL;

use crate::common::directory;
use crate::virtio::mix::{Mix, holds};
use crate::virtio::{Guest, MIB, Rig, Vhost, vhost_options};

crate::virtio::virtio_scenarios!(Vhost);

#[test]
fn front_ends_with_fewer_extensions_work() {
    let mut rig = Rig::start(&[]);
    rig.malloc("disk");
    let socket = rig.endpoint::<Vhost>("ep", "disk");
    let all = u64::MAX;
    for chosen in [
        all,
        all & !protocol::REPLY_ACK,
        all & !protocol::CONFIGURE_MEM_SLOTS,
        all & !protocol::INFLIGHT_SHMFD,
        all & !protocol::STATUS & !protocol::RESET_DEVICE,
        all & !protocol::MQ,
        protocol::CONFIG,
        0,
    ] {
        let options = testkit::vhost_user::Options {
            protocol: chosen,
            ..vhost_options(64 * MIB)
        };
        for packed in [false, true] {
            let frontend = Frontend::connect(&socket, &options).expect("a session");
            let mut guest = Guest::<Vhost>::over(frontend, &Setup::linux(packed));
            guest.works();
        }
    }
    rig.daemon.stop();
}

/// A daemon that dies with requests in flight, and another one that goes on with them.
fn reconnect(packed: bool) {
    let mut rig = Rig::start(&["-m", "0x3"]);
    rig.file("disk", 8 * MIB as u64);
    let socket = rig.endpoint::<Vhost>("ep", "disk");
    let setup = Setup::linux(packed).queues(2);
    let mut guest = Guest::<Vhost>::start(&socket, &setup);
    let mut mix = Mix::new(&guest.queues, 8 * MIB, 16, 23);
    for round in 0..6 {
        mix.run(&mut guest.queues, 100);
        rig.kill_and_restart_after(&["-m", "0x3"], |daemon| {
            if round % 2 == 0 {
                // It sees none of what comes now.
                daemon.signal(Signal::SIGSTOP);
                mix.start(&mut guest.queues, 24);
                assert!(mix.in_flight() > 0, "nothing to be resumed");
            } else {
                // It is in the midst of it.
                mix.start_and_finish(&mut guest.queues, 150);
            }
        });
        let Guest { driver, mut queues } = guest;
        let frontend = driver.into_transport().reconnect(&socket);
        let mut driver =
            BlkDriver::start(frontend.expect("a session"), &setup).expect("negotiated");
        driver.resume(&mut queues).expect("resumed");
        mix.finish(&mut queues, 0);
        guest = Guest { driver, queues };
        holds(guest.queue(), &mix.model);
    }
    drop(guest);
    rig.daemon.stop();
}

#[test]
fn no_request_is_lost_with_the_daemon_split() {
    reconnect(false);
}

#[test]
fn no_request_is_lost_with_the_daemon_packed() {
    reconnect(true);
}

#[test]
fn rings_stop_and_go_on_where_they_stood() {
    let mut rig = Rig::start(&["-m", "0x3"]);
    rig.malloc("disk");
    let socket = rig.endpoint::<Vhost>("ep", "disk");
    for packed in [false, true] {
        let mut guest = Guest::<Vhost>::start(&socket, &Setup::linux(packed).queues(2));
        let zero = virtio_spec::blk::Range {
            sector: 0,
            num_sectors: 16384,
            flags: 0,
        };
        guest.queue().write_zeroes(&[zero]).expect("zeroed");
        let mut mix = Mix::new(&guest.queues, 8 * MIB, 16, 31);
        for _ in 0..10 {
            mix.start_and_finish(&mut guest.queues, 60);
            for index in 0..2 {
                guest
                    .driver
                    .transport()
                    .stop_ring(index)
                    .expect("where it stands");
            }
            guest.driver.resume(&mut guest.queues).expect("resumed");
        }
        mix.finish(&mut guest.queues, 0);
        holds(guest.queue(), &mix.model);
    }
    rig.daemon.stop();
}

/// A log that lacks a page is a guest that is broken after its migration.
fn dirty_log(packed: bool) {
    let mut rig = Rig::start(&["-m", "0x3"]);
    rig.malloc("disk");
    let socket = rig.endpoint::<Vhost>("ep", "disk");
    let mut guest = Guest::<Vhost>::start(&socket, &Setup::linux(packed).queues(2));
    let ram = guest.driver.ram().clone();
    let untouched = ram.alloc(MIB, 4096).expect("guest memory");
    let pages = (ram.base() as usize + ram.memory().len()).div_ceil(4096);
    let log = SharedMemory::new_unsealed(c"log", pages.div_ceil(8).next_multiple_of(4096));
    let log = log.expect("memory");
    let marked = |addr: u64| {
        let page = addr / 4096;
        let byte: Option<u8> = log.read((page / 8) as usize);
        byte.is_some_and(|byte| byte & 1 << (page % 8) != 0)
    };
    // Load goes on while the log is switched on.
    let mut mix = Mix::new(&guest.queues, 8 * MIB, 8, 41);
    mix.start_and_finish(&mut guest.queues, 100);
    guest.driver.transport().set_log(&log).expect("a log");
    let driver = guest.driver.transport();
    driver
        .set_features_with(VHOST_LOG_ALL)
        .expect("the log is on");
    for queue in &mut guest.queues {
        let index = queue.index();
        driver
            .set_addresses(index, queue.ring(), true)
            .expect("used rings are logged");
    }
    mix.finish(&mut guest.queues, 0);
    let mut random = crate::virtio::mix::Random::new(5);
    let mut lacking = Vec::new();
    for _ in 0..20 {
        log.zero();
        let mut written = Vec::new();
        for n in 0..32 {
            let queue = &mut guest.queues[n % 2];
            let len = 512 * (1 + random.below(40));
            let room = ram.alloc(len + 5000, 1).expect("guest memory");
            let buffer = Buffer {
                addr: room + random.below(4096) as u64,
                len: len as u32,
            };
            let slot = queue.submit(T_IN, 0, &[buffer]).expect("room");
            written.push((buffer.addr, len as u64));
            written.push((queue.header_and_status(slot).1, 1));
            queue.kick().expect("kicked");
            if n % 8 == 7 {
                let areas = queue.ring().areas();
                let used = if packed { areas.desc } else { areas.device };
                written.push((used, 1));
            }
        }
        for queue in &mut guest.queues {
            for done in queue.drain().expect("ended") {
                assert_eq!(done.status, S_OK);
            }
        }
        for (addr, len) in written {
            for page in addr / 4096..=(addr + len - 1) / 4096 {
                if !marked(page * 4096) {
                    lacking.push(page * 4096);
                }
            }
        }
    }
    assert!(lacking.is_empty(), "not in the log: {lacking:x?}");
    for page in (untouched..untouched + MIB as u64).step_by(4096) {
        assert!(!marked(page), "{page:#x} was not written");
    }
    // Off again: nothing is logged any more.
    let driver = guest.driver.transport();
    driver.set_features_with(0).expect("the log is off");
    log.zero();
    guest.works();
    assert!((0..pages as u64).all(|page| !marked(page * 4096)));
    drop(guest);
    rig.daemon.stop();
}

#[test]
fn every_page_that_is_written_is_logged_split() {
    dirty_log(false);
}

#[test]
fn every_page_that_is_written_is_logged_packed() {
    dirty_log(true);
}

#[test]
fn memory_comes_and_goes_in_slots_under_load() {
    let mut rig = Rig::start(&["-m", "0x3"]);
    rig.malloc("disk");
    let socket = rig.endpoint::<Vhost>("ep", "disk");
    let mut guest = Guest::<Vhost>::start(&socket, &Setup::linux(false).queues(2));
    let more = GuestRam::new(1 << 40, MIB).expect("memory");
    for round in 0..50u64 {
        guest.driver.transport().add_memory(&more).expect("added");
        for (n, queue) in guest.queues.iter_mut().enumerate() {
            for at in 0..16 {
                let buffer = Buffer {
                    addr: more.base() + (round % 8 * 16 + at) * 4096,
                    len: 4096,
                };
                queue.submit(T_IN, n as u64, &[buffer]).expect("room");
            }
            queue.kick().expect("kicked");
        }
        guest
            .driver
            .transport()
            .remove_memory(&more)
            .expect("removed");
        // Those that came too late for the memory fail, no more.
        for queue in &mut guest.queues {
            queue.drain().expect("ended");
        }
        guest.works();
    }
    rig.daemon.stop();
}

/// Front-ends that break the protocol: refused or disconnected, and the next one is served.
#[test]
fn broken_messages_cost_only_their_session() {
    let mut rig = Rig::start(&["-m", "0x1"]);
    rig.malloc("disk");
    rig.malloc("other");
    let socket = rig.endpoint::<Vhost>("ep", "disk");
    let bystander = rig.endpoint::<Vhost>("by", "other");
    let mut bystander = Guest::<Vhost>::linux(&bystander, true);
    let mut mix = Mix::new(&bystander.queues, 8 * MIB, 8, 2);
    let place = directory();
    let path = crate::common::file(place.path(), "short", 4096);
    let short = std::fs::File::open(&path).expect("a file");
    let (pipe, _other_end) = nix::unistd::pipe().expect("a pipe");
    let ram = GuestRam::new(1 << 20, MIB).expect("memory");
    let region = |guest: u64, size: u64, user: u64, offset: u64| {
        let words = [1u64, guest, size, user, offset];
        words
            .iter()
            .flat_map(|it| it.to_ne_bytes())
            .collect::<Vec<u8>>()
    };
    let ring = |words: [u32; 2]| {
        words
            .iter()
            .flat_map(|it| it.to_ne_bytes())
            .collect::<Vec<u8>>()
    };
    let good = region(1 << 20, 1 << 20, 1 << 30, 0);
    let table = code::SET_MEM_TABLE;
    let fd = ram.memory().fd();
    type Message<'a> = (u32, Vec<u8>, Vec<std::os::fd::BorrowedFd<'a>>);
    let crimes: Vec<Message<'_>> = vec![
        // Sizes.
        (table, good[..39].to_vec(), vec![fd]),
        (table, [good.clone(), vec![0; 8]].concat(), vec![fd]),
        (code::SET_FEATURES, vec![0; 7], vec![]),
        (code::SET_VRING_ADDR, vec![0; 39], vec![]),
        (code::SET_VRING_NUM, vec![0; 4], vec![]),
        (code::GET_CONFIG, vec![0; 5], vec![]),
        (code::GET_CONFIG, ring([0, u32::MAX]), vec![]),
        (code::SET_LOG_BASE, vec![0; 3], vec![]),
        (code::SET_INFLIGHT_FD, vec![0; 24], vec![]),
        (code::GET_INFLIGHT_FD, vec![0xff; 24], vec![]),
        // Descriptors.
        (table, good.clone(), vec![]),
        (table, good.clone(), vec![fd, fd]),
        (table, good.clone(), vec![pipe.as_fd()]),
        (table, good.clone(), vec![short.as_fd()]),
        (code::SET_FEATURES, vec![0; 8], vec![fd; 3]),
        // Memory that cannot be.
        (table, region(u64::MAX - 4095, 8192, 0, 0), vec![fd]),
        (table, region(1 << 20, 0, 0, 0), vec![fd]),
        (table, region(1 << 20, 1 << 40, 0, 0), vec![fd]),
        (table, region(1 << 20, 4096, 0, u64::MAX - 4095), vec![fd]),
        // Rings that cannot be, and rings before memory.
        (code::SET_VRING_NUM, ring([0, 0]), vec![]),
        (code::SET_VRING_NUM, ring([0, 65536]), vec![]),
        (code::SET_VRING_NUM, ring([u32::MAX, 16]), vec![]),
        (code::SET_VRING_BASE, ring([9999, 0]), vec![]),
        (code::GET_VRING_BASE, ring([9999, 0]), vec![]),
        (code::SET_VRING_ADDR, vec![0; 40], vec![]),
        (code::SET_VRING_ENABLE, ring([0, 1]), vec![]),
        (code::SET_VRING_KICK, 0u64.to_ne_bytes().to_vec(), vec![fd]),
        (
            code::SET_VRING_KICK,
            u64::MAX.to_ne_bytes().to_vec(),
            vec![],
        ),
        (code::SET_FEATURES, vec![0xff; 8], vec![]),
        (code::SET_PROTOCOL_FEATURES, vec![0xff; 8], vec![]),
        (9999, vec![1; 8], vec![]),
        (0, vec![], vec![]),
    ];
    for (request, payload, fds) in &crimes {
        let mut wire = Wire::connect(&socket).expect("connected");
        let first = wire.ask(code::GET_FEATURES, &[], &[]).expect("features");
        assert_eq!(first.payload.len(), 8);
        wire.send(code::SET_OWNER, &[], &[]).expect("sent");
        wire.send(*request, payload, fds).expect("sent");
        // Whatever it does with it, it does not wait for ever: it answers the next one, or has closed.
        if wire.send(code::GET_FEATURES, &[], &[]).is_ok() {
            let answer = wire.receive();
            let closed = matches!(answer, Err(testkit::vhost_user::Error::Closed));
            assert!(answer.is_ok() || closed, "{request}: {answer:?}");
        }
        drop(wire);
        mix.run(&mut bystander.queues, 10);
    }
    for bytes in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        &[0xff; 64],
        &[1, 0, 0, 0],
        &[0; 12],
        // A payload that never comes, and one that is longer than any.
        &[2, 0, 0, 0, 1, 0, 0, 0, 8, 0, 0, 0],
        &[2, 0, 0, 0, 1, 0, 0, 0, 0xff, 0xff, 0xff, 0x7f],
    ] {
        let mut wire = Wire::connect(&socket).expect("connected");
        // The server may have closed already: that is an answer, too.
        let _ = wire.send_bytes(bytes, &[]);
    }
    Guest::<Vhost>::linux(&socket, true).works();
    holds(bystander.queue(), &mix.model);
    drop(bystander);
    rig.daemon.stop();
}
