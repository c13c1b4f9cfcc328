use bdev::{Count, Features};
use nvme_spec::{AdminOpcode, Sqe, Status};
use pci::Function;
use std::sync::atomic::Ordering;

use crate::messages::{CommandError, FromShard, ShardCounters};
use crate::testing::{
    BUFFER, Guest, RAM, RAM_SIZE, create_cq, create_sq, delete_queue, event_request, get_feature,
    get_log, identify, namespace, set_feature,
};
use crate::{ControllerConfig, testing};

fn enabled() -> Guest {
    let mut guest = Guest::simple();
    guest.enable();
    guest
}

#[test]
fn unsupported_opcodes_are_invalid() {
    let mut guest = enabled();
    for opcode in 0..=255u8 {
        if !super::SUPPORTED
            .iter()
            .any(|supported| supported.0 == opcode)
            || opcode == 0x7c
        {
            assert_eq!(
                guest.refused(Sqe::new(opcode, 0)),
                Status::INVALID_OPCODE,
                "{opcode:#x}"
            );
        }
    }
}

#[test]
fn fused_and_sgl_commands_are_refused() {
    let mut guest = enabled();
    for bits in [1u32 << 8, 2 << 8, 1 << 14, 2 << 14, 3 << 14] {
        let mut sqe = identify(1, 0);
        sqe.cdw0 = nvme_spec::Cdw0::from_bits(sqe.cdw0.into_bits() | bits);
        assert_eq!(guest.refused(sqe), Status::INVALID_FIELD, "{bits:#x}");
    }
}

#[test]
fn data_goes_through_prps_of_any_shape() {
    let mut guest = enabled();
    let whole = guest.fetch(identify(1, 0), 4096);
    // An offset in the first page: the rest lies in the second.
    guest.ok(identify(1, 0).with_prps(BUFFER + 0xe00, BUFFER + 0x5000));
    assert_eq!(guest.get(BUFFER + 0xe00, 0x200), whole[..0x200]);
    assert_eq!(guest.get(BUFFER + 0x5000, 0xe00), whole[0x200..]);
    // A list, for three pages.
    let pages = [BUFFER + 0x2_0000, BUFFER + 0x1_0000];
    guest.put(BUFFER + 0x8000, &pages.map(u64::to_le_bytes).concat());
    guest.ok(get_log(5, 12288).with_prps(BUFFER, BUFFER + 0x8000));
    assert_eq!(guest.get(BUFFER, 4)[0] & 1, 1);
    assert_eq!(guest.get(pages[1], 4096), vec![0; 4096]);
    let status = guest.refused(identify(1, 0).with_prps(BUFFER + 0xe00, BUFFER + 8));
    assert_eq!(status, Status::PRP_OFFSET_INVALID);
    let status = guest.refused(identify(1, 0).with_prps(RAM + RAM_SIZE, 0));
    assert_eq!(status, Status::DATA_TRANSFER_ERROR);
}

