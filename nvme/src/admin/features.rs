//! Feature values: Get Features and Set Features (Base 2.0c, 5.15, 5.27; NVM Command Set 1.0, 4.1.3).
//!
//! No feature is saveable: each reset brings the defaults back.

use std::collections::{BTreeMap, BTreeSet};

use nvme_spec::command::FeatureSelect;
use nvme_spec::feature::{
    Arbitration, AsyncEventConfig, ErrorRecovery, FeatureId, FeatureTimestamp, HostBehaviorSupport,
    HostIdentifierCdw11, InterruptCoalescing, InterruptVectorConfig, NumberOfQueues,
    PowerManagement, SupportedCapabilities, TemperatureSensor, TemperatureThreshold, ThresholdType,
    TimestampOrigin, VolatileWriteCache, WriteAtomicity,
};
use nvme_spec::{NSID_ALL, Status};
use zerocopy::{FromBytes, FromZeros, IntoBytes};

use super::health::WARNING_TEMPERATURE;

/// What the values may be; from the controller's settings and its present state.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits<'a> {
    /// MSI-X vectors.
    pub(crate) vectors: u16,
    /// I/O queue pairs.
    pub(crate) queues: u16,
    /// Whether I/O queues exist.
    pub(crate) has_queues: bool,
    /// Whether a volatile write cache is shown.
    pub(crate) write_cache: bool,
    /// Events that the host may ask for.
    pub(crate) events: AsyncEventConfig,
    /// Namespaces that are active.
    pub(crate) nsids: &'a BTreeSet<u32>,
    /// Milliseconds of a clock that only goes forward.
    pub(crate) now_ms: u64,
}

/// What a feature answers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Answer {
    /// Dword 0 of the completion.
    pub(crate) dw0: u32,
    /// Data for the host.
    pub(crate) data: Vec<u8>,
}

impl Answer {
    fn dword(dw0: u32) -> Self {
        Self {
            dw0,
            data: Vec::new(),
        }
    }

    fn data(bytes: &[u8]) -> Self {
        Self {
            dw0: 0,
            data: bytes.to_vec(),
        }
    }
}

/// What has to follow a Set Features.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// Nothing.
    Stored,
    /// Dword 0 of the completion says what was allocated.
    Queues(u32),
    /// Interrupt coalescing.
    Coalescing,
    /// This vector's coalescing.
    Vector(u16),
    /// The write cache.
    WriteCache,
    /// The keep alive timer.
    KeepAlive,
    /// Temperature thresholds or which warnings are events.
    Temperature,
}

/// The value of Timestamp: what the host said, and when.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Timestamp {
    host_ms: u64,
    set_at_ms: u64,
    origin_set: bool,
}

/// All values; plain data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Features {
    arbitration: Arbitration,
    power: PowerManagement,
    pub(crate) over_temperature: u16,
    pub(crate) under_temperature: u16,
    /// By namespace; absent is zero.
    error_recovery: BTreeMap<u32, u16>,
    pub(crate) write_cache: bool,
    pub(crate) coalescing: InterruptCoalescing,
    /// Vectors that ignore coalescing.
    pub(crate) coalescing_disabled: BTreeSet<u16>,
    write_atomicity: WriteAtomicity,
    pub(crate) async_events: AsyncEventConfig,
    timestamp: Timestamp,
    /// Milliseconds; zero for no timer.
    pub(crate) keep_alive_ms: u32,
    /// ACRE, ETDAS, LBAFEE.
    host_behavior: [u8; 3],
    host_id: [u8; 16],
}

/// Every feature there is.
pub(crate) const SUPPORTED: [FeatureId; 14] = [
    FeatureId::ARBITRATION,
    FeatureId::POWER_MANAGEMENT,
    FeatureId::TEMPERATURE_THRESHOLD,
    FeatureId::ERROR_RECOVERY,
    FeatureId::VOLATILE_WRITE_CACHE,
    FeatureId::NUMBER_OF_QUEUES,
    FeatureId::INTERRUPT_COALESCING,
    FeatureId::INTERRUPT_VECTOR_CONFIG,
    FeatureId::WRITE_ATOMICITY,
    FeatureId::ASYNC_EVENT_CONFIG,
    FeatureId::TIMESTAMP,
    FeatureId::KEEP_ALIVE_TIMER,
    FeatureId::HOST_BEHAVIOR_SUPPORT,
    FeatureId::HOST_IDENTIFIER,
];

