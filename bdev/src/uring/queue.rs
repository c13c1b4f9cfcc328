//! What sysfs says about a block device's queue.

use std::fs;
use std::path::PathBuf;
use std::str::FromStr;

use nix::libc::dev_t;
use nix::sys::stat::{major, minor};

/// A block device in sysfs.
#[derive(Debug)]
pub(super) struct Queue(PathBuf);

impl Queue {
    /// The device with this number: a whole disk or a partition.
    pub(super) fn of(device: dev_t) -> Self {
        let (major, minor) = (major(device), minor(device));
        Self(format!("/sys/dev/block/{major}:{minor}").into())
    }

    fn read(&self, path: &str) -> Option<String> {
        let text = fs::read_to_string(self.0.join(path)).ok()?;
        Some(text.trim().to_owned())
    }

    /// An attribute of the queue. A partition has none of its own, so its disk is asked.
    pub(super) fn text(&self, attribute: &str) -> Option<String> {
        self.read(&format!("queue/{attribute}"))
            .or_else(|| self.read(&format!("../queue/{attribute}")))
    }

    /// As [`Queue::text`], for numbers.
    pub(super) fn number<T: FromStr>(&self, attribute: &str) -> Option<T> {
        self.text(attribute)?.parse().ok()
    }

    /// Whether an attribute is there and not zero.
    pub(super) fn has(&self, attribute: &str) -> bool {
        self.number::<u64>(attribute)
            .is_some_and(|number| number > 0)
    }

    /// Whether the device is write-protected.
    pub(super) fn is_read_only(&self) -> bool {
        self.read("ro").is_some_and(|text| text == "1")
    }
}
