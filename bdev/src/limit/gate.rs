//! What a channel holds back.

use std::cell::Cell;
use std::collections::VecDeque;
use std::rc::Rc;

use reactor::PollerKey;

use super::{Cost, Limiter, Way};
use crate::io::Io;
use crate::tags::TagMap;

/// A request that waits.
#[derive(Debug)]
struct Held {
    tag: u64,
    io: Io,
    way: Way,
    bytes: u64,
    /// When it may go; `None` while nothing is reserved for it.
    due: Option<u64>,
}

/// Requests in order of arrival.
#[derive(Debug, Default)]
struct Line {
    held: VecDeque<Held>,
    /// When the request was due that went last, and until when the time since then is still to be had: a reactor that comes late
    /// finds few requests in line, and more only when those have ended.
    late: Option<(u64, u64)>,
}

impl Line {
    /// The request in front goes, which was due at `due`.
    fn went(&mut self, limiter: &Limiter, now: u64, due: u64) {
        let until = now.saturating_add(now.saturating_sub(due).max(limiter.burst));
        self.late = Some((due, until));
    }

    /// Since when a request that arrives may say to have waited.
    fn since(&self, now: u64) -> Option<u64> {
        self.late
            .and_then(|(due, until)| (now <= until).then_some(due))
    }

    /// Reserves one turn for those in front, who have nothing reserved yet.
    fn take_turn(&mut self, limiter: &Limiter, now: u64, since: Option<u64>) {
        let turn = limiter.turn();
        let (mut total, mut count) = (Cost::default(), 0);
        for held in &self.held {
            let with = total.and(limiter.cost(held.way, held.bytes));
            if count > 0 && with.longest() > turn {
                break;
            }
            (total, count) = (with, count + 1);
        }
        let mut from = limiter.reserve(&total, limiter.floor(now, since));
        for held in self.held.iter_mut().take(count) {
            let cost = limiter.cost(held.way, held.bytes);
            held.due = Some(from.due(&cost));
            from = from.and(cost);
        }
    }
}

/// Who waits in front of each line: poller and tag, for whoever changes the limits.
pub(crate) type Heads = [Cell<Option<(PollerKey, u64)>>; 2];

/// What became of a request that asked whether its turn has come.
#[derive(Debug)]
pub(crate) enum Turn {
    /// It is not held here.
    Unknown,
    /// It has to wait until then.
    Wait(u64),
    /// It goes now. The wait of this other one, if any, is to be started.
    Go(Io, Option<Next>),
}

/// The next in line: a tag, and when it is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Next {
    pub(crate) tag: u64,
    pub(crate) due: u64,
}

/// What is to be done about a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Release {
    /// It begins.
    Start(Next),
    /// The one with this tag ends.
    End(u64),
}

/// What a submission is told.
#[derive(Debug)]
pub(crate) enum Entry {
    /// It goes at once, and has paid this.
    Go(Io, Cost),
    /// It waits; this is to be started, if any.
    Held(Option<Next>),
}

/// What one channel holds back. The caller starts and answers the waits.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    /// All; or reads and writes apart, where they have limits of their own.
    lines: [Line; 2],
    /// Those that go when their wait ends, whatever the limits.
    released: TagMap<Io>,
    heads: Rc<Heads>,
    /// Which limits the reservations are under.
    version: u64,
}

impl Gate {
    pub(crate) fn heads(&self) -> &Rc<Heads> {
        &self.heads
    }

    /// How many are held.
    pub(crate) fn len(&self) -> u64 {
        let lines = self.lines.iter().map(|line| line.held.len() as u64);
        lines.sum::<u64>() + self.released.len()
    }

    /// What was reserved under other limits is void.
    fn sync(&mut self, version: u64) {
        if version != self.version {
            self.version = version;
            let lines = self.lines.iter_mut();
            for line in lines {
                line.late = None;
                line.held.iter_mut().for_each(|held| held.due = None);
            }
        }
    }

