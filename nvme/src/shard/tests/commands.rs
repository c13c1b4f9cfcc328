//! What each command does.

use std::sync::Arc;

use bdev::{Features, IoKind, IoStatus};
use nvme_spec::command::DsmRange;
use nvme_spec::{NSID_ALL, NvmOpcode, SglDescriptor, SglType, Sqe, Status};

use super::disk::TestDisk;
use super::rig::{DATA, Queue, Rig, io, namespace, read, write};
use crate::messages::ToShard;
use crate::namespace::NamespaceSet;

const ALL: Features = Features::all();
const FUA: u32 = 1 << 30;
const DEAC: u32 = 1 << 25;

fn rig() -> (Rig, Arc<TestDisk>, Queue) {
    rig_with(ALL)
}

fn rig_with(features: Features) -> (Rig, Arc<TestDisk>, Queue) {
    let disk = TestDisk::new(512, 16384, features);
    let rig = Rig::new(&[disk.shared()]);
    let queue = rig.pair(1, 64);
    (rig, disk, queue)
}

fn pattern(seed: u8, len: usize) -> Vec<u8> {
    (0..len)
        .map(|n| {
            (n as u8)
                .wrapping_mul(31)
                .wrapping_add((n >> 8) as u8)
                .wrapping_add(seed)
        })
        .collect()
}

impl Rig {
    fn fill(&self, iova: u64, bytes: &[u8]) {
        assert!(self.ram.write_slice(Self::at(iova), bytes));
    }

    fn bytes(&self, iova: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        assert!(self.ram.read_slice(Self::at(iova), &mut bytes));
        bytes
    }
}

#[test]
fn what_is_written_is_read_back() {
    let (rig, disk, mut queue) = rig();
    let data = pattern(1, 8192);
    rig.fill(DATA, &data);
    assert_eq!(rig.run(&mut queue, write(100, 16, DATA)), Status::SUCCESS);
    assert_eq!(disk.bytes(100 * 512, 8192), data);
    assert_eq!(
        rig.run(&mut queue, read(100, 16, DATA + 0x1_0000)),
        Status::SUCCESS
    );
    assert_eq!(rig.bytes(DATA + 0x1_0000, 8192), data);
    assert_eq!(
        disk.taken(),
        [
            (IoKind::Write, 100, 16, false),
            (IoKind::Read, 100, 16, false)
        ]
    );
}

#[test]
fn the_largest_transfer_goes_through_a_prp_list() {
    let (rig, disk, mut queue) = rig();
    let data = pattern(2, 1 << 20);
    disk.fill(0, &data);
    // Pages in reverse order, the first one from its middle.
    let list = DATA + 0x7f_f008 - 0x10_0000;
    let page = |n: u64| DATA + 0x20_0000 + (300 - n) * 4096;
    for n in 0..256u64 {
        assert!(rig.ram.write(Rig::at(list) + n as usize * 8, &page(n)));
    }
    let first = DATA + 0x800;
    let command = io(NvmOpcode::READ, 1, 0, 2048, first, list);
    assert_eq!(rig.run(&mut queue, command), Status::SUCCESS);
    let mut got = rig.bytes(first, 2048);
    for n in 0..256 {
        got.extend(rig.bytes(page(n), 4096));
    }
    got.truncate(1 << 20);
    assert!(got == data);
}

#[test]
fn sgls_describe_any_bytes() {
    let (rig, disk, mut queue) = rig();
    let data = pattern(3, 1024);
    disk.fill(0, &data);
    let list = DATA + 0x1000;
    let parts = [
        (DATA + 0x2001, 300),
        (DATA + 0x3003, 700),
        (DATA + 0x4000, 24),
    ];
    for (n, (address, len)) in parts.into_iter().enumerate() {
        let block = SglDescriptor::new(SglType::DATA_BLOCK, address, len);
        assert!(rig.ram.write(Rig::at(list) + n * 16, &block));
    }
    let last = SglDescriptor::new(SglType::LAST_SEGMENT, list, 48);
    let command = read(0, 2, 0).with_sgl(last);
    assert_eq!(rig.run(&mut queue, command), Status::SUCCESS);
    let got: Vec<u8> = parts
        .iter()
        .flat_map(|(at, len)| rig.bytes(*at, *len as usize))
        .collect();
    assert_eq!(got, data);
}