#[test]
fn queues_are_checked_as_the_text_asks() {
    let mut guest = enabled();
    let config = ControllerConfig::default();
    let last = config.max_io_queues;
    for qid in [0, last + 1, 0xffff] {
        assert_eq!(
            guest.refused(create_cq(qid, 64, 0)),
            Status::INVALID_QUEUE_IDENTIFIER
        );
        assert_eq!(
            guest.refused(create_sq(qid, 1, 64)),
            Status::INVALID_QUEUE_IDENTIFIER
        );
    }
    for entries in [1, 1025, 65536] {
        assert_eq!(
            guest.refused(create_cq(1, entries, 0)),
            Status::INVALID_QUEUE_SIZE
        );
        assert_eq!(
            guest.refused(create_sq(1, 1, entries)),
            Status::INVALID_QUEUE_SIZE
        );
    }
    let mut scattered = create_cq(1, 64, 0);
    scattered.cdw11 &= !1;
    assert_eq!(guest.refused(scattered), Status::INVALID_FIELD);
    let crooked = create_cq(1, 64, 0).with_prps(testing::RINGS + 0x800, 0);
    assert_eq!(guest.refused(crooked), Status::PRP_OFFSET_INVALID);
    // Naming a vector while the pin is in use is what a polling driver does.
    guest.ok(create_cq(last, 64, 1));
    assert_eq!(
        guest.refused(create_cq(1, 64, 0xffff)),
        Status::INVALID_INTERRUPT_VECTOR
    );
    let mut silent = create_cq(2, 64, 0xffff);
    silent.cdw11 &= !0b10;
    guest.ok(silent);
    guest.ok(create_cq(1, 1024, 0));
    assert_eq!(
        guest.refused(create_cq(1, 64, 0)),
        Status::INVALID_QUEUE_IDENTIFIER
    );
    for cqid in [0, last + 1] {
        assert_eq!(
            guest.refused(create_sq(1, cqid, 64)),
            Status::INVALID_QUEUE_IDENTIFIER
        );
    }
    assert_eq!(
        guest.refused(create_sq(1, 3, 64)),
        Status::COMPLETION_QUEUE_INVALID
    );
    guest.ok(create_sq(last, 1, 2));
    guest.ok(create_sq(1, 1, 64));
    let delete_cq = |qid| delete_queue(AdminOpcode::DELETE_IO_CQ, qid);
    let delete_sq = |qid| delete_queue(AdminOpcode::DELETE_IO_SQ, qid);
    assert_eq!(guest.refused(delete_cq(1)), Status::INVALID_QUEUE_DELETION);
    assert_eq!(
        guest.refused(delete_cq(9)),
        Status::INVALID_QUEUE_IDENTIFIER
    );
    assert_eq!(
        guest.refused(delete_cq(0)),
        Status::INVALID_QUEUE_IDENTIFIER
    );
    assert_eq!(
        guest.refused(delete_sq(0)),
        Status::INVALID_QUEUE_IDENTIFIER
    );
    guest.ok(delete_sq(1));
    assert_eq!(
        guest.refused(delete_sq(1)),
        Status::INVALID_QUEUE_IDENTIFIER
    );
    guest.ok(delete_sq(last));
    guest.ok(delete_cq(1));
    assert_eq!(
        guest.refused(delete_cq(1)),
        Status::INVALID_QUEUE_IDENTIFIER
    );
}

#[test]
fn entry_sizes_are_checked_when_queues_are_made() {
    let mut guest = Guest::simple();
    guest.set_admin_queue(16);
    guest.write32(0x14, 1);
    assert!(guest.csts().rdy());
    assert_eq!(
        guest.refused(create_cq(1, 64, 0)),
        Status::INVALID_QUEUE_SIZE
    );
    guest.write32(0x14, Guest::cc().with_iosqes(7).into_bits());
    guest.ok(create_cq(1, 64, 0));
    assert_eq!(
        guest.refused(create_sq(1, 1, 64)),
        Status::INVALID_QUEUE_SIZE
    );
}

#[test]
fn a_shard_that_refuses_leaves_no_queue() {
    let mut guest = enabled();
    guest.script.refuse.store(true, Ordering::SeqCst);
    assert_eq!(guest.refused(create_cq(1, 64, 0)), Status::INVALID_FIELD);
    guest.script.refuse.store(false, Ordering::SeqCst);
    guest.ok(create_cq(1, 64, 0));
    guest.script.refuse.store(true, Ordering::SeqCst);
    assert_eq!(guest.refused(create_sq(1, 1, 64)), Status::INVALID_FIELD);
    guest.script.refuse.store(false, Ordering::SeqCst);
    guest.ok(create_sq(1, 1, 64));
}

#[test]
fn other_commands_pass_one_that_waits_for_its_shard() {
    let mut guest = enabled();
    guest.ok(create_cq(1, 64, 0));
    guest.ok(create_sq(1, 1, 64));
    guest.script.hold.store(true, Ordering::SeqCst);
    let deleted = guest.submit(delete_queue(AdminOpcode::DELETE_IO_SQ, 1));
    guest.ok(identify(1, 0));
    assert_eq!(
        guest.refused(delete_queue(AdminOpcode::DELETE_IO_SQ, 1)),
        Status::INVALID_QUEUE_IDENTIFIER
    );
    guest.submit_as(identify(1, 0).with_cid(deleted));
    assert_eq!(guest.wait().status().code(), Status::COMMAND_ID_CONFLICT);
    guest.script.hold.store(false, Ordering::SeqCst);
    assert_eq!(guest.wait().cid, deleted);
}

#[test]
fn a_full_completion_queue_holds_commands_back() {
    let mut guest = Guest::simple();
    guest.set_admin_queue(4);
    guest.write32(0x14, Guest::cc().into_bits());
    // The submission queue takes three at once, and so does the completion queue.
    let first: Vec<u16> = (0..3).map(|_| guest.submit(identify(1, 0))).collect();
    guest.poll();
    let more: Vec<u16> = (0..3).map(|_| guest.submit(identify(2, 0))).collect();
    (0..4).for_each(|_| guest.poll());
    let got: Vec<u16> = std::iter::from_fn(|| guest.reap())
        .map(|cqe| cqe.cid)
        .collect();
    assert_eq!(got, first);
    let got: Vec<u16> = more.iter().map(|_| guest.wait().cid).collect();
    assert_eq!(got, more);
}

