//! How namespaces are reached: ANA groups and states, masked commands, sharing.

use bdev::test_disk::TestDisk;
use nvme_spec::Sqe;

use super::health::on_disk;
use super::whole::{Pair, READ, WRITE, ram_disk, transfer, whole_with};
use super::*;
use crate::testing::{BUFFER, get_feature, set_feature};
use crate::{Access, AnaState, Masked, Namespace};

fn config() -> ControllerConfig {
    ControllerConfig {
        ana_reporting: true,
        max_namespaces: 9,
        ..ControllerConfig::default()
    }
}

fn reached(namespace: &Namespace, group: u32, state: AnaState) -> Namespace {
    Namespace {
        access: Access { group, state },
        ..namespace.clone()
    }
}

/// Shows a set and returns when no channel to what left is open.
fn show(guest: &Guest, set: Vec<Namespace>) {
    let (ack, done) = Ack::channel();
    guest.handle.set_namespaces(NamespaceSet::new(set), ack);
    guest.poll_until("the new set", |_| done.wait(Duration::ZERO));
}

fn ana_log(guest: &mut Guest) -> Vec<u8> {
    guest.fetch(get_log(0x0c, 256), 256)
}

fn u32_at(page: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(page[at..at + 4].try_into().unwrap())
}

#[test]
fn the_host_is_told_of_access_only_where_it_is_reported() {
    let disks = || vec![reached(&ram_disk(2, 64), 5, AnaState::NON_OPTIMIZED)];
    let mut guest = whole_with(config(), disks(), vec![]);
    let id = guest.fetch(identify(1, 0), 4096);
    assert_eq!(id[76], 0b1011, "CMIC");
    assert_eq!(u32_at(&id, 92) & 0x900, 0x900, "OAES");
    assert_eq!((id[342], id[343]), (10, 0x1f), "ANATT, ANACAP");
    assert_eq!((u32_at(&id, 344), u32_at(&id, 348)), (9, 9));
    let ns = guest.fetch(identify(0, 2), 4096);
    assert_eq!((u32_at(&ns, 92), ns[30]), (5, 1), "ANAGRPID, NMIC");
    let independent = guest.fetch(identify(8, 2), 4096);
    assert_eq!(u32_at(&independent, 4), 5);
    assert_eq!(guest.fetch(get_log(0, 1024), 1024)[0x0c * 4], 1);
    let page = ana_log(&mut guest);
    assert_eq!((u32_at(&page, 0), page[8]), (0, 1), "change count, groups");
    let group: Vec<u32> = [16, 20, 24].map(|at| u32_at(&page, at)).into();
    assert_eq!((group, page[32], u32_at(&page, 48)), (vec![5, 1, 0], 2, 2));
    let mut groups_only = get_log(0x0c, 256);
    groups_only.cdw10 |= 1 << 8;
    let page = guest.fetch(groups_only, 256);
    assert_eq!((u32_at(&page, 20), u32_at(&page, 48)), (0, 0), "RGO");

    let plain = ControllerConfig {
        ana_reporting: false,
        shared: false,
        ..config()
    };
    let mut guest = whole_with(plain, disks(), vec![]);
    let id = guest.fetch(identify(1, 0), 4096);
    assert_eq!((id[76], id[343], u32_at(&id, 344)), (0, 0, 0));
    let ns = guest.fetch(identify(0, 2), 4096);
    assert_eq!((u32_at(&ns, 92), ns[30]), (0, 0), "nobody shares it");
    assert_eq!(guest.refused(get_log(0x0c, 256)), Status::INVALID_LOG_PAGE);
}

