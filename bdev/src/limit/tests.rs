//! Limits by a clock of our own: the arithmetic and the turns, without a machine's moods.

use std::collections::BTreeMap;

use guest_memory::{HostBuffer, Segments};
use proptest::prelude::*;
use reactor::PollerKey;

use super::*;
use crate::io::{Io, IoKind};
use crate::test_reactor::on_reactor;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

fn micros(micros: u64) -> u64 {
    ticks_of(Duration::from_micros(micros))
}

fn seconds(seconds: f64) -> u64 {
    ticks_of(Duration::from_secs_f64(seconds))
}

fn poller() -> PollerKey {
    on_reactor(|reactor| reactor.cx().poller())
}

/// A guest that keeps so many requests of one size going.
#[derive(Clone, Copy, Debug)]
struct Load {
    kind: IoKind,
    depth: u64,
    bytes: u64,
    /// How long the disk takes, in ticks.
    takes: u64,
    /// How late its reactor looks at the clock, in ticks, at worst.
    late: u64,
}

impl Load {
    fn new(kind: IoKind, depth: u64, bytes: u64) -> Self {
        Self {
            kind,
            depth,
            bytes,
            takes: micros(10),
            late: 0,
        }
    }

    fn late(self, late: u64) -> Self {
        Self { late, ..self }
    }
}

#[derive(Clone, Copy, Debug)]
enum Event {
    /// The guest submits.
    Submit,
    /// A wait has ended.
    Due,
}

struct Channel {
    load: Load,
    gate: Gate,
    /// Requests that went to the disk, in order.
    gone: Vec<u64>,
    /// When each arrived first, in order of arrival.
    arrived: Vec<u64>,
}

/// Channels on reactors of their own, by a simulated clock.
struct World {
    limiter: Option<Limiter>,
    version: u64,
    now: u64,
    events: BTreeMap<(u64, u64), (usize, u64, Event)>,
    sequence: u64,
    channels: Vec<Channel>,
    poller: PollerKey,
    dice: u64,
}

const START: u64 = 1 << 40;

impl World {
    fn new(limits: RateLimits, loads: &[Load]) -> Self {
        let channels = loads.iter().map(|load| Channel {
            load: *load,
            gate: Gate::default(),
            gone: Vec::new(),
            arrived: Vec::new(),
        });
        let mut world = Self {
            limiter: Limiter::starting(&limits, START),
            version: 1,
            now: START,
            events: BTreeMap::new(),
            sequence: 0,
            channels: channels.collect(),
            poller: poller(),
            dice: 1,
        };
        for (at, load) in loads.iter().enumerate() {
            for tag in 0..load.depth {
                world.event(START, at, tag, Event::Submit);
            }
        }
        world
    }

    fn event(&mut self, when: u64, channel: usize, tag: u64, event: Event) {
        self.sequence += 1;
        self.events
            .insert((when, self.sequence), (channel, tag, event));
    }

    /// A wait, whose end the reactor sees somewhat later, or in the same pass if it has come already.
    fn wait(&mut self, at: usize, next: Next) {
        self.dice = self
            .dice
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        let late = (self.dice >> 33) % (self.channels[at].load.late + 1);
        let seen = if next.due > self.now {
            next.due + late
        } else {
            self.now
        };
        self.event(seen, at, next.tag, Event::Due);
    }

    fn goes(&mut self, at: usize, tag: u64) {
        let channel = &mut self.channels[at];
        channel.gone.push(tag);
        let again = self.now + channel.load.takes;
        self.event(again, at, tag, Event::Submit);
    }

    fn step(&mut self) {
        let ((when, _), (at, tag, event)) = self.events.pop_first().unwrap();
        self.now = when;
        let version = self.version;
        let channel = &mut self.channels[at];
        match event {
            Event::Submit => {
                let load = channel.load;
                let io = Io {
                    kind: load.kind,
                    lba: 0,
                    blocks: load.bytes / 512,
                    segments: Segments::from_host(HostBuffer::new(load.bytes as usize)),
                    fua: false,
                };
                channel.arrived.push(tag);
                let Some(limiter) = &self.limiter else {
                    return self.goes(at, tag);
                };
                let way = Way::of(load.kind).unwrap();
                let entry =
                    channel
                        .gate
                        .enter((limiter, version), when, way, (tag, io), self.poller);
                match entry {
                    Entry::Go(..) => self.goes(at, tag),
                    Entry::Held(None) => {}
                    Entry::Held(Some(next)) => self.wait(at, next),
                }
            }
            Event::Due => match channel
                .gate
                .leave((self.limiter.as_ref(), version), when, tag)
            {
                Turn::Unknown => panic!("a wait of nobody"),
                Turn::Wait(due) => self.wait(at, Next { tag, due }),
                Turn::Go(_, next) => {
                    if let Some(next) = next {
                        self.wait(at, next);
                    }
                    self.goes(at, tag);
                }
            },
        }
    }

