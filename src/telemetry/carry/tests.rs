use super::Carry;
use crate::telemetry::QueueCounters;

fn counted(commands: u64, read_bytes: u64) -> QueueCounters {
    QueueCounters {
        commands,
        read_bytes,
        ..QueueCounters::default()
    }
}

/// A session, what its queues say, and the sum.
type Step<'a> = (u64, &'a [(u32, u64)], u64);

#[test]
fn sums_never_go_back() {
    let mut carry = Carry::default();
    // A guest with two queues; one goes on, one is deleted, one is made again; then another guest.
    let steps: [Step<'_>; 7] = [
        (1, &[(0, 5), (1, 10)], 15),
        (1, &[(0, 6), (1, 10)], 16),
        (1, &[(0, 6)], 16),
        (1, &[(0, 6), (1, 3)], 19),
        (1, &[(0, 2), (1, 4)], 22),
        // As many as the one before it, and yet others.
        (2, &[(0, 2), (1, 4)], 28),
        (2, &[], 28),
    ];
    for (session, queues, expected) in steps {
        let present: Vec<_> = queues
            .iter()
            .map(|(number, commands)| (*number, counted(*commands, *commands)))
            .collect();
        carry.update(session, &present);
        assert_eq!(carry.total(), counted(expected, expected), "{queues:?}");
    }
    assert_eq!(carry.of(1), counted(18, 18));
    assert_eq!(carry.of(7), QueueCounters::default());
}

#[test]
fn a_namespace_that_is_gone_is_forgotten() {
    let mut carry = Carry::default();
    carry.update(1, &[(1, counted(5, 5)), (2, counted(7, 7))]);
    carry.retain(|nsid| nsid == 2);
    assert_eq!(carry.of(1), QueueCounters::default());
    assert_eq!(carry.total(), counted(7, 7));
}
