//! The admin queue and the commands on it (Base 2.0c, section 5).
//!
//! Commands run to their end at once, on the home reactor, but for those that need a shard (queues, Abort) and Asynchronous Event
//! Requests. Each completion is posted as soon as it is known.

pub(crate) mod ana;
mod blame;
pub(crate) mod events;
pub(crate) mod features;
pub(crate) mod health;
pub(crate) mod identify;
pub(crate) mod log;
pub(crate) mod queue;
mod queues;
mod transfer;

use nvme_spec::command::{AbortCdw10, GetFeaturesCdw10, SetFeaturesCdw10};
use nvme_spec::event::{AsyncEvent, HealthEvent};
use nvme_spec::feature::FeatureId;
use nvme_spec::identify::Cns;
use nvme_spec::log::{CriticalWarning, LogPageId};
use nvme_spec::{ADMIN_QID, AdminOpcode, Fuse, Psdt, Sqe, Status};
use reactor::Cx;

use self::features::Change;
use self::log::{LogRequest, Offered};
use self::queue::Completion;
use crate::controller::Controller;
use crate::messages::{CommandError, FromShard, ShadowDoorbells, ToShard};
use crate::model::{AbortModel, Stage};
use zerocopy::IntoBytes;

/// Commands taken per pass at most: a guest that floods its admin queue must not starve its neighbours.
const BATCH: usize = 16;

/// Opcodes that exist here; Doorbell Buffer Config only where it is offered.
pub(crate) const SUPPORTED: [AdminOpcode; 12] = [
    AdminOpcode::DELETE_IO_SQ,
    AdminOpcode::CREATE_IO_SQ,
    AdminOpcode::GET_LOG_PAGE,
    AdminOpcode::DELETE_IO_CQ,
    AdminOpcode::CREATE_IO_CQ,
    AdminOpcode::IDENTIFY,
    AdminOpcode::ABORT,
    AdminOpcode::SET_FEATURES,
    AdminOpcode::GET_FEATURES,
    AdminOpcode::ASYNC_EVENT_REQUEST,
    AdminOpcode::KEEP_ALIVE,
    AdminOpcode::DOORBELL_BUFFER_CONFIG,
];

/// How a command went.
enum Outcome {
    /// Completed, with Dword 0.
    Done(u32),
    /// A shard works on it.
    Later,
    /// It is an Asynchronous Event Request.
    Held,
}

impl Controller {
    /// Looks at the admin queue's doorbells.
    pub(crate) fn look_at_admin(&mut self) {
        let Some(admin) = &mut self.admin else {
            return;
        };
        let invalid = admin.look(&self.doorbells);
        for doorbell in invalid.into_iter().flatten() {
            self.invalid_doorbell(doorbell.qid);
        }
    }

    /// Looks at the admin queue and executes a batch of its commands; whether there was anything to do.
    pub(crate) fn serve_admin(&mut self, cx: &mut Cx) -> bool {
        if self.admin.is_none() {
            return false;
        }
        self.look_at_admin();
        if let Some(admin) = &mut self.admin {
            admin.flush();
        }
        let mut busy = false;
        for _ in 0..BATCH {
            // A command may end the queue: a Set Features cannot, but a shard that dies while it is asked can.
            let Some(sqe) = self.admin.as_mut().and_then(queue::AdminQueue::fetch) else {
                break;
            };
            busy = true;
            self.run(cx, &sqe);
        }
        self.report_events();
        if self
            .admin
            .as_mut()
            .is_some_and(queue::AdminQueue::take_posted)
        {
            self.interrupt();
            busy = true;
        }
        busy
    }

    fn run(&mut self, cx: &mut Cx, sqe: &Sqe) {
        let cid = sqe.cid();
        let outcome = self.execute(cx, sqe);
        let Some(admin) = &mut self.admin else {
            return;
        };
        let completion = match outcome {
            Ok(Outcome::Later) => return admin.defer(sqe),
            Ok(Outcome::Held) => return admin.park_request(),
            Ok(Outcome::Done(dw0)) => Completion {
                cid,
                status: Status::SUCCESS,
                dw0,
            },
            Err(status) => Completion {
                cid,
                status: status.with_more(true),
                dw0: 0,
            },
        };
        admin.complete(completion);
        if !completion.status.is_success() {
            self.note_error(sqe, completion.status);
        }
    }

    fn note_error(&mut self, sqe: &Sqe, status: Status) {
        tracing::debug!(
            endpoint = self.config().label,
            opcode = ?sqe.admin_opcode(),
            nsid = sqe.nsid,
            ?status,
            "admin command refused"
        );
        self.record(&CommandError {
            sqid: ADMIN_QID,
            cid: sqe.cid(),
            status,
            nsid: sqe.nsid,
            lba: 0,
            parameter_location: blame::location(sqe, status),
        });
    }

