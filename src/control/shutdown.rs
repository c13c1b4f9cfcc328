//! The end: guests' I/O drained, sockets removed.

use std::time::Duration;

use rpc::RpcError;

use super::Control;

/// How long guests' I/O in flight may take at the end.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why the daemon ends.
#[derive(Debug)]
pub(crate) struct Ending {
    orderly: bool,
}

impl Ending {
    pub(super) fn is_orderly(&self) -> bool {
        self.orderly
    }
}

impl Control {
    /// The first signal ends the daemon in order. (The second ends it at once, on the signal thread: see `daemon`.)
    pub(super) fn signalled(&mut self, signal: i32) {
        tracing::info!(signal, "shutting down");
        self.end(Ok(()));
    }

    /// Begins the end: endpoints are removed, which drains their guests' I/O; then the loop is left.
    pub(super) fn end(&mut self, reason: Result<(), String>) {
        if self.ending.is_some() {
            return;
        }
        self.notify.stopping();
        let orderly = reason.is_ok();
        if let Err(reason) = reason {
            tracing::error!("{reason}");
        }
        self.ending = Some(Ending { orderly });
        let late = RpcError::internal("not reached: nobody asked");
        let ack = self.wait(None, PATIENCE, late, |control, _| control.ended = true);
        self.keep_last(ack.clone());
        self.nvmf.remove_endpoints(&ack);
        self.blk.remove_endpoints(&ack);
        drop(ack);
        self.after(PATIENCE, |control| {
            tracing::error!("guests' I/O has not ended in time; ending without it");
            control.ending = Some(Ending { orderly: false });
            control.ended = true;
        });
    }

    /// Ends the RPC socket: calls that are being answered are, and its files are removed.
    pub(crate) fn close_rpc(&mut self) {
        // Calls that wait for what will not come are answered now, or the socket would wait for them.
        self.disks.abandon();
        self.examination.abandon();
        self.init.waiting.clear();
        self.waits.abandon();
        self.gathering.abandon();
        self.close_keeper();
        self.servers.clear();
        for server in self.serving.drain(..) {
            server.shutdown(Duration::from_secs(1));
        }
    }
}
