//! What all queues of a worker share.

use std::sync::Arc;

use bdev::IoStatus;
use crossbeam_channel::Sender;
use guest_memory::MapView;
use reactor::{LogLimit, ReactorHandle, guest_warn};
use virtio_spec::blk::{ID_BYTES, S_IOERR, S_OK, S_UNSUPP};

use super::disks::Disks;
use super::plan::Plans;
use super::request::Request;
use crate::blk::Coalescing;
use crate::blk::messages::{FromWorker, Mode};

/// What all queues of a worker share.
pub(super) struct Env {
    pub(super) view: MapView,
    pub(super) mode: Arc<Mode>,
    pub(super) disks: Disks,
    pub(super) plans: Plans,
    pub(super) serial: [u8; ID_BYTES],
    pub(super) readonly: bool,
    pub(super) coalescing: Coalescing,
    /// Requests end without used entries.
    pub(super) exiting: bool,
    pub(super) report: Report,
}

impl Env {
    /// The status for the end of a disk's part; the operator hears of a failure.
    #[cold]
    pub(super) fn failed(&mut self, queue: u16, request: &Request, cause: IoStatus) -> u8 {
        let status = match cause {
            IoStatus::Ok => return S_OK,
            IoStatus::Unsupported => S_UNSUPP,
            _ => S_IOERR,
        };
        if cause.is_disk_error() {
            self.tell_of_disk(request, cause);
        }
        // What the driver should not have asked for is no trouble of the disk.
        if !matches!(
            cause,
            IoStatus::OutOfRange | IoStatus::ReadOnly | IoStatus::Unsupported | IoStatus::Aborted
        ) {
            let disk = self.disks.get(request.disk).map(|disk| disk.name());
            guest_warn!(
                self.report.limit,
                endpoint = self.report.label,
                bdev = disk.unwrap_or_default(),
                queue,
                sector = request.sector,
                ?cause,
                "a disk failed a guest's request"
            );
        }
        status
    }

    fn tell_of_disk(&mut self, request: &Request, cause: IoStatus) {
        let Some(suppressed) = self.report.disk_errors.admit() else {
            return;
        };
        let disk = self.disks.get(request.disk);
        self.report.tell(FromWorker::DiskError {
            bdev: disk.map(|disk| disk.name()).unwrap_or_default(),
            sector: request.sector,
            cause,
            suppressed,
        });
    }

    /// A request's memory cannot be reached.
    #[cold]
    pub(super) fn unreachable(&mut self, queue: u16, sector: u64) {
        guest_warn!(
            self.report.limit,
            endpoint = self.report.label,
            queue,
            sector,
            "a request's memory is not mapped for the device: is all of the guest's RAM shared?"
        );
    }
}

/// The way to the device and to the operator.
pub(super) struct Report {
    pub(super) label: String,
    pub(super) outbox: Sender<FromWorker>,
    pub(super) home: ReactorHandle,
    pub(super) limit: LogLimit,
    /// Of disks' errors, so that a driver's mistakes do not hide them.
    pub(super) disk_errors: LogLimit,
}

impl Report {
    /// Says something to the device. If it is gone nobody wants to know.
    pub(super) fn tell(&self, message: FromWorker) {
        let _ = self.outbox.send(message);
        self.home.wake();
    }
}
