//! The disk that fails on demand: SPDK's "Error Injection Disk", over any other disk.
//!
//! Unless something is armed it passes everything on, at the cost of one load and a count of what is in flight.
//!
//! | injection | what becomes of a request |
//! | --- | --- |
//! | failure | [`Failed`](crate::IoStatus::Failed) with `EIO`, and the base sees nothing of it |
//! | NVMe failure | [`Nvme`](crate::IoStatus::Nvme), likewise |
//! | pending | held until [`ErrorDisk::resume`] (then it starts anew), or until its user wants it to end ([`Aborted`](crate::IoStatus::Aborted)) |
//! | no memory | refused for now, and tried again until the count is used up: the user sees a full disk, or a slow one |
//! | corrupt data | one byte changed: of a read's data on its way up, of a write's copy on its way down |

mod channel;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use nix::errno::Errno;
use reactor::{Cx, PollerKey};
use uuid::Uuid;

use crate::io::IoKind;
use crate::over::Over;
use crate::part::range_uuid;
use crate::traits::{Bdev, BdevError, BdevInfo, Channel, DriverValue, SharedBdev};
use channel::ErrorChannel;

/// Which requests an injection is for. (A compare counts as a read; zeroes are never hit, as SPDK.)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Reads and compares.
    Read,
    /// Writes.
    Write,
    /// Unmaps.
    Unmap,
    /// Flushes.
    Flush,
}

impl Target {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Read, Self::Write, Self::Unmap, Self::Flush];

    fn of(kind: IoKind) -> Option<Self> {
        match kind {
            IoKind::Read | IoKind::Compare => Some(Self::Read),
            IoKind::Write => Some(Self::Write),
            IoKind::Unmap => Some(Self::Unmap),
            IoKind::Flush => Some(Self::Flush),
            IoKind::WriteZeroes => None,
        }
    }
}

/// What is to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The request fails.
    Failure,
    /// The request fails with this NVMe status (status code type, status code).
    NvmeFailure {
        /// Status code type.
        sct: u8,
        /// Status code.
        sc: u8,
    },
    /// The request hangs.
    Pending,
    /// There is no room for it now.
    NoMemory,
    /// A byte of its data changes. Only reads and writes have data; others pass.
    CorruptData {
        /// Which byte of the request's data; where there are fewer, nothing happens.
        offset: u64,
        /// What it is XORed with.
        value: u8,
    },
}

/// An injection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Injection {
    /// What is to happen.
    pub fault: Fault,
    /// To how many requests.
    pub count: u64,
    /// Only to requests that find at least so many of the same channel with the base.
    pub queue_depth: u64,
}

/// What is armed, by target.
#[derive(Debug, Default)]
struct Armed([Option<Injection>; 4]);

impl Armed {
    fn slot(&mut self, target: Target) -> &mut Option<Injection> {
        let [read, write, unmap, flush] = &mut self.0;
        match target {
            Target::Read => read,
            Target::Write => write,
            Target::Unmap => unmap,
            Target::Flush => flush,
        }
    }

    fn is_any(&self) -> bool {
        self.0.iter().flatten().any(|it| it.count > 0)
    }
}

#[derive(Debug, Default)]
struct Shared {
    /// Whether to look into `armed`: all that a request costs while nothing is.
    is_armed: AtomicBool,
    armed: Mutex<Armed>,
    /// Counts calls of [`ErrorDisk::resume`].
    resumes: AtomicU64,
}

impl Shared {
    fn armed(&self) -> MutexGuard<'_, Armed> {
        self.armed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is to happen to a request that starts while `in_flight` others are with the base; it counts as having happened.
    fn draw(&self, kind: IoKind, in_flight: u64) -> Option<Fault> {
        let target = Target::of(kind)?;
        let mut armed = self.armed();
        let injection = armed.slot(target).as_mut()?;
        if in_flight < injection.queue_depth {
            return None;
        }
        injection.count = injection.count.checked_sub(1)?;
        let fault = injection.fault;
        self.is_armed.store(armed.is_any(), Ordering::Relaxed);
        Some(fault)
    }

    /// Takes back what was drawn for a request that will come again.
    fn give_back(&self, kind: IoKind, fault: Fault) {
        let Some(target) = Target::of(kind) else {
            return;
        };
        let mut armed = self.armed();
        if let Some(injection) = armed.slot(target)
            && injection.fault == fault
        {
            injection.count = injection.count.saturating_add(1);
            self.is_armed.store(true, Ordering::Relaxed);
        }
    }
}

