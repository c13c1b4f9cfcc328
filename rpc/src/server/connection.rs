//! One client.

use super::Limits;
use super::outbox::Outbox;
use crate::caller::Caller;
use crate::error::RpcError;
use crate::frame::{Frame, FrameError, Framer};
use crate::message::{self, Call, Id, Invalid, Item, Message, Outcome};
use crate::notifier::{self, Notifier};
use crate::responder::{Request, Responder};
use mio::net::UnixStream;
use serde_json::json;
use std::collections::HashMap;
use std::io::{ErrorKind, Read};
use std::net::Shutdown;
use std::time::{Duration, Instant};

/// Bytes read at once, and how often before other clients have their turn.
pub(super) const CHUNK: usize = 16 * 1024;
const CHUNKS_PER_TURN: usize = 4;

/// A client's requests are left in its socket while this much of it is in hand.
const MAX_CALLS: usize = 128;
const MAX_HELD: usize = 1024 * 1024;

/// So much a client may hold while the server as a whole holds more than it should: enough for every
/// ordinary call.
const FAIR: usize = 16 * 1024;

/// A refused client may still be sending, and could not read why it was refused if we closed at
/// once (a write to a closed socket fails, and closing with unread bytes resets it). So its input
/// is thrown away for a while.
const LINGER: Duration = Duration::from_secs(5);
const LINGER_BYTES: usize = 64 * 1024 * 1024;

/// Which call of a connection an answer is for.
#[derive(Debug)]
pub(super) enum Place {
    /// A request by itself, of so many bytes.
    Single { id: Id, bytes: usize },
    /// An element of a batch.
    Batch { batch: u64, index: usize, id: Id },
}

/// What a connection needs from the loop around it.
pub(super) struct Turn<'a> {
    pub(super) limits: &'a Limits,
    /// All clients together hold more than [`Limits::total_bytes`].
    pub(super) pressed: bool,
    pub(super) chunk: &'a mut [u8],
    pub(super) sink: &'a mut dyn FnMut(Request),
    /// Makes the responder of a call of this connection.
    pub(super) responder: &'a dyn Fn(usize, Place) -> Responder,
}

/// What becomes of a connection after its turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing to do until an event, an answer, or this time.
    Wait(Option<Instant>),
    /// It has more input; let the others go first.
    Again,
    /// It is over.
    Close,
}

enum Input {
    Open,
    /// The client sends no more (it may still read: `shutdown(SHUT_WR)`), or the server stops.
    Ended,
    /// The stream cannot be read any further, or the client broke a limit.
    Refused {
        until: Instant,
        left: usize,
        said_goodbye: bool,
    },
}

/// A batch whose reply is one array, in the order of the requests.
struct Batch {
    replies: Vec<Option<Vec<u8>>>,
    pending: usize,
    /// Bytes of the request, and of the replies so far.
    bytes: usize,
    reply_bytes: usize,
}

pub(super) struct Connection {
    id: usize,
    stream: UnixStream,
    caller: Caller,
    notifier: Notifier,
    framer: Framer,
    /// When the request that is not yet complete was begun, or waited for again.
    begun: Option<Instant>,
    out: Outbox,
    /// Bytes of notifications in `out`, or already written of it.
    notified: usize,
    /// Calls not yet answered, and the bytes of their requests.
    calls: usize,
    call_bytes: usize,
    batches: HashMap<u64, Batch>,
    next_batch: u64,
    /// Bytes of replies in `batches`.
    batch_bytes: usize,
    input: Input,
    /// Edge-triggered readiness: true until the system says it would block.
    readable: bool,
    writable: bool,
    /// Nobody will read what is written.
    peer_gone: bool,
}

impl Connection {
    pub(super) fn new(
        id: usize,
        stream: UnixStream,
        caller: Caller,
        notifier: Notifier,
        limits: &Limits,
    ) -> Self {
        Self {
            id,
            stream,
            caller,
            notifier,
            framer: Framer::new(limits.request),
            begun: None,
            out: Outbox::default(),
            notified: 0,
            calls: 0,
            call_bytes: 0,
            batches: HashMap::new(),
            next_batch: 0,
            batch_bytes: 0,
            input: Input::Open,
            readable: true,
            writable: true,
            peer_gone: false,
        }
    }

