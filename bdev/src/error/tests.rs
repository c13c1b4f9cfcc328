use std::fs::File;
use std::sync::mpsc::TryRecvError;

use super::*;
use crate::conformance::{Request, Rig};
use crate::io::IoStatus;
use crate::malloc::{self, MallocOptions};
use crate::uring::{self, UringOptions};

const BLOCK: usize = 512;

fn ram() -> SharedBdev {
    let options = MallocOptions {
        name: "M".into(),
        block_size: 512,
        num_blocks: 2048,
        physical_block_size: None,
        uuid: None,
    };
    malloc::create(options).unwrap()
}

/// Every test runs over RAM, which ends at once, and over a file, which ends through the ring.
fn each(test: impl Fn(SharedBdev)) {
    test(ram());
    let directory = tempfile::tempdir_in("/var/tmp").unwrap();
    let path = directory.path().join("disk");
    File::create_new(&path).unwrap().set_len(1 << 20).unwrap();
    let mut options = UringOptions::new("F", path);
    options.block_size = Some(512);
    test(uring::create(options).unwrap());
}

fn disk(base: SharedBdev) -> (Arc<ErrorDisk>, SharedBdev) {
    let disk = create(base, None).unwrap();
    let shared = Arc::clone(&disk) as SharedBdev;
    (disk, shared)
}

fn inject(disk: &ErrorDisk, target: Target, fault: Fault, count: u64) {
    let injection = Injection {
        fault,
        count,
        queue_depth: 0,
    };
    disk.inject(&[target], injection).unwrap();
}

fn read(lba: u64) -> Request {
    Request::new(IoKind::Read, lba, 1, (0, BLOCK))
}

#[test]
fn so_many_requests_fail_and_the_next_does_not() {
    each(|base| {
        let (disk, shared) = disk(base);
        let rig = Rig::new(&shared);
        inject(&disk, Target::Write, Fault::Failure, 2);
        inject(
            &disk,
            Target::Read,
            Fault::NvmeFailure { sct: 2, sc: 0x81 },
            1,
        );
        for _ in 0..2 {
            let failed = IoStatus::Failed(Errno::EIO);
            assert_eq!(rig.write(0, &[1; BLOCK]), failed);
        }
        assert_eq!(rig.read(0, 1), Err(IoStatus::Nvme { sct: 2, sc: 0x81 }));
        assert_eq!(rig.read(0, 1).unwrap(), [0; BLOCK], "nothing was written");
        assert_eq!(rig.write(0, &[1; BLOCK]), IoStatus::Ok);
        assert_eq!(disk.armed(Target::Write), None);
        inject(&disk, Target::Flush, Fault::Failure, 1);
        inject(&disk, Target::Unmap, Fault::Failure, 1);
        assert_ne!(rig.command(IoKind::Flush, 0, 0, false), IoStatus::Ok);
        assert_ne!(rig.command(IoKind::Unmap, 0, 1, false), IoStatus::Ok);
        assert_eq!(rig.command(IoKind::Flush, 0, 0, false), IoStatus::Ok);
        assert_eq!(rig.command(IoKind::Unmap, 0, 1, false), IoStatus::Ok);
    });
}

#[test]
fn cleared_is_forgotten_and_zeroes_are_never_hit() {
    let (disk, shared) = disk(ram());
    let rig = Rig::new(&shared);
    let injection = Injection {
        fault: Fault::Failure,
        count: u64::MAX,
        queue_depth: 0,
    };
    disk.inject(&Target::ALL, injection).unwrap();
    assert_eq!(rig.command(IoKind::WriteZeroes, 0, 1, false), IoStatus::Ok);
    assert!(rig.read(0, 1).is_err());
    disk.clear();
    assert!(rig.read(0, 1).is_ok());
    let corrupt = Fault::CorruptData {
        offset: 0,
        value: 0,
    };
    let nothing = Injection {
        fault: corrupt,
        ..injection
    };
    assert!(disk.inject(&Target::ALL, nothing).is_err());
    assert_eq!(disk.armed(Target::Read), None);
}

#[test]
fn hanging_requests_go_on_when_told() {
    each(|base| {
        let (disk, shared) = disk(base);
        let rig = Rig::new(&shared);
        assert_eq!(rig.write(5, &[6; BLOCK]), IoStatus::Ok);
        inject(&disk, Target::Read, Fault::Pending, 2);
        let answers = rig.start(vec![read(5), read(5), read(5)]);
        // The third is not hit; the order says that the others have been submitted before it.
        assert_eq!(answers.recv().unwrap(), (2, IoStatus::Ok));
        assert_eq!(answers.try_recv(), Err(TryRecvError::Empty));
        inject(&disk, Target::Read, Fault::Pending, 5);
        disk.resume();
        assert_eq!(disk.armed(Target::Read), None, "no more hang");
        let waking = Arc::clone(&disk);
        rig.on_reactor(move |cx| waking.wake(cx));
        for _ in 0..2 {
            assert_eq!(answers.recv().unwrap().1, IoStatus::Ok);
        }
        assert_eq!(rig.read(5, 1).unwrap(), [6; BLOCK]);
    });
}

