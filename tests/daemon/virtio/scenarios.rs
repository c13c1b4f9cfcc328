//! What a disk must do over either transport.

use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use serde_json::{Value, json};
use testkit::virtio::{BlkQueue, Buffer, Setup, When};
use virtio_spec::blk::{self, Range, S_OK, S_UNSUPP, T_IN, T_OUT};

use super::mix::{Mix, holds};
use super::{Guest, MIB, Rig, Way, pattern};

/// Random requests on queues of both formats.
pub(crate) fn verified<W: Way>(packed: bool, queues: u16, on_file: bool) {
    let mut rig = Rig::start(&["-m", "0x3"]);
    if on_file {
        rig.file("disk", 8 * MIB as u64);
    } else {
        rig.malloc("disk");
    }
    let socket = rig.endpoint::<W>("ep", "disk");
    let setup = Setup::linux(packed).queues(queues);
    let mut guest = Guest::<W>::start(&socket, &setup);
    let config = guest.driver.config().expect("a configuration");
    assert_eq!(config.capacity, 16384);
    let mut mix = Mix::new(&guest.queues, 8 * MIB, 8, u64::from(queues));
    mix.run(&mut guest.queues, 1500);
    holds(guest.queue(), &mix.model);
    drop(guest);
    // What a guest has left is there for the next one.
    let mut next = Guest::<W>::linux(&socket, !packed);
    holds(next.queue(), &mix.model);
    drop(next);
    rig.daemon.stop();
}

/// Requests of `count` buffers of `len` bytes, every other one unaligned.
fn buffers(queue: &BlkQueue, count: usize, len: usize) -> Vec<Buffer> {
    let room = queue.ram().alloc(count * (len + 64), 4096);
    let at = room.expect("guest memory");
    (0..count)
        .map(|n| Buffer {
            addr: at + (n * (len + 64) + n % 2 * 13) as u64,
            len: len as u32,
        })
        .collect()
}

fn round_trip(queue: &mut BlkQueue, sector: u64, buffers: &[Buffer]) {
    let len = buffers.iter().map(|it| it.len as usize).sum();
    let data = pattern(len, len / 512);
    let mut rest = data.as_slice();
    for buffer in buffers {
        let (this, after) = rest.split_at(buffer.len as usize);
        queue.ram().write(buffer.addr, this);
        rest = after;
    }
    let done = queue.run(T_OUT, sector, buffers).expect("ended");
    assert_eq!(done.status, S_OK, "a write of {len} bytes");
    for buffer in buffers {
        queue
            .ram()
            .write(buffer.addr, &vec![0; buffer.len as usize]);
    }
    let done = queue.run(T_IN, sector, buffers).expect("ended");
    assert_eq!(done.status, S_OK, "a read of {len} bytes");
    let mut rest = data.as_slice();
    for buffer in buffers {
        let (this, after) = rest.split_at(buffer.len as usize);
        assert!(
            queue.ram().read(buffer.addr, this.len()) == this,
            "{buffer:?}"
        );
        rest = after;
    }
}

/// Far more segments than `seg_max`, megabytes at once, and buffers that lie anyhow.
pub(crate) fn large<W: Way>(packed: bool) {
    let mut rig = Rig::start(&[]);
    rig.file("disk", 16 * MIB as u64);
    let socket = rig.endpoint::<W>("ep", "disk");
    let setup = Setup {
        segments: 1024,
        ..Setup::linux(packed)
    };
    let transport = W::connect(&socket, 128 * MIB).expect("a device");
    let mut guest = Guest::<W>::over(transport, &setup);
    for (count, len) in [
        (1024, 512),
        (1024, 1536),
        (512, 1),
        (1, MIB),
        (2, MIB),
        (1, 8 * MIB),
        (64, 4096),
    ] {
        let buffers = buffers(guest.queue(), count, len);
        round_trip(guest.queue(), 8, &buffers);
    }
    drop(guest);
    rig.daemon.stop();
}

