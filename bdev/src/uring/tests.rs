use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use super::*;
use crate::conformance::{Request, Rig};
use crate::test_loop::LoopDevice;
use crate::{Features, IoKind, IoStatus};

fn directory() -> TempDir {
    tempfile::tempdir_in("/var/tmp").unwrap()
}

fn file(directory: &Path, len: u64) -> PathBuf {
    let path = directory.join("disk");
    File::create(&path).unwrap().set_len(len).unwrap();
    path
}

fn disk(path: &Path) -> SharedBdev {
    let mut options = UringOptions::new("File0", path);
    options.block_size = Some(512);
    create(options).unwrap()
}

#[test]
fn it_is_described_in_the_words_of_its_module() {
    let directory = directory();
    let path = file(directory.path(), 1 << 20);
    let name = DriverValue::Text(path.to_string_lossy().into_owned());
    let bdev = disk(&path);
    assert_eq!(bdev.info().product_name, "URING bdev");
    assert_eq!(bdev.driver_specific(), [("filename", name.clone())]);
    drop(bdev);
    let bdev = create(UringOptions {
        block_size: Some(4096),
        readonly: true,
        unmap: false,
        product: Product::Aio { nowait: true },
        ..UringOptions::new("Aio0", &path)
    });
    let bdev = bdev.unwrap();
    assert_eq!(bdev.info().product_name, "AIO disk");
    let flag = |key, value| (key, DriverValue::Bool(value));
    assert_eq!(
        bdev.driver_specific(),
        [
            ("filename", name),
            flag("block_size_override", true),
            flag("readonly", true),
            flag("fallocate", false),
            flag("nowait", true),
        ]
    );
}

#[test]
fn the_file_holds_the_disk_bit_for_bit() {
    let directory = directory();
    let path = file(directory.path(), 1 << 20);
    let bdev = disk(&path);
    let rig = Rig::new(&bdev);
    let data: Vec<u8> = (0..70_144).map(|index| (index % 253) as u8).collect();
    assert_eq!(rig.write(1000, &data), IoStatus::Ok);
    assert_eq!(rig.command(IoKind::Flush, 0, 0, false), IoStatus::Ok);
    let mut expected = vec![0; 1 << 20];
    expected[512_000..512_000 + data.len()].copy_from_slice(&data);
    assert!(fs::read(&path).unwrap() == expected);
}

#[test]
fn unmapped_blocks_take_no_space() {
    let directory = directory();
    let path = file(directory.path(), 8 << 20);
    let bdev = disk(&path);
    if !bdev.info().features.contains(Features::UNMAP) {
        println!("not tried: the file system of /var/tmp punches no holes");
        return;
    }
    let rig = Rig::new(&bdev);
    for mib in 0..8 {
        assert_eq!(rig.write(mib * 2048, &[7; 1 << 20]), IoStatus::Ok);
    }
    assert_eq!(rig.command(IoKind::Flush, 0, 0, false), IoStatus::Ok);
    let before = fs::metadata(&path).unwrap().blocks();
    let unmapped = rig.command(IoKind::Unmap, 2048, 6 * 2048, true);
    assert_eq!(unmapped, IoStatus::Ok);
    let after = fs::metadata(&path).unwrap();
    assert!(
        after.blocks() * 2 < before,
        "{} of {before}",
        after.blocks()
    );
    assert_eq!(after.len(), 8 << 20);
}

#[test]
fn a_discarded_device_gives_its_blocks_back() {
    let directory = directory();
    let path = file(directory.path(), 8 << 20);
    let Some(device) = LoopDevice::attach(&path, 512) else {
        return;
    };
    let bdev = create(UringOptions::new("Loop0", device.path())).unwrap();
    if !bdev.info().features.contains(Features::UNMAP) {
        println!("not tried: this loop device discards nothing");
        return;
    }
    let rig = Rig::new(&bdev);
    for mib in 0..8 {
        assert_eq!(rig.write(mib * 2048, &[7; 1 << 20]), IoStatus::Ok);
    }
    assert_eq!(rig.command(IoKind::Flush, 0, 0, false), IoStatus::Ok);
    let before = fs::metadata(&path).unwrap().blocks();
    let unmapped = rig.command(IoKind::Unmap, 2048, 6 * 2048, true);
    assert_eq!(unmapped, IoStatus::Ok);
    let after = fs::metadata(&path).unwrap().blocks();
    assert!(after * 2 < before, "{after} of {before}");
    assert_eq!(rig.read(0, 1).unwrap(), [7; 512]);
}

#[test]
fn a_file_cut_short_is_out_of_range_there_and_works_elsewhere() {
    let directory = directory();
    let path = file(directory.path(), 1 << 20);
    for direct in [true, false] {
        File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_len(1 << 20)
            .unwrap();
        let bdev = create(UringOptions {
            block_size: Some(512),
            direct,
            ..UringOptions::new("File0", &path)
        });
        let bdev = bdev.unwrap();
        let rig = Rig::new(&bdev);
        assert_eq!(rig.write(0, &[1; 512]), IoStatus::Ok);
        let cut = File::options().write(true).open(&path).unwrap();
        // Inside a block: half of it must not pass for the whole.
        cut.set_len((512 << 10) + 100).unwrap();
        assert_eq!(rig.read(1024, 1), Err(IoStatus::OutOfRange));
        assert_eq!(rig.read(1000, 100), Err(IoStatus::OutOfRange));
        assert_eq!(rig.read(2047, 1), Err(IoStatus::OutOfRange));
        assert_eq!(rig.read(0, 1).unwrap(), [1; 512]);
        assert_eq!(bdev.info().num_blocks, 2048, "nobody was asked to look");
        assert_eq!(bdev.rescan().unwrap(), 1024);
        assert_eq!(rig.write(1024, &[1; 512]), IoStatus::OutOfRange);
        cut.set_len(100).unwrap();
        let error = bdev.rescan().unwrap_err();
        assert!(error.reason.contains("less than one block"), "{error}");
        assert_eq!(
            bdev.info().num_blocks,
            1024,
            "a refused rescan changes nothing"
        );
    }
}

