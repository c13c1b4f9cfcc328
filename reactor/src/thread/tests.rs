use std::io::Write;
use std::os::fd::OwnedFd;
use std::sync::mpsc;

use guest_memory::{HostBuffer, Segments};
use nix::errno::Errno;

use super::*;
use crate::{FallocateMode, Op, RingFile};

const PATIENCE: Duration = Duration::from_secs(20);

fn start(mode: Mode) -> (ReactorHandle, JoinHandle<()>) {
    spawn(Config {
        mode,
        ..Config::default()
    })
    .unwrap()
}

fn stop((handle, thread): (ReactorHandle, JoinHandle<()>)) {
    handle.stop();
    thread.join().unwrap();
}

type First = Box<dyn FnOnce(&mut Cx) + Send>;

/// A poller that runs a closure once and reports its events.
struct Probe {
    first: Option<First>,
    events: mpsc::Sender<Seen>,
}

#[derive(Debug, PartialEq)]
enum Seen {
    Complete(u64, Result<u32, Errno>, Vec<u8>),
    Ready(u64),
    Timer(u64),
}

impl Poller for Probe {
    fn name(&self) -> String {
        "probe".into()
    }

    fn poll(&mut self, cx: &mut Cx) -> Poll {
        match self.first.take() {
            Some(first) => {
                first(cx);
                Poll::Busy
            }
            None => Poll::Idle,
        }
    }

    fn event(&mut self, _cx: &mut Cx, event: Event) {
        let seen = match event {
            Event::Complete { tag, op, result } => {
                let data = op.into_segments().map(|segments| {
                    let mut data = vec![0; segments.len()];
                    segments.copy_to_slice(0, &mut data);
                    data
                });
                Seen::Complete(tag, result, data.unwrap_or_default())
            }
            Event::Ready { tag, .. } => Seen::Ready(tag),
            Event::Timer { tag } => Seen::Timer(tag),
        };
        self.events.send(seen).unwrap();
    }

    fn idle(&self) -> Idle {
        Idle::UntilEvent
    }
}

fn probe(
    handle: &ReactorHandle,
    first: impl FnOnce(&mut Cx) + Send + 'static,
) -> mpsc::Receiver<Seen> {
    let (events, seen) = mpsc::channel();
    let first: First = Box::new(first);
    handle.send(move |reactor| {
        reactor.add_poller(Box::new(Probe {
            first: Some(first),
            events,
        }));
    });
    seen
}

fn file(len: usize) -> Arc<OwnedFd> {
    let mut file = tempfile::tempfile().unwrap();
    let data: Vec<u8> = (0..len).map(|at| (at / 512) as u8).collect();
    file.write_all(&data).unwrap();
    Arc::new(OwnedFd::from(file))
}

fn read(file: &RingFile, offset: u64, len: usize) -> Op {
    let segments = Segments::from_host(HostBuffer::new(len));
    Op::Read {
        file: file.clone(),
        offset,
        segments,
    }
}

#[test]
fn messages_run_in_order_and_answer() {
    for mode in [Mode::Poll, Mode::Adaptive, Mode::Interrupt] {
        let reactor = start(mode);
        let (sender, order) = mpsc::channel();
        for number in 0..500 {
            let sender = sender.clone();
            reactor.0.send(move |_| sender.send(number).unwrap());
        }
        assert_eq!(
            reactor
                .0
                .call(|reactor| reactor.stats().lcore)
                .wait(PATIENCE),
            Ok(0)
        );
        assert_eq!(
            order.try_iter().collect::<Vec<_>>(),
            (0..500).collect::<Vec<_>>()
        );
        stop(reactor);
    }
}

#[test]
fn a_sleeping_reactor_hears_every_message() {
    let reactor = start(Mode::Interrupt);
    for number in 0..2000 {
        assert_eq!(reactor.0.call(move |_| number).wait(PATIENCE), Ok(number));
    }
    stop(reactor);
}

#[test]
fn operations_come_back_with_their_memory() {
    let reactor = start(Mode::Adaptive);
    let fd = file(8192);
    let seen = probe(&reactor.0, move |cx| {
        let file = cx.register_file(fd).unwrap();
        cx.submit(7, read(&file, 1024, 512)).unwrap();
        cx.submit(8, read(&file, 8000, 512)).unwrap();
        cx.submit(9, read(&file, 1 << 40, 512)).unwrap();
    });
    let mut all: Vec<_> = (0..3)
        .map(|_| seen.recv_timeout(PATIENCE).unwrap())
        .collect();
    all.sort_by_key(|seen| match seen {
        Seen::Complete(tag, ..) => *tag,
        _ => 0,
    });
    assert_eq!(all[0], Seen::Complete(7, Ok(512), vec![2; 512]));
    assert!(
        matches!(all[1], Seen::Complete(8, Ok(192), _)),
        "short at the end of the file"
    );
    assert!(matches!(all[2], Seen::Complete(9, Ok(0), _)));
    stop(reactor);
}

