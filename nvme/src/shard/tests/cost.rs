//! What a command may not cost.

use bdev::SharedBdev;
use bdev::malloc::MallocOptions;
use nvme_spec::{NvmOpcode, SglDescriptor, SglType, Status};

use super::rig::{DATA, Queue, Rig, io, read, write};

fn malloc(block_size: u32, num_blocks: u64) -> SharedBdev {
    let options = MallocOptions {
        name: "m".to_owned(),
        block_size,
        num_blocks,
        physical_block_size: None,
        uuid: None,
    };
    bdev::malloc::create(options).unwrap()
}

/// Full rings of reads and writes: one page, two, a PRP list of scattered pages, an SGL; flushes and zeroes.
fn burst(rig: &Rig, queue: &mut Queue) {
    let list = DATA + 0x10_0000;
    for n in 0..64u64 {
        assert!(
            rig.ram
                .write(Rig::at(list) + n as usize * 8, &(DATA + n * 0x2000))
        );
    }
    let block = SglDescriptor::new(SglType::DATA_BLOCK, DATA + 12, 4096);
    let commands = [
        read(1, 8, DATA),
        write(9, 8, DATA + 0x4000),
        read(0, 16, DATA + 0x8000),
        io(NvmOpcode::READ, 1, 0, 256, DATA, list),
        io(NvmOpcode::WRITE, 1, 256, 256, DATA + 512, list),
        read(3, 8, 0).with_sgl(block),
        io(NvmOpcode::FLUSH, 1, 0, 1, 0, 0),
        io(NvmOpcode::WRITE_ZEROES, 1, 2, 8, 0, 0),
        io(NvmOpcode::COMPARE, 1, 2, 8, DATA + 0x20_0000, 0),
    ];
    for command in commands.iter().cycle().take(60) {
        rig.put(queue, *command);
    }
    rig.ring(queue);
    for _ in 0..60 {
        assert_eq!(rig.completion(queue).status(), Status::SUCCESS);
    }
}

#[test]
fn no_command_allocates_once_everything_is_warm() {
    let rig = Rig::new(&[malloc(512, 4096)]);
    let event = rig.event(1);
    rig.cq(1, 64, Some(1));
    let mut queue = rig.sq(1, 1, 64, 64);
    burst(&rig, &mut queue);
    // The question itself allocates on the reactor's thread, always the same.
    let asked = rig.allocations();
    let question = rig.allocations() - asked;
    let before = rig.allocations();
    assert!(before > 0, "the counting allocator is in place");
    for _ in 0..50 {
        burst(&rig, &mut queue);
    }
    let after = rig.allocations();
    // Counters go home ten times per second, in messages.
    let messages = rig.answers().len() as u64;
    assert!(
        after - before <= question + messages,
        "{} allocations in 3000 commands, {messages} messages",
        after - before
    );
    drop(event);
}

/// A file that is gone when the test is.
struct File(std::path::PathBuf);

impl File {
    fn new(len: u64) -> Self {
        let name = format!("nvme-cost-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::File::create(&path).unwrap().set_len(len).unwrap();
        Self(path)
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Through slots, the kernel's ring and its completions.
#[test]
fn no_command_in_the_ring_allocates() {
    let file = File::new(4096 * 512);
    let mut options = bdev::uring::UringOptions::new("f", &file.0);
    options.block_size = Some(512);
    let rig = Rig::new(&[bdev::uring::create(options).unwrap()]);
    rig.cq(1, 64, None);
    let mut queue = rig.sq(1, 1, 64, 64);
    let mut round = || {
        for n in 0..32 {
            let at = DATA + n * 8192;
            let command = if n % 2 == 0 { read } else { write };
            rig.put(&mut queue, command(n * 16, 16, at));
        }
        rig.ring(&queue);
        for _ in 0..32 {
            assert_eq!(rig.completion(&mut queue).status(), Status::SUCCESS);
        }
    };
    for _ in 0..20 {
        round();
    }
    let asked = rig.allocations();
    let question = rig.allocations() - asked;
    let before = rig.allocations();
    for _ in 0..50 {
        round();
    }
    let after = rig.allocations();
    let messages = rig.answers().len() as u64;
    assert!(
        after - before <= question + messages,
        "{} allocations in 1600 commands, {messages} messages",
        after - before
    );
}
