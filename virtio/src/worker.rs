//! A device's queues on one reactor.

use reactor::{Cx, Event, Idle, Poll, Poller};

use crate::blk::messages::{FromWorker, ToWorker};
use crate::blk::workers::WorkerStart;
use crate::device::RingState;

/// A device's queues on one reactor.
pub(crate) struct Worker {
    start: WorkerStart,
}

impl Worker {
    pub(crate) fn new(start: WorkerStart) -> Self {
        Self { start }
    }
}

impl Poller for Worker {
    fn name(&self) -> String {
        format!("virtio-blk worker {}", self.start.config.label)
    }

    fn poll(&mut self, _cx: &mut Cx) -> Poll {
        while let Ok(message) = self.start.inbox.try_recv() {
            match message {
                ToWorker::Stop { index } => {
                    let state = RingState::default();
                    let _ = self.start.outbox.send(FromWorker::Stopped { index, state });
                    self.start.home.wake();
                }
                ToWorker::Exit => return Poll::Remove,
                _ => {}
            }
        }
        Poll::Idle
    }

    fn event(&mut self, _cx: &mut Cx, _event: Event) {}

    fn idle(&self) -> Idle {
        Idle::UntilEvent
    }
}
