//! The loop.

use std::os::fd::AsRawFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, bounded, unbounded};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::unistd::Pid;

use crate::cx::{Cx, Due};
use crate::handle::{Message, ReactorHandle, Shared};
use crate::op::Op;
use crate::poller::{Event, Idle, Poll, Poller, PollerKey};
use crate::ring::{Completed, Ring};
use crate::sleep::Sleeper;
use crate::ticks::{tick_rate, ticks, ticks_of};

/// When a reactor sleeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Never: a whole core for the lowest latency.
    Poll,
    /// Spins while there is work and a little longer, then sleeps for bounded, growing times.
    Adaptive,
    /// Sleeps as soon as nothing is to do.
    Interrupt,
}

/// How a reactor is set up.
#[derive(Clone, Debug)]
pub struct Config {
    /// The number by which it is known: the processor's, as in SPDK.
    pub lcore: u32,
    /// Whether to pin the thread to processor `lcore`.
    pub pin: bool,
    /// When it sleeps.
    pub mode: Mode,
    /// Operations and watches in flight at most.
    pub max_in_flight: u32,
    /// Adaptive mode: how long it spins after the last work.
    pub spin: Duration,
    /// The longest sleep while guests' doorbells must be looked at: what the first I/O after idleness may wait.
    pub max_sleep: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            lcore: 0,
            pin: false,
            mode: Mode::Adaptive,
            max_in_flight: 8192,
            spin: Duration::from_micros(50),
            max_sleep: Duration::from_micros(200),
        }
    }
}

/// What a poller has done so far.
#[derive(Clone, Debug)]
pub struct PollerInfo {
    /// Its name.
    pub name: String,
    /// Its number on this reactor.
    pub id: u32,
    /// How often it was polled.
    pub run_count: u64,
    /// How often it found work.
    pub busy_count: u64,
}

/// What a reactor has done so far.
#[derive(Clone, Debug)]
pub struct ReactorStats {
    /// Its processor number.
    pub lcore: u32,
    /// Thread id as the system knows it.
    pub tid: i32,
    /// Ticks in passes that found work.
    pub busy: u64,
    /// Ticks in passes that found none, and asleep.
    pub idle: u64,
    /// Whether it may sleep.
    pub mode: Mode,
    /// System calls on the ring.
    pub enters: u64,
    /// Operations and watches in flight.
    pub in_flight: u32,
    /// Its pollers.
    pub pollers: Vec<PollerInfo>,
}

struct Slot {
    generation: u32,
    poller: Option<Box<dyn Poller>>,
    run_count: u64,
    busy_count: u64,
}

/// A reactor, on its own thread.
pub struct Reactor {
    cx: Cx,
    slots: Vec<Slot>,
    inbox: Receiver<Message>,
    config: Config,
    tid: i32,
    stopping: bool,
    busy_ticks: u64,
    idle_ticks: u64,
    /// The current length of a bounded sleep.
    nap: Duration,
}

/// Messages run per pass at most, so that a flood of them cannot starve the pollers.
const MESSAGES_PER_PASS: usize = 64;
/// The first sleep after spinning; each further one doubles up to the bound.
const FIRST_NAP: Duration = Duration::from_micros(20);
/// How long a stopping reactor waits for operations in flight.
const DRAIN: Duration = Duration::from_secs(5);

/// Starts a reactor thread. It runs until [`ReactorHandle::stop`].
///
/// # Errors
/// If the ring, the wake-up descriptor or the thread cannot be made; pinning that fails is only logged.
pub fn spawn(config: Config) -> std::io::Result<(ReactorHandle, JoinHandle<()>)> {
    let wake = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
    let shared = Arc::new(Shared {
        lcore: config.lcore,
        sleeper: Sleeper::new(),
        wake,
    });
    let (sender, inbox) = unbounded();
    let handle = ReactorHandle {
        shared,
        inbox: sender,
    };
    let (ready, started) = bounded(1);
    let thread_handle = handle.clone();
    let thread = std::thread::Builder::new()
        .name(format!("reactor_{}", config.lcore))
        .spawn(move || match Reactor::new(config, thread_handle, inbox) {
            Ok(mut reactor) => {
                let _ = ready.send(Ok(()));
                reactor.run();
            }
            Err(error) => drop(ready.send(Err(error))),
        })?;
    match started.recv() {
        Ok(Ok(())) => Ok((handle, thread)),
        Ok(Err(error)) => Err(error),
        Err(_) => Err(std::io::Error::other(
            "the reactor thread ended while starting",
        )),
    }
}