    /// Ends a command that waited for a shard.
    pub(crate) fn finish(&mut self, mut completion: Completion) {
        let failed = !completion.status.is_success();
        completion.status.set_more(failed);
        let admin = self.admin.as_mut();
        let sqe = admin.and_then(|admin| admin.finish(completion));
        if let Some(sqe) = sqe.filter(|_| failed) {
            self.note_error(&sqe, completion.status);
        }
    }

    /// Completes Asynchronous Event Requests with what there is to tell.
    fn report_events(&mut self) {
        let Some(admin) = &mut self.admin else {
            return;
        };
        while self.model.events.is_due() && admin.reserve() {
            match self.model.events.next() {
                Some((cid, event)) => admin.complete(Completion {
                    cid,
                    status: Status::SUCCESS,
                    dw0: event.into_bits(),
                }),
                None => admin.park_request(),
            }
        }
    }

    fn execute(&mut self, cx: &mut Cx, sqe: &Sqe) -> Result<Outcome, Status> {
        let invalid_field = Status::INVALID_FIELD.with_dnr(true);
        let opcode = sqe.admin_opcode();
        let absent =
            opcode == AdminOpcode::DOORBELL_BUFFER_CONFIG && !self.offers_doorbell_buffers();
        if !SUPPORTED.contains(&opcode) || absent {
            return Err(Status::INVALID_OPCODE.with_dnr(true));
        }
        // Admin commands are not fused, and on PCIe they use PRPs (Base 2.0c, 3.3.3.1).
        if sqe.cdw0.fuse() != Fuse::NORMAL || sqe.cdw0.psdt() != Psdt::PRP {
            return Err(invalid_field);
        }
        let outstanding = |admin: &queue::AdminQueue| admin.is_outstanding(sqe.cid());
        if self.admin.as_ref().is_some_and(outstanding) || self.model.events.holds(sqe.cid()) {
            return Err(Status::COMMAND_ID_CONFLICT.with_dnr(true));
        }
        match opcode {
            AdminOpcode::IDENTIFY => self.identify(sqe),
            AdminOpcode::GET_LOG_PAGE => self.get_log_page(sqe),
            AdminOpcode::GET_FEATURES => self.get_features(sqe),
            AdminOpcode::SET_FEATURES => self.set_features(cx, sqe),
            AdminOpcode::CREATE_IO_CQ => self.create_cq(sqe).map(|()| Outcome::Later),
            AdminOpcode::CREATE_IO_SQ => self.create_sq(sqe).map(|()| Outcome::Later),
            AdminOpcode::DELETE_IO_CQ => self.delete_cq(sqe).map(|()| Outcome::Later),
            AdminOpcode::DELETE_IO_SQ => self.delete_sq(sqe).map(|()| Outcome::Later),
            AdminOpcode::ABORT => self.abort(sqe),
            AdminOpcode::ASYNC_EVENT_REQUEST => {
                self.model.events.request(sqe.cid())?;
                Ok(Outcome::Held)
            }
            AdminOpcode::KEEP_ALIVE => {
                self.restart_keep_alive(cx);
                Ok(Outcome::Done(0))
            }
            AdminOpcode::DOORBELL_BUFFER_CONFIG => self.configure_doorbell_buffers(sqe),
            _ => Err(Status::INVALID_OPCODE.with_dnr(true)),
        }
    }

    fn identify(&mut self, sqe: &Sqe) -> Result<Outcome, Status> {
        let shown = identify::Shown {
            write_cache: self.shows_write_cache(),
            doorbell_buffers: self.offers_doorbell_buffers(),
        };
        let page = identify::identify(sqe, self.config(), &self.namespaces, shown)?;
        self.send_data(sqe, &page)?;
        let cdw10 = nvme_spec::command::IdentifyCdw10::from_bits(sqe.cdw10);
        if cdw10.cns() == Cns::CONTROLLER {
            // A driver asks once after each reset. What a tool would hear later must not differ: the driver would not know.
            self.model.write_cache_shown = Some(shown.write_cache);
        }
        Ok(Outcome::Done(0))
    }

    fn get_log_page(&mut self, sqe: &Sqe) -> Result<Outcome, Status> {
        let request = LogRequest::new(sqe, self.config().max_transfer, self.offered())?;
        if request.lid == LogPageId::SMART_HEALTH {
            // What the host did before it asks is in the page, so the shards are asked first.
            self.shards.broadcast(|| ToShard::Count);
            if let Outcome::Later = self.after_shards(sqe.cid()) {
                self.model.health_reads.push(*sqe);
                return Ok(Outcome::Later);
            }
        }
        self.send_log_page(sqe, request)?;
        Ok(Outcome::Done(0))
    }