    fn run(&mut self, until: u64) {
        while self.events.first_key_value().unwrap().0.0 <= until {
            self.step();
        }
        self.now = until;
    }

    fn ops(&self, at: usize) -> u64 {
        self.channels[at].gone.len() as u64
    }

    fn bytes(&self, at: usize) -> u64 {
        self.ops(at) * self.channels[at].load.bytes
    }

    fn total_ops(&self) -> u64 {
        (0..self.channels.len()).map(|at| self.ops(at)).sum()
    }

    fn total_bytes(&self) -> u64 {
        (0..self.channels.len()).map(|at| self.bytes(at)).sum()
    }

    /// Other limits, as the message to a reactor sets them.
    fn change(&mut self, limits: RateLimits) {
        self.limiter = Limiter::starting(&limits, self.now);
        self.version += 1;
        let waiting = self
            .events
            .extract_if(.., |_, (_, _, it)| matches!(it, Event::Due));
        let waiting: Vec<_> = waiting.map(|(_, it)| it).collect();
        for (at, tag, event) in waiting {
            self.event(self.now, at, tag, event);
        }
    }
}

fn ios(rw_ios_per_sec: u64) -> RateLimits {
    RateLimits {
        rw_ios_per_sec,
        ..RateLimits::default()
    }
}

fn mbytes(rw_mbytes_per_sec: u64) -> RateLimits {
    RateLimits {
        rw_mbytes_per_sec,
        ..RateLimits::default()
    }
}

#[track_caller]
fn close(found: u64, expected: u64, part: f64) {
    let off = found as f64 / expected as f64 - 1.0;
    assert!(
        off.abs() <= part,
        "{found} instead of {expected}: off by {off:.4}"
    );
}

#[test]
fn one_second_is_exact_to_three_per_cent() {
    use IoKind::{Read, Write};
    for late in [0, micros(100), micros(3000)] {
        for depth in [1, 4, 128] {
            for limit in [1000, 20_000, 90_000] {
                let mut world = World::new(ios(limit), &[Load::new(Read, depth, 512).late(late)]);
                world.run(START + seconds(1.0));
                // A guest of one request and a late reactor: what it does not ask for in time is not kept for ever.
                if depth == 1 && late > 0 && limit > 1000 {
                    assert!(world.total_ops() <= limit * 103 / 100);
                } else {
                    close(world.total_ops(), limit, 0.03);
                }
            }
            for (limit, bytes) in [(100, MIB), (1000, MIB), (10, 4 * KIB), (200, 4 * KIB)] {
                let load = Load::new(Write, depth, bytes).late(late);
                let mut world = World::new(mbytes(limit), &[load]);
                world.run(START + seconds(1.0));
                if depth == 1 && late > 0 {
                    assert!(world.total_bytes() <= limit * MIB * 103 / 100);
                } else {
                    close(world.total_bytes(), limit * MIB, 0.03);
                }
            }
        }
    }
}

#[test]
fn reads_and_writes_have_limits_of_their_own() {
    let limits = RateLimits {
        r_mbytes_per_sec: 20,
        w_mbytes_per_sec: 50,
        ..RateLimits::default()
    };
    let loads = [
        Load::new(IoKind::Read, 32, 4 * KIB),
        Load::new(IoKind::Write, 32, 64 * KIB),
        Load::new(IoKind::Compare, 8, 4 * KIB),
    ];
    let mut world = World::new(limits, &loads);
    world.run(START + seconds(1.0));
    close(world.bytes(0) + world.bytes(2), 20 * MIB, 0.02);
    close(world.bytes(1), 50 * MIB, 0.02);

    // What has no limit of its own is not kept waiting by what has one, not even in the same channel.
    let reads = RateLimits {
        r_mbytes_per_sec: 1,
        ..RateLimits::default()
    };
    let limiter = Limiter::starting(&reads, START).unwrap();
    let (mut gate, poller) = (Gate::default(), poller());
    let io = |kind| Io {
        kind,
        lba: 0,
        blocks: 8,
        segments: Segments::from_host(HostBuffer::new(4096)),
        fua: false,
    };
    let mut enter = |tag, kind| {
        let way = Way::of(kind).unwrap();
        let entry = gate.enter((&limiter, 1), START, way, (tag, io(kind)), poller);
        matches!(entry, Entry::Go(..))
    };
    assert!(enter(0, IoKind::Read));
    assert!(!enter(1, IoKind::Read) && !enter(2, IoKind::Read));
    assert!((3..50).all(|tag| enter(tag, IoKind::Write)));
    assert_eq!(gate.len(), 2);
}

