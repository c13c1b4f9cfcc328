//! SMART / Health Information from what the shards count (Base 2.0c, 5.16.1.3).

use nvme_spec::Le128;
use nvme_spec::log::{CriticalWarning, SmartHealth};
use zerocopy::FromZeros;

use super::features::Features;
use crate::history::Life;

/// Warning Composite Temperature Threshold in kelvins (WCTEMP), and the default over-temperature threshold.
pub(crate) const WARNING_TEMPERATURE: u16 = 343;
/// Critical Composite Temperature Threshold in kelvins (CCTEMP).
pub(crate) const CRITICAL_TEMPERATURE: u16 = 373;
/// What the composite temperature always is, in kelvins: there is no sensor, and monitoring tools take zero for a fault.
const TEMPERATURE: u16 = 313;
/// Below this, Available Spare would be a warning, percent.
const SPARE_THRESHOLD: u8 = 10;

/// How the disks are, all together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct MediaState {
    /// A disk fails one command after the other.
    pub(crate) failing: bool,
    /// No disk can be written any more that could.
    pub(crate) read_only: bool,
}

/// Warnings in force. A namespace that was read-only from the beginning is none (Base 2.0c, 5.16.1.3: bit 3 is not for write
/// protection).
pub(crate) fn warnings(features: &Features, media: MediaState) -> CriticalWarning {
    let outside =
        TEMPERATURE >= features.over_temperature || TEMPERATURE <= features.under_temperature;
    CriticalWarning::new()
        .with_temperature(outside)
        .with_reliability(media.failing)
        .with_read_only(media.read_only)
}

/// Thousands of 512-byte units, rounded up.
fn data_units(bytes: u64) -> Le128 {
    Le128::new(u128::from(bytes.div_ceil(512_000)))
}

/// The page.
pub(crate) fn page(warnings: CriticalWarning, life: &Life) -> SmartHealth {
    const MS_PER_MINUTE: u64 = 60_000;
    const MS_PER_HOUR: u64 = 60 * MS_PER_MINUTE;
    let count = |value: u64| Le128::new(u128::from(value));
    let (read, written) = (life.traffic.read(), life.traffic.written());
    let mut page = SmartHealth::new_zeroed();
    page.critical_warning = warnings;
    page.set_temperature(TEMPERATURE);
    page.available_spare = 100;
    page.available_spare_threshold = SPARE_THRESHOLD;
    page.data_units_read = data_units(read.bytes);
    page.data_units_written = data_units(written.bytes);
    page.host_read_commands = count(read.commands);
    page.host_write_commands = count(written.commands);
    page.controller_busy_time = count(life.busy_ms / MS_PER_MINUTE);
    page.power_cycles = count(life.power_cycles);
    page.power_on_hours = count(life.on_ms / MS_PER_HOUR);
    page.unsafe_shutdowns = count(life.unsafe_shutdowns);
    page.media_errors = count(life.media_errors);
    page.error_log_entries = count(life.error_log_entries);
    page
}