    fn send_log_page(&mut self, sqe: &Sqe, request: LogRequest) -> Result<(), Status> {
        let model = &self.model;
        let page = match request.lid {
            LogPageId::ANA => Some(model.ana.page(&self.namespaces, request.lsp)),
            lid => log::page(lid, &model.errors, &model.changed, self.offered()),
        };
        let page = page.unwrap_or_else(|| self.health_page());
        self.send_data(sqe, &request.cut(&page)?)?;
        if !request.retain {
            self.model.events.acknowledge(request.lid);
            if request.lid == LogPageId::CHANGED_NAMESPACE_LIST {
                self.model.changed.clear();
            }
        }
        Ok(())
    }

    /// The shards have carried out what command `cid` sent them.
    pub(crate) fn settled(&mut self, cid: u16) {
        let reads = &mut self.model.health_reads;
        let read = reads.iter().position(|sqe| sqe.cid() == cid);
        let sqe = read.map(|at| reads.swap_remove(at));
        let sent = sqe.map_or(Ok(()), |sqe| {
            let request = LogRequest::new(&sqe, self.config().max_transfer, self.offered());
            request.and_then(|request| self.send_log_page(&sqe, request))
        });
        self.finish(Completion {
            cid,
            status: sent.err().unwrap_or(Status::SUCCESS),
            dw0: 0,
        });
    }

    fn offered(&self) -> Offered {
        Offered {
            doorbell_buffers: self.offers_doorbell_buffers(),
            ana: self.config().ana_reporting,
            masked: self.config().masked,
        }
    }

    /// Refuses a feature of a namespace that cannot be reached (Base 2.0c, 8.1).
    fn check_access(&self, fid: FeatureId, nsid: u32) -> Result<(), Status> {
        let namespace = self.namespaces.get(nsid);
        match namespace.filter(|namespace| !namespace.access.is_open()) {
            Some(namespace) if fid == FeatureId::ERROR_RECOVERY => Err(namespace.access.refusal()),
            _ => Ok(()),
        }
    }

    fn health_page(&self) -> Vec<u8> {
        let page = health::page(self.warnings(), &self.life());
        page.as_bytes().to_vec()
    }

    /// Warnings in force.
    pub(crate) fn warnings(&self) -> CriticalWarning {
        health::warnings(&self.model.features, self.media_state())
    }

    fn get_features(&mut self, sqe: &Sqe) -> Result<Outcome, Status> {
        let cdw10 = GetFeaturesCdw10::from_bits(sqe.cdw10);
        self.check_access(cdw10.fid(), sqe.nsid)?;
        let answer = self.with_limits(|features, limits| {
            features.get(cdw10.fid(), cdw10.sel(), sqe.nsid, sqe.cdw11, limits)
        })?;
        if !answer.data.is_empty() {
            self.send_data(sqe, &answer.data)?;
        }
        Ok(Outcome::Done(answer.dw0))
    }

    fn set_features(&mut self, cx: &mut Cx, sqe: &Sqe) -> Result<Outcome, Status> {
        let cdw10 = SetFeaturesCdw10::from_bits(sqe.cdw10);
        let fid = cdw10.fid();
        self.check_access(fid, sqe.nsid)?;
        let data = self.take_data(sqe, features::data_len(fid, sqe.cdw11))?;
        let before = self.warnings();
        let change = self.with_limits(|features, limits| {
            features.set(fid, cdw10.sv(), sqe.nsid, sqe.cdw11, &data, limits)
        })?;
        match change {
            Change::Stored => {}
            Change::Queues(allocated) => return Ok(Outcome::Done(allocated)),
            Change::Coalescing => {
                let message = self.coalescing();
                self.shards.broadcast(|| message.clone());
            }
            Change::Vector(vector) => {
                let disabled = self.model.features.coalescing_disabled.contains(&vector);
                self.shards
                    .broadcast(|| ToShard::CoalescingDisable { vector, disabled });
            }
            Change::WriteCache => {
                let enabled = self.uses_write_cache();
                self.shards.broadcast(|| ToShard::WriteCache { enabled });
                return Ok(self.after_shards(sqe.cid()));
            }
            Change::KeepAlive => self.restart_keep_alive(cx),
            Change::Temperature => self.warn(before),
        }
        Ok(Outcome::Done(0))
    }