/// Events that Asynchronous Event Configuration may turn on.
pub(crate) fn events(ana: bool) -> AsyncEventConfig {
    AsyncEventConfig::new()
        .with_critical_warnings(0x1f)
        .with_namespace_attribute(true)
        .with_ana_change(ana)
}

const TIMESTAMP_MASK: u64 = (1 << 48) - 1;

fn invalid_field() -> Status {
    Status::INVALID_FIELD.with_dnr(true)
}

fn check_supported(fid: FeatureId) -> Result<(), Status> {
    SUPPORTED
        .contains(&fid)
        .then_some(())
        .ok_or(invalid_field())
}

fn is_namespace_specific(fid: FeatureId) -> bool {
    fid == FeatureId::ERROR_RECOVERY
}

/// Bytes of data that Set Features and Get Features move for `fid`.
pub(crate) fn data_len(fid: FeatureId, cdw11: u32) -> usize {
    match fid {
        FeatureId::TIMESTAMP => size_of::<FeatureTimestamp>(),
        FeatureId::HOST_BEHAVIOR_SUPPORT => size_of::<HostBehaviorSupport>(),
        FeatureId::HOST_IDENTIFIER if HostIdentifierCdw11::from_bits(cdw11).exhid() => 16,
        FeatureId::HOST_IDENTIFIER => 8,
        _ => 0,
    }
}

impl Default for Features {
    fn default() -> Self {
        Self {
            arbitration: Arbitration::new(),
            power: PowerManagement::new(),
            over_temperature: WARNING_TEMPERATURE,
            under_temperature: 0,
            error_recovery: BTreeMap::new(),
            write_cache: true,
            coalescing: InterruptCoalescing::new(),
            coalescing_disabled: BTreeSet::new(),
            write_atomicity: WriteAtomicity::new(),
            async_events: AsyncEventConfig::new(),
            timestamp: Timestamp::default(),
            keep_alive_ms: 0,
            host_behavior: [0; 3],
            host_id: [0; 16],
        }
    }
}

impl Features {
    /// Get Features.
    pub(crate) fn get(
        &self,
        fid: FeatureId,
        select: FeatureSelect,
        nsid: u32,
        cdw11: u32,
        limits: &Limits<'_>,
    ) -> Result<Answer, Status> {
        check_supported(fid)?;
        match select {
            FeatureSelect::CURRENT => self.value(fid, nsid, cdw11, limits),
            // What is not saveable answers with its default (Base 2.0c, 5.15.1).
            FeatureSelect::DEFAULT | FeatureSelect::SAVED => {
                Self::default().value(fid, nsid, cdw11, limits)
            }
            FeatureSelect::SUPPORTED_CAPABILITIES => {
                let capabilities = SupportedCapabilities::new()
                    .with_changeable(true)
                    .with_namespace_specific(is_namespace_specific(fid));
                Ok(Answer::dword(capabilities.into_bits()))
            }
            _ => Err(invalid_field()),
        }
    }

    fn value(
        &self,
        fid: FeatureId,
        nsid: u32,
        cdw11: u32,
        limits: &Limits<'_>,
    ) -> Result<Answer, Status> {
        let dw0 = match fid {
            FeatureId::ARBITRATION => self.arbitration.into_bits(),
            FeatureId::POWER_MANAGEMENT => self.power.into_bits(),
            FeatureId::TEMPERATURE_THRESHOLD => self.temperature(cdw11)?,
            FeatureId::ERROR_RECOVERY => {
                // NSID 0 names no namespace; hosts use it to ask whether the feature exists, and get its default.
                if nsid != 0 && !limits.nsids.contains(&nsid) {
                    return Err(Status::INVALID_NAMESPACE_OR_FORMAT.with_dnr(true));
                }
                let tler = self.error_recovery.get(&nsid).copied().unwrap_or(0);
                ErrorRecovery::new().with_tler(tler).into_bits()
            }
            // Without a cache this "should" fail (5.27.1.4). An administrator who asks is better served by "not enabled".
            FeatureId::VOLATILE_WRITE_CACHE => VolatileWriteCache::new()
                .with_wce(self.write_cache && limits.write_cache)
                .into_bits(),
            FeatureId::NUMBER_OF_QUEUES => allocated(limits),
            FeatureId::INTERRUPT_COALESCING => self.coalescing.into_bits(),
            FeatureId::INTERRUPT_VECTOR_CONFIG => {
                let iv = InterruptVectorConfig::from_bits(cdw11).iv();
                if iv >= limits.vectors {
                    return Err(invalid_field());
                }
                let cd = self.coalescing_disabled.contains(&iv);
                InterruptVectorConfig::new()
                    .with_iv(iv)
                    .with_cd(cd)
                    .into_bits()
            }
            FeatureId::WRITE_ATOMICITY => self.write_atomicity.into_bits(),
            FeatureId::ASYNC_EVENT_CONFIG => self.async_events.into_bits(),
            FeatureId::KEEP_ALIVE_TIMER => self.keep_alive_ms,
            FeatureId::TIMESTAMP => return Ok(self.timestamp(limits.now_ms)),
            FeatureId::HOST_BEHAVIOR_SUPPORT => {
                let mut data = HostBehaviorSupport::new_zeroed();
                [data.acre, data.etdas, data.lbafee] = self.host_behavior;
                return Ok(Answer::data(data.as_bytes()));
            }
            FeatureId::HOST_IDENTIFIER => {
                let len = data_len(fid, cdw11);
                return Ok(Answer::data(self.host_id.get(..len).unwrap_or_default()));
            }
            _ => return Err(invalid_field()),
        };
        Ok(Answer::dword(dw0))
    }