    pub(super) fn ready(&mut self, event: &mio::event::Event) {
        self.readable |= event.is_readable() || event.is_read_closed() || event.is_error();
        self.writable |= event.is_writable();
        if event.is_write_closed() || event.is_error() {
            self.lose_peer();
        }
    }

    /// Takes no more requests; closes once everything taken is answered and read.
    pub(super) fn stop_reading(&mut self) {
        self.notifier.subscription.close();
        if matches!(self.input, Input::Open) {
            self.input = Input::Ended;
        }
    }

    /// Reads, dispatches and writes as far as this client goes without waiting.
    pub(super) fn take_turn(&mut self, turn: &mut Turn<'_>) -> Verdict {
        self.flush();
        for _ in 0..CHUNKS_PER_TURN {
            let wanted = match self.input {
                Input::Open => !self.is_busy(turn.pressed),
                Input::Ended => false,
                Input::Refused { left, .. } => left > 0,
            };
            if !wanted || !self.readable || !self.read_chunk(turn) {
                break;
            }
        }
        self.check_time(turn);
        self.flush();
        self.verdict(turn)
    }

    /// Whether this client has enough in hand. What it sends stays in its socket, and stops its
    /// sender; nobody else is touched.
    fn is_busy(&self, pressed: bool) -> bool {
        self.calls >= MAX_CALLS
            || self.call_bytes >= MAX_HELD
            || self.held() >= MAX_HELD
            || pressed && self.footprint() > FAIR
    }

    /// Bytes kept for this client.
    pub(super) fn footprint(&self) -> usize {
        let requests = self.call_bytes.saturating_add(self.framer.pending());
        self.held().saturating_add(requests)
    }

    /// Bytes that this client could read and does not.
    pub(super) fn unread(&self) -> usize {
        match self.writable {
            true => 0,
            false => self.out.len(),
        }
    }

    /// Refuses a client that has begun a request and does not finish it. While it is the server
    /// that does not read, no time passes.
    fn check_time(&mut self, turn: &Turn<'_>) {
        let waits = matches!(self.input, Input::Open)
            && self.framer.pending() > 0
            && !self.is_busy(turn.pressed);
        if !waits {
            self.begun = None;
            return;
        }
        let begun = *self.begun.get_or_insert_with(Instant::now);
        let limit = turn.limits.request_time;
        if begun.elapsed() >= limit {
            let error = RpcError::invalid_request(format_args!(
                "its end has not come within {} s of its beginning, after {} bytes: send it whole",
                limit.as_secs_f64(),
                self.framer.pending()
            ));
            self.refuse(error, turn.limits);
        }
    }

    /// Bytes of replies not yet read by the client.
    fn held(&self) -> usize {
        self.out.len().saturating_add(self.batch_bytes)
    }

    fn verdict(&mut self, turn: &Turn<'_>) -> Verdict {
        let idle = self.calls == 0 && self.out.len() == 0;
        let more = self.readable && !self.is_busy(turn.pressed);
        let limit = turn.limits.request_time;
        match &mut self.input {
            Input::Open if more => Verdict::Again,
            Input::Open => Verdict::Wait(self.begun.and_then(|begun| begun.checked_add(limit))),
            Input::Ended if self.peer_gone || idle => Verdict::Close,
            Input::Ended => Verdict::Wait(None),
            Input::Refused { .. } if self.peer_gone => Verdict::Close,
            Input::Refused {
                until,
                left,
                said_goodbye,
            } => {
                if idle && !*said_goodbye {
                    *said_goodbye = true;
                    let _ = self.stream.shutdown(Shutdown::Write);
                }
                let over = *left == 0 || Instant::now() >= *until;
                match over {
                    // Calls that came before the offence are still owed an answer.
                    true if self.calls == 0 => Verdict::Close,
                    true => Verdict::Wait(None),
                    false if self.readable => Verdict::Again,
                    false => Verdict::Wait(Some(*until)),
                }
            }
        }
    }