#[test]
fn writes_flushes_and_holes_reach_the_file() {
    let reactor = start(Mode::Adaptive);
    let fd = file(16384);
    let check = Arc::clone(&fd);
    let seen = probe(&reactor.0, move |cx| {
        let file = cx.register_file(fd).unwrap();
        let mut buffer = HostBuffer::new(4096);
        buffer.as_mut_slice().fill(0xab);
        let segments = Segments::from_host(buffer);
        cx.submit(
            1,
            Op::Write {
                file: file.clone(),
                offset: 4096,
                segments,
                durable: true,
            },
        )
        .unwrap();
        cx.submit(2, Op::Fdatasync { file: file.clone() }).unwrap();
        let mode = FallocateMode::PunchHole;
        cx.submit(
            3,
            Op::Fallocate {
                file,
                mode,
                offset: 12288,
                len: 4096,
            },
        )
        .unwrap();
    });
    for _ in 0..3 {
        match seen.recv_timeout(PATIENCE).unwrap() {
            Seen::Complete(1, result, _) => assert_eq!(result, Ok(4096)),
            Seen::Complete(2 | 3, result, _) => assert_eq!(result, Ok(0)),
            other => panic!("{other:?}"),
        }
    }
    let mut data = [0; 12288];
    nix::sys::uio::pread(&check, &mut data, 4096).unwrap();
    assert!(data[..4096].iter().all(|byte| *byte == 0xab));
    assert!(data[8192..].iter().all(|byte| *byte == 0));
    stop(reactor);
}

#[test]
fn a_full_table_gives_the_operation_back() {
    let config = Config {
        max_in_flight: 2,
        ..Config::default()
    };
    let reactor = spawn(config).unwrap();
    let fd = file(4096);
    let (sender, refused) = mpsc::channel();
    let seen = probe(&reactor.0, move |cx| {
        let file = cx.register_file(fd).unwrap();
        cx.submit(1, read(&file, 0, 512)).unwrap();
        cx.submit(2, read(&file, 0, 512)).unwrap();
        let back = cx.submit(3, read(&file, 0, 512)).unwrap_err();
        sender.send(back.into_segments().unwrap().len()).unwrap();
    });
    assert_eq!(refused.recv_timeout(PATIENCE), Ok(512));
    seen.recv_timeout(PATIENCE).unwrap();
    seen.recv_timeout(PATIENCE).unwrap();
    assert_eq!(
        reactor
            .0
            .call(|reactor| reactor.stats().in_flight)
            .wait(PATIENCE),
        Ok(0)
    );
    stop(reactor);
}

#[test]
fn more_operations_than_ring_entries_all_end() {
    let reactor = start(Mode::Adaptive);
    let fd = file(4096);
    let seen = probe(&reactor.0, move |cx| {
        let file = cx.register_file(fd).unwrap();
        for tag in 0..5000 {
            cx.submit(tag, read(&file, 0, 512)).unwrap();
        }
    });
    let mut tags: Vec<_> = (0..5000)
        .map(|_| match seen.recv_timeout(PATIENCE).unwrap() {
            Seen::Complete(tag, Ok(512), _) => tag,
            other => panic!("{other:?}"),
        })
        .collect();
    tags.sort_unstable();
    assert_eq!(tags, (0..5000).collect::<Vec<_>>());
    stop(reactor);
}

#[test]
fn a_dropped_file_is_closed_and_its_place_used_again() {
    let reactor = start(Mode::Adaptive);
    for _ in 0..3 {
        let (reader, writer) = nix::unistd::pipe().unwrap();
        let writer = Arc::new(writer);
        reactor
            .0
            .send(move |reactor| drop(reactor.cx().register_file(writer).unwrap()));
        // The pipe's reader sees the end only when the ring, too, has let go of the writer.
        let mut byte = [0];
        assert_eq!(nix::unistd::read(&reader, &mut byte), Ok(0));
    }
    stop(reactor);
}

#[test]
fn watches_report_each_arrival_until_taken_away() {
    let reactor = start(Mode::Interrupt);
    let (reader, writer) = nix::unistd::pipe().unwrap();
    let reader = Arc::new(reader);
    let watched = Arc::clone(&reader);
    let seen = probe(&reactor.0, move |cx| {
        cx.watch(watched, libc::POLLIN as u32, 5).unwrap();
    });
    for _ in 0..3 {
        nix::unistd::write(&writer, b"x").unwrap();
        assert_eq!(seen.recv_timeout(PATIENCE), Ok(Seen::Ready(5)));
        let mut byte = [0];
        nix::unistd::read(&reader, &mut byte).unwrap();
    }
    drop(writer);
    assert_eq!(
        seen.recv_timeout(PATIENCE),
        Ok(Seen::Ready(5)),
        "hang-up is an event too"
    );
    stop(reactor);
}