/// What is wrong is answered, and nothing else happens.
pub(crate) fn refused<W: Way>(packed: bool) {
    let mut rig = Rig::start(&[]);
    rig.malloc("disk");
    let socket = rig.endpoint::<W>("ep", "disk");
    let mut guest = Guest::<W>::linux(&socket, packed);
    let data = pattern(4096, 1);
    let queue = guest.queue();
    queue.write(0, &data).expect("written");
    let room = queue.bounce(4096).expect("guest memory");
    queue.ram().write(room.addr, &[0xee; 4096]);
    let buffer = |len| Buffer {
        addr: room.addr,
        len,
    };
    for (kind, sector, len) in [
        (T_OUT, 0, 1),
        (T_OUT, 0, 511),
        (T_OUT, 0, 513),
        (T_IN, 0, 700),
        (T_OUT, 16384, 512),
        (T_OUT, 16383, 1024),
        (T_IN, u64::MAX, 512),
        (T_OUT, u64::MAX / 512, 4096),
        (T_IN, 1 << 55, 512),
    ] {
        let done = queue.run(kind, sector, &[buffer(len)]).expect("ended");
        assert_ne!(done.status, S_OK, "{kind} at {sector}, {len} bytes");
        assert_ne!(done.status, 0xff, "{kind} at {sector}, {len} bytes");
    }
    let done = queue.run(77, 0, &[buffer(512)]).expect("ended");
    assert_eq!(done.status, S_UNSUPP, "an unknown type");
    for range in [
        (16384, 1, 0),
        (16380, 5, 0),
        (u64::MAX, 1, 0),
        (0, u32::MAX, 0),
        (0, 1, 6),
    ] {
        let (sector, num_sectors, flags) = range;
        let range = Range {
            sector,
            num_sectors,
            flags,
        };
        assert!(queue.write_zeroes(&[range]).is_err(), "{range:?}");
    }
    assert!(queue.read(0, 4096).expect("read") == data, "it has changed");
    guest.works();
    drop(guest);
    rig.daemon.stop();
}

/// Identity, wear and a read-only endpoint.
pub(crate) fn identity<W: Way>() {
    let mut rig = Rig::start(&[]);
    rig.malloc("disk");
    rig.malloc("fixed");
    let socket = rig.endpoint::<W>("ep", "disk");
    let more = json!({"readonly": true, "packed_ring": true});
    W::create(&mut rig.daemon, "ro", "fixed", more);
    let mut guest = Guest::<W>::linux(&socket, false);
    assert_eq!(guest.queue().get_id().expect("an ID"), "disk");
    let config = guest.driver.config().expect("a configuration");
    assert!(config.seg_max > 0 && config.num_queues > 0, "{config:?}");
    assert_eq!(config.blk_size, 512);
    assert_eq!(guest.driver.features() & blk::feature::RO, 0);
    guest.works();
    let mut fixed = Guest::<W>::linux(&rig.socket("ro"), true);
    assert_ne!(fixed.driver.features() & blk::feature::RO, 0);
    let written = fixed.queue().write(0, &[1; 512]);
    assert!(written.is_err(), "a write to a read-only disk");
    assert!(fixed.queue().read(0, 512).expect("read") == [0; 512]);
    drop((guest, fixed));
    rig.daemon.stop();
}

/// What was flushed is in the file although the daemon was killed, and the next guest finds it.
pub(crate) fn durable<W: Way>(packed: bool) {
    let mut rig = Rig::start(&[]);
    let path = rig.file("disk", 8 * MIB as u64);
    let socket = rig.endpoint::<W>("ep", "disk");
    let mut guest = Guest::<W>::linux(&socket, packed);
    let features = guest.driver.features();
    assert_ne!(features & blk::feature::FLUSH, 0, "a file has a cache");
    let mut mix = Mix::new(&guest.queues, 8 * MIB, 8, 5);
    mix.run(&mut guest.queues, 300);
    guest.queue().flush().expect("flushed");
    // The cache can be switched off and on, and what is told is true at once.
    if features & blk::feature::CONFIG_WCE != 0 {
        for on in [false, true, false] {
            guest.driver.set_write_cache(on).expect("switched");
            let config = guest.driver.config().expect("a configuration");
            assert_eq!(config.wce, u8::from(on));
            mix.run(&mut guest.queues, 50);
        }
    } else {
        guest.queue().flush().expect("flushed");
    }
    rig.kill_and_restart(&[]);
    let found = std::fs::read(&path).expect("the file");
    assert!(found == mix.model, "the file lacks what was flushed");
    drop(guest);
    let mut next = Guest::<W>::linux(&socket, packed);
    holds(next.queue(), &mix.model);
    drop(next);
    rig.daemon.stop();
}

/// What a guest discards leaves the file.
pub(crate) fn discard<W: Way>(packed: bool) {
    let mut rig = Rig::start(&[]);
    let path = rig.file("disk", 8 * MIB as u64);
    let socket = rig.endpoint::<W>("ep", "disk");
    let mut guest = Guest::<W>::linux(&socket, packed);
    if guest.driver.features() & blk::feature::DISCARD == 0 {
        println!(
            "skipped: the file system of {} discards nothing",
            path.display()
        );
        return;
    }
    let data = pattern(MIB, 9);
    for sector in [0, 2048, 4096] {
        guest.queue().write(sector, &data).expect("written");
    }
    guest.queue().flush().expect("flushed");
    let blocks = || std::fs::metadata(&path).expect("the file").blocks();
    let before = blocks();
    assert!(before >= 3 * 2048, "{before} blocks");
    let range = |sector| Range {
        sector,
        num_sectors: 2048,
        flags: 0,
    };
    let max = guest
        .driver
        .config()
        .expect("a configuration")
        .max_discard_seg;
    let ranges = [range(0), range(4096)];
    if max >= 2 {
        guest.queue().discard(&ranges).expect("discarded");
    } else {
        for range in ranges {
            guest.queue().discard(&[range]).expect("discarded");
        }
    }
    guest.queue().flush().expect("flushed");
    let after = blocks();
    assert!(after + 4096 <= before, "{before} blocks, then {after}");
    assert!(guest.queue().read(2048, MIB).expect("read") == data);
    drop(guest);
    rig.daemon.stop();
}

