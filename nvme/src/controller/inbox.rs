//! What shards and the control thread say.

use std::sync::Arc;

use nvme_spec::event::{AsyncEvent, ErrorEvent, NoticeEvent};
use nvme_spec::log::LogPageId;
use nvme_spec::{Status, StatusCodeType};
use reactor::{Ack, Cx};

use super::Controller;
use crate::admin::queue::Completion;
use crate::events::ControllerEvent;
use crate::handle::Control;
use crate::messages::{CommandError, FromShard, MediaFault, ToShard};
use crate::model::Stage;
use crate::namespace::{Namespace, NamespaceSet};
use crate::shards::End;

/// Messages taken per pass at most.
const BATCH: usize = 64;

/// Whether a host would see a difference.
fn differs(old: &Namespace, new: &Namespace) -> bool {
    old.info != new.info || old.uuid != new.uuid || old.nguid != new.nguid || old.eui64 != new.eui64
}

/// Namespaces that are in one set only, or differ.
fn changes(old: &NamespaceSet, new: &NamespaceSet) -> Vec<u32> {
    let gone = old.iter().filter(|ns| new.get(ns.nsid).is_none());
    let other = new.iter().filter(|ns| {
        old.get(ns.nsid)
            .is_none_or(|former| differs(former, ns) || !former.same_disk(ns))
    });
    gone.chain(other).map(|ns| ns.nsid).collect()
}

/// Whether the health page counts it (Base 2.0c, 5.16.1.3: "unrecovered data integrity error"): neither a Compare that failed nor
/// access denied is one.
fn is_integrity_error(status: Status) -> bool {
    status.sct() == StatusCodeType::MEDIA
        && !matches!(
            status.code(),
            Status::COMPARE_FAILURE | Status::ACCESS_DENIED | Status::DEALLOCATED_OR_UNWRITTEN
        )
}

impl Controller {
    /// Takes what has arrived; whether there was anything.
    pub(super) fn take_messages(&mut self, cx: &mut Cx) -> bool {
        // Two loads in most passes; `try_recv` would cost a fence each.
        if self.from_shards.is_empty() && self.mailbox.is_empty() {
            return false;
        }
        let mut busy = false;
        for _ in 0..BATCH {
            let Ok(message) = self.from_shards.try_recv() else {
                break;
            };
            self.hear(cx, message);
            busy = true;
        }
        while let Ok(control) = self.mailbox.try_recv() {
            match control {
                Control::Namespaces(set, ack) => self.show_namespaces(set, &ack),
                Control::Snapshot(gather) => self.describe(gather),
            }
            busy = true;
        }
        if busy {
            self.check_drained(cx);
        }
        busy
    }

    fn hear(&mut self, cx: &mut Cx, message: FromShard) {
        match message {
            FromShard::CqCreated { qid, status } => self.cq_created(qid, status),
            FromShard::SqCreated { qid, status } => self.sq_created(qid, status),
            FromShard::SqDeleted { qid } => self.sq_deleted(qid),
            FromShard::CqDeleted { qid } => self.cq_deleted(qid),
            FromShard::Aborted { admin_cid, aborted } => self.aborted(admin_cid, aborted),
            FromShard::Settled {
                admin_cid,
                generation,
            } => {
                if generation == self.generation {
                    self.settled(admin_cid);
                }
            }
            FromShard::NamespacesShown => self.announce_namespaces(),
            FromShard::Stopped { shard } => self.shards.stopped(shard),
            FromShard::Gone { shard } => {
                self.model.media.retain(|(on, _), _| *on != shard);
                if self.shards.gone(shard) == End::Died {
                    self.bury(shard);
                    self.fail(cx, "one of the threads that serve its queues failed");
                }
            }
            FromShard::Error(error) => self.record(&error),
            FromShard::Media { shard, nsid, fault } => self.media_changed(shard, nsid, fault),
            FromShard::DiskError {
                bdev,
                nsid,
                lba,
                cause,
                suppressed,
            } => self.config.events.tell(ControllerEvent::DiskError {
                bdev,
                nsid,
                lba,
                cause,
                suppressed,
            }),
            FromShard::InvalidDoorbell { qid } => self.invalid_doorbell(qid),
            FromShard::Fatal { cause } => self.fail(cx, cause),
            FromShard::Counters { shard, counters } => self.shards.count(shard, counters),
        }
    }

    /// A disk has got or lost a fault: the host hears of a new warning that it asked for.
    fn media_changed(&mut self, shard: usize, nsid: u32, fault: Option<MediaFault>) {
        let before = self.warnings();
        let media = &mut self.model.media;
        match fault.filter(|_| self.namespaces.get(nsid).is_some()) {
            Some(fault) => drop(media.insert((shard, nsid), fault)),
            None => drop(media.remove(&(shard, nsid))),
        }
        self.warn(before);
    }

