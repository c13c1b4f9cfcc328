//! Asking everybody.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use bdev::{Bdev, IoStats, SharedBdev};
use nvme::ControllerSnapshot;
use reactor::{Ack, Reactor, ReactorStats, Reply};
use rpc::RpcError;
use virtio::BlkSnapshot;

use super::carry::Carry;
use super::{QueueCounters, Telemetry, picture};
use crate::control::Control;
use crate::nvmf::{Listener, ListenerId};
use crate::virtio_blk::{BlkEndpoint, EndpointId};

/// How long a round waits. A reactor that works takes microseconds; one whose processor was taken away, milliseconds.
const PATIENCE: Duration = Duration::from_secs(2);

type Then = Box<dyn FnOnce(&mut Control, Telemetry)>;

/// Who can be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Party {
    /// By its place among the reactors.
    Reactor(usize),
    /// An endpoint's controller, and which of its clients it is of: another client's answers are not this one's.
    Nvme(ListenerId, u64),
    Blk(EndpointId, u64),
}

impl Party {
    pub(super) fn nvme(listener: &Listener) -> Self {
        Self::Nvme(listener.id(), listener.connections())
    }

    pub(super) fn blk(endpoint: &BlkEndpoint) -> Self {
        Self::Blk(endpoint.id(), endpoint.connections())
    }

    fn place(self) -> Option<Place> {
        match self {
            Self::Reactor(_) => None,
            Self::Nvme(id, _) => Some(Place::Nvme(id)),
            Self::Blk(id, _) => Some(Place::Blk(id)),
        }
    }

    fn session(self) -> Option<u64> {
        match self {
            Self::Reactor(_) => None,
            Self::Nvme(_, session) | Self::Blk(_, session) => Some(session),
        }
    }
}

/// What a reactor says.
pub(super) struct ReactorAnswer {
    pub(super) stats: ReactorStats,
    /// Disks are held weakly, so that an old answer keeps none alive.
    bdevs: Vec<(Weak<dyn Bdev>, IoStats)>,
}

impl ReactorAnswer {
    /// This reactor's share of what a disk did.
    pub(super) fn bdev(&self, bdev: &SharedBdev) -> Option<&IoStats> {
        let address = Arc::as_ptr(bdev).cast::<()>();
        let mut bdevs = self.bdevs.iter();
        bdevs
            .find(|(weak, _)| weak.as_ptr().cast::<()>() == address)
            .map(|(_, stats)| stats)
    }
}

pub(super) enum Answer {
    Reactor(ReactorAnswer),
    Nvme(ControllerSnapshot),
    Blk(BlkSnapshot),
}

/// Answers of one round. The lock is held for a push only.
type Answers = Arc<Mutex<Vec<(Party, Answer)>>>;

/// An answer that was given once.
pub(super) struct Known {
    pub(super) answer: Answer,
    /// Which round it is of.
    round: u64,
}

/// An endpoint, whoever is connected to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Place {
    Nvme(ListenerId),
    Blk(EndpointId),
}

/// What all guests of an endpoint have done.
#[derive(Debug, Default)]
pub(super) struct Carries {
    /// By queue ID.
    pub(super) queues: Carry,
    /// By NSID.
    pub(super) namespaces: Carry,
}

/// Where the gathering stands.
pub(crate) struct Gathering {
    started: Instant,
    /// For whom the present round is; `None` between rounds.
    running: Option<Vec<Then>>,
    /// For whom the next is.
    waiting: Vec<Then>,
    round: u64,
    /// How long a round waits.
    pub(super) patience: Duration,
    /// Questions on their way. A party whose question is alive has not answered.
    asked: HashMap<Party, Weak<()>>,
    known: HashMap<Party, Known>,
    carries: HashMap<Place, Carries>,
    /// Calls that came over the socket.
    pub(crate) requests: u64,
}

impl Default for Gathering {
    fn default() -> Self {
        Self {
            started: Instant::now(),
            running: None,
            waiting: Vec::new(),
            round: 0,
            patience: PATIENCE,
            asked: HashMap::new(),
            known: HashMap::new(),
            carries: HashMap::new(),
            requests: 0,
        }
    }
}

