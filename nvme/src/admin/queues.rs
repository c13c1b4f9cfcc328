//! Creating and deleting I/O queues (Base 2.0c, 5.4 to 5.7): checked here, done by shards.

use nvme_spec::command::{CreateCqCdw11, CreateQueueCdw10, CreateSqCdw11, DeleteQueueCdw10};
use nvme_spec::{Sqe, Status};

use super::queue::Completion;
use crate::controller::Controller;
use crate::messages::ToShard;
use crate::model::{CqModel, SqModel, Stage};

/// CC.IOSQES of the NVM command set's 64-byte entries.
const IOSQES: u8 = 6;
/// CC.IOCQES of 16-byte entries.
const IOCQES: u8 = 4;

const INVALID_ID: Status = Status::INVALID_QUEUE_IDENTIFIER.with_dnr(true);

/// A failure that does not depend on the command.
const INTERNAL: Status = Status::INTERNAL_ERROR;

impl Controller {
    /// What both create commands check first; the queue's size in entries.
    fn check_create(&self, sqe: &Sqe, exists: bool, entry_size: bool) -> Result<u32, Status> {
        let cdw10 = CreateQueueCdw10::from_bits(sqe.cdw10);
        let qid = cdw10.qid();
        if qid == 0 || qid > self.config().max_io_queues || exists {
            return Err(INVALID_ID);
        }
        // A size of 0 would be one entry; one larger than CAP.MQES; and entries of another size than CC.IOSQES or IOCQES
        // say cannot be laid out.
        let mqes_z = self.model.registers.cap().mqes_z();
        if cdw10.qsize_z() == 0 || cdw10.qsize_z() > mqes_z || !entry_size {
            return Err(Status::INVALID_QUEUE_SIZE.with_dnr(true));
        }
        Ok(u32::from(cdw10.qsize_z()) + 1)
    }

    /// The base address of a queue: physically contiguous (CAP.CQR) and aligned to a memory page.
    fn check_base(&self, sqe: &Sqe, contiguous: bool) -> Result<u64, Status> {
        if !contiguous {
            return Err(Status::INVALID_FIELD.with_dnr(true));
        }
        let page = u64::from(self.model.state.cc().page_size());
        if !sqe.dptr.prp1.is_multiple_of(page) {
            return Err(Status::PRP_OFFSET_INVALID.with_dnr(true));
        }
        Ok(sqe.dptr.prp1)
    }

    pub(super) fn create_cq(&mut self, sqe: &Sqe) -> Result<(), Status> {
        let qid = CreateQueueCdw10::from_bits(sqe.cdw10).qid();
        let cdw11 = CreateCqCdw11::from_bits(sqe.cdw11);
        let exists = self.model.cqs.contains_key(&qid);
        let entry_size = self.model.state.cc().iocqes() == IOCQES;
        let entries = self.check_create(sqe, exists, entry_size)?;
        let base = self.check_base(sqe, cdw11.pc())?;
        // Held against the MSI-X table even while the pin is in use: drivers that poll (SPDK's) name vectors and never enable any.
        let vectors = self.config().msix_vectors;
        // A queue that never interrupts has no vector to be wrong about.
        let index = cdw11.ien().then_some(cdw11.iv());
        if index.is_some_and(|iv| iv >= vectors) {
            return Err(Status::INVALID_INTERRUPT_VECTOR.with_dnr(true));
        }
        let shard = self.shards.place(qid);
        let made = self.shards.ensure(shard, self.view.map(), &self.namespaces);
        if made {
            for message in self.settings() {
                self.shards.send(shard, message);
            }
        }
        let vector = index.and_then(|index| self.binding(index));
        self.model.cqs.insert(
            qid,
            CqModel {
                base,
                entries,
                vector: index,
                shard,
                stage: Stage::Creating { cid: sqe.cid() },
            },
        );
        let message = ToShard::CreateCq {
            qid,
            base,
            entries,
            vector,
        };
        self.shards.send(shard, message);
        Ok(())
    }