#[test]
fn timers_run_in_order_of_their_time() {
    let reactor = start(Mode::Interrupt);
    let seen = probe(&reactor.0, |cx| {
        cx.timer(Duration::from_millis(6), 3);
        cx.timer(Duration::from_millis(2), 1);
        let cancelled = cx.timer(Duration::from_millis(3), 9);
        cx.timer(Duration::from_millis(4), 2);
        cx.cancel_timer(cancelled);
    });
    for tag in 1..=3 {
        assert_eq!(seen.recv_timeout(PATIENCE), Ok(Seen::Timer(tag)));
    }
    stop(reactor);
}

#[test]
fn waits_end_as_operations_do() {
    let reactor = start(Mode::Interrupt);
    let seen = probe(&reactor.0, |cx| {
        let in_ms = |ms| ticks() + ticks_of(Duration::from_millis(ms));
        for (tag, until) in [(1, in_ms(4)), (2, in_ms(2)), (3, 0)] {
            cx.submit(tag, Op::Wait { until }).unwrap();
        }
    });
    for tag in [3, 2, 1] {
        assert!(matches!(
            seen.recv_timeout(PATIENCE),
            Ok(Seen::Complete(ended, Ok(0), _)) if ended == tag
        ));
    }
    stop(reactor);
}

#[test]
fn waits_expire_when_their_poller_asks() {
    let reactor = start(Mode::Interrupt);
    let never = u64::MAX;
    let other = probe(&reactor.0, move |cx| {
        cx.submit(9, Op::Wait { until: never }).unwrap();
    });
    let seen = probe(&reactor.0, move |cx| {
        for tag in 1..=3 {
            cx.submit(tag, Op::Wait { until: never }).unwrap();
        }
        cx.timer(Duration::from_millis(20), 4);
        cx.expire_waits(Some(2));
        cx.expire_waits(None);
    });
    let mut ended: Vec<_> = (0..3).map(|_| seen.recv_timeout(PATIENCE)).collect();
    assert!(matches!(ended.remove(0), Ok(Seen::Complete(2, Ok(0), _))));
    assert_eq!(seen.recv_timeout(PATIENCE), Ok(Seen::Timer(4)));
    assert!(other.try_recv().is_err());
    stop(reactor);
}

/// Panics when polled.
struct Faulty;

impl Poller for Faulty {
    fn name(&self) -> String {
        "faulty".into()
    }
    fn poll(&mut self, _cx: &mut Cx) -> Poll {
        panic!("on purpose");
    }
    fn event(&mut self, _cx: &mut Cx, _event: Event) {}
    fn idle(&self) -> Idle {
        Idle::Never
    }
}

#[test]
fn a_panicking_poller_is_removed_and_the_others_go_on() {
    let reactor = start(Mode::Adaptive);
    reactor.0.send(|reactor| {
        reactor.add_poller(Box::new(Faulty));
    });
    let fd = file(4096);
    let seen = probe(&reactor.0, move |cx| {
        let file = cx.register_file(fd).unwrap();
        cx.submit(1, read(&file, 0, 512)).unwrap();
    });
    assert!(matches!(
        seen.recv_timeout(PATIENCE),
        Ok(Seen::Complete(1, Ok(512), _))
    ));
    let names = reactor
        .0
        .call(|reactor| reactor.stats().pollers)
        .wait(PATIENCE)
        .unwrap();
    assert_eq!(
        names
            .iter()
            .map(|info| info.name.as_str())
            .collect::<Vec<_>>(),
        ["probe"]
    );
    stop(reactor);
}

#[test]
fn a_stopped_reactor_answers_nobody_and_hangs_nobody() {
    let reactor = start(Mode::Adaptive);
    let handle = reactor.0.clone();
    stop(reactor);
    assert!(handle.call(|_| ()).wait(PATIENCE).is_err());
    handle.wake();
}

#[test]
fn an_ack_is_heard_when_its_last_holder_is_gone() {
    let (ack, receiver) = crate::Ack::channel();
    let other = ack.clone();
    drop(ack);
    assert!(!receiver.is_done());
    let reactor = start(Mode::Adaptive);
    reactor.0.send(move |_| drop(other));
    assert!(receiver.wait(PATIENCE));
    stop(reactor);
}

#[test]
fn an_idle_reactor_in_interrupt_mode_makes_no_system_calls() {
    let reactor = start(Mode::Interrupt);
    let enters = || {
        reactor
            .0
            .call(|reactor| reactor.stats().enters)
            .wait(PATIENCE)
            .unwrap()
    };
    let first = enters();
    std::thread::sleep(Duration::from_millis(50));
    assert!(
        enters() - first < 16,
        "it waits without a bound, so it is not woken in between"
    );
    stop(reactor);
}