#[test]
fn a_device_that_grew_is_seen_by_rescan() {
    let directory = directory();
    let path = file(directory.path(), 1 << 20);
    let Some(device) = LoopDevice::attach(&path, 512) else {
        return;
    };
    let bdev = create(UringOptions::new("Loop0", device.path())).unwrap();
    let rig = Rig::new(&bdev);
    assert_eq!(rig.read(2048, 1), Err(IoStatus::OutOfRange));
    let grown = File::options().write(true).open(&path).unwrap();
    grown.set_len(2 << 20).unwrap();
    device.refresh();
    assert_eq!(bdev.rescan().unwrap(), 4096);
    assert_eq!(rig.write(4095, &[9; 512]), IoStatus::Ok);
    assert_eq!(rig.read(4095, 1).unwrap(), [9; 512]);
}

#[test]
fn what_was_closed_can_be_opened_again_at_once() {
    let directory = directory();
    let path = file(directory.path(), 1 << 20);
    for _ in 0..20 {
        let rig = Rig::new(&disk(&path));
        assert!(rig.read(0, 1).is_ok());
    }
    let Some(device) = LoopDevice::attach(&path, 512) else {
        return;
    };
    for _ in 0..20 {
        let bdev = create(UringOptions::new("Loop0", device.path())).unwrap();
        let rig = Rig::new(&bdev);
        assert!(rig.read(0, 1).is_ok());
    }
}

/// Mounts a file system of `size` at `at`, gone from the directory tree (but not from who has it open) when dropped.
struct Mount<'a>(&'a Path);

impl<'a> Mount<'a> {
    fn tmpfs(at: &'a Path, size: &str) -> Option<Self> {
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size}"), "vtarget-test"])
            .arg(at)
            .output();
        match mount {
            Ok(output) if output.status.success() => Some(Self(at)),
            _ => {
                println!("not tried: mounting is not allowed here");
                None
            }
        }
    }
}

impl Drop for Mount<'_> {
    fn drop(&mut self) {
        let status = Command::new("umount").arg("-l").arg(self.0).status();
        assert!(status.is_ok_and(|status| status.success()) || std::thread::panicking());
    }
}

#[test]
fn a_full_file_system_is_no_space() {
    let directory = directory();
    let Some(mount) = Mount::tmpfs(directory.path(), "1m") else {
        return;
    };
    let path = file(directory.path(), 16 << 20);
    let bdev = disk(&path);
    drop(mount);
    let rig = Rig::new(&bdev);
    let mut statuses: Vec<_> = (0..8)
        .map(|mib| rig.write(mib * 2048, &[1; 1 << 20]))
        .collect();
    statuses.dedup();
    assert_eq!(statuses.last(), Some(&IoStatus::NoSpace));
    // Reading what was never written works, and room made is room found.
    assert_eq!(rig.read(16 << 11, 1), Err(IoStatus::OutOfRange));
    assert_eq!(rig.read((16 << 11) - 1, 1).unwrap(), [0; 512]);
    let unmapped = rig.command(IoKind::Unmap, 0, 16 << 11, false);
    assert_eq!(unmapped, IoStatus::Ok);
    assert_eq!(rig.write(20_000, &[1; 512]), IoStatus::Ok);
}

#[test]
fn a_failing_device_fails_the_request_with_its_error() {
    // A loop device over a file on a file system that is too small for it: its writes fail with EIO... or ENOSPC.
    let directory = directory();
    let Some(mount) = Mount::tmpfs(directory.path(), "1m") else {
        return;
    };
    let path = file(directory.path(), 16 << 20);
    let device = LoopDevice::attach(&path, 512);
    drop(mount);
    let Some(device) = device else { return };
    let bdev = create(UringOptions::new("Loop0", device.path())).unwrap();
    let rig = Rig::new(&bdev);
    let statuses: Vec<_> = (0..8)
        .map(|mib| rig.write(mib * 2048, &[1; 1 << 20]))
        .collect();
    let failed = |status: &IoStatus| matches!(status, IoStatus::Failed(_) | IoStatus::NoSpace);
    assert!(statuses.iter().any(failed), "{statuses:?}");
    assert!(rig.read(0, 1).is_ok(), "the disk goes on");
    let stats = rig.stats(&bdev);
    assert_eq!(stats.write.ops + stats.failures.total(), 8);
}

#[test]
fn what_is_written_through_the_page_cache_is_in_the_file_after_a_flush() {
    let directory = directory();
    let path = file(directory.path(), 1 << 20);
    let bdev = create(UringOptions {
        block_size: Some(4096),
        direct: false,
        ..UringOptions::new("File0", &path)
    });
    let bdev = bdev.unwrap();
    assert!(bdev.info().features.contains(Features::WRITE_CACHE));
    let rig = Rig::new(&bdev);
    rig.put(3, &[5; 8192]);
    let request = Request::new(IoKind::Write, 7, 2, (3, 8192));
    assert_eq!(rig.run(request), IoStatus::Ok);
    assert_eq!(rig.command(IoKind::Flush, 0, 0, false), IoStatus::Ok);
    let mut found = vec![0; 8192];
    let file = File::open(&path).unwrap();
    file.read_exact_at(&mut found, 7 * 4096).unwrap();
    assert_eq!(found, vec![5; 8192]);
}
