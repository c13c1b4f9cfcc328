//! A device, seen from the control thread.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bdev::{SharedBdev, Traffic};
use crossbeam_channel::{Sender, bounded};
use reactor::{Ack, Gone, ReactorHandle, Reply};

use super::config::Coalescing;

/// What the control thread may ask of a device.
#[derive(Debug)]
pub(crate) enum Control {
    /// Use this disk, or none, from here on; the ack goes when the former one's channels are closed.
    Disk(Option<SharedBdev>, Ack),
    /// The disk may have another length.
    Resized,
    /// Hold interrupts back like this.
    Coalescing(Coalescing),
    /// Describe yourself.
    Snapshot(Gather),
}

/// A queue that is being served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueInfo {
    /// Which.
    pub index: u16,
    /// Entries.
    pub size: u16,
    /// Whether its ring is packed.
    pub packed: bool,
    /// The reactor that serves it.
    pub lcore: u32,
    /// Requests taken from it and not ended.
    pub in_flight: u16,
    /// Requests that have ended since the queue was started.
    pub traffic: Traffic,
    /// Interrupts raised since then.
    pub interrupts: u64,
}

/// A device at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BlkSnapshot {
    /// The features that the driver accepted; 0 before it did.
    pub features: u64,
    /// Queues that are served, by index.
    pub queues: Vec<QueueInfo>,
}

/// Collects a snapshot from all reactors: whoever has something to tell adds it, the last one to let go sends it. One that dies
/// lets go too.
#[derive(Debug)]
pub(crate) struct Gather {
    reply: Option<Reply<BlkSnapshot>>,
    /// `None` until the device has said something: what it never saw is not answered.
    snapshot: Mutex<Option<BlkSnapshot>>,
}

impl Gather {
    /// Changes what will be sent.
    pub(crate) fn add(&self, change: impl FnOnce(&mut BlkSnapshot)) {
        let mut snapshot = self.snapshot.lock().unwrap_or_else(PoisonError::into_inner);
        change(snapshot.get_or_insert_default());
    }
}

impl Drop for Gather {
    fn drop(&mut self) {
        let snapshot = self.snapshot.get_mut();
        let snapshot = snapshot.unwrap_or_else(PoisonError::into_inner).take();
        if let (Some(mut snapshot), Some(reply)) = (snapshot, self.reply.take()) {
            snapshot.queues.sort_unstable_by_key(|queue| queue.index);
            reply.send(snapshot);
        }
    }
}

/// Talks to a device on its home reactor. Dropping it changes nothing.
#[derive(Clone, Debug)]
pub struct BlkHandle {
    pub(crate) mailbox: Sender<Control>,
    pub(crate) home: ReactorHandle,
}

impl BlkHandle {
    fn send(&self, control: Control) {
        // If the device is gone the message is dropped, and with it whatever ack or reply it carries.
        let _ = self.mailbox.send(control);
        self.home.wake();
    }

    /// Gives the device another disk, or none: then each request ends with an error and the capacity shown to the driver stays, so
    /// that a guest survives until the disk comes back. Requests that were taken go on with the former disk. `ack` is released
    /// when all channels to that are closed, on every reactor; at once if the device is gone.
    pub fn set_disk(&self, disk: Option<SharedBdev>, ack: Ack) {
        self.send(Control::Disk(disk, ack));
    }

    /// The disk has been resized: the driver is told.
    pub fn resized(&self) {
        self.send(Control::Resized);
    }

    /// Changes how interrupts are held back.
    pub fn set_coalescing(&self, coalescing: Coalescing) {
        self.send(Control::Coalescing(coalescing));
    }

    /// Has the device described to `reply`, on one of its reactors; never if it is gone.
    pub fn describe(&self, reply: Reply<BlkSnapshot>) {
        self.send(Control::Snapshot(Gather {
            reply: Some(reply),
            snapshot: Mutex::default(),
        }));
    }

    /// Describes the device. Not from a reactor's own thread.
    ///
    /// # Errors
    /// [`Gone`] if it has ended or does not answer within `timeout`.
    pub fn snapshot(&self, timeout: Duration) -> Result<BlkSnapshot, Gone> {
        let (sender, receiver) = bounded(1);
        self.describe(Reply::new(move |snapshot| {
            // Whoever asked may have stopped waiting.
            let _ = sender.try_send(snapshot);
        }));
        receiver.recv_timeout(timeout).map_err(|_| Gone)
    }
}
