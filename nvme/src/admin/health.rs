//! SMART / Health Information from what the shards count (Base 2.0c, 5.16.1.3).

use nvme_spec::Le128;
use nvme_spec::log::{CriticalWarning, SmartHealth};
use zerocopy::FromZeros;

use super::features::Features;
use crate::messages::ShardCounters;

/// Warning Composite Temperature Threshold in kelvins (WCTEMP), and the default over-temperature threshold.
pub(crate) const WARNING_TEMPERATURE: u16 = 343;
/// Critical Composite Temperature Threshold in kelvins (CCTEMP).
pub(crate) const CRITICAL_TEMPERATURE: u16 = 373;
/// What the composite temperature always is, in kelvins: there is no sensor, and monitoring tools take zero for a fault.
const TEMPERATURE: u16 = 313;
/// Below this, Available Spare would be a warning, percent.
const SPARE_THRESHOLD: u8 = 10;

/// What the page needs beyond the counters.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Life {
    /// Milliseconds since the controller was made.
    pub(crate) age_ms: u64,
    /// Commands that ended with a media error.
    pub(crate) media_errors: u64,
    /// Entries ever written to the error log.
    pub(crate) error_log_entries: u64,
}

/// Warnings in force. Only temperature can be one: the thresholds are the host's to move.
pub(crate) fn warnings(features: &Features) -> CriticalWarning {
    let outside =
        TEMPERATURE >= features.over_temperature || TEMPERATURE <= features.under_temperature;
    CriticalWarning::new().with_temperature(outside)
}

/// Thousands of 512-byte units, rounded up.
fn data_units(bytes: u64) -> Le128 {
    Le128::new(u128::from(bytes.div_ceil(512_000)))
}

/// The page.
pub(crate) fn page(features: &Features, counters: &ShardCounters, life: &Life) -> SmartHealth {
    const MS_PER_HOUR: u64 = 3_600_000;
    let traffic = &counters.traffic;
    let mut page = SmartHealth::new_zeroed();
    page.critical_warning = warnings(features);
    page.set_temperature(TEMPERATURE);
    page.available_spare = 100;
    page.available_spare_threshold = SPARE_THRESHOLD;
    page.data_units_read = data_units(traffic.read().bytes);
    page.data_units_written = data_units(traffic.written().bytes);
    page.host_read_commands = Le128::new(u128::from(traffic.read().commands));
    page.host_write_commands = Le128::new(u128::from(traffic.written().commands));
    // A controller exists for one client: its life is one power cycle.
    page.power_cycles = Le128::new(1);
    page.power_on_hours = Le128::new(u128::from(life.age_ms / MS_PER_HOUR));
    page.media_errors = Le128::new(u128::from(life.media_errors));
    page.error_log_entries = Le128::new(u128::from(life.error_log_entries));
    page
}
