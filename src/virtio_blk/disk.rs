//! Disks under endpoints: put there, swapped under a running guest, taken away with their bdev.
//!
//! ```text
//!  BlkEndpoint::disk changed
//!    ─► the new state is what new devices start with
//!    ─► a message through each home reactor: every device made before it has been announced by then
//!    ─► the disk goes to every device, with a token
//!    ─► the token's end: no channel to the disk that left is open any more
//! ```

use std::sync::Arc;

use bdev::{Features, SharedBdev};
use nix::errno::Errno;
use reactor::Ack;
use rpc::{Responder, RpcError};

use super::{BlkEndpoint, EndpointId, Shows, Transport, VirtioBlk, refused};
use crate::control::{Control, Message, reply_done};
use crate::nvmf::DRAIN_TIMEOUT;

impl Control {
    /// The disk for an endpoint that shows it or is to show it.
    ///
    /// # Errors
    /// -32602 if there is none, or a namespace has it for itself.
    pub(super) fn disk_for_blk(
        &self,
        bdev: &str,
        transport: Transport,
        endpoint: &str,
    ) -> Result<Shows, RpcError> {
        let disk = self
            .disks
            .find(bdev)
            .map_err(|_| refused(Errno::ENODEV, format!("there is no bdev `{bdev}`")))?;
        if let Some(claim) = &disk.claim {
            let reason = format!("bdev `{bdev}` is {claim}: remove that first");
            return Err(refused(Errno::EPERM, reason));
        }
        let endpoint = format!("{} `{endpoint}`", transport.noun());
        let mut others = self.blk.users_of(&disk.bdev);
        others.retain(|other| *other != endpoint);
        if !others.is_empty() {
            tracing::warn!(
                bdev,
                endpoint,
                others = others.join(", "),
                "a bdev is shown by several endpoints; guests that do not agree on who writes will destroy its data"
            );
        }
        Ok(Shows {
            bdev: Arc::clone(&disk.bdev),
            name: disk.name.clone(),
        })
    }

    /// Puts another disk under an endpoint, or none; answers when no channel to the former one is open.
    pub(crate) fn set_blk_disk(
        &mut self,
        transport: Transport,
        name: &str,
        bdev: Option<&str>,
        responder: Responder,
    ) {
        match self.exchange_disk(transport, name, bdev) {
            Ok(id) => {
                let reason = format!(
                    "`{name}` has another disk, but I/O in flight to the former one has not ended yet"
                );
                let late = refused(Errno::EBUSY, reason);
                self.publish_disks(&[id], Some(responder), late, reply_done);
            }
            Err(error) => responder.err(error),
        }
    }

    fn exchange_disk(
        &mut self,
        transport: Transport,
        name: &str,
        bdev: Option<&str>,
    ) -> Result<EndpointId, RpcError> {
        self.blk.find_mut(transport, name)?;
        let disk = match bdev {
            Some(bdev) => Some(self.disk_for_blk(bdev, transport, name)?),
            None => None,
        };
        let endpoint = self.blk.find_mut(transport, name)?;
        endpoint.check_swap(disk.as_ref())?;
        tracing::info!(
            endpoint = %endpoint.path().display(),
            bdev = bdev.unwrap_or("none"),
            "the disk of a virtio-blk device is exchanged"
        );
        endpoint.disk = disk;
        Ok(endpoint.id)
    }

    /// Takes a disk that goes out of all endpoints that show it. `done` runs when none of their channels to it is open.
    pub(crate) fn withdraw_disk(
        &mut self,
        bdev: &SharedBdev,
        responder: Option<Responder>,
        late: RpcError,
        done: impl FnOnce(&mut Control, Option<Responder>) + 'static,
    ) {
        let mut lost = Vec::new();
        for endpoint in &mut self.blk.endpoints {
            if endpoint.shows(bdev) {
                tracing::warn!(
                    endpoint = %endpoint.path().display(),
                    "its bdev goes: requests fail until it is given another"
                );
                endpoint.disk = None;
                lost.push(endpoint.id);
            }
        }
        if lost.is_empty() {
            return done(self, responder);
        }
        self.publish_disks(&lost, responder, late, done);
    }

    /// Shows the present disks of these endpoints to their guests. `done` runs when no channel to a former one is open.
    fn publish_disks(
        &mut self,
        changed: &[EndpointId],
        responder: Option<Responder>,
        late: RpcError,
        done: impl FnOnce(&mut Control, Option<Responder>) + 'static,
    ) {
        let ack = self.wait(responder, DRAIN_TIMEOUT, late, done);
        let inbox = self.inbox();
        for id in changed {
            let Some(endpoint) = self.blk.with_id(*id) else {
                continue;
            };
            endpoint.refresh();
            let (id, ack, inbox) = (*id, ack.clone(), inbox.clone());
            endpoint.home.send(move |_| {
                let show = move |control: &mut Control| control.blk.show_disk(id, ack);
                let _ = inbox.send(Message::Run(Box::new(show)));
            });
        }
    }
}

impl VirtioBlk {
    fn show_disk(&mut self, id: EndpointId, ack: Ack) {
        if let Some(endpoint) = self.with_id(id)
            && let Some(client) = &endpoint.client
        {
            let disk = endpoint.shown.load().disk.clone();
            client.handle.set_disk(disk, ack);
        }
    }

    /// Tells guests that a disk has another size.
    pub(crate) fn resized(&self, bdev: &SharedBdev) {
        for endpoint in self.endpoints.iter().filter(|it| it.shows(bdev)) {
            if let Some(client) = &endpoint.client {
                client.handle.resized();
            }
        }
    }
}

impl BlkEndpoint {
    /// Whether a connected guest can live with this disk: it was told block size and writability once and for all.
    fn check_swap(&self, disk: Option<&Shows>) -> Result<(), RpcError> {
        let (Some(client), Some(disk)) = (self.client(), disk) else {
            return Ok(());
        };
        let info = disk.bdev.info();
        let name = &disk.name;
        let told = client.block_size;
        if info.block_size > told {
            let reason = format!(
                "bdev `{name}` has blocks of {} bytes, but the guest was told {told}: disconnect it first",
                info.block_size
            );
            return Err(refused(Errno::EINVAL, reason));
        }
        let former = self.disk.as_ref().map(|it| it.bdev.info().features);
        let was_writable = former.is_some_and(|features| features.contains(Features::WRITE));
        if was_writable && !self.settings.readonly && !info.features.contains(Features::WRITE) {
            let reason = format!(
                "bdev `{name}` can only be read, but the guest was told that it may write: disconnect it first"
            );
            return Err(refused(Errno::EINVAL, reason));
        }
        Ok(())
    }
}