    /// Enters an error into the log.
    pub(crate) fn record(&mut self, error: &CommandError) {
        if is_integrity_error(error.status) {
            self.model.media_errors = self.model.media_errors.saturating_add(1);
        }
        self.model.errors.record(error);
    }

    /// A doorbell holds what its queue cannot have (Base 2.0c, 5.2.1 and 5.16.1.2: no command is concerned).
    pub(crate) fn invalid_doorbell(&mut self, qid: u16) {
        self.doorbell_error(qid, ErrorEvent::INVALID_DOORBELL_VALUE);
    }

    /// As [`Controller::invalid_doorbell`], or a doorbell of no queue.
    pub(crate) fn doorbell_error(&mut self, qid: u16, event: ErrorEvent) {
        if !self.model.state.is_ready() {
            return;
        }
        tracing::debug!(
            endpoint = self.config().label,
            qid,
            ?event,
            "doorbell error"
        );
        // Of no command: FFFFh for both identifiers, and the status that comes closest.
        self.model.errors.record(&CommandError {
            sqid: 0xffff,
            cid: 0xffff,
            status: Status::INVALID_FIELD,
            nsid: 0,
            lba: 0,
            parameter_location: 0xffff,
        });
        self.model.events.raise(AsyncEvent::error(event));
    }

    /// Ends every admin command that waits for a shard that died.
    fn bury(&mut self, shard: usize) {
        let failed = Status::INTERNAL_ERROR;
        let on_shard = |cq: &crate::model::CqModel| cq.shard == shard;
        let cqs = self.model.cqs.iter().filter(|(_, cq)| on_shard(cq));
        let cqs: Vec<(u16, Stage)> = cqs.map(|(qid, cq)| (*qid, cq.stage)).collect();
        let model = &self.model;
        let sqs = model
            .sqs
            .iter()
            .filter(|(_, sq)| model.cqs.get(&sq.cqid).is_some_and(on_shard));
        let sqs: Vec<(u16, Stage)> = sqs.map(|(qid, sq)| (*qid, sq.stage)).collect();
        let aborts = model.aborts.iter().filter(|abort| abort.shard == shard);
        let mut cids: Vec<u16> = aborts.map(|abort| abort.cid).collect();
        self.model.aborts.retain(|abort| abort.shard != shard);
        for (qid, _) in &sqs {
            self.model.sqs.remove(qid);
        }
        for (qid, _) in &cqs {
            self.model.cqs.remove(qid);
            self.shards.vacate(*qid);
        }
        let waiting = sqs.iter().chain(&cqs).filter_map(|(_, stage)| match stage {
            Stage::Creating { cid } | Stage::Deleting { cid } => Some(*cid),
            Stage::Live => None,
        });
        cids.extend(waiting);
        for cid in cids {
            self.finish(Completion {
                cid,
                status: failed,
                dw0: 0,
            });
        }
    }

    /// Replaces the namespaces: shards first, then the host learns of it.
    fn show_namespaces(&mut self, set: Arc<NamespaceSet>, ack: &Ack) {
        let changed = changes(&self.namespaces, &set);
        let ana = self.model.ana.follow(&self.namespaces, &set);
        self.namespaces = Arc::clone(&set);
        let is_there = |nsid: u32| set.get(nsid).is_some();
        self.model.media.retain(|(_, nsid), _| is_there(*nsid));
        let enabled = self.uses_write_cache();
        if !enabled {
            self.shards.broadcast(|| ToShard::WriteCache { enabled });
        }
        self.shards
            .broadcast(|| ToShard::Namespaces(Arc::clone(&set), ack.clone()));
        if changed.is_empty() && !ana || !self.model.state.is_ready() {
            return;
        }
        self.model.ana_news |= ana;
        self.model.changed.extend(changed.into_iter());
        // A host that hears of a namespace uses it at once: the queues must know it first.
        if !self.shards.settle(FromShard::NamespacesShown) {
            self.announce_namespaces();
        }
    }

    fn announce_namespaces(&mut self) {
        let wanted = self.model.features.async_events.namespace_attribute();
        if wanted && self.model.state.is_ready() && !self.model.changed.is_empty() {
            self.model.events.raise(AsyncEvent::notice(
                NoticeEvent::NAMESPACE_ATTRIBUTE_CHANGED,
                LogPageId::CHANGED_NAMESPACE_LIST,
            ));
        }
        let news = std::mem::take(&mut self.model.ana_news) && self.config().ana_reporting;
        if news && self.model.features.async_events.ana_change() && self.model.state.is_ready() {
            self.model
                .events
                .raise(AsyncEvent::notice(NoticeEvent::ANA_CHANGE, LogPageId::ANA));
        }
    }
}