#[test]
fn every_limit_holds_when_there_are_several() {
    let limits = RateLimits {
        rw_ios_per_sec: 10_000,
        rw_mbytes_per_sec: 100,
        w_mbytes_per_sec: 30,
        ..RateLimits::default()
    };
    let loads = [
        Load::new(IoKind::Write, 16, 64 * KIB),
        Load::new(IoKind::Read, 16, 4 * KIB),
    ];
    let mut world = World::new(limits, &loads);
    world.run(START + seconds(1.0));
    assert!(world.total_ops() <= 10_000 * 103 / 100);
    assert!(world.total_bytes() <= 100 * MIB * 103 / 100);
    assert!(world.bytes(0) <= 30 * MIB * 103 / 100);
    // One of them is what stops it.
    close(world.bytes(0), 30 * MIB, 0.03);
    close(world.total_ops(), 10_000, 0.03);
}

#[test]
fn a_deep_queue_gets_no_more_than_a_shallow_one() {
    let loads = [
        Load::new(IoKind::Read, 1, 4 * KIB),
        Load::new(IoKind::Read, 128, 4 * KIB),
        Load::new(IoKind::Write, 32, 4 * KIB).late(micros(50)),
    ];
    for limits in [ios(3000), mbytes(12)] {
        let mut world = World::new(limits, &loads);
        world.run(START + seconds(2.0));
        let all = world.total_ops();
        for at in 0..loads.len() {
            close(world.ops(at), all / 3, 0.1);
        }
    }
}

#[test]
fn long_and_short_requests_share_bytes() {
    let loads = [
        Load::new(IoKind::Write, 8, MIB),
        Load::new(IoKind::Read, 256, 4 * KIB),
    ];
    let mut world = World::new(mbytes(100), &loads);
    world.run(START + seconds(4.0));
    close(world.bytes(1), world.bytes(0), 0.15);
    close(world.total_bytes(), 400 * MIB, 0.02);
}

#[test]
fn the_first_that_came_is_the_first_to_go() {
    let mut world = World::new(ios(5000), &[Load::new(IoKind::Read, 64, 512)]);
    world.run(START + seconds(1.0));
    let channel = &world.channels[0];
    assert_eq!(channel.gone, channel.arrived[..channel.gone.len()]);
}

#[test]
fn what_was_not_used_is_kept_for_as_long_as_the_burst() {
    let limits = RateLimits {
        burst: Duration::from_secs(2),
        ..ios(1000)
    };
    let mut world = World::new(limits, &[]);
    world.now = START + seconds(10.0);
    let load = Load::new(IoKind::Read, 64, 512);
    let other = World::new(limits, &[load]);
    world.channels = other.channels;
    let begin = world.now;
    for tag in 0..64 {
        world.event(begin, 0, tag, Event::Submit);
    }
    // Two seconds' worth at once, then the limit.
    world.run(begin + seconds(0.1));
    close(world.total_ops(), 2100, 0.02);
    world.run(begin + seconds(1.0));
    close(world.total_ops(), 3000, 0.02);
}

#[test]
fn without_a_burst_little_is_kept() {
    let mut world = World::new(ios(1000), &[]);
    let begin = START + seconds(100.0);
    world.now = begin;
    world.channels = World::new(ios(1000), &[Load::new(IoKind::Read, 64, 512)]).channels;
    for tag in 0..64 {
        world.event(begin, 0, tag, Event::Submit);
    }
    world.run(begin + seconds(1.0));
    close(world.total_ops(), 1000, 0.03);
}

#[test]
fn new_limits_are_for_those_who_wait_already() {
    let mut world = World::new(ios(10), &[Load::new(IoKind::Read, 64, 512); 2]);
    world.run(START + seconds(0.5));
    let slow = world.total_ops();
    assert!(slow <= 7, "{slow}");
    world.change(ios(10_000));
    world.run(START + seconds(1.0));
    close(world.total_ops() - slow, 5000, 0.03);
    // Slower again, and free.
    world.change(ios(100));
    let before = world.total_ops();
    world.run(START + seconds(2.0));
    close(world.total_ops() - before, 100, 0.05);
    world.change(RateLimits::default());
    let before = world.total_ops();
    let waiting: u64 = world.channels.iter().map(|it| it.gate.len()).sum();
    assert!(waiting >= 126);
    world.run(world.now);
    assert!(world.total_ops() - before >= waiting);
    assert!(world.channels.iter().all(|it| it.gate.len() == 0));
}