#[test]
fn bit_buckets_swallow_a_part_of_a_read() {
    let (rig, disk, mut queue) = rig();
    let data = pattern(4, 16384);
    disk.fill(0, &data);
    let list = DATA + 0x1000;
    let bucket = |len| SglDescriptor::new(SglType::BIT_BUCKET, 0, len);
    let block = |at, len| SglDescriptor::new(SglType::DATA_BLOCK, at, len);
    let parts = [
        bucket(100),
        block(DATA + 0x8000, 9000),
        bucket(7000),
        block(DATA + 0xc000, 284),
    ];
    for (n, part) in parts.iter().enumerate() {
        assert!(rig.ram.write(Rig::at(list) + n * 16, part));
    }
    let last = SglDescriptor::new(SglType::LAST_SEGMENT, list, 64);
    assert_eq!(
        rig.run(&mut queue, read(0, 32, 0).with_sgl(last)),
        Status::SUCCESS
    );
    assert_eq!(rig.bytes(DATA + 0x8000, 9000), data[100..9100]);
    assert_eq!(rig.bytes(DATA + 0xc000, 284), data[16100..]);
    // And in the ring.
    rig.fill(DATA + 0x8000, &[0; 9000]);
    disk.script(|script| script.gated = true);
    rig.send(&mut queue, read(0, 32, 0).with_sgl(last));
    disk.release(1);
    assert_eq!(rig.completion(&mut queue).status(), Status::SUCCESS);
    assert_eq!(rig.bytes(DATA + 0x8000, 9000), data[100..9100]);
}

#[test]
fn durable_writes_say_so_to_the_disk() {
    let (rig, disk, mut queue) = rig();
    let mut fua = write(0, 1, DATA);
    fua.cdw12 |= FUA;
    let zeroes = io(NvmOpcode::WRITE_ZEROES, 1, 8, 8, 0, 0);
    let mut zeroes_fua = zeroes;
    zeroes_fua.cdw12 |= FUA;
    let mut read_fua = read(0, 1, DATA);
    read_fua.cdw12 |= FUA;
    for command in [write(0, 1, DATA), fua, zeroes, zeroes_fua, read_fua] {
        assert_eq!(rig.run(&mut queue, command), Status::SUCCESS);
    }
    let asked: Vec<_> = disk
        .taken()
        .iter()
        .map(|(kind, .., fua)| (*kind, *fua))
        .collect();
    assert_eq!(
        asked,
        [
            (IoKind::Write, false),
            (IoKind::Write, true),
            (IoKind::WriteZeroes, false),
            (IoKind::WriteZeroes, true),
            (IoKind::Read, false)
        ]
    );
}

#[test]
fn without_the_write_cache_every_write_is_durable() {
    let (rig, disk, mut queue) = rig();
    rig.tell(ToShard::WriteCache { enabled: false });
    assert_eq!(rig.run(&mut queue, write(0, 1, DATA)), Status::SUCCESS);
    rig.tell(ToShard::WriteCache { enabled: true });
    assert_eq!(rig.run(&mut queue, write(0, 1, DATA)), Status::SUCCESS);
    assert_eq!(
        disk.taken(),
        [(IoKind::Write, 0, 1, true), (IoKind::Write, 0, 1, false)]
    );
}