    fn temperature(&self, cdw11: u32) -> Result<u32, Status> {
        let asked = TemperatureThreshold::from_bits(cdw11);
        // A sensor that is not implemented has no threshold; "all" is for Set Features only.
        if asked.tmpsel() != TemperatureSensor::COMPOSITE {
            return Err(invalid_field());
        }
        let kelvins = match asked.thsel() {
            ThresholdType::OVER => self.over_temperature,
            ThresholdType::UNDER => self.under_temperature,
            _ => return Err(invalid_field()),
        };
        let threshold = TemperatureThreshold::new()
            .with_tmpth(kelvins)
            .with_thsel(asked.thsel());
        Ok(threshold.into_bits())
    }

    fn timestamp(&self, now_ms: u64) -> Answer {
        let elapsed = now_ms.saturating_sub(self.timestamp.set_at_ms);
        let origin = if self.timestamp.origin_set {
            TimestampOrigin::SET
        } else {
            TimestampOrigin::CLEARED
        };
        let value = FeatureTimestamp::new()
            .with_milliseconds(self.timestamp.host_ms.wrapping_add(elapsed) & TIMESTAMP_MASK)
            .with_origin(origin);
        Answer::data(value.as_bytes())
    }

    /// The controller was reset: time counts from zero.
    pub(crate) fn reset(&mut self, now_ms: u64) {
        *self = Self::default();
        self.timestamp.set_at_ms = now_ms;
    }

