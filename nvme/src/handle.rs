//! A controller, seen from the control thread.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bdev::Traffic;
use crossbeam_channel::{Sender, bounded};
use reactor::{Ack, Gone, ReactorHandle, Reply};

use crate::namespace::NamespaceSet;

/// What the control thread may ask of a controller.
#[derive(Debug)]
pub(crate) enum Control {
    /// Show these namespaces from here on; the ack goes when no channel to a disk that left the set is open.
    Namespaces(Arc<NamespaceSet>, Ack),
    /// Describe yourself.
    Snapshot(Gather),
}

/// An I/O queue pair or the admin queue, for `nvmf_subsystem_get_qpairs`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueSnapshot {
    /// Submission queue ID; 0 is the admin queue.
    pub qid: u16,
    /// Its completion queue.
    pub cqid: u16,
    /// Entries.
    pub entries: u32,
    /// The reactor it is served by.
    pub lcore: u32,
    /// Commands that have ended since it was created.
    pub traffic: Traffic,
    /// Interrupts raised for its completion queue since that was created; of the queues on one completion queue the first shows
    /// them, so that they can be added up.
    pub interrupts: u64,
    /// Commands taken from it that have not ended.
    pub in_flight: u32,
}

/// A namespace as the controller's commands saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamespaceSnapshot {
    /// Namespace ID.
    pub nsid: u32,
    /// Name of the disk.
    pub bdev: String,
    /// Commands that have ended since the namespace was shown to this client.
    pub traffic: Traffic,
}

/// A controller at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ControllerSnapshot {
    /// Controller ID.
    pub cntlid: u16,
    /// CSTS.RDY.
    pub ready: bool,
    /// CSTS.CFS.
    pub failed: bool,
    /// Queues that exist, by ID.
    pub queues: Vec<QueueSnapshot>,
    /// Namespaces that the guest sees, by NSID.
    pub namespaces: Vec<NamespaceSnapshot>,
}

impl ControllerSnapshot {
    /// Enters what a shard knows of a queue; what the controller does not know is on its way out.
    pub(crate) fn describe_queue(
        &mut self,
        qid: u16,
        traffic: Traffic,
        interrupts: u64,
        in_flight: u32,
    ) {
        if let Some(queue) = self.queues.iter_mut().find(|queue| queue.qid == qid) {
            (queue.traffic, queue.interrupts, queue.in_flight) = (traffic, interrupts, in_flight);
        }
    }

    /// Enters what a shard has counted of a namespace.
    pub(crate) fn count_namespace(&mut self, nsid: u32, traffic: &Traffic) {
        if let Some(namespace) = self.namespaces.iter_mut().find(|it| it.nsid == nsid) {
            namespace.traffic.add(traffic);
        }
    }
}

/// Collects a snapshot from all reactors: whoever has something to tell adds it, the last one to let go sends it. One that dies
/// lets go too.
#[derive(Debug)]
pub(crate) struct Gather {
    reply: Option<Reply<ControllerSnapshot>>,
    /// `None` until the controller has said something: what it never saw is not answered.
    snapshot: Mutex<Option<ControllerSnapshot>>,
}

impl Gather {
    /// Changes what will be sent.
    pub(crate) fn add(&self, change: impl FnOnce(&mut ControllerSnapshot)) {
        let mut snapshot = self.snapshot.lock().unwrap_or_else(PoisonError::into_inner);
        change(snapshot.get_or_insert_default());
    }
}

impl Drop for Gather {
    fn drop(&mut self) {
        let snapshot = self.snapshot.get_mut();
        let snapshot = snapshot.unwrap_or_else(PoisonError::into_inner).take();
        if let (Some(snapshot), Some(reply)) = (snapshot, self.reply.take()) {
            reply.send(snapshot);
        }
    }
}

/// Talks to a controller on its home reactor. Dropping it changes nothing.
#[derive(Clone, Debug)]
pub struct ControllerHandle {
    pub(crate) mailbox: Sender<Control>,
    pub(crate) home: ReactorHandle,
}

impl ControllerHandle {
    /// Shows a new set of namespaces to the guest (which learns of changes by event). `ack` is released when channels to disks that
    /// left the set are closed, on every reactor; at once if the controller is gone.
    pub fn set_namespaces(&self, set: Arc<NamespaceSet>, ack: Ack) {
        // If the controller is gone the message is dropped, and with it the ack.
        let _ = self.mailbox.send(Control::Namespaces(set, ack));
        self.home.wake();
    }

    /// Has the controller described to `reply`, on one of its reactors: each that serves it adds its part. Never if it is gone.
    pub fn describe(&self, reply: Reply<ControllerSnapshot>) {
        // If the controller is gone the message is dropped, and with it the reply.
        let _ = self.mailbox.send(Control::Snapshot(Gather {
            reply: Some(reply),
            snapshot: Mutex::default(),
        }));
        self.home.wake();
    }

    /// Describes the controller. Not from a reactor's own thread.
    ///
    /// # Errors
    /// [`Gone`] if it has ended or does not answer within `timeout`.
    pub fn snapshot(&self, timeout: Duration) -> Result<ControllerSnapshot, Gone> {
        let (sender, receiver) = bounded(1);
        self.describe(Reply::new(move |snapshot| {
            // Whoever asked may have stopped waiting.
            let _ = sender.try_send(snapshot);
        }));
        receiver.recv_timeout(timeout).map_err(|_| Gone)
    }
}
