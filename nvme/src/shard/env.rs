//! What all queues of a shard share.

use bdev::IoStatus;
use crossbeam_channel::Sender;
use guest_memory::MapView;
use nvme_spec::{Status, StatusCodeType};
use reactor::ReactorHandle;

use super::disks::{Disks, NoDisk};
use super::interrupt::Coalescing;
use super::sq::Sq;
use crate::command::{Command, NO_LOCATION, Plans, Refusal, is_cause_ours, location, status_of};
use crate::config::Masked;
use crate::data::PageSize;
use crate::limit::{LogLimit, guest_warn};
use crate::messages::{CommandError, FromShard, ShardCounters};
use crate::queue::{Doorbells, InvalidDoorbell};

/// What all queues of a shard share.
pub(crate) struct Env {
    pub(crate) view: MapView,
    pub(crate) page: PageSize,
    pub(crate) doorbells: Doorbells,
    pub(crate) disks: Disks,
    pub(crate) plans: Plans,
    /// Largest transfer of one command in bytes.
    pub(crate) max_transfer: u32,
    /// The guest has switched the volatile write cache off: every write is durable.
    pub(crate) write_through: bool,
    /// Commands that are not offered.
    pub(crate) masked_commands: Masked,
    pub(crate) coalescing: Coalescing,
    /// Bits of INTMS.
    pub(crate) masked: u32,
    /// The controller is being reset: commands end without completions.
    pub(crate) stopping: bool,
    /// Of queues that are gone.
    pub(crate) retired: ShardCounters,
    pub(crate) report: Report,
}

impl Env {
    /// Counts a command that succeeded.
    #[inline]
    pub(super) fn succeeded(&mut self, sq: &mut Sq, command: &Command) {
        sq.traffic.succeeded(command.count, command.bytes);
        if let Some(disk) = self.disks.get(command.disk) {
            disk.traffic.succeeded(command.count, command.bytes);
        }
    }

    /// Reports an error for the log; its status says whether there is an entry (More).
    #[cold]
    fn log(&mut self, qid: u16, command: &Command, status: Status, location: u16) -> Status {
        let mut command = *command;
        if status.code() == Status::LBA_OUT_OF_RANGE
            && let Some(disk) = self.disks.get(command.disk)
        {
            // "The first LBA that experienced the error".
            command.lba = command.lba.max(disk.blocks());
        }
        let logged = self
            .report
            .error(qid, &command, status.with_more(true), location);
        status.with_more(logged)
    }

    #[cold]
    fn count_error(&mut self, sq: &mut Sq, command: &Command) {
        sq.traffic.errors += 1;
        if let Some(disk) = self.disks.get(command.disk) {
            disk.traffic.errors += 1;
        }
    }

    /// Counts and reports a command that is refused; answers its status.
    #[cold]
    pub(super) fn refused(&mut self, sq: &mut Sq, command: &Command, refusal: Refusal) -> Status {
        let Refusal { status, location } = refusal;
        let qid = sq.queue.qid();
        self.count_error(sq, command);
        if status.sct() == StatusCodeType::PATH {
            // No error of the command: the host goes another way, with a flood of commands perhaps.
            return status;
        }
        let status = self.log(qid, command, status, location);
        if status.code() == Status::DATA_TRANSFER_ERROR {
            guest_warn!(
                self.report.limit,
                controller = self.report.label,
                qid,
                nsid = command.nsid,
                lba = command.lba,
                "a command's memory is not mapped for the device: is all of the guest's RAM shared?"
            );
        } else {
            tracing::debug!(
                controller = self.report.label,
                qid,
                cid = command.cid,
                nsid = command.nsid,
                ?status,
                "a command was refused"
            );
        }
        status
    }

