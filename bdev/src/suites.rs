//! The conformance suite, run over every back-end of this crate.

use std::any::Any;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::SharedBdev;
use crate::conformance::{Keep, Spec, Subject};
use crate::conformance_tests;
use crate::delay::{self, Latencies};
use crate::error::{self, Fault, Injection, Target};
use crate::malloc::{self, MallocOptions};
use crate::null::{self, NullOptions};
use crate::part::{self, PartOptions};
use crate::passthru;
use crate::test_loop::LoopDevice;
use crate::uring::{self, Product, UringOptions};

fn malloc_disk(spec: Spec) -> Option<Subject> {
    let options = MallocOptions {
        name: "Malloc0".into(),
        block_size: spec.block_size,
        num_blocks: spec.num_blocks,
        physical_block_size: None,
        uuid: None,
    };
    (!spec.readonly).then(|| Subject {
        bdev: malloc::create(options).unwrap(),
        set_len: None,
        uses_ring: false,
        keep: Box::new(()),
    })
}

fn null_disk(spec: Spec) -> Option<Subject> {
    let options = NullOptions {
        name: "Null0".into(),
        block_size: spec.block_size,
        num_blocks: spec.num_blocks,
        physical_block_size: None,
        uuid: None,
    };
    (!spec.readonly).then(|| Subject {
        bdev: null::create(options).unwrap(),
        set_len: None,
        uses_ring: false,
        keep: Box::new(()),
    })
}

/// A directory with the file that a disk stands on.
#[derive(Debug)]
struct Backing {
    path: PathBuf,
    _directory: TempDir,
}

impl Keep for Backing {
    fn as_any(&self) -> &dyn Any {
        self
    }
}

fn backing(directory: &Path, spec: Spec) -> Backing {
    let directory = tempfile::Builder::new()
        .prefix("vtarget-bdev-")
        .tempdir_in(directory)
        .unwrap();
    let path = directory.path().join("disk");
    let file = File::create_new(&path).unwrap();
    file.set_len(spec.len()).unwrap();
    if spec.readonly {
        let contents: Vec<u8> = (0..spec.len()).map(Spec::pattern_of).collect();
        file.write_all_at(&contents, 0).unwrap();
    }
    Backing {
        path,
        _directory: directory,
    }
}

fn set_file_len(subject: &Subject, num_blocks: u64) {
    let backing = subject.keep.as_any().downcast_ref::<Backing>().unwrap();
    let file = File::options().write(true).open(&backing.path).unwrap();
    let len = num_blocks * u64::from(subject.bdev.info().block_size);
    file.set_len(len).unwrap();
}

fn file_disk(
    directory: &str,
    spec: Spec,
    change: impl FnOnce(&mut UringOptions),
) -> Option<Subject> {
    let backing = backing(Path::new(directory), spec);
    let mut options = UringOptions::new("File0", &backing.path);
    options.block_size = Some(spec.block_size);
    options.readonly = spec.readonly;
    change(&mut options);
    Some(Subject {
        bdev: uring::create(options).unwrap(),
        set_len: Some(set_file_len),
        uses_ring: true,
        keep: Box::new(backing),
    })
}

/// On the disk's own file system: direct I/O, on most machines.
fn direct_file(spec: Spec) -> Option<Subject> {
    file_disk("/var/tmp", spec, |_| {})
}

fn buffered_file(spec: Spec) -> Option<Subject> {
    file_disk("/var/tmp", spec, |options| options.direct = false)
}

/// As `bdev_aio_create` makes them by default: no hole is ever punched.
fn aio_file(spec: Spec) -> Option<Subject> {
    file_disk("/var/tmp", spec, |options| {
        options.product = Product::Aio { nowait: false };
        options.unmap = false;
    })
}

/// tmpfs zeroes no ranges.
fn tmpfs_file(spec: Spec) -> Option<Subject> {
    file_disk("/dev/shm", spec, |_| {})
}

/// tmpfs without holes: zeroes are written.
fn tmpfs_file_without_holes(spec: Spec) -> Option<Subject> {
    file_disk("/dev/shm", spec, |options| options.unmap = false)
}

/// A loop device, where the machine lets us have one.
fn loop_device(spec: Spec) -> Option<Subject> {
    let backing = backing(Path::new("/var/tmp"), spec);
    let device = LoopDevice::attach(&backing.path, spec.block_size)?;
    let mut options = UringOptions::new("Loop0", device.path());
    options.readonly = spec.readonly;
    Some(Subject {
        bdev: uring::create(options).unwrap(),
        set_len: None,
        uses_ring: true,
        keep: Box::new(backing),
    })
}

/// The same disk with one on top of it.
fn over(subject: Option<Subject>, make: impl FnOnce(SharedBdev) -> SharedBdev) -> Option<Subject> {
    subject.map(|subject| Subject {
        bdev: make(subject.bdev),
        ..subject
    })
}