/// A disk that grows, while it is in use.
pub(crate) fn resize<W: Way>(packed: bool) {
    let mut rig = Rig::start(&[]);
    let disk = json!({"name": "disk", "num_blocks": 16384, "block_size": 512});
    rig.daemon.ok("bdev_null_create", disk);
    let socket = rig.endpoint::<W>("ep", "disk");
    let mut guest = Guest::<W>::linux(&socket, packed);
    guest.queue().read(0, 4096).expect("read");
    for mib in [16, 24] {
        let size = json!({"name": "disk", "new_size": mib});
        rig.daemon.ok("bdev_null_resize", size);
        let config = guest.driver.wait_config_change().expect("a change");
        assert_eq!(config.capacity, mib * 2048);
        let last = mib * 2048 - 8;
        guest.queue().read(last, 4096).expect("read at the end");
        assert!(guest.queue().read(last + 1, 4096).is_err(), "read beyond");
    }
    drop(guest);
    rig.daemon.stop();
}

/// Another disk under a guest that is at work, and none.
pub(crate) fn swap<W: Way>(packed: bool) {
    let mut rig = Rig::start(&["-m", "0x3"]);
    rig.malloc("one");
    rig.malloc("two");
    let socket = rig.endpoint::<W>("ep", "one");
    let setup = Setup::linux(packed).queues(2);
    let mut guest = Guest::<W>::start(&socket, &setup);
    let mut models = [vec![0; 8 * MIB], vec![0; 8 * MIB]];
    let mut mix = Mix::new(&guest.queues, 8 * MIB, 8, 11).plain();
    for (round, name) in ["two", "one", "two", "one"].into_iter().enumerate() {
        let (old, new) = (round % 2, (round + 1) % 2);
        mix.run(&mut guest.queues, 200);
        models[old].copy_from_slice(&mix.model);
        // Reads on their way while the disk changes end well, with the data of one or the other.
        let room = guest.queue().ram().alloc(64 << 10, 4096);
        let addr = room.expect("guest memory");
        for n in 0..16 {
            let buffer = Buffer {
                addr: addr + n * 4096,
                len: 4096,
            };
            let queue = &mut guest.queues[n as usize % 2];
            queue.submit(T_IN, n * 64, &[buffer]).expect("room");
            queue.kick().expect("kicked");
        }
        W::set_bdev(&mut rig.daemon, "ep", json!(name));
        for queue in &mut guest.queues {
            for done in queue.drain().expect("ended") {
                assert_eq!(done.status, S_OK);
            }
        }
        for n in 0..16usize {
            let read = guest.queue().ram().read(addr + n as u64 * 4096, 4096);
            let at = n * 64 * 512..n * 64 * 512 + 4096;
            let (a, b) = (&models[0][at.clone()], &models[1][at]);
            assert!(read == a || read == b, "data of neither disk");
        }
        mix.model.copy_from_slice(&models[new]);
        holds(guest.queue(), &mix.model);
    }
    W::set_bdev(&mut rig.daemon, "ep", Value::Null);
    assert!(guest.queue().read(0, 512).is_err(), "there is no disk");
    W::set_bdev(&mut rig.daemon, "ep", json!("one"));
    guest.works();
    drop(guest);
    rig.daemon.stop();
}

/// The endpoint goes while its guest is at work: the guest is disconnected, the disk is whole and free.
pub(crate) fn delete<W: Way>(packed: bool) {
    let mut rig = Rig::start(&["-m", "0x3"]);
    rig.malloc("disk");
    let socket = rig.endpoint::<W>("ep", "disk");
    let setup = Setup::linux(packed).queues(2);
    for round in 0..3 {
        let mut guest = Guest::<W>::start(&socket, &setup);
        let mut mix = Mix::new(&guest.queues, 8 * MIB, 8, round).plain();
        // The disk holds what the round before has left: only writes are of interest here.
        mix.model = vec![0; 8 * MIB];
        let zero = Range {
            sector: 0,
            num_sectors: 16384,
            flags: 0,
        };
        guest.queue().write_zeroes(&[zero]).expect("zeroed");
        mix.start_and_finish(&mut guest.queues, 200);
        W::delete(&mut rig.daemon, "ep");
        assert!(!socket.exists(), "the socket is left");
        assert!(guest.driver.config().is_err(), "the guest is connected");
        drop(guest);
        rig.endpoint::<W>("ep", "disk");
    }
    Guest::<W>::linux(&socket, packed).works();
    W::delete(&mut rig.daemon, "ep");
    rig.daemon.ok("bdev_malloc_delete", json!({"name": "disk"}));
    rig.daemon.stop();
}