#[test]
fn event_requests_do_not_fill_the_completion_queue() {
    let mut guest = Guest::simple();
    guest.set_admin_queue(2);
    guest.write32(0x14, Guest::cc().into_bits());
    for _ in 0..8 {
        guest.submit(event_request());
        guest.poll();
    }
    assert_eq!(guest.refused(event_request()), Status::AER_LIMIT_EXCEEDED);
    guest.ok(identify(1, 0));
}

#[test]
fn abort_reaches_requests_and_shards() {
    let mut guest = enabled();
    guest.ok(create_cq(1, 64, 0));
    guest.ok(create_sq(1, 1, 64));
    let abort = |sqid: u16, cid: u16| {
        let mut sqe = Sqe::admin(AdminOpcode::ABORT, 0);
        sqe.cdw10 = u32::from(sqid) | u32::from(cid) << 16;
        sqe
    };
    let request = guest.submit(event_request());
    guest.poll();
    let cid = guest.submit(abort(0, request));
    let cqe = guest.wait();
    assert_eq!(
        (cqe.cid, cqe.status().code()),
        (request, Status::ABORT_REQUESTED)
    );
    let cqe = guest.wait();
    assert_eq!((cqe.cid, cqe.dw0), (cid, 0));
    assert_eq!(guest.ok(abort(0, request)), 1, "not there any more");
    assert_eq!(guest.ok(abort(7, 1)), 1, "no such queue");
    assert_eq!(guest.ok(abort(1, 5)), 0);
    assert!(guest.script.has_heard("Abort { sqid: 1, cid: 5"));
    guest.script.hold.store(true, Ordering::SeqCst);
    (0..4).for_each(|cid| {
        guest.submit(abort(1, cid));
    });
    assert_eq!(
        guest.refused(abort(1, 9)),
        Status::ABORT_COMMAND_LIMIT_EXCEEDED
    );
    guest.script.hold.store(false, Ordering::SeqCst);
    (0..4).for_each(|_| assert_eq!(guest.wait().dw0, 0));
}

#[test]
fn features_reach_the_shards() {
    let mut guest = Guest::new(
        ControllerConfig::default(),
        vec![namespace(1, 100, Features::WRITE | Features::WRITE_CACHE)],
    );
    guest.enable();
    guest.ok(create_cq(1, 64, 0));
    guest.ok(set_feature(8, 0x0203));
    guest.ok(set_feature(9, 0x1_0005));
    guest.ok(set_feature(6, 0));
    assert_eq!(guest.ok(get_feature(6, 0)), 0);
    for order in [
        "PageSize { mps: 0 }",
        "Coalescing { threshold: 0, time_100us: 0 }",
        "Coalescing { threshold: 4, time_100us: 2 }",
        "CoalescingDisable { vector: 5, disabled: true }",
        "WriteCache { enabled: false }",
    ] {
        guest.poll_until(order, |guest| guest.script.has_heard(order));
    }
    assert_eq!(
        guest.refused(set_feature(7, 0)),
        Status::COMMAND_SEQUENCE_ERROR
    );
    guest.write32(0x14, 0);
    guest.poll_until("RDY clear", |guest| !guest.csts().rdy());
    assert!(
        guest
            .script
            .has_heard("CoalescingDisable { vector: 5, disabled: false }")
    );
    guest.enable();
    assert_eq!(
        guest.ok(get_feature(8, 0)),
        0,
        "a reset brings the defaults back"
    );
}

#[test]
fn features_with_data_move_it() {
    let mut guest = enabled();
    guest.put(BUFFER, &[7; 16]);
    guest.ok(set_feature(0x81, 1));
    assert_eq!(guest.fetch(get_feature(0x81, 1), 16), [7; 16]);
    assert_eq!(
        guest.fetch(get_feature(0x81, 0), 16)[..9],
        [7, 7, 7, 7, 7, 7, 7, 7, 0xee]
    );
    let outside = set_feature(0x0e, 0).with_prps(RAM + RAM_SIZE, 0);
    assert_eq!(guest.refused(outside), Status::DATA_TRANSFER_ERROR);
}