/// An error disk.
#[derive(Debug)]
pub struct ErrorDisk {
    over: Over,
    shared: Arc<Shared>,
}

/// Makes an error disk over `base`, called `EE_` and the base's name.
///
/// # Errors
/// None at present.
pub fn create(base: SharedBdev, uuid: Option<Uuid>) -> Result<Arc<ErrorDisk>, BdevError> {
    let info = base.info();
    let uuid = uuid.unwrap_or_else(|| range_uuid(info.uuid, 0, info.num_blocks));
    let name = format!("EE_{}", info.name);
    Ok(Arc::new(ErrorDisk {
        over: Over::new(name, "Error Injection Disk", uuid, base)?,
        shared: Arc::default(),
    }))
}

impl ErrorDisk {
    /// Arms an injection, in place of what was armed for the same target.
    ///
    /// # Errors
    /// `EINVAL` for a corruption that changes nothing.
    pub fn inject(&self, targets: &[Target], injection: Injection) -> Result<(), BdevError> {
        if matches!(injection.fault, Fault::CorruptData { value: 0, .. }) {
            let reason = "corrupt_value 0 changes no data: give 1 to 255";
            return Err(BdevError::new(Errno::EINVAL, reason));
        }
        let mut armed = self.shared.armed();
        for target in targets {
            *armed.slot(*target) = Some(injection);
        }
        self.shared
            .is_armed
            .store(armed.is_any(), Ordering::Relaxed);
        Ok(())
    }

    /// Disarms everything. What hangs already goes on hanging.
    pub fn clear(&self) {
        *self.shared.armed() = Armed::default();
        self.shared.is_armed.store(false, Ordering::Relaxed);
    }

    /// What is armed for a target and not used up.
    #[must_use]
    pub fn armed(&self, target: Target) -> Option<Injection> {
        let injection = *self.shared.armed().slot(target);
        injection.filter(|it| it.count > 0)
    }

    /// Lets requests that hang go on, and makes no more hang. Whoever calls this calls [`ErrorDisk::wake`] on every reactor then.
    pub fn resume(&self) {
        let mut armed = self.shared.armed();
        for slot in &mut armed.0 {
            if slot.is_some_and(|it| it.fault == Fault::Pending) {
                *slot = None;
            }
        }
        self.shared
            .is_armed
            .store(armed.is_any(), Ordering::Relaxed);
        self.shared.resumes.fetch_add(1, Ordering::Relaxed);
    }

    /// Makes the users of this disk on one reactor look whether they may go on.
    pub fn wake(&self, cx: &mut Cx) {
        let pollers = cx.local::<Hanging>().take(&self.shared);
        for poller in pollers {
            cx.expire_waits_of(poller, None);
        }
    }
}

impl Bdev for ErrorDisk {
    fn info(&self) -> BdevInfo {
        self.over.info()
    }

    fn open(&self, cx: &mut Cx) -> Result<Box<dyn Channel>, BdevError> {
        let inner = self.over.open(cx)?;
        Ok(Box::new(ErrorChannel::new(inner, Arc::clone(&self.shared))))
    }

    fn rescan(&self) -> Result<u64, BdevError> {
        self.over.base().rescan()
    }

    fn resize(&self, num_blocks: u64) -> Result<(), BdevError> {
        self.over.base().resize(num_blocks)
    }

    fn driver_specific(&self) -> Vec<(&'static str, DriverValue)> {
        vec![("base_bdev", DriverValue::Text(self.over.base_name()))]
    }
}

/// Pollers of one reactor with requests that hang.
#[derive(Default)]
struct Hanging(Vec<(Weak<Shared>, PollerKey)>);

impl Hanging {
    /// Enters a poller; those of disks that are gone are forgotten.
    fn enter(&mut self, disk: &Arc<Shared>, poller: PollerKey) {
        self.0.retain(|(disk, _)| disk.strong_count() > 0);
        let address = Arc::as_ptr(disk);
        let mut known = self.0.iter();
        if !known.any(|(disk, key)| disk.as_ptr() == address && *key == poller) {
            self.0.push((Arc::downgrade(disk), poller));
        }
    }

    fn take(&mut self, disk: &Arc<Shared>) -> Vec<PollerKey> {
        let address = Arc::as_ptr(disk);
        let ours = self.0.extract_if(.., |(disk, _)| disk.as_ptr() == address);
        ours.map(|(_, key)| key).collect()
    }
}

#[cfg(test)]
mod tests;
