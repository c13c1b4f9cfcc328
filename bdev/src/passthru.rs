//! The disk that only passes on: SPDK's "passthru". It gives a disk a second name and identity, and stands for all
//! decorators where stacking is to be tried.
//!
//! Its channel *is* the counted channel of the disk below, so it costs what that one's counters cost.

use std::sync::Arc;

use reactor::Cx;
use uuid::{Uuid, uuid};

use crate::over::Over;
use crate::traits::{Bdev, BdevError, BdevInfo, Channel, DriverValue, SharedBdev};

/// Identities of passthru disks that the operator gives none are derived from the base's under this one, as SPDK derives them.
const NAMESPACE: Uuid = uuid!("7e25812e-c8c0-4d3f-8599-16d790555b85");

/// Makes a passthru disk over `base`.
///
/// # Errors
/// `EINVAL` for an empty name.
pub fn create(
    name: impl Into<String>,
    base: SharedBdev,
    uuid: Option<Uuid>,
) -> Result<SharedBdev, BdevError> {
    let uuid = uuid.unwrap_or_else(|| Uuid::new_v5(&NAMESPACE, base.info().uuid.as_bytes()));
    let over = Over::new(name.into(), "passthru", uuid, base)?;
    Ok(Arc::new(Passthru { over }))
}

#[derive(Debug)]
struct Passthru {
    over: Over,
}

impl Bdev for Passthru {
    fn info(&self) -> BdevInfo {
        self.over.info()
    }

    fn open(&self, cx: &mut Cx) -> Result<Box<dyn Channel>, BdevError> {
        self.over.open(cx)
    }

    fn rescan(&self) -> Result<u64, BdevError> {
        self.over.base().rescan()
    }

    fn resize(&self, num_blocks: u64) -> Result<(), BdevError> {
        self.over.base().resize(num_blocks)
    }

    fn driver_specific(&self) -> Vec<(&'static str, DriverValue)> {
        vec![
            ("name", DriverValue::Text(self.over.name().to_owned())),
            ("base_bdev_name", DriverValue::Text(self.over.base_name())),
        ]
    }
}