#[test]
fn a_temperature_threshold_below_the_temperature_is_an_event() {
    let mut guest = enabled();
    guest.submit(event_request());
    guest.ok(set_feature(0x0b, 0x02));
    guest.poll();
    assert_eq!(guest.reap(), None);
    guest.ok(set_feature(4, 200));
    let cqe = guest.wait();
    assert_eq!(cqe.dw0, 0x0002_0101);
    let page = guest.fetch(get_log(2, 512), 512);
    assert_eq!(page[0], 0b10, "critical warning");
}

#[test]
fn shards_errors_and_counters_reach_the_logs() {
    let mut guest = enabled();
    guest.ok(create_cq(1, 64, 0));
    let error = CommandError {
        sqid: 1,
        cid: 77,
        status: Status::UNRECOVERED_READ_ERROR,
        nsid: 1,
        lba: 99,
        parameter_location: 0xffff,
    };
    let mut counters = ShardCounters::default();
    for (count, commands, bytes) in [(Count::Read, 5, 512_001), (Count::Write, 6, 512_000)] {
        counters.traffic.succeeded(count, bytes);
        (1..commands).for_each(|_| counters.traffic.succeeded(count, 0));
    }
    let say = vec![
        FromShard::Error(error),
        FromShard::Counters { shard: 0, counters },
    ];
    *guest.script.say.lock().unwrap() = say;
    guest.poll_until("the log entry", |guest| {
        guest.on_home(|c, _| {
            c.model.errors.count() > 0 && c.shards.counters().traffic.read().commands > 0
        })
    });
    let page = guest.fetch(get_log(1, 128), 128);
    assert_eq!(
        (page[0], page[8], page[10], page[16], page[24]),
        (1, 1, 77, 99, 1)
    );
    assert_eq!(page[64..], [0; 64]);
    let page = guest.fetch(get_log(2, 512), 512);
    assert_eq!((page[32], page[48], page[64], page[80]), (2, 1, 5, 6));
    assert_eq!(
        (page[160], page[176]),
        (1, 1),
        "a media error, one log entry"
    );
    assert_eq!(
        (page[3], u16::from_le_bytes([page[1], page[2]])),
        (100, 313)
    );
}

#[test]
fn doorbell_buffers_are_offered_where_doorbells_trap() {
    let mut guest = Guest::new(
        ControllerConfig {
            mappable_bar0: false,
            ..ControllerConfig::default()
        },
        vec![],
    );
    guest.enable();
    let id = guest.fetch(identify(1, 0), 4096);
    assert_eq!(id[257] & 1, 0, "not with the pin");
    guest.on_home(|controller, _| {
        let fd = nix::sys::eventfd::EventFd::new().unwrap();
        let event = Some(std::sync::Arc::new(fd.into()));
        let interrupts = controller.interrupts();
        interrupts
            .install(pci::InterruptKind::Msix, 0, vec![event])
            .unwrap();
    });
    let id = guest.fetch(identify(1, 0), 4096);
    assert_eq!(id[257] & 1, 1, "OACS bit 8");
    let config =
        |prp1, prp2| Sqe::admin(AdminOpcode::DOORBELL_BUFFER_CONFIG, 0).with_prps(prp1, prp2);
    guest.ok(create_cq(1, 64, 0));
    for (prp1, prp2) in [
        (BUFFER + 8, BUFFER),
        (BUFFER, BUFFER + 0x800),
        (RAM + RAM_SIZE, BUFFER),
    ] {
        assert_eq!(guest.refused(config(prp1, prp2)), Status::INVALID_FIELD);
    }
    guest.ok(config(BUFFER, BUFFER + 0x1000));
    guest.poll_until("the order", |guest| {
        guest.script.has_heard("ShadowDoorbells(Some")
    });
    let effects = guest.fetch(get_log(5, 4096), 4096);
    assert_eq!(effects[0x7c * 4], 1);
}

#[test]
fn a_large_page_size_is_used_for_data() {
    let mut guest = Guest::simple();
    guest.set_admin_queue(16);
    guest.write32(0x14, Guest::cc().with_mps(4).into_bits());
    assert!(guest.csts().rdy());
    // All 4096 bytes lie in the first 64 KiB page although they cross a 4 KiB border.
    let whole = guest.fetch(identify(1, 0), 4096);
    guest.ok(identify(1, 0).with_prps(BUFFER + 0x800, 0xdead_0000));
    assert_eq!(guest.get(BUFFER + 0x800, 4096), whole);
}