    /// Returns false when there is nothing more to read now.
    fn read_chunk(&mut self, turn: &mut Turn<'_>) -> bool {
        let count = match self.stream.read(turn.chunk) {
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::Interrupted => return true,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                self.readable = false;
                return false;
            }
            Err(_) => {
                self.lose_peer();
                0
            }
        };
        if count == 0 {
            self.end_input(turn.limits);
            return false;
        }
        match &mut self.input {
            Input::Open | Input::Ended => {}
            Input::Refused { left, .. } => {
                *left = left.saturating_sub(count);
                return true;
            }
        }
        let chunk = std::mem::take(&mut turn.chunk);
        let mut input = chunk.get(..count).unwrap_or_default();
        while let Some(frame) = self.framer.next(&mut input) {
            self.begun = None;
            let refused = match frame {
                Ok(Frame::Scalar) => {
                    let item = message::invalid("a request is an object or an array of them");
                    self.start(Message::Single(item), 0, turn);
                    None
                }
                Ok(Frame::Container(bytes)) => match message::parse(&bytes) {
                    Ok(message) => {
                        self.start(message, bytes.len(), turn);
                        None
                    }
                    Err(error) => Some(error),
                },
                Err(error) => Some(error.into()),
            };
            if let Some(error) = refused {
                self.refuse(error, turn.limits);
                break;
            }
        }
        turn.chunk = chunk;
        true
    }

    fn end_input(&mut self, limits: &Limits) {
        self.readable = false;
        match self.input {
            Input::Open => {
                self.input = Input::Ended;
                self.notifier.subscription.close();
                if let Err(error) = self.framer.finish() {
                    self.reply(&None, &Err(error.into()), limits);
                }
            }
            Input::Ended => {}
            // It has finished sending, so it can read without being reset.
            Input::Refused { .. } => self.input = Input::Ended,
        }
    }

    /// Answers an error and takes nothing more.
    pub(super) fn refuse(&mut self, error: RpcError, limits: &Limits) {
        tracing::debug!(connection = self.id, %error, "RPC client refused");
        self.notifier.subscription.close();
        self.reply(&None, &Err(error), limits);
        self.input = Input::Refused {
            until: Instant::now() + LINGER,
            left: LINGER_BYTES,
            said_goodbye: false,
        };
    }

    fn start(&mut self, message: Message, bytes: usize, turn: &mut Turn<'_>) {
        match message {
            Message::Single(Ok(call)) => {
                self.calls += 1;
                self.call_bytes = self.call_bytes.saturating_add(bytes);
                self.forward(call, turn, |id| Place::Single { id, bytes });
            }
            Message::Single(Err(Invalid { id, error })) => {
                self.reply(&id, &Err(error), turn.limits);
            }
            Message::Batch(items) => self.start_batch(items, bytes, turn),
        }
    }

    fn start_batch(&mut self, items: Vec<Item>, bytes: usize, turn: &mut Turn<'_>) {
        let batch = self.next_batch;
        self.next_batch = self.next_batch.wrapping_add(1);
        let calls = items.iter().filter(|item| item.is_ok()).count();
        self.calls = self.calls.saturating_add(calls);
        self.call_bytes = self.call_bytes.saturating_add(bytes);
        self.batches.insert(
            batch,
            Batch {
                replies: vec![None; items.len()],
                // One more, so that the batch is complete only after the last element is seen.
                pending: calls + 1,
                bytes,
                reply_bytes: 0,
            },
        );
        for (index, item) in items.into_iter().enumerate() {
            match item {
                Ok(call) => self.forward(call, turn, |id| Place::Batch { batch, index, id }),
                Err(Invalid { id, error }) => {
                    self.put_in_batch(batch, index, &id, &Err(error), turn.limits);
                }
            }
        }
        self.count_down(batch);
    }

    fn forward(&self, call: Call, turn: &mut Turn<'_>, place: impl FnOnce(Id) -> Place) {
        let Call { id, method, params } = call;
        tracing::debug!(connection = self.id, %method, "RPC call");
        let responder = (turn.responder)(self.id, place(id));
        (turn.sink)(Request {
            method,
            params,
            caller: self.caller,
            responder: responder.for_client(self.notifier.clone()),
        });
    }

    /// Takes the answer of a call.
    pub(super) fn answer(&mut self, place: Place, outcome: &Outcome, limits: &Limits) {
        self.calls = self.calls.saturating_sub(1);
        match place {
            Place::Single { id, bytes } => {
                self.call_bytes = self.call_bytes.saturating_sub(bytes);
                self.reply(&id, outcome, limits);
            }
            Place::Batch { batch, index, id } => {
                self.put_in_batch(batch, index, &id, outcome, limits);
                self.count_down(batch);
            }
        }
    }

    fn reply(&mut self, id: &Id, outcome: &Outcome, limits: &Limits) {
        if self.peer_gone {
            return;
        }
        let room = limits.reply_bytes.saturating_sub(self.held());
        if let Some(reply) = message::encode(id, outcome, room) {
            self.out.push(reply);
        }
    }

    fn put_in_batch(
        &mut self,
        batch: u64,
        index: usize,
        id: &Id,
        outcome: &Outcome,
        limits: &Limits,
    ) {
        let room = limits.reply_bytes.saturating_sub(self.held());
        let Some(batch) = self.batches.get_mut(&batch) else {
            return;
        };
        if self.peer_gone {
            return;
        }
        if let Some(reply) = message::encode(id, outcome, room)
            && let Some(slot) = batch.replies.get_mut(index)
        {
            batch.reply_bytes = batch.reply_bytes.saturating_add(reply.len());
            self.batch_bytes = self.batch_bytes.saturating_add(reply.len());
            *slot = Some(reply);
        }
    }

    /// One element of a batch is done; with the last one the reply goes out. A batch of nothing
    /// but notifications has none.
    fn count_down(&mut self, batch: u64) {
        let std::collections::hash_map::Entry::Occupied(mut entry) = self.batches.entry(batch)
        else {
            return;
        };
        entry.get_mut().pending = entry.get().pending.saturating_sub(1);
        if entry.get().pending > 0 {
            return;
        }
        let batch = entry.remove();
        self.call_bytes = self.call_bytes.saturating_sub(batch.bytes);
        self.batch_bytes = self.batch_bytes.saturating_sub(batch.reply_bytes);
        let replies: Vec<Vec<u8>> = batch.replies.into_iter().flatten().collect();
        if replies.is_empty() || self.peer_gone {
            return;
        }
        let mut array = Vec::with_capacity(batch.reply_bytes + replies.len() + 2);
        array.push(b'[');
        array.extend(replies.join(&b','));
        array.push(b']');
        self.out.push(array);
    }

    /// Takes a notification for this client.
    pub(super) fn notify(&mut self, notification: Vec<u8>) {
        if self.peer_gone || !matches!(self.input, Input::Open) {
            return;
        }
        self.notified = self.notified.saturating_add(notification.len());
        self.out.push(notification);
    }

    fn flush(&mut self) {
        while self.writable && self.out.len() > 0 {
            match self.out.write_to(&mut self.stream) {
                Ok(true) => self.tell_lost(),
                Ok(false) => self.writable = false,
                Err(_) => self.lose_peer(),
            }
        }
    }

    /// The client has read everything: there is room for notifications again, and time to say how
    /// many it missed.
    fn tell_lost(&mut self) {
        if self.notified == 0 {
            return;
        }
        let sent = std::mem::take(&mut self.notified);
        let count = self.notifier.subscription.sent(sent);
        if count > 0
            && let Some(notice) = notifier::encode(notifier::LOST, &json!({ "count": count }))
        {
            self.out.push(notice);
        }
    }

    /// What was asked still runs; its replies have nowhere to go.
    fn lose_peer(&mut self) {
        self.peer_gone = true;
        self.notifier.subscription.close();
        self.out.clear();
        for batch in self.batches.values_mut() {
            batch.replies.clear();
            batch.reply_bytes = 0;
        }
        self.batch_bytes = 0;
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.notifier.subscription.close();
    }
}

impl From<FrameError> for RpcError {
    fn from(error: FrameError) -> Self {
        match error {
            FrameError::TooLong(_) => RpcError::invalid_request(error),
            _ => RpcError::parse_error(error),
        }
    }
}