impl Gathering {
    /// Lets go of everybody who waits: the daemon ends.
    pub(crate) fn abandon(&mut self) {
        self.running = None;
        self.waiting.clear();
    }

    /// How long the daemon runs.
    pub(super) fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    /// What this party said last.
    pub(super) fn known(&self, party: Party) -> Option<&Answer> {
        self.known.get(&party).map(|known| &known.answer)
    }

    /// Whether it said that in this round.
    pub(super) fn is_fresh(&self, party: Party) -> bool {
        let known = self.known.get(&party);
        known.is_some_and(|known| known.round == self.round)
    }

    /// A token that lives as long as the question, or `None` if this party still has one.
    fn question(&mut self, party: Party) -> Option<Arc<()>> {
        let pending = self.asked.get(&party);
        if pending.is_some_and(|asked| asked.strong_count() > 0) {
            return None;
        }
        let question = Arc::new(());
        self.asked.insert(party, Arc::downgrade(&question));
        Some(question)
    }

    fn take(&mut self, answers: &Answers) {
        let mut answers = answers.lock().unwrap_or_else(PoisonError::into_inner);
        for (party, answer) in answers.drain(..) {
            let round = self.round;
            self.carry(party, &answer);
            self.known.insert(party, Known { answer, round });
        }
    }

    /// Adds a controller's counts to those of its predecessors.
    fn carry(&mut self, party: Party, answer: &Answer) {
        let (Some(place), Some(session)) = (party.place(), party.session()) else {
            return;
        };
        let (queues, namespaces) = picture::counts(answer);
        let carries = self.carries.entry(place).or_default();
        carries.queues.update(session, &queues);
        carries.namespaces.update(session, &namespaces);
    }

    /// What all guests of an endpoint have done through all queues.
    pub(super) fn total(&self, party: Party) -> QueueCounters {
        let carries = party.place().and_then(|place| self.carries.get(&place));
        carries
            .map(|carries| carries.queues.total())
            .unwrap_or_default()
    }

    /// What they have done to a namespace.
    pub(super) fn namespace_total(&self, party: Party, nsid: u32) -> QueueCounters {
        let carries = party.place().and_then(|place| self.carries.get(&place));
        let found = carries.map(|carries| carries.namespaces.of(nsid));
        found.unwrap_or_default()
    }

    /// Forgets a namespace that an endpoint does not show any more: another may get its number.
    pub(super) fn retain_namespaces(&mut self, party: Party, keep: impl Fn(u32) -> bool) {
        let place = party.place();
        if let Some(carries) = place.and_then(|place| self.carries.get_mut(&place)) {
            carries.namespaces.retain(keep);
        }
    }

    /// Forgets who is not there any more.
    fn retain(&mut self, present: &[Party]) {
        let places: Vec<_> = present.iter().filter_map(|party| party.place()).collect();
        self.carries.retain(|place, _| places.contains(place));
        self.asked.retain(|party, _| present.contains(party));
        self.known.retain(|party, _| present.contains(party));
    }
}

impl Control {
    /// Gathers the picture and runs `then` with it, within two seconds whoever is asked does or does not do.
    pub(crate) fn telemetry(&mut self, then: impl FnOnce(&mut Control, Telemetry) + 'static) {
        self.gathering.waiting.push(Box::new(then));
        if self.gathering.running.is_none() {
            self.start_round();
        }
    }

    fn start_round(&mut self) {
        self.gathering.running = Some(std::mem::take(&mut self.gathering.waiting));
        self.gathering.round += 1;
        let (round, patience) = (self.gathering.round, self.gathering.patience);
        let answers = Answers::default();
        let unasked = RpcError::internal("not reached: nobody asked");
        let collected = Arc::clone(&answers);
        let ack = self.wait(None, patience, unasked, move |control, _| {
            control.end_round(round, &collected);
        });
        let collected = Arc::clone(&answers);
        self.after(patience, move |control| {
            control.end_round(round, &collected)
        });
        self.ask_reactors(&answers, &ack);
        self.ask_controllers(&answers, &ack);
    }