impl Reactor {
    fn new(
        config: Config,
        handle: ReactorHandle,
        inbox: Receiver<Message>,
    ) -> std::io::Result<Self> {
        if config.pin {
            let mut set = CpuSet::new();
            let pinned = set
                .set(config.lcore as usize)
                .and_then(|()| sched_setaffinity(Pid::from_raw(0), &set));
            if let Err(error) = pinned {
                tracing::warn!(lcore = config.lcore, %error, "the reactor is not pinned to its processor");
            }
        }
        // Waits in the ring are short; the default slack of 50 µs would double them.
        let _ = nix::sys::prctl::set_timerslack(1_000);
        let _ = tick_rate();
        let wake_fd = handle.shared.wake.as_raw_fd();
        let ring = Ring::new(1024, config.max_in_flight, wake_fd)?;
        Ok(Self {
            cx: Cx::new(ring, handle),
            slots: Vec::new(),
            inbox,
            config,
            tid: nix::unistd::gettid().as_raw(),
            stopping: false,
            busy_ticks: 0,
            idle_ticks: 0,
            nap: FIRST_NAP,
        })
    }

    /// The reactor's services, outside any poller.
    pub fn cx(&mut self) -> &mut Cx {
        &mut self.cx
    }

    /// Adds a poller.
    pub fn add_poller(&mut self, poller: Box<dyn Poller>) -> PollerKey {
        let free = self.slots.iter().position(|slot| slot.poller.is_none());
        let index = free.unwrap_or(self.slots.len());
        if free.is_none() {
            self.slots.push(Slot {
                generation: 0,
                poller: None,
                run_count: 0,
                busy_count: 0,
            });
        }
        let slot = &mut self.slots[index];
        slot.generation = slot.generation.wrapping_add(1);
        slot.poller = Some(poller);
        (slot.run_count, slot.busy_count) = (0, 0);
        PollerKey {
            index: u32::try_from(index).unwrap_or(u32::MAX),
            generation: slot.generation,
        }
    }

    /// Changes when the reactor sleeps.
    pub fn set_mode(&mut self, mode: Mode) {
        self.config.mode = mode;
    }

    /// What it has done so far.
    #[must_use]
    pub fn stats(&self) -> ReactorStats {
        let pollers = self.slots.iter().zip(0..).filter_map(|(slot, id)| {
            let poller = slot.poller.as_ref()?;
            let (run_count, busy_count) = (slot.run_count, slot.busy_count);
            Some(PollerInfo {
                name: poller.name(),
                id,
                run_count,
                busy_count,
            })
        });
        ReactorStats {
            lcore: self.config.lcore,
            tid: self.tid,
            busy: self.busy_ticks,
            idle: self.idle_ticks,
            mode: self.config.mode,
            enters: self.cx.ring.enters(),
            in_flight: self.cx.ring.in_flight(),
            pollers: pollers.collect(),
        }
    }

    /// Ends the loop after the current pass.
    pub fn stop(&mut self) {
        self.stopping = true;
    }

    fn run(&mut self) {
        let mut last_work = ticks();
        let spin = ticks_of(self.config.spin);
        while !self.stopping {
            let start = ticks();
            self.cx.now = start;
            let busy = self.guarded_pass();
            let end = ticks();
            if busy {
                self.busy_ticks += end.wrapping_sub(start);
                last_work = end;
                self.nap = FIRST_NAP;
                continue;
            }
            let spun_out = match self.config.mode {
                Mode::Poll => false,
                Mode::Adaptive => end.wrapping_sub(last_work) > spin,
                Mode::Interrupt => true,
            };
            if spun_out {
                if self.sleep() {
                    last_work = ticks();
                }
            } else {
                std::hint::spin_loop();
            }
            self.idle_ticks += ticks().wrapping_sub(start);
        }
        self.drain();
    }

    /// A pass that survives a panic of a poller: the poller is removed, everybody else goes on.
    fn guarded_pass(&mut self) -> bool {
        match catch_unwind(AssertUnwindSafe(|| self.pass())) {
            Ok(busy) => busy,
            Err(_) => {
                let key = self.cx.current;
                let name = self
                    .poller_at(key)
                    .map(|poller| poller.name())
                    .unwrap_or_default();
                tracing::error!(poller = name, "a poller panicked and was removed");
                self.remove(key);
                true
            }
        }
    }

    fn poller_at(&mut self, key: PollerKey) -> Option<&mut Box<dyn Poller>> {
        let slot = self.slots.get_mut(key.index as usize)?;
        if slot.generation == key.generation {
            slot.poller.as_mut()
        } else {
            None
        }
    }

    fn pass(&mut self) -> bool {
        let mut busy = self.run_messages();
        busy |= self.run_timers();
        busy |= self.run_completions();
        busy |= self.run_pollers();
        self.cx.ring.reap_files();
        self.cx.ring.flush();
        busy
    }

    fn run_messages(&mut self) -> bool {
        let mut busy = false;
        for _ in 0..MESSAGES_PER_PASS {
            let Ok(message) = self.inbox.try_recv() else {
                break;
            };
            self.cx.current = PollerKey {
                index: u32::MAX,
                generation: 0,
            };
            message(self);
            busy = true;
        }
        while let Some(poller) = self.cx.added.pop() {
            self.add_poller(poller);
            busy = true;
        }
        busy
    }

