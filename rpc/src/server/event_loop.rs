//! The server's thread.

use super::connection::{CHUNK, Connection, Place, Turn, Verdict};
use super::{Limits, Sink};
use crate::message::Outcome;
use crate::responder::Responder;
use mio::net::UnixListener;
use mio::{Events, Interest, Poll, Token, Waker};
use std::collections::{BTreeSet, HashMap};
use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};
use std::time::{Duration, Instant};

pub(super) const LISTENER: Token = Token(0);
pub(super) const WAKER: Token = Token(1);
/// Connections are numbered from here and never share a number, so a late answer cannot reach
/// another client.
const FIRST_CONNECTION: usize = 2;

/// How long to wait after accept(2) failed for want of descriptors or memory.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// What other threads tell the loop.
pub(super) enum Note {
    /// A call was answered.
    Answer {
        connection: usize,
        place: Place,
        outcome: Outcome,
    },
    /// Stop, but let clients read what they are owed until then.
    Stop { until: Instant },
}

/// The way into the loop from any thread.
#[derive(Clone)]
pub(super) struct Mailbox {
    pub(super) notes: Sender<Note>,
    pub(super) waker: Arc<Waker>,
}

impl Mailbox {
    /// Drops the note if the loop is no more.
    pub(super) fn post(&self, note: Note) {
        if self.notes.send(note).is_ok()
            && let Err(error) = self.waker.wake()
        {
            tracing::error!(%error, "cannot wake the RPC thread");
        }
    }
}

pub(super) struct EventLoop {
    pub(super) poll: Poll,
    /// `None` once the server stops.
    pub(super) listener: Option<UnixListener>,
    pub(super) mailbox: Mailbox,
    pub(super) notes: Receiver<Note>,
    pub(super) limits: Limits,
    pub(super) sink: Sink,
}

/// What the loop keeps while it runs.
struct Clients {
    connections: HashMap<usize, Connection>,
    next: usize,
    /// Connections with something to do.
    turns: BTreeSet<usize>,
    /// When a connection wants a turn without an event.
    deadlines: HashMap<usize, Instant>,
    /// Edge-triggered readiness of the listener.
    acceptable: bool,
    accept_again: Option<Instant>,
    /// The operator knows that clients wait.
    told_full: bool,
    stop: Option<Instant>,
}

impl EventLoop {
    pub(super) fn run(mut self) {
        let mut events = Events::with_capacity(128);
        let mut chunk = vec![0; CHUNK];
        let mut clients = Clients {
            connections: HashMap::new(),
            next: FIRST_CONNECTION,
            turns: BTreeSet::new(),
            deadlines: HashMap::new(),
            // Clients may have connected before the thread began.
            acceptable: true,
            accept_again: None,
            told_full: false,
            stop: None,
        };
        loop {
            let turns = std::mem::take(&mut clients.turns);
            for id in turns {
                self.give_turn(&mut clients, id, &mut chunk);
            }
            // After the turns: one that ended may have made room.
            self.accept(&mut clients);
            if let Some(stop) = clients.stop
                && (clients.connections.is_empty() || Instant::now() >= stop)
            {
                return;
            }
            if let Err(error) = self.poll.poll(&mut events, clients.timeout())
                && error.kind() != ErrorKind::Interrupted
            {
                tracing::error!(%error, "the RPC thread cannot wait for events and ends");
                return;
            }
            for event in &events {
                match event.token() {
                    LISTENER => clients.acceptable = true,
                    WAKER => {}
                    Token(id) => {
                        if let Some(connection) = clients.connections.get_mut(&id) {
                            connection.ready(event);
                            clients.turns.insert(id);
                        }
                    }
                }
            }
            self.take_notes(&mut clients);
            clients.take_deadlines();
        }
    }