    /// Set Features; `data` are the bytes that [`data_len`] asked for.
    pub(crate) fn set(
        &mut self,
        fid: FeatureId,
        save: bool,
        nsid: u32,
        cdw11: u32,
        data: &[u8],
        limits: &Limits<'_>,
    ) -> Result<Change, Status> {
        check_supported(fid)?;
        if save {
            return Err(Status::FEATURE_NOT_SAVEABLE.with_dnr(true));
        }
        if !is_namespace_specific(fid) && nsid != 0 && nsid != NSID_ALL {
            let status = if limits.nsids.contains(&nsid) {
                Status::FEATURE_NOT_NAMESPACE_SPECIFIC
            } else {
                Status::INVALID_NAMESPACE_OR_FORMAT
            };
            return Err(status.with_dnr(true));
        }
        match fid {
            FeatureId::ARBITRATION => {
                // The weights matter to weighted round robin only, which is not offered.
                self.arbitration = Arbitration::from_bits(cdw11);
            }
            FeatureId::POWER_MANAGEMENT => {
                let power = PowerManagement::from_bits(cdw11);
                if power.ps() != 0 {
                    return Err(invalid_field());
                }
                self.power = PowerManagement::new().with_wh(power.wh());
            }
            FeatureId::TEMPERATURE_THRESHOLD => return self.set_temperature(cdw11),
            FeatureId::ERROR_RECOVERY => self.set_error_recovery(nsid, cdw11, limits)?,
            FeatureId::VOLATILE_WRITE_CACHE if !limits.write_cache => return Err(invalid_field()),
            FeatureId::VOLATILE_WRITE_CACHE => {
                self.write_cache = VolatileWriteCache::from_bits(cdw11).wce();
                return Ok(Change::WriteCache);
            }
            FeatureId::NUMBER_OF_QUEUES => {
                if limits.has_queues {
                    return Err(Status::COMMAND_SEQUENCE_ERROR.with_dnr(true));
                }
                let asked = NumberOfQueues::from_bits(cdw11);
                if asked.nsq_z() == 0xffff || asked.ncq_z() == 0xffff {
                    return Err(invalid_field());
                }
                return Ok(Change::Queues(allocated(limits)));
            }
            FeatureId::INTERRUPT_COALESCING => {
                let asked = InterruptCoalescing::from_bits(cdw11);
                self.coalescing = InterruptCoalescing::new()
                    .with_thr_z(asked.thr_z())
                    .with_time(asked.time());
                return Ok(Change::Coalescing);
            }
            FeatureId::INTERRUPT_VECTOR_CONFIG => {
                let asked = InterruptVectorConfig::from_bits(cdw11);
                if asked.iv() >= limits.vectors {
                    return Err(invalid_field());
                }
                if asked.cd() {
                    self.coalescing_disabled.insert(asked.iv());
                } else {
                    self.coalescing_disabled.remove(&asked.iv());
                }
                return Ok(Change::Vector(asked.iv()));
            }
            FeatureId::WRITE_ATOMICITY => {
                let dn = WriteAtomicity::from_bits(cdw11).dn();
                self.write_atomicity = WriteAtomicity::new().with_dn(dn);
            }
            FeatureId::ASYNC_EVENT_CONFIG => {
                self.async_events = AsyncEventConfig::from_bits(cdw11 & limits.events.into_bits());
                return Ok(Change::Temperature);
            }
            FeatureId::KEEP_ALIVE_TIMER => {
                self.keep_alive_ms = cdw11;
                return Ok(Change::KeepAlive);
            }
            FeatureId::TIMESTAMP => {
                let value = FeatureTimestamp::read_from_bytes(data).map_err(|_| invalid_field())?;
                self.timestamp = Timestamp {
                    host_ms: value.milliseconds(),
                    set_at_ms: limits.now_ms,
                    origin_set: true,
                };
            }
            FeatureId::HOST_BEHAVIOR_SUPPORT => {
                let value =
                    HostBehaviorSupport::read_from_bytes(data).map_err(|_| invalid_field())?;
                let asked = [value.acre, value.etdas, value.lbafee];
                // LBAFEE is for controllers with more than 16 formats; ETDAS for telemetry.
                if asked.iter().any(|flag| *flag > 1) {
                    return Err(invalid_field());
                }
                self.host_behavior = asked;
            }
            FeatureId::HOST_IDENTIFIER => {
                self.host_id = [0; 16];
                for (byte, value) in self.host_id.iter_mut().zip(data) {
                    *byte = *value;
                }
            }
            _ => return Err(invalid_field()),
        }
        Ok(Change::Stored)
    }

    fn set_temperature(&mut self, cdw11: u32) -> Result<Change, Status> {
        let asked = TemperatureThreshold::from_bits(cdw11);
        if !matches!(
            asked.tmpsel(),
            TemperatureSensor::COMPOSITE | TemperatureSensor::ALL
        ) {
            return Err(invalid_field());
        }
        match asked.thsel() {
            ThresholdType::OVER => self.over_temperature = asked.tmpth(),
            ThresholdType::UNDER => self.under_temperature = asked.tmpth(),
            _ => return Err(invalid_field()),
        }
        Ok(Change::Temperature)
    }

    fn set_error_recovery(
        &mut self,
        nsid: u32,
        cdw11: u32,
        limits: &Limits<'_>,
    ) -> Result<(), Status> {
        let asked = ErrorRecovery::from_bits(cdw11);
        // No namespace reports NSFEAT.DAE.
        if asked.dulbe() {
            return Err(invalid_field());
        }
        if nsid == NSID_ALL {
            let all = limits.nsids.iter().map(|nsid| (*nsid, asked.tler()));
            self.error_recovery = all.collect();
        } else if limits.nsids.contains(&nsid) {
            self.error_recovery.insert(nsid, asked.tler());
        } else {
            return Err(Status::INVALID_NAMESPACE_OR_FORMAT.with_dnr(true));
        }
        Ok(())
    }
}

/// Completion of Number of Queues: all there are, whatever was asked; the host takes what it needs.
fn allocated(limits: &Limits<'_>) -> u32 {
    let pairs_z = limits.queues.saturating_sub(1);
    NumberOfQueues::new()
        .with_nsq_z(pairs_z)
        .with_ncq_z(pairs_z)
        .into_bits()
}

#[cfg(test)]
mod tests;
