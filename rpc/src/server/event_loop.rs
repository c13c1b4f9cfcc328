//! The server's thread.

mod accept;

use super::connection::{CHUNK, Connection, Place, Turn, Verdict};
use super::{Limits, Sink};
use crate::caller::Access;
use crate::message::Outcome;
use crate::responder::Responder;
use accept::Door;
use mio::net::UnixListener;
use mio::{Events, Poll, Token, Waker};
use std::collections::{BTreeSet, HashMap};
use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender};
use std::time::{Duration, Instant};

pub(super) const LISTENER: Token = Token(0);
pub(super) const WAKER: Token = Token(1);
/// Connections are numbered from here and never share a number, so a late answer cannot reach
/// another client.
const FIRST_CONNECTION: usize = 2;

/// What other threads tell the loop.
pub(super) enum Note {
    /// A call was answered.
    Answer {
        connection: usize,
        place: Place,
        outcome: Outcome,
    },
    /// A notification for a client.
    Notify {
        connection: usize,
        notification: Vec<u8>,
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
    pub(super) access: Access,
    /// How many are connected, for whoever asks.
    pub(super) count: Arc<AtomicUsize>,
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
    /// Connections that were too many. They are there only to be told so.
    refused: BTreeSet<usize>,
    door: Door,
    /// What all connections keep, and each of them when it was last looked at.
    held: usize,
    footprints: HashMap<usize, usize>,
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
            refused: BTreeSet::new(),
            door: Door::new(),
            held: 0,
            footprints: HashMap::new(),
            stop: None,
        };
        loop {
            let turns = std::mem::take(&mut clients.turns);
            for id in turns {
                self.give_turn(&mut clients, id, &mut chunk);
            }
            clients.relieve(self.limits.total_bytes);
            // After the turns: one that ended may have made room.
            self.accept(&mut clients);
            self.count
                .store(clients.connections.len(), Ordering::Relaxed);
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
                    LISTENER => clients.door.knock(),
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
                Note::Notify {
                    connection: id,
                    notification,
                } => {
                    if let Some(connection) = clients.connections.get_mut(&id) {
                        connection.notify(notification);
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

    fn give_turn(&mut self, clients: &mut Clients, id: usize, chunk: &mut [u8]) {
        let Some(connection) = clients.connections.get_mut(&id) else {
            return;
        };
        let mailbox = &self.mailbox;
        let verdict = connection.take_turn(&mut Turn {
            limits: &self.limits,
            pressed: clients.held > self.limits.total_bytes,
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
        let footprint = connection.footprint();
        clients.account(id, footprint, self.limits.total_bytes);
        match verdict {
            Verdict::Again => {
                clients.turns.insert(id);
            }
            Verdict::Wait(None) => {}
            Verdict::Wait(Some(until)) => {
                clients.deadlines.insert(id, until);
            }
            Verdict::Close => clients.close(id, self.limits.total_bytes),
        }
    }
}

impl Clients {
    /// Forgets a connection. Closing it takes it out of the poll as well.
    fn close(&mut self, id: usize, limit: usize) {
        self.connections.remove(&id);
        self.deadlines.remove(&id);
        self.turns.remove(&id);
        self.refused.remove(&id);
        self.account(id, 0, limit);
        self.footprints.remove(&id);
    }

    /// Notes what a connection keeps now.
    fn account(&mut self, id: usize, footprint: usize, limit: usize) {
        let was_pressed = self.held > limit;
        let before = self.footprints.insert(id, footprint).unwrap_or(0);
        self.held = self.held.saturating_sub(before).saturating_add(footprint);
        if was_pressed && self.held <= limit {
            // Those that were not read for it.
            self.turns.extend(self.connections.keys());
        }
    }

    /// While clients together keep more than they may, those go that have most to read and do not
    /// read it. What others keep ends by itself: requests are answered, or are too slow.
    fn relieve(&mut self, limit: usize) {
        while self.held > limit {
            let unread = self.connections.iter();
            let unread = unread.map(|(id, connection)| (connection.unread(), *id));
            let Some((bytes @ 1.., id)) = unread.max() else {
                return;
            };
            tracing::warn!(
                bytes,
                limit,
                "RPC clients have too much to read; the one with the most is disconnected"
            );
            self.close(id, limit);
        }
    }

    fn timeout(&self) -> Option<Duration> {
        if !self.turns.is_empty() || self.door.is_open() {
            return Some(Duration::ZERO);
        }
        let next = self.deadlines.values().copied();
        let next = next.chain(self.door.opens_again()).chain(self.stop).min()?;
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