/// Interrupts come when they are asked for.
pub(crate) fn interrupts<W: Way>(packed: bool) {
    let mut rig = Rig::start(&[]);
    rig.malloc("disk");
    let socket = rig.endpoint::<W>("ep", "disk");
    let mut guest = Guest::<W>::linux(&socket, packed);
    let wait = Duration::from_secs(20);
    let room = guest.queue().bounce(4096).expect("guest memory");
    let queue = guest.queue();
    queue.interrupt(When::Always);
    for _ in 0..100 {
        queue.submit(T_IN, 0, &[room]).expect("room");
        queue.kick().expect("kicked");
        assert!(queue.wait_interrupt(wait).expect("an eventfd") > 0);
        let done = queue.poll().expect("a good ring").expect("used");
        assert_eq!(done.status, S_OK);
        queue.interrupt(When::Always);
    }
    // With an event index, only after the last of eight.
    for _ in 0..20 {
        queue.interrupt(When::After(7));
        for _ in 0..8 {
            queue.submit(T_IN, 0, &[room]).expect("room");
        }
        queue.kick().expect("kicked");
        assert!(queue.wait_interrupt(wait).expect("an eventfd") > 0);
        for _ in 0..8 {
            assert!(queue.poll().expect("a good ring").is_some(), "too early");
        }
    }
    queue.interrupt(When::Never);
    for _ in 0..50 {
        assert_eq!(queue.run(T_IN, 0, &[room]).expect("ended").status, S_OK);
    }
    let count = queue.wait_interrupt(Duration::ZERO).expect("an eventfd");
    assert_eq!(count, 0, "interrupts that nobody wanted");
    drop(guest);
    rig.daemon.stop();
}

/// Many guests that do nothing, and one that works.
pub(crate) fn idle<W: Way>() {
    let mut rig = Rig::start(&["-m", "0x1"]);
    rig.malloc("busy");
    let null = json!({"name": "null", "num_blocks": 16384, "block_size": 512});
    rig.daemon.ok("bdev_null_create", null);
    let mut idle = Vec::new();
    for n in 0..65 {
        let name = format!("idle{n}");
        let socket = rig.endpoint::<W>(&name, "null");
        let setup = Setup {
            size: 16,
            ..Setup::linux(n % 2 == 0)
        };
        let transport = W::connect(&socket, 2 * MIB).expect("a device");
        idle.push(Guest::<W>::over(transport, &setup));
    }
    let socket = rig.endpoint::<W>("busy", "busy");
    let mut guest = Guest::<W>::linux(&socket, false);
    let mut mix = Mix::new(&guest.queues, 8 * MIB, 8, 3);
    mix.run(&mut guest.queues, 500);
    for guest in &mut idle {
        guest.queue().read(0, 512).expect("woken");
    }
    drop((guest, idle));
    rig.daemon.stop();
}

/// Four queues of two guests on one reactor, all kept full: nobody starves.
pub(crate) fn fair<W: Way>(packed: bool) {
    let mut rig = Rig::start(&["-m", "0x1"]);
    rig.malloc("one");
    rig.malloc("two");
    let mut guests: Vec<Guest<W>> = ["one", "two"]
        .into_iter()
        .map(|name| {
            let socket = rig.endpoint::<W>(name, name);
            Guest::start(&socket, &Setup::linux(packed).queues(2))
        })
        .collect();
    let mut done = [0u32; 4];
    let rooms: Vec<Buffer> = guests
        .iter_mut()
        .map(|guest| guest.queue().bounce(16 << 10).expect("guest memory"))
        .collect();
    while done.iter().sum::<u32>() < 8000 {
        for (g, guest) in guests.iter_mut().enumerate() {
            for (q, queue) in guest.queues.iter_mut().enumerate() {
                while queue.poll().expect("a good ring").is_some() {
                    done[2 * g + q] += 1;
                }
                while queue.in_flight() < 32 {
                    queue.submit(T_IN, 0, &[rooms[g]]).expect("room");
                }
                queue.kick().expect("kicked");
            }
        }
    }
    let (least, most) = (done.iter().min(), done.iter().max());
    let ratio = f64::from(*most.expect("some")) / f64::from(*least.expect("some")).max(1.0);
    assert!(ratio < 3.0, "unequal shares: {done:?}");
    drop(guests);
    rig.daemon.stop();
}