#[test]
fn a_group_that_cannot_be_reached_refuses_and_the_host_hears_of_it() {
    let disks = [1, 2].map(|nsid| ram_disk(nsid, 64));
    let with = |states: [AnaState; 2]| -> Vec<Namespace> {
        let pairs = disks.iter().zip(1..).zip(states);
        pairs
            .map(|((disk, group), state)| reached(disk, group, state))
            .collect()
    };
    let (good, bad) = (AnaState::OPTIMIZED, AnaState::INACCESSIBLE);
    let mut guest = whole_with(config(), with([good, good]), vec![]);
    guest.ok(set_feature(0x0b, 0x900));
    let mut pair = Pair::new(&mut guest, 1);
    let mut run = |guest: &Guest, nsid| {
        let write = transfer(WRITE, nsid, 0, 8, BUFFER);
        let read = transfer(READ, nsid, 0, 8, BUFFER);
        let flush = Sqe::new(0, nsid);
        [write, read, flush].map(|sqe| pair.run(guest, sqe))
    };
    assert_eq!(run(&guest, 2), [Status::SUCCESS; 3]);
    let aer = guest.submit(event_request());
    show(&guest, with([good, bad]));
    let cqe = guest.wait();
    assert_eq!((cqe.cid, cqe.dw0), (aer, 0x000c_0302), "ANA change");
    let page = ana_log(&mut guest);
    assert_eq!((u32_at(&page, 0), page[8]), (1, 2));
    // The second descriptor is behind the first one and its NSID.
    assert_eq!((page[32], page[52 + 16], u32_at(&page, 52 + 8)), (1, 3, 1));
    assert_eq!(run(&guest, 2), [Status::ANA_INACCESSIBLE; 3]);
    assert_eq!(run(&guest, 1), [Status::SUCCESS; 3]);
    let ns = guest.fetch(identify(0, 2), 4096);
    assert_eq!(
        (u32_at(&ns, 0), u32_at(&ns, 16)),
        (64, 0),
        "NSZE stays, NUSE not"
    );
    let mut recovery = get_feature(5, 0);
    recovery.nsid = 2;
    assert_eq!(guest.refused(recovery), Status::ANA_INACCESSIBLE);
    // Another way is no error: nothing for the log of I/O errors.
    let log = guest.fetch(get_log(1, 128), 128);
    assert_eq!(
        (log[0], log[64], log[8]),
        (1, 0, 0),
        "only the admin command"
    );

    for (state, status) in [
        (AnaState::PERSISTENT_LOSS, Status::ANA_PERSISTENT_LOSS),
        (AnaState::CHANGE, Status::ANA_TRANSITION),
    ] {
        show(&guest, with([good, state]));
        assert_eq!(run(&guest, 2), [status; 3]);
    }
    show(&guest, with([good, AnaState::NON_OPTIMIZED]));
    assert_eq!(run(&guest, 2), [Status::SUCCESS; 3]);
    // A namespace that leaves is told by its own event, not by this one.
    ana_log(&mut guest);
    guest.fetch(get_log(4, 4096), 4096);
    let aer = guest.submit(event_request());
    show(&guest, with([good, good])[..1].to_vec());
    let cqe = guest.wait();
    assert_eq!((cqe.cid, cqe.dw0), (aer, 0x0004_0002), "attributes changed");
}

#[test]
fn what_was_taken_before_ends_before_a_group_is_closed() {
    let disk = TestDisk::new(512, 1000, Features::all());
    let mut guest = whole_with(config(), vec![on_disk(1, &disk)], vec![]);
    let mut pair = Pair::new(&mut guest, 1);
    disk.script(|script| script.gated = true);
    let cid = pair.submit(&guest, transfer(READ, 1, 0, 8, BUFFER));
    guest.poll_until("the request", |_| !disk.taken().is_empty());
    let (ack, done) = Ack::channel();
    let closed = reached(&on_disk(1, &disk), 1, AnaState::INACCESSIBLE);
    guest
        .handle
        .set_namespaces(NamespaceSet::new(vec![closed]), ack);
    let late = transfer(READ, 1, 0, 8, BUFFER);
    guest.poll();
    assert!(!done.wait(Duration::ZERO), "a command is still on the disk");
    disk.release(1);
    let mut cqe = None;
    guest.poll_until("its end", |guest| {
        cqe = pair.reap(guest);
        cqe.is_some()
    });
    assert_eq!(
        cqe.map(|cqe| (cqe.cid, cqe.status())),
        Some((cid, Status::SUCCESS))
    );
    guest.poll_until("the close", |_| done.wait(Duration::ZERO));
    assert_eq!(pair.run(&guest, late), Status::ANA_INACCESSIBLE);
}

#[test]
fn masked_commands_are_not_offered() {
    let masked = Masked {
        compare: true,
        dataset_management: true,
        write_zeroes: true,
    };
    let config = ControllerConfig { masked, ..config() };
    let mut guest = whole_with(config, vec![ram_disk(1, 64)], vec![]);
    let id = guest.fetch(identify(1, 0), 4096);
    assert_eq!(id[520] & 0b1101, 0, "ONCS");
    let mut pair = Pair::new(&mut guest, 1);
    for opcode in [5, 8, 9] {
        let status = pair.run(&guest, transfer(opcode, 1, 0, 8, BUFFER));
        assert_eq!(status, Status::INVALID_OPCODE, "{opcode}");
    }
}