    /// The last has answered, or time is up, whichever comes first.
    fn end_round(&mut self, round: u64, answers: &Answers) {
        if self.gathering.round != round {
            return;
        }
        let Some(waiting) = self.gathering.running.take() else {
            return;
        };
        self.gathering.take(answers);
        let telemetry = self.picture();
        for then in waiting {
            then(self, telemetry.clone());
        }
        if !self.gathering.waiting.is_empty() && self.gathering.running.is_none() {
            self.start_round();
        }
    }

    fn ask_reactors(&mut self, answers: &Answers, ack: &Ack) {
        let bdevs = self.disks.iter().map(|disk| Arc::clone(&disk.bdev));
        let bdevs: Arc<[SharedBdev]> = bdevs.collect();
        for (index, reactor) in self.reactors.iter().enumerate() {
            let party = Party::Reactor(index);
            let Some(question) = self.gathering.question(party) else {
                continue;
            };
            let (bdevs, answers, ack) = (Arc::clone(&bdevs), Arc::clone(answers), ack.clone());
            reactor.send(move |reactor| {
                let answer = Answer::Reactor(look(reactor, &bdevs));
                put(&answers, party, answer);
                drop(question);
                drop(ack);
            });
        }
    }

    fn ask_controllers(&mut self, answers: &Answers, ack: &Ack) {
        let listeners = self.nvmf.subsystems.iter().flat_map(|it| &it.listeners);
        let nvme = listeners.map(|it| (Party::nvme(it), it.controller().cloned()));
        let nvme: Vec<_> = nvme.collect();
        let blk = self.blk.all().map(|it| {
            let handle = it.client().map(|client| client.handle.clone());
            (Party::blk(it), handle)
        });
        let blk: Vec<_> = blk.collect();
        let reactors = (0..self.reactors.len()).map(Party::Reactor);
        for subsystem in &self.nvmf.subsystems {
            for listener in &subsystem.listeners {
                let party = Party::nvme(listener);
                let shown = |nsid| subsystem.namespaces.contains_key(&nsid);
                self.gathering.retain_namespaces(party, shown);
            }
        }
        let parties = nvme.iter().map(|(party, _)| *party);
        let parties = parties.chain(blk.iter().map(|(party, _)| *party));
        self.gathering
            .retain(&parties.chain(reactors).collect::<Vec<_>>());
        for (party, handle) in nvme {
            if let Some(handle) = handle
                && let Some(reply) = self.reply(party, answers, ack, Answer::Nvme)
            {
                handle.describe(reply);
            }
        }
        for (party, handle) in blk {
            if let Some(handle) = handle
                && let Some(reply) = self.reply(party, answers, ack, Answer::Blk)
            {
                handle.describe(reply);
            }
        }
    }

    fn reply<T: 'static>(
        &mut self,
        party: Party,
        answers: &Answers,
        ack: &Ack,
        wrap: fn(T) -> Answer,
    ) -> Option<Reply<T>> {
        let question = self.gathering.question(party)?;
        let (answers, ack) = (Arc::clone(answers), ack.clone());
        Some(Reply::new(move |answer| {
            put(&answers, party, wrap(answer));
            drop(question);
            drop(ack);
        }))
    }
}

fn put(answers: &Answers, party: Party, answer: Answer) {
    let mut answers = answers.lock().unwrap_or_else(PoisonError::into_inner);
    answers.push((party, answer));
}

/// What a reactor knows, on its own thread.
fn look(reactor: &mut Reactor, bdevs: &[SharedBdev]) -> ReactorAnswer {
    let stats = reactor.stats();
    let cx = reactor.cx();
    let bdevs = bdevs
        .iter()
        .map(|bdev| (Arc::downgrade(bdev), bdev::local_stats(bdev, cx)));
    ReactorAnswer {
        stats,
        bdevs: bdevs.collect(),
    }
}