    pub(super) fn create_sq(&mut self, sqe: &Sqe) -> Result<(), Status> {
        let qid = CreateQueueCdw10::from_bits(sqe.cdw10).qid();
        let cdw11 = CreateSqCdw11::from_bits(sqe.cdw11);
        let exists = self.model.sqs.contains_key(&qid);
        let entry_size = self.model.state.cc().iosqes() == IOSQES;
        let entries = self.check_create(sqe, exists, entry_size)?;
        let cqid = cdw11.cqid();
        if cqid == 0 || cqid > self.config().max_io_queues {
            return Err(INVALID_ID);
        }
        let cq = self.model.cqs.get(&cqid);
        let Some(cq) = cq.filter(|cq| cq.stage == Stage::Live) else {
            return Err(Status::COMPLETION_QUEUE_INVALID.with_dnr(true));
        };
        let shard = cq.shard;
        let base = self.check_base(sqe, cdw11.pc())?;
        self.model.sqs.insert(
            qid,
            SqModel {
                base,
                entries,
                cqid,
                stage: Stage::Creating { cid: sqe.cid() },
            },
        );
        let message = ToShard::CreateSq {
            qid,
            cqid,
            base,
            entries,
        };
        self.shards.send(shard, message);
        Ok(())
    }

    pub(super) fn delete_sq(&mut self, sqe: &Sqe) -> Result<(), Status> {
        let qid = DeleteQueueCdw10::from_bits(sqe.cdw10).qid();
        let sq = self.model.sqs.get_mut(&qid);
        let sq = sq.filter(|sq| sq.stage == Stage::Live).ok_or(INVALID_ID)?;
        let shard = self.model.cqs.get(&sq.cqid).ok_or(INTERNAL)?.shard;
        sq.stage = Stage::Deleting { cid: sqe.cid() };
        self.shards.send(shard, ToShard::DeleteSq { qid });
        Ok(())
    }

    pub(super) fn delete_cq(&mut self, sqe: &Sqe) -> Result<(), Status> {
        let qid = DeleteQueueCdw10::from_bits(sqe.cdw10).qid();
        let users = self.model.sqs.values().any(|sq| sq.cqid == qid);
        let cq = self.model.cqs.get_mut(&qid);
        let cq = cq.filter(|cq| cq.stage == Stage::Live).ok_or(INVALID_ID)?;
        if users {
            return Err(Status::INVALID_QUEUE_DELETION.with_dnr(true));
        }
        cq.stage = Stage::Deleting { cid: sqe.cid() };
        let shard = cq.shard;
        self.shards.send(shard, ToShard::DeleteCq { qid });
        Ok(())
    }

    fn finish_queue(&mut self, cid: u16, status: Status) {
        self.finish(Completion {
            cid,
            status,
            dw0: 0,
        });
    }

    /// A shard has made a completion queue, or not. Answers that a reset has overtaken find nothing to answer.
    pub(crate) fn cq_created(&mut self, qid: u16, status: Status) {
        let Some(cq) = self.model.cqs.get_mut(&qid) else {
            return;
        };
        let Stage::Creating { cid } = cq.stage else {
            return;
        };
        cq.stage = Stage::Live;
        if !status.is_success() {
            self.model.cqs.remove(&qid);
            self.shards.vacate(qid);
        }
        self.finish_queue(cid, status);
    }

    /// A shard has made a submission queue, or not.
    pub(crate) fn sq_created(&mut self, qid: u16, status: Status) {
        let Some(sq) = self.model.sqs.get_mut(&qid) else {
            return;
        };
        let Stage::Creating { cid } = sq.stage else {
            return;
        };
        sq.stage = Stage::Live;
        if !status.is_success() {
            self.model.sqs.remove(&qid);
        }
        self.finish_queue(cid, status);
    }

    /// A shard has removed a submission queue.
    pub(crate) fn sq_deleted(&mut self, qid: u16) {
        let stage = self.model.sqs.get(&qid).map(|sq| sq.stage);
        if let Some(Stage::Deleting { cid }) = stage {
            self.model.sqs.remove(&qid);
            self.finish_queue(cid, Status::SUCCESS);
        }
    }

    /// A shard has removed a completion queue.
    pub(crate) fn cq_deleted(&mut self, qid: u16) {
        let stage = self.model.cqs.get(&qid).map(|cq| cq.stage);
        if let Some(Stage::Deleting { cid }) = stage {
            self.model.cqs.remove(&qid);
            self.shards.vacate(qid);
            self.finish_queue(cid, Status::SUCCESS);
        }
    }
}
