//! Health page, error log and their events, with real shards and a disk that does what the test says.

use bdev::IoStatus;
use bdev::test_disk::TestDisk;
use nix::errno::Errno;
use nvme_spec::{Cqe, Sqe, StatusCodeType};

use super::whole::{Pair, READ, WRITE, ram_disk, transfer, whole};
use super::*;
use crate::namespace::Namespace;
use crate::shards::make_shard;
use crate::testing::{BUFFER, Script, set_feature};

pub(super) fn on_disk(nsid: u32, disk: &Arc<TestDisk>) -> Namespace {
    Namespace {
        bdev: disk.shared(),
        info: bdev::Bdev::info(&**disk),
        ..ram_disk(nsid, 64)
    }
}

fn disk() -> Arc<TestDisk> {
    TestDisk::new(512, 1000, Features::all())
}

/// Executes a command of any outcome.
fn cqe(guest: &Guest, pair: &mut Pair, sqe: Sqe) -> Cqe {
    pair.submit(guest, sqe);
    let mut cqe = None;
    guest.poll_until("a completion", |guest| {
        cqe = pair.reap(guest);
        cqe.is_some()
    });
    cqe.unwrap()
}

fn u16_at(page: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([page[at], page[at + 1]])
}

fn health(guest: &mut Guest) -> Vec<u8> {
    guest.fetch(get_log(2, 512), 512)
}

#[test]
fn an_error_has_its_entry_and_its_completion_says_so() {
    let disk = disk();
    let mut guest = whole(vec![on_disk(3, &disk)]);
    let mut pair = Pair::new(&mut guest, 1);
    let injected = IoStatus::Nvme { sct: 2, sc: 0x84 };
    let cases = [
        (
            IoStatus::Failed(Errno::EIO),
            Status::UNRECOVERED_READ_ERROR,
            0xffff,
        ),
        (IoStatus::Aborted, Status::ABORT_REQUESTED, 0xffff),
        (injected, Status::REFERENCE_TAG_CHECK_ERROR, 0xffff),
        (IoStatus::BadMemory, Status::DATA_TRANSFER_ERROR, 24),
    ];
    for (lba, (cause, expected, location)) in (10u8..).zip(cases) {
        disk.script(|script| script.fail = Some(cause));
        let cqe = cqe(&guest, &mut pair, transfer(READ, 3, lba.into(), 8, BUFFER));
        assert_eq!(cqe.status().code(), expected);
        assert!(cqe.status().more(), "{cause:?}");
        let log = guest.fetch(get_log(1, 64), 64);
        assert_eq!(log[0], lba - 9, "{cause:?} is an entry of its own");
        assert_eq!((u16_at(&log, 8), u16_at(&log, 10)), (1, cqe.cid));
        assert_eq!(u16_at(&log, 12) & !1, cqe.status().with_phase_tag(false));
        assert_eq!((u16_at(&log, 14), log[16], log[24]), (location, lba, 3));
    }
    disk.script(|script| script.fail = None);
    let beyond = transfer(READ, 3, 996, 8, BUFFER);
    assert_eq!(pair.run(&guest, beyond), Status::LBA_OUT_OF_RANGE);
    let log = guest.fetch(get_log(1, 128), 128);
    assert_eq!((u16_at(&log, 14), u16_at(&log, 16)), (40, 1000));
    assert_eq!((log[0], log[64]), (5, 4), "the newest first");
    assert_eq!(health(&mut guest)[160], 2, "media errors");
    // A command that failed inside a shard or at once, on the admin queue.
    let refused = guest.run(identify(0xff, 0));
    assert!(refused.status().more());
    let log = guest.fetch(get_log(1, 64), 64);
    assert_eq!((u16_at(&log, 8), u16_at(&log, 10)), (0, refused.cid));
    assert_eq!(u16_at(&log, 14), 40);
    let away = create_cq(2, 64, 0).with_prps(RAM + RAM_SIZE, 0);
    let refused = guest.run(away);
    assert!(!refused.status().is_success() && refused.status().more());
    let log = guest.fetch(get_log(1, 64), 64);
    assert_eq!((log[0], u16_at(&log, 10)), (7, refused.cid));
}

#[test]
fn a_doorbell_error_is_of_no_command() {
    let mut guest = whole(vec![]);
    let aer = guest.submit(event_request());
    guest.write32(0x1000 + 8 * 9, 1);
    let cqe = guest.wait();
    assert_eq!((cqe.cid, cqe.dw0), (aer, 0x0001_0000));
    let log = guest.fetch(get_log(1, 64), 64);
    assert_eq!((u16_at(&log, 8), u16_at(&log, 10)), (0xffff, 0xffff));
    assert_eq!(StatusCodeType(log[13] >> 1 & 7), StatusCodeType::GENERIC);
}

