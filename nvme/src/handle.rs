//! A controller, seen from the control thread.

use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Sender, bounded};
use reactor::{Ack, Gone, ReactorHandle};

use crate::namespace::NamespaceSet;

/// What the control thread may ask of a controller.
#[derive(Debug)]
pub(crate) enum Control {
    /// Show these namespaces from here on; the ack goes when no channel to a disk that left the set is open.
    Namespaces(Arc<NamespaceSet>, Ack),
    /// Describe yourself.
    Snapshot(Sender<ControllerSnapshot>),
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
}

/// A controller at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControllerSnapshot {
    /// Controller ID.
    pub cntlid: u16,
    /// CSTS.RDY.
    pub ready: bool,
    /// CSTS.CFS.
    pub failed: bool,
    /// Queues that exist.
    pub queues: Vec<QueueSnapshot>,
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

    /// Describes the controller.
    ///
    /// # Errors
    /// [`Gone`] if it has ended or does not answer within `timeout`.
    pub fn snapshot(&self, timeout: Duration) -> Result<ControllerSnapshot, Gone> {
        let (sender, receiver) = bounded(1);
        self.mailbox
            .send(Control::Snapshot(sender))
            .map_err(|_| Gone)?;
        self.home.wake();
        receiver.recv_timeout(timeout).map_err(|_| Gone)
    }
}