    /// As [`Env::refused`], for a command whose disk is no more.
    #[cold]
    pub(super) fn lost(&mut self, sq: &mut Sq, command: &Command) -> Status {
        let refusal = match self.disks.missing(command.nsid) {
            NoDisk::Unreachable(status) => Refusal {
                status,
                location: NO_LOCATION,
            },
            NoDisk::Absent | NoDisk::Closed => Refusal {
                status: Status::INVALID_NAMESPACE_OR_FORMAT.with_dnr(true),
                location: NO_LOCATION,
            },
        };
        self.refused(sq, command, refusal)
    }

    fn tell_of_disk(&mut self, command: &Command, cause: IoStatus) {
        let Some(suppressed) = self.report.disk_errors.admit() else {
            return;
        };
        let disk = self.disks.get(command.disk);
        self.report.mention(FromShard::DiskError {
            bdev: disk.map(|disk| disk.name()).unwrap_or_default(),
            nsid: command.nsid,
            lba: command.lba,
            cause,
            suppressed,
        });
    }

    /// Counts and reports a command that its disk failed; answers its status.
    #[cold]
    pub(super) fn failed(&mut self, sq: &mut Sq, command: &Command, cause: IoStatus) -> Status {
        let status = status_of(cause, command.count);
        let qid = sq.queue.qid();
        self.count_error(sq, command);
        let location = match cause {
            IoStatus::OutOfRange => location::SLBA,
            IoStatus::BadMemory => location::DPTR,
            IoStatus::Unsupported => location::OPCODE,
            _ => NO_LOCATION,
        };
        let status = self.log(qid, command, status, location);
        if let Some(disk) = self.disks.get(command.disk)
            && let Some(fault) = disk.note_failure(cause)
        {
            self.report.tell(FromShard::Media {
                shard: self.report.index,
                nsid: command.nsid,
                fault: Some(fault),
            });
        }
        if cause.is_disk_error() {
            self.tell_of_disk(command, cause);
        }
        if is_cause_ours(cause) {
            let disk = self
                .disks
                .get(command.disk)
                .map(|disk| disk.name())
                .unwrap_or_default();
            guest_warn!(
                self.report.limit,
                controller = self.report.label,
                bdev = disk,
                nsid = command.nsid,
                lba = command.lba,
                bytes = command.bytes,
                qid,
                ?cause,
                ?status,
                "a disk failed a guest's command"
            );
        }
        status
    }
}

/// Errors and other news wait for the controller at most this many at a time; a guest can cause more than anybody reads.
const MAX_BACKLOG: usize = 64;

/// The way to the controller and to the operator.
pub(crate) struct Report {
    pub(crate) index: usize,
    pub(crate) label: String,
    pub(crate) outbox: Sender<FromShard>,
    pub(crate) home: ReactorHandle,
    pub(crate) limit: LogLimit,
    /// Of disks' errors, so that a driver's mistakes do not hide them.
    pub(crate) disk_errors: LogLimit,
}

impl Report {
    /// Says something to the controller. If it is gone nobody wants to know.
    pub(crate) fn tell(&self, message: FromShard) {
        let _ = self.outbox.send(message);
        self.home.wake();
    }

    /// As [`Report::tell`] for what a guest can cause at will: dropped while too much waits. Whether it was not.
    fn mention(&self, message: FromShard) -> bool {
        let room = self.outbox.len() < MAX_BACKLOG;
        if room {
            self.tell(message);
        }
        room
    }

    fn error(&self, qid: u16, command: &Command, status: Status, location: u16) -> bool {
        self.mention(FromShard::Error(CommandError {
            sqid: qid,
            cid: command.cid,
            status,
            nsid: command.nsid,
            lba: command.lba,
            parameter_location: location,
        }))
    }

    /// A doorbell holds nonsense.
    #[cold]
    pub(crate) fn invalid_doorbell(&mut self, bad: InvalidDoorbell) {
        self.mention(FromShard::InvalidDoorbell { qid: bad.qid });
        guest_warn!(self.limit, controller = self.label, error = %bad, "the guest's driver is broken");
    }
}