    /// Warnings may have changed from `before`: the host hears of those that it asked to hear of.
    pub(crate) fn warn(&mut self, before: CriticalWarning) {
        let asked = self.model.features.async_events.critical_warnings();
        let new = self.warnings().into_bits() & !before.into_bits() & asked;
        let new = CriticalWarning::from_bits(new);
        if !self.model.state.is_ready() {
            return;
        }
        if new.temperature() {
            let event = AsyncEvent::health(HealthEvent::TEMPERATURE_THRESHOLD);
            self.model.events.raise(event);
        }
        // Read-only media are a matter of reliability too (Base 2.0c, 5.2.1).
        if new.reliability() || new.read_only() {
            let event = AsyncEvent::health(HealthEvent::RELIABILITY);
            self.model.events.raise(event);
        }
    }

    /// Abort (Base 2.0c, 5.1): best effort. Bit 0 of Dword 0 says that the command was *not* aborted.
    fn abort(&mut self, sqe: &Sqe) -> Result<Outcome, Status> {
        const NOT_ABORTED: u32 = 1;
        let cdw10 = AbortCdw10::from_bits(sqe.cdw10);
        if cdw10.sqid() == ADMIN_QID {
            if !self.model.events.abort(cdw10.cid()) {
                return Ok(Outcome::Done(NOT_ABORTED));
            }
            self.complete_aborted_request(cdw10.cid());
            return Ok(Outcome::Done(0));
        }
        let sq = self.model.sqs.get(&cdw10.sqid());
        let cqid = sq.filter(|sq| sq.stage == Stage::Live).map(|sq| sq.cqid);
        let Some(cq) = cqid.and_then(|cqid| self.model.cqs.get(&cqid)) else {
            return Ok(Outcome::Done(NOT_ABORTED));
        };
        if self.model.aborts.len() > usize::from(identify::ACL_Z) {
            return Err(Status::ABORT_COMMAND_LIMIT_EXCEEDED.with_dnr(true));
        }
        let shard = cq.shard;
        let cid = sqe.cid();
        self.model.aborts.push(AbortModel { cid, shard });
        let message = ToShard::Abort {
            sqid: cdw10.sqid(),
            cid: cdw10.cid(),
            admin_cid: cid,
        };
        self.shards.send(shard, message);
        Ok(Outcome::Later)
    }

    fn complete_aborted_request(&mut self, cid: u16) {
        let Some(admin) = &mut self.admin else {
            return;
        };
        // The Abort itself holds a place; its request needs one more. If the queue is full the request goes
        // without a completion, which a host that lets its queue fill up cannot tell from one that comes late.
        if admin.reserve() {
            admin.complete(Completion {
                cid,
                status: Status::ABORT_REQUESTED.with_dnr(true),
                dw0: 0,
            });
        }
    }

    /// A shard has tried to abort a command.
    pub(crate) fn aborted(&mut self, cid: u16, aborted: bool) {
        self.model.aborts.retain(|abort| abort.cid != cid);
        self.finish(Completion {
            cid,
            status: Status::SUCCESS,
            dw0: u32::from(!aborted),
        });
    }

    /// Doorbell Buffer Config (Base 2.0c, 5.8): two pages of the guest's memory.
    fn configure_doorbell_buffers(&mut self, sqe: &Sqe) -> Result<Outcome, Status> {
        let page_size = self.model.state.cc().page_size();
        let (doorbells, event_indexes) = (sqe.dptr.prp1, sqe.dptr.prp2);
        let place = ShadowDoorbells {
            doorbells,
            event_indexes,
        };
        let access = guest_memory::Access::READ | guest_memory::Access::WRITE;
        for address in [doorbells, event_indexes] {
            let aligned = address.is_multiple_of(u64::from(page_size));
            let reachable = || {
                self.view
                    .window(address, guest_memory::PAGE_SIZE, access)
                    .is_ok()
            };
            if !aligned || !reachable() {
                return Err(Status::INVALID_FIELD.with_dnr(true));
            }
        }
        self.model.shadow_doorbells = Some(place);
        self.shards
            .broadcast(|| ToShard::ShadowDoorbells(Some(place)));
        // From the completion on the host rings there, and the shards write the present values there first.
        Ok(self.after_shards(sqe.cid()))
    }

    /// Completes the command when the shards have carried out what it has sent them.
    fn after_shards(&mut self, cid: u16) -> Outcome {
        let generation = self.generation;
        let waits = self.shards.settle(FromShard::Settled {
            admin_cid: cid,
            generation,
        });
        if waits {
            Outcome::Later
        } else {
            Outcome::Done(0)
        }
    }
}

#[cfg(test)]
mod tests;