    fn run_timers(&mut self) -> bool {
        let mut busy = false;
        // Those that start meanwhile have their turn in the next pass, even if their time has come.
        for _ in 0..self.cx.timers.len() {
            let now = self.cx.now;
            let Some((id, owner, due)) = self.cx.timers.pop_if(|(id, ..)| !id.is_after(now)) else {
                break;
            };
            let until = id.deadline();
            let event = match due {
                Due::Timer(tag) => Event::Timer { tag },
                Due::Wait(tag) => Event::Complete {
                    tag,
                    op: Op::Wait { until },
                    result: Ok(0),
                },
            };
            self.deliver(owner, event);
            busy = true;
        }
        busy
    }

    fn run_completions(&mut self) -> bool {
        let mut busy = false;
        self.cx.ring.collect();
        while let Some(completed) = self.cx.ring.next() {
            busy = true;
            match completed {
                Completed::Wake => {
                    // Taking the count re-arms the edge; an empty read only means that it was taken before.
                    let _ = self.cx.handle.shared.wake.read();
                }
                Completed::For(owner, event) => self.deliver(owner, event),
            }
        }
        busy
    }

    #[inline]
    fn deliver(&mut self, owner: PollerKey, event: Event) {
        self.cx.current = owner;
        let Some(slot) = self.slots.get_mut(owner.index as usize) else {
            return;
        };
        if slot.generation == owner.generation
            && let Some(poller) = &mut slot.poller
        {
            poller.event(&mut self.cx, event);
        }
    }

    fn run_pollers(&mut self) -> bool {
        let mut busy = false;
        for index in 0..self.slots.len() {
            let slot = &mut self.slots[index];
            let Some(poller) = &mut slot.poller else {
                continue;
            };
            let key = PollerKey {
                index: u32::try_from(index).unwrap_or(u32::MAX),
                generation: slot.generation,
            };
            self.cx.current = key;
            slot.run_count += 1;
            match poller.poll(&mut self.cx) {
                Poll::Idle => {}
                Poll::Busy => {
                    slot.busy_count += 1;
                    busy = true;
                }
                Poll::Remove => {
                    self.remove(key);
                    busy = true;
                }
            }
        }
        busy
    }

    fn remove(&mut self, key: PollerKey) {
        self.cx.ring.unwatch_all(key);
        self.cx.timers.retain(|(_, owner, _)| *owner != key);
        if let Some(slot) = self.slots.get_mut(key.index as usize)
            && slot.generation == key.generation
        {
            slot.poller = None;
        }
    }

    /// How long the pollers and timers allow to sleep; `None` forbids it, `Some(None)` sets no bound.
    fn sleep_bound(&self) -> Option<Option<Duration>> {
        let mut bound: Option<Duration> = None;
        let mut at_most = |duration: Duration| {
            bound = Some(bound.map_or(duration, |bound| bound.min(duration)));
        };
        for slot in &self.slots {
            match slot
                .poller
                .as_ref()
                .map_or(Idle::UntilEvent, |poller| poller.idle())
            {
                Idle::Bounded => at_most(self.nap),
                Idle::Within(duration) => at_most(duration),
                Idle::UntilEvent => {}
                Idle::Never => return None,
            }
        }
        if let Some((timer, ..)) = self.cx.timers.last() {
            at_most(timer.remaining(ticks()));
        }
        Some(bound)
    }

    /// Sleeps if that is allowed; whether the second look found work instead.
    fn sleep(&mut self) -> bool {
        let Some(bound) = self.sleep_bound() else {
            return false;
        };
        if bound.is_some_and(|bound| bound.is_zero()) {
            return false;
        }
        self.cx.handle.shared.sleeper.announce();
        // The second look: whatever arrived before the announcement is seen here, whatever arrives after it signals.
        let busy = !self.inbox.is_empty() || self.guarded_pass();
        if !busy {
            self.cx.ring.enter(1, bound);
            self.nap = (self.nap * 2).min(self.config.max_sleep);
        }
        self.cx.handle.shared.sleeper.awake();
        busy
    }

    /// Waits for operations in flight (watches are cancelled), so that no memory has to be kept.
    fn drain(&mut self) {
        for index in 0..self.slots.len() {
            let key = PollerKey {
                index: u32::try_from(index).unwrap_or(u32::MAX),
                generation: self.slots[index].generation,
            };
            self.remove(key);
        }
        let deadline = ticks().saturating_add(ticks_of(DRAIN));
        while self.cx.ring.in_flight() > 0 && ticks() < deadline {
            self.cx.ring.enter(1, Some(Duration::from_millis(10)));
            self.cx.ring.collect();
            while self.cx.ring.next().is_some() {}
        }
    }
}

#[cfg(test)]
mod tests;