    fn take_notes(&mut self, clients: &mut Clients) {
        // Answers wake the loop once each, but all that have come are taken together.
        while let Ok(note) = self.notes.try_recv() {
            match note {
                Note::Answer {
                    connection: id,
                    place,
                    outcome,
                } => {
                    if let Some(connection) = clients.connections.get_mut(&id) {
                        connection.answer(place, &outcome, &self.limits);
                        clients.turns.insert(id);
                    }
                }
                Note::Stop { until } => {
                    clients.stop = Some(until);
                    // Closing it takes it out of the poll as well.
                    self.listener = None;
                    for (id, connection) in &mut clients.connections {
                        connection.stop_reading();
                        clients.turns.insert(*id);
                    }
                }
            }
        }
    }

    /// Accepts while there is room. Clients beyond the limit wait in the listen queue: a burst of
    /// scripts is served in turn instead of seeing errors.
    fn accept(&mut self, clients: &mut Clients) {
        let Some(listener) = &self.listener else {
            return;
        };
        if clients.accept_again.is_some_and(|at| Instant::now() < at) {
            return;
        }
        clients.accept_again = None;
        while clients.acceptable {
            if clients.connections.len() >= self.limits.connections {
                if !std::mem::replace(&mut clients.told_full, true) {
                    let limit = self.limits.connections;
                    tracing::warn!(limit, "RPC connections are used up, further clients wait");
                }
                return;
            }
            match listener.accept() {
                Ok((stream, _)) => {
                    let id = clients.next;
                    clients.next += 1;
                    let mut connection = Connection::new(id, stream, &self.limits);
                    let interest = Interest::READABLE | Interest::WRITABLE;
                    let stream = connection.stream_mut();
                    match self.poll.registry().register(stream, Token(id), interest) {
                        Ok(()) => {
                            clients.connections.insert(id, connection);
                            clients.turns.insert(id);
                        }
                        Err(error) => tracing::error!(%error, "cannot serve an RPC client"),
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => clients.acceptable = false,
                Err(error) if is_the_client_s(&error) => {}
                Err(error) => {
                    tracing::error!(%error, "cannot accept an RPC client, will try again");
                    clients.accept_again = Some(Instant::now() + ACCEPT_RETRY);
                    return;
                }
            }
        }
    }

    fn give_turn(&mut self, clients: &mut Clients, id: usize, chunk: &mut [u8]) {
        let Some(connection) = clients.connections.get_mut(&id) else {
            return;
        };
        let mailbox = &self.mailbox;
        let verdict = connection.take_turn(&mut Turn {
            limits: &self.limits,
            chunk,
            sink: &mut *self.sink,
            responder: &|connection, place| {
                let mailbox = mailbox.clone();
                Responder::new(move |outcome| {
                    mailbox.post(Note::Answer {
                        connection,
                        place,
                        outcome,
                    });
                })
            },
        });
        clients.deadlines.remove(&id);
        match verdict {
            Verdict::Again => {
                clients.turns.insert(id);
            }
            Verdict::Wait(None) => {}
            Verdict::Wait(Some(until)) => {
                clients.deadlines.insert(id, until);
            }
            Verdict::Close => {
                // Closing it takes it out of the poll as well.
                clients.connections.remove(&id);
                if clients.connections.len() < self.limits.connections / 2 {
                    clients.told_full = false;
                }
            }
        }
    }
}

fn is_the_client_s(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::Interrupted | ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset
    )
}

impl Clients {
    fn timeout(&self) -> Option<Duration> {
        if !self.turns.is_empty() {
            return Some(Duration::ZERO);
        }
        let next = self.deadlines.values().copied();
        let next = next.chain(self.accept_again).chain(self.stop).min()?;
        // Rounded up, since a poll that ends a moment early would spin.
        let left = next.saturating_duration_since(Instant::now());
        Some(left.saturating_add(Duration::from_millis(1)))
    }

    fn take_deadlines(&mut self) {
        let now = Instant::now();
        let due = self.deadlines.iter().filter(|(_, until)| **until <= now);
        self.turns.extend(due.map(|(id, _)| *id));
    }
}