#[test]
fn who_is_let_go_pays() {
    let mut world = World::new(ios(1000), &[Load::new(IoKind::Read, 101, 512)]);
    world.run(START);
    assert_eq!(world.total_ops(), 1);
    let gate = &mut world.channels[0].gate;
    assert_eq!(gate.len(), 100);
    // One in the middle, the first, then all.
    let mut told = Vec::new();
    let limiter = world.limiter.as_ref();
    gate.release(limiter, START, Some(50), |it| told.push(it));
    assert_eq!(told, [Release::Start(Next { tag: 50, due: 0 })]);
    told.clear();
    gate.release(limiter, START, Some(1), |it| told.push(it));
    assert_eq!(told.remove(0), Release::End(1));
    assert!(matches!(told[..], [Release::Start(Next { tag: 2, .. })]));
    told.clear();
    gate.release(limiter, START, None, |it| told.push(it));
    assert_eq!(told.len(), 98);
    assert_eq!(told[0], Release::End(2));
    for tag in 1..=100 {
        let turn = gate.leave((limiter, 1), START, tag);
        assert!(matches!(turn, Turn::Go(_, None)), "{tag}: {turn:?}");
    }
    assert_eq!(gate.len(), 0);
    // The bucket has paid for all of them: the next may go in a tenth of a second.
    let cost = limiter.unwrap().cost(Way::In, 512);
    let from = limiter.unwrap().reserve(&cost, START).due(&cost);
    close(from - START, seconds(0.101), 0.001);
}

#[test]
fn huge_limits_do_not_overflow() {
    let limits = RateLimits {
        rw_ios_per_sec: u64::MAX,
        rw_mbytes_per_sec: u64::MAX,
        r_mbytes_per_sec: 1 << 44,
        w_mbytes_per_sec: 1,
        burst: Duration::MAX,
    };
    let limiter = Limiter::starting(&limits, START).unwrap();
    let cost = limiter.cost(Way::In, u64::MAX);
    limiter.reserve(&cost, limiter.floor(u64::MAX, None));
    let cost = limiter.cost(Way::Out, u64::MAX);
    for _ in 0..3 {
        let from = limiter.reserve(&cost, limiter.floor(START, Some(0)));
        limiter.note(&cost, u64::MAX);
        assert!(from.due(&cost) > 0);
    }
    limiter.refund(&cost);
    assert!(Limiter::new(&RateLimits::default()).is_none());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Any limits and loads: no limit is exceeded, one of them is reached, nobody starves.
    #[test]
    fn limits_hold(
        limit_ios in prop_oneof![Just(0u64), 500..20_000u64],
        limit_rw in prop_oneof![Just(0u64), 20..400u64],
        limit_r in prop_oneof![Just(0u64), 20..400u64],
        limit_w in prop_oneof![Just(0u64), 20..400u64],
        loads in prop::collection::vec((any::<bool>(), 2u64..64, 0u32..6, 0u64..500), 1..4),
    ) {
        let limits = RateLimits {
            rw_ios_per_sec: limit_ios,
            rw_mbytes_per_sec: limit_rw,
            r_mbytes_per_sec: limit_r,
            w_mbytes_per_sec: limit_w,
            burst: Duration::ZERO,
        };
        prop_assume!(limits.is_set());
        let loads: Vec<Load> = loads.iter().map(|(read, depth, size, late)| {
            let kind = if *read { IoKind::Read } else { IoKind::Write };
            let mut load = Load::new(kind, *depth, (4 * KIB) << size).late(micros(*late));
            load.takes = micros(500);
            load
        }).collect();
        let mut world = World::new(limits, &loads);
        world.run(START + seconds(1.0));
        let sum = |wanted: Option<IoKind>| -> u64 {
            let meant = (0..loads.len()).filter(|at| wanted.is_none_or(|it| it == loads[*at].kind));
            meant.map(|at| world.bytes(at)).sum()
        };
        let slack = |limit: u64| limit + limit / 50 + 2 * 128 * KIB;
        for (limit, found) in [
            (limit_rw, sum(None)), (limit_r, sum(Some(IoKind::Read))), (limit_w, sum(Some(IoKind::Write))),
        ] {
            prop_assert!(limit == 0 || found <= slack(limit * MIB), "{found} for {limit} MiB/s");
        }
        prop_assert!(limit_ios == 0 || world.total_ops() <= limit_ios + limit_ios / 50 + 2);
        for at in 0..loads.len() {
            prop_assert!(world.ops(at) > 0, "load {at} starves");
        }
    }
}