fn passthru(base: SharedBdev) -> SharedBdev {
    passthru::create("Over0", base, None).unwrap()
}

fn passthru_over_malloc(spec: Spec) -> Option<Subject> {
    over(malloc_disk(spec), passthru)
}

fn passthru_over_file(spec: Spec) -> Option<Subject> {
    over(direct_file(spec), passthru)
}

fn delayed(base: SharedBdev) -> SharedBdev {
    let latencies = Latencies {
        avg_read: 20,
        p99_read: 200,
        avg_write: 10,
        p99_write: 300,
    };
    delay::create("Over0", base, None, latencies).unwrap()
}

fn delay_over_malloc(spec: Spec) -> Option<Subject> {
    over(malloc_disk(spec), delayed)
}

fn delay_over_file(spec: Spec) -> Option<Subject> {
    over(direct_file(spec), delayed)
}

fn quiet_error(base: SharedBdev) -> SharedBdev {
    error::create(base, None).unwrap()
}

/// Requests find no memory again and again; nobody above notices anything but the time.
fn error_without_memory(base: SharedBdev) -> SharedBdev {
    let disk = error::create(base, None).unwrap();
    let injection = Injection {
        fault: Fault::NoMemory,
        count: 300,
        queue_depth: 0,
    };
    disk.inject(&Target::ALL, injection).unwrap();
    disk
}

fn error_over_malloc(spec: Spec) -> Option<Subject> {
    over(malloc_disk(spec), quiet_error)
}

fn error_over_file(spec: Spec) -> Option<Subject> {
    over(direct_file(spec), quiet_error)
}

fn no_memory_over_malloc(spec: Spec) -> Option<Subject> {
    over(malloc_disk(spec), error_without_memory)
}

fn no_memory_over_file(spec: Spec) -> Option<Subject> {
    over(direct_file(spec), error_without_memory)
}

/// The middle third of a disk.
fn part_of(maker: impl FnOnce(Spec) -> Option<Subject>, spec: Spec) -> Option<Subject> {
    let larger = Spec {
        num_blocks: 3 * spec.num_blocks,
        ..spec
    };
    let subject = over(maker(larger), |base| {
        let options = PartOptions {
            name: "Part0".into(),
            product_name: "Split Disk",
            uuid: None,
            // The contents of a read-only disk are known from its first block on.
            offset_blocks: if spec.readonly { 0 } else { spec.num_blocks },
            num_blocks: spec.num_blocks,
            more: Vec::new(),
        };
        part::create(base, options).unwrap()
    });
    subject.map(|subject| Subject {
        set_len: None,
        ..subject
    })
}

fn part_of_malloc(spec: Spec) -> Option<Subject> {
    part_of(malloc_disk, spec)
}

fn part_of_file(spec: Spec) -> Option<Subject> {
    part_of(direct_file, spec)
}

/// Four decorators, one on the other.
fn tower(base: SharedBdev) -> SharedBdev {
    passthru(delayed(delayed(error_without_memory(base))))
}

fn tower_over_malloc(spec: Spec) -> Option<Subject> {
    over(malloc_disk(spec), tower)
}

fn tower_over_file(spec: Spec) -> Option<Subject> {
    over(direct_file(spec), tower)
}

conformance_tests!(malloc_suite, super::malloc_disk);
conformance_tests!(null_suite, super::null_disk);
conformance_tests!(direct_file_suite, super::direct_file);
conformance_tests!(buffered_file_suite, super::buffered_file);
conformance_tests!(aio_file_suite, super::aio_file);
conformance_tests!(tmpfs_file_suite, super::tmpfs_file);
conformance_tests!(
    tmpfs_file_without_holes_suite,
    super::tmpfs_file_without_holes
);
conformance_tests!(loop_device_suite, super::loop_device);
conformance_tests!(passthru_over_malloc_suite, super::passthru_over_malloc);
conformance_tests!(passthru_over_file_suite, super::passthru_over_file);
conformance_tests!(delay_over_malloc_suite, super::delay_over_malloc);
conformance_tests!(delay_over_file_suite, super::delay_over_file);
conformance_tests!(error_over_malloc_suite, super::error_over_malloc);
conformance_tests!(error_over_file_suite, super::error_over_file);
conformance_tests!(no_memory_over_malloc_suite, super::no_memory_over_malloc);
conformance_tests!(no_memory_over_file_suite, super::no_memory_over_file);
conformance_tests!(part_of_malloc_suite, super::part_of_malloc);
conformance_tests!(part_of_file_suite, super::part_of_file);
conformance_tests!(tower_over_malloc_suite, super::tower_over_malloc);
conformance_tests!(tower_over_file_suite, super::tower_over_file);