    /// A request arrives.
    pub(crate) fn enter(
        &mut self,
        (limiter, version): (&Limiter, u64),
        now: u64,
        way: Way,
        (tag, io): (u64, Io),
        poller: PollerKey,
    ) -> Entry {
        self.sync(version);
        // The data itself, not what the request says of it.
        let bytes = io.segments.len() as u64;
        let cost = limiter.cost(way, bytes);
        let at = usize::from(limiter.is_split() && way == Way::Out);
        let [first, second] = &mut self.lines;
        let line = if at == 0 { first } else { second };
        let mut due = None;
        if line.held.is_empty() {
            let from = limiter.reserve(&cost, limiter.floor(now, line.since(now)));
            let it = from.due(&cost);
            if it <= now {
                return Entry::Go(io, cost);
            }
            due = Some(it);
        }
        limiter.note(&cost, now);
        line.held.push_back(Held {
            tag,
            io,
            way,
            bytes,
            due,
        });
        if due.is_some()
            && let Some(head) = self.heads.get(at)
        {
            head.set(Some((poller, tag)));
        }
        Entry::Held(due.map(|due| Next { tag, due }))
    }

    /// The wait of a request has ended. `limits` are those of now, if any, with their version.
    pub(crate) fn leave(&mut self, limits: (Option<&Limiter>, u64), now: u64, tag: u64) -> Turn {
        if let Some(io) = self.released.remove(tag) {
            return Turn::Go(io, None);
        }
        let (limiter, version) = limits;
        self.sync(version);
        let mut lines = self.lines.iter_mut().zip(self.heads.iter());
        let found = lines.find(|(line, _)| line.held.front().is_some_and(|it| it.tag == tag));
        let Some((line, head)) = found else {
            return Turn::Unknown;
        };
        let due = Self::due(line, limiter, now, None);
        if due > now {
            return Turn::Wait(due);
        }
        let Some(held) = line.held.pop_front() else {
            return Turn::Unknown;
        };
        if let Some(limiter) = limiter {
            line.went(limiter, now, due);
        }
        let next = Self::next(line, head, limiter, now, Some(due));
        Turn::Go(held.io, next)
    }

    /// When the first of a line may go.
    fn due(line: &mut Line, limiter: Option<&Limiter>, now: u64, since: Option<u64>) -> u64 {
        let Some(limiter) = limiter else {
            return 0;
        };
        if line.held.front().is_some_and(|first| first.due.is_none()) {
            line.take_turn(limiter, now, since);
        }
        line.held.front().and_then(|first| first.due).unwrap_or(0)
    }

    fn next(
        line: &mut Line,
        head: &Cell<Option<(PollerKey, u64)>>,
        limiter: Option<&Limiter>,
        now: u64,
        since: Option<u64>,
    ) -> Option<Next> {
        let due = Self::due(line, limiter, now, since);
        let next = line.held.front().map(|first| Next {
            tag: first.tag,
            due,
        });
        head.set(head.get().and_then(|(poller, _)| Some((poller, next?.tag))));
        next
    }

    /// Puts a request that has gone, and for which the disk had no room, under those that go when their wait ends.
    pub(crate) fn keep(&mut self, tag: u64, io: Io) {
        self.released.insert(tag, io);
    }

    /// Lets go of all requests, or of one. They pay, but do not wait. `tell` hears whose waits to start and to end.
    pub(crate) fn release(
        &mut self,
        limiter: Option<&Limiter>,
        now: u64,
        only: Option<u64>,
        mut tell: impl FnMut(Release),
    ) {
        for (line, head) in self.lines.iter_mut().zip(self.heads.iter()) {
            let mut at = 0;
            let mut is_headless = false;
            while let Some(held) = line.held.get(at) {
                if only.is_some_and(|tag| held.tag != tag) {
                    at += 1;
                    continue;
                }
                let Some(held) = line.held.remove(at) else {
                    break;
                };
                if let (Some(limiter), None) = (limiter, held.due) {
                    let cost = limiter.cost(held.way, held.bytes);
                    limiter.reserve(&cost, limiter.floor(now, None));
                }
                let tag = held.tag;
                self.released.insert(tag, held.io);
                if head.get().is_some_and(|(_, waiting)| waiting == tag) {
                    tell(Release::End(tag));
                    is_headless = true;
                } else {
                    tell(Release::Start(Next { tag, due: 0 }));
                }
            }
            if is_headless && let Some(next) = Self::next(line, head, limiter, now, None) {
                tell(Release::Start(next));
            }
        }
    }
}