#[test]
fn flush_reaches_one_namespace_or_all() {
    let disks: Vec<_> = (0..3).map(|_| TestDisk::new(512, 64, ALL)).collect();
    let set = [1u32, 4, 9]
        .into_iter()
        .zip(&disks)
        .map(|(nsid, disk)| namespace(nsid, disk.shared()));
    let rig = Rig::with_set(NamespaceSet::new(set.collect()));
    let mut queue = rig.pair(1, 8);
    let flushes = || {
        disks
            .iter()
            .map(|disk| disk.taken().len())
            .collect::<Vec<_>>()
    };
    assert_eq!(
        rig.run(&mut queue, Sqe::nvm(NvmOpcode::FLUSH, 4)),
        Status::SUCCESS
    );
    assert_eq!(flushes(), [0, 1, 0]);
    let all = Sqe::nvm(NvmOpcode::FLUSH, NSID_ALL);
    assert_eq!(rig.run(&mut queue, all), Status::SUCCESS);
    assert_eq!(flushes(), [1, 1, 1]);
    // One of them through the ring, another one failing.
    disks[1].script(|script| script.gated = true);
    rig.send(&mut queue, all);
    disks[1].release(1);
    assert_eq!(rig.completion(&mut queue).status(), Status::SUCCESS);
    assert_eq!(flushes(), [1, 1, 1]);
    disks[1].script(|script| script.gated = false);
    disks[1].script(|script| script.fail = Some(IoStatus::Failed(nix::errno::Errno::EIO)));
    assert_eq!(rig.run(&mut queue, all), Status::WRITE_FAULT);
    assert_eq!(flushes(), [1, 1, 0]);
}

#[test]
fn flush_of_all_namespaces_succeeds_without_any() {
    let rig = Rig::new(&[]);
    let mut queue = rig.pair(1, 8);
    assert_eq!(
        rig.run(&mut queue, Sqe::nvm(NvmOpcode::FLUSH, NSID_ALL)),
        Status::SUCCESS
    );
}

#[test]
fn write_zeroes_is_not_bound_by_the_transfer_size() {
    let (rig, disk, mut queue) = rig();
    disk.fill(0, &[7; 16384 * 512]);
    let zeroes = io(NvmOpcode::WRITE_ZEROES, 1, 1, 16383, 0, 0);
    assert_eq!(rig.run(&mut queue, zeroes), Status::SUCCESS);
    assert_eq!(disk.bytes(0, 512), [7; 512]);
    assert!(disk.bytes(512, 16383 * 512).iter().all(|byte| *byte == 0));
}

#[test]
fn deallocating_zeroes_only_where_that_gives_zeroes() {
    let mut command = io(NvmOpcode::WRITE_ZEROES, 1, 8, 8, 0, 0);
    command.cdw12 |= DEAC;
    for (features, kind) in [
        (ALL, IoKind::Unmap),
        (ALL - Features::UNMAP_ZEROES, IoKind::WriteZeroes),
        (ALL - Features::UNMAP, IoKind::WriteZeroes),
    ] {
        let (rig, disk, mut queue) = rig_with(features);
        assert_eq!(rig.run(&mut queue, command), Status::SUCCESS);
        assert_eq!(disk.taken(), [(kind, 8, 8, false)]);
    }
}

#[test]
fn compare_tells_equal_from_different() {
    let (rig, disk, mut queue) = rig();
    let data = pattern(5, 8192);
    disk.fill(512, &data);
    rig.fill(DATA, &data);
    let compare = io(NvmOpcode::COMPARE, 1, 1, 16, DATA, DATA + 4096);
    assert_eq!(rig.run(&mut queue, compare), Status::SUCCESS);
    rig.fill(DATA + 8191, &[!data[8191]]);
    assert_eq!(
        rig.run(&mut queue, compare),
        Status::COMPARE_FAILURE.with_dnr(true)
    );
}

impl Rig {
    fn deallocate(&self, ranges: &[DsmRange]) -> Sqe {
        for (n, range) in ranges.iter().enumerate() {
            assert!(self.ram.write(Self::at(DATA) + n * 16, range));
        }
        let mut sqe = Sqe::nvm(NvmOpcode::DATASET_MANAGEMENT, 1).with_prps(DATA, 0);
        sqe.cdw10 = u32::try_from(ranges.len() - 1).unwrap();
        sqe.cdw11 = 1 << 2;
        sqe
    }
}