#[test]
fn hanging_requests_end_with_their_user() {
    each(|base| {
        let (disk, shared) = disk(base);
        let rig = Rig::new(&shared);
        inject(&disk, Target::Read, Fault::Pending, 1);
        let answers = rig.start(vec![read(0)]);
        assert_eq!(rig.command(IoKind::Flush, 0, 0, false), IoStatus::Ok);
        // Somebody else's wish to look again changes nothing.
        let waking = Arc::clone(&disk);
        rig.on_reactor(move |cx| waking.wake(cx));
        assert_eq!(rig.command(IoKind::Flush, 0, 0, false), IoStatus::Ok);
        assert_eq!(answers.try_recv(), Err(TryRecvError::Empty));
        rig.expedite();
        assert_eq!(answers.recv().unwrap(), (0, IoStatus::Aborted));
        // One that nobody ever lets go is closed with its channel.
        inject(&disk, Target::Write, Fault::Pending, 1);
        let _lost = rig.start(vec![Request::new(IoKind::Write, 0, 1, (0, BLOCK))]);
        assert_eq!(rig.command(IoKind::Flush, 0, 0, false), IoStatus::Ok);
    });
}

#[test]
fn one_byte_changes() {
    each(|base| {
        let (disk, shared) = disk(base);
        let rig = Rig::new(&shared);
        let data: Vec<u8> = (0..4 * BLOCK).map(|at| at as u8).collect();
        assert_eq!(rig.write(0, &data), IoStatus::Ok);
        let corrupt = |offset| Fault::CorruptData {
            offset,
            value: 0x55,
        };
        let mut changed = data.clone();
        changed[700] ^= 0x55;
        // Up: the disk still has the right data.
        inject(&disk, Target::Read, corrupt(700), 1);
        assert_eq!(rig.read(0, 4).unwrap(), changed);
        assert_eq!(rig.read(0, 4).unwrap(), data);
        // Beyond the data: nothing.
        inject(&disk, Target::Read, corrupt(4 * BLOCK as u64), 1);
        assert_eq!(rig.read(0, 4).unwrap(), data);
        // Down: the user's memory stays as it was.
        inject(&disk, Target::Write, corrupt(700), 1);
        assert_eq!(rig.write(0, &data), IoStatus::Ok);
        assert_eq!(rig.get(0, data.len()), data);
        assert_eq!(rig.read(0, 4).unwrap(), changed);
        assert_eq!(rig.write(0, &data), IoStatus::Ok);
        assert_eq!(rig.read(0, 4).unwrap(), data);
    });
}

#[test]
fn lack_of_memory_passes_when_it_is_used_up() {
    each(|base| {
        let (disk, shared) = disk(base);
        let rig = Rig::new(&shared);
        inject(&disk, Target::Write, Fault::NoMemory, 20);
        let requests = (0..64).map(|lba| {
            let place = (lba as usize * BLOCK, BLOCK);
            Request::new(IoKind::Write, lba, 1, place)
        });
        rig.put(0, &[8; 64 * BLOCK]);
        let statuses = rig.run_all(requests.collect());
        assert!(statuses.iter().all(|status| *status == IoStatus::Ok));
        assert_eq!(rig.read(0, 64).unwrap(), [8; 64 * BLOCK]);
        assert_eq!(disk.armed(Target::Write), None);
    });
}

#[test]
fn only_deep_queues_are_hit() {
    let (disk, shared) = disk(ram());
    let rig = Rig::new(&shared);
    let injection = Injection {
        fault: Fault::Failure,
        count: 10,
        queue_depth: 1,
    };
    disk.inject(&[Target::Read], injection).unwrap();
    // RAM has nothing in flight, ever.
    assert!(rig.read(0, 1).is_ok());
    assert_eq!(disk.armed(Target::Read), Some(injection));
    // A hanging disk below keeps requests in flight.
    let below = create(ram(), None).unwrap();
    let under: SharedBdev = below.clone();
    let (above, shared) = self::disk(under);
    assert_eq!(shared.info().name, "EE_EE_M");
    let rig = Rig::new(&shared);
    inject(&below, Target::Read, Fault::Pending, 1);
    above.inject(&[Target::Read], injection).unwrap();
    let answers = rig.start(vec![read(0), read(1)]);
    let failed = IoStatus::Failed(Errno::EIO);
    assert_eq!(answers.recv().unwrap(), (1, failed));
    rig.expedite();
    assert_eq!(answers.recv().unwrap(), (0, IoStatus::Aborted));
    assert!(rig.read(1, 1).is_ok());
}