#[test]
fn the_entries_outlive_a_reset() {
    let mut guest = whole(vec![]);
    guest.refused(identify(0xff, 0));
    guest.write32(0x14, 0);
    guest.poll_until("the reset", |guest| !guest.csts().rdy());
    guest.enable();
    let log = guest.fetch(get_log(1, 64), 64);
    assert_eq!((log[0], u16_at(&log, 14)), (1, 40));
}

#[test]
fn a_disk_that_only_fails_is_a_warning_until_it_works_again() {
    let disk = disk();
    let mut guest = whole(vec![on_disk(1, &disk)]);
    guest.ok(set_feature(0x0b, 0x1f));
    let mut pair = Pair::new(&mut guest, 1);
    let read = transfer(READ, 1, 0, 8, BUFFER);
    disk.script(|script| script.fail = Some(IoStatus::Failed(Errno::EIO)));
    for _ in 0..15 {
        pair.run(&guest, read);
    }
    disk.script(|script| script.fail = None);
    pair.run(&guest, read);
    disk.script(|script| script.fail = Some(IoStatus::Failed(Errno::EIO)));
    for _ in 0..15 {
        pair.run(&guest, read);
    }
    assert_eq!(health(&mut guest)[0], 0, "one that works now and then");
    pair.run(&guest, read);
    let aer = guest.submit(event_request());
    let cqe = guest.wait();
    assert_eq!((cqe.cid, cqe.dw0), (aer, 0x0002_0001), "reliability");
    assert_eq!(health(&mut guest)[0], 0b100);
    disk.script(|script| script.fail = None);
    assert_eq!(pair.run(&guest, read), Status::SUCCESS);
    assert_eq!(health(&mut guest)[0], 0);
}

#[test]
fn media_that_cannot_be_written_any_more_are_a_warning() {
    let disks = [disk(), disk()];
    let namespaces = vec![on_disk(1, &disks[0]), on_disk(2, &disks[1])];
    let mut guest = whole(namespaces);
    let mut pair = Pair::new(&mut guest, 1);
    for (nsid, warning) in [(1, 0), (2, 0b1000)] {
        disks[nsid as usize - 1].script(|script| script.fail = Some(IoStatus::ReadOnly));
        let status = pair.run(&guest, transfer(WRITE, nsid, 0, 8, BUFFER));
        assert_eq!(status, Status::NAMESPACE_WRITE_PROTECTED);
        assert_eq!(health(&mut guest)[0], warning, "all media or none");
    }
    // A read shows nothing about it, a write does.
    disks[0].script(|script| script.fail = None);
    pair.run(&guest, transfer(READ, 1, 0, 8, BUFFER));
    assert_eq!(health(&mut guest)[0], 0b1000);
    pair.run(&guest, transfer(WRITE, 1, 0, 8, BUFFER));
    assert_eq!(health(&mut guest)[0], 0);
}

/// The next client of an endpoint.
fn next(config: &ControllerConfig) -> Guest {
    let script = Arc::new(Script::default());
    let disks = vec![ram_disk(1, 4096)];
    let mut guest =
        Guest::with_factory(config.clone(), disks, script, Arc::new(make_shard), vec![]);
    guest.enable();
    guest
}

#[test]
fn what_is_kept_over_power_cycles_is_kept() {
    // Clones share the history, as the clients of an endpoint do.
    let config = ControllerConfig::default();
    let mut guest = next(&config);
    let mut pair = Pair::new(&mut guest, 1);
    assert_eq!(
        pair.run(&guest, transfer(WRITE, 1, 0, 8, BUFFER)),
        Status::SUCCESS
    );
    guest.refused(identify(0xff, 0));
    let page = health(&mut guest);
    assert_eq!(
        (page[48], page[80], page[112], page[144], page[176]),
        (1, 1, 1, 0, 1)
    );
    // It goes without a shutdown.
    guest.on_home(|c, cx| c.reset(cx, ResetKind::ClientGone));
    guest.poll_until("the end", |guest| guest.on_home(|c, _| c.is_quiescent()));
    drop(guest);

    let mut guest = next(&config);
    let page = health(&mut guest);
    assert_eq!(
        (page[48], page[80], page[112], page[144], page[176]),
        (1, 1, 2, 1, 1)
    );
    let log = guest.fetch(get_log(1, 64), 64);
    assert_eq!(log, [0; 64], "entries go with the power, the count stays");
    guest.refused(identify(0xff, 0));
    assert_eq!(guest.fetch(get_log(1, 64), 64)[0], 2);
    // Now with one.
    let cc = Guest::cc().with_shn(Shn::NORMAL);
    guest.write32(0x14, cc.into_bits());
    guest.poll_until("the shutdown", |guest| {
        guest.csts().shst() == Shst::COMPLETE
    });
    drop(guest);

    let page = health(&mut next(&config));
    assert_eq!((page[112], page[144]), (3, 1));
}