#[test]
fn all_256_ranges_are_deallocated() {
    let (rig, disk, mut queue) = rig();
    disk.fill(0, &[9; 16384 * 512]);
    // Every other block, so that nothing merges.
    let ranges: Vec<_> = (0..256).map(|n| DsmRange::new(n * 2, 1)).collect();
    let command = rig.deallocate(&ranges);
    assert_eq!(rig.run(&mut queue, command), Status::SUCCESS);
    assert_eq!(disk.taken().len(), 256);
    for block in 0..520u64 {
        let expected = if block < 512 && block % 2 == 0 { 0 } else { 9 };
        assert_eq!(
            disk.bytes(block * 512, 512),
            [expected; 512],
            "block {block}"
        );
    }
    // The same through the ring, each range waiting for the one before.
    disk.script(|script| script.gated = true);
    rig.send(&mut queue, command);
    disk.release(256);
    assert_eq!(rig.completion(&mut queue).status(), Status::SUCCESS);
    assert_eq!(disk.taken().len(), 256);
}

#[test]
fn neighbouring_ranges_are_one_request_and_empty_ones_none() {
    let (rig, disk, mut queue) = rig();
    let ranges = [
        (10, 5),
        (0, 0),
        (15, 5),
        (u64::MAX, 0),
        (40, 1),
        (30, 2),
        (32, 0xff),
    ];
    let ranges = ranges.map(|(lba, blocks)| DsmRange::new(lba, blocks));
    let command = rig.deallocate(&ranges);
    assert_eq!(rig.run(&mut queue, command), Status::SUCCESS);
    let requests: Vec<_> = disk
        .taken()
        .iter()
        .map(|(_, lba, blocks, _)| (*lba, *blocks))
        .collect();
    assert_eq!(requests, [(10, 10), (40, 1), (30, 257)]);
    let command = rig.deallocate(&[DsmRange::new(5, 0)]);
    assert_eq!(rig.run(&mut queue, command), Status::SUCCESS);
    assert_eq!(disk.taken(), []);
}

#[test]
fn one_range_outside_spoils_all_before_any_effect() {
    let (rig, disk, mut queue) = rig();
    for bad in [(16380, 5), (u64::MAX, 2), (1 << 60, u32::MAX)] {
        let command = rig.deallocate(&[DsmRange::new(0, 8), DsmRange::new(bad.0, bad.1)]);
        assert_eq!(
            rig.run(&mut queue, command),
            Status::LBA_OUT_OF_RANGE.with_dnr(true)
        );
    }
    assert_eq!(disk.taken(), []);
}

#[test]
fn hints_without_effect_succeed() {
    let (rig, disk, mut queue) = rig_with(ALL - Features::UNMAP);
    let command = rig.deallocate(&[DsmRange::new(0, 8)]);
    assert_eq!(rig.run(&mut queue, command), Status::SUCCESS);
    let mut integral = command;
    integral.cdw11 = 3;
    assert_eq!(rig.run(&mut queue, integral), Status::SUCCESS);
    assert_eq!(disk.taken(), []);
}

#[test]
fn more_commands_of_several_steps_than_plans_all_end() {
    let (rig, disk, mut queue) = rig();
    disk.script(|script| script.gated = true);
    let command = rig.deallocate(&[DsmRange::new(0, 1), DsmRange::new(8, 1)]);
    for _ in 0..50 {
        rig.put(&mut queue, command);
    }
    rig.ring(&queue);
    disk.release(100);
    for _ in 0..50 {
        assert_eq!(rig.completion(&mut queue).status(), Status::SUCCESS);
    }
    assert_eq!(disk.taken().len(), 100);
}

#[test]
fn blocks_of_4_kib_and_page_sizes_up_to_64_kib() {
    let disk = TestDisk::new(4096, 512, ALL);
    let rig = Rig::new(&[disk.shared()]);
    let mut queue = rig.pair(1, 8);
    let data = pattern(6, 128 << 10);
    disk.fill(4096, &data);
    rig.tell(ToShard::PageSize { mps: 4 });
    let (first, second) = (DATA, DATA + 0x30_0000);
    assert_eq!(
        rig.run(&mut queue, io(NvmOpcode::READ, 1, 1, 32, first, second)),
        Status::SUCCESS
    );
    assert!(rig.bytes(first, 64 << 10) == data[..64 << 10]);
    assert!(rig.bytes(second, 64 << 10) == data[64 << 10..]);
    let odd = io(NvmOpcode::READ, 1, 1, 32, first, second + 4096);
    assert_eq!(
        rig.run(&mut queue, odd),
        Status::PRP_OFFSET_INVALID.with_dnr(true)
    );
}
