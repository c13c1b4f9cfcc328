//! The device's registers as data: everything another process would need to carry it on, beside the configuration space, the
//! ISR status and the rings, which are their owners'.

use virtio_spec::feature::{RING_PACKED, RING_RESET, VERSION_1};
use virtio_spec::pci::CommonConfig;
use virtio_spec::{MAX_QUEUE_SIZE, NO_VECTOR};

use super::common::Register;
use super::state::State;

/// What a queue's ring is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// The device model does not have it.
    Idle,
    /// The device model serves it.
    Running,
    /// The device model was asked to stop it.
    Stopping,
}

/// A queue as its driver set it up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Queue {
    /// Entries.
    pub(crate) size: u16,
    /// MSI-X vector.
    pub(crate) vector: u16,
    /// `queue_enable`.
    pub(crate) enabled: bool,
    /// `queue_reset`: goes back to its defaults once it has stopped.
    pub(crate) resetting: bool,
    /// Descriptor area.
    pub(crate) desc: u64,
    /// Driver area.
    pub(crate) driver: u64,
    /// Device area.
    pub(crate) device: u64,
    /// The ring.
    pub(crate) stage: Stage,
}

impl Queue {
    /// After a reset.
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            size: limits.queue_size,
            vector: NO_VECTOR,
            enabled: false,
            resetting: false,
            desc: 0,
            driver: 0,
            device: 0,
            stage: Stage::Idle,
        }
    }
}

/// What the device can do; fixed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Number of queues.
    pub(crate) queues: u16,
    /// Entries of a queue at most, a power of two.
    pub(crate) queue_size: u16,
    /// MSI-X vectors.
    pub(crate) vectors: u16,
}

impl Limits {
    /// Limits with every number inside its range.
    pub(crate) fn new(queues: u16, queue_size: u16, vectors: u16) -> Self {
        Self {
            queues,
            queue_size: 1 << queue_size.clamp(1, MAX_QUEUE_SIZE).ilog2(),
            vectors,
        }
    }

    /// What a vector field holds after `vector` was written: that, or none at all (4.1.5.1.2.1).
    fn vector(&self, vector: u16) -> u16 {
        if vector < self.vectors {
            vector
        } else {
            NO_VECTOR
        }
    }
}

/// What a register write asks for beyond being stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    /// A step of the state machine.
    Status(u8),
    /// A queue has another vector.
    Vector(u16),
    /// A queue was enabled.
    Enable(u16),
    /// A queue is to be reset.
    ResetQueue(u16),
}

/// The device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Model {
    /// Status, and what it waits for.
    pub(crate) state: State,
    /// Which 32 bits of the offered features are shown.
    pub(crate) device_feature_select: u32,
    /// Which 32 bits of the accepted features are shown.
    pub(crate) driver_feature_select: u32,
    /// What this driver was shown: a change of disks must not make it ask for what is gone.
    pub(crate) offered: Option<u64>,
    /// Accepted features, in the order of the selectors. None is defined from bit 64 on, but a driver may ask for one.
    pub(crate) driver_features: [u32; 4],
    /// Vector of configuration changes.
    pub(crate) config_vector: u16,
    /// `config_generation`.
    pub(crate) generation: u8,
    /// The configuration changed after the driver began and before it may be notified: it may have read the old one.
    pub(crate) config_pending: bool,
    /// Which queue the queue registers are about.
    pub(crate) queue_select: u16,
    /// Queues by index.
    pub(crate) queues: Vec<Queue>,
}

impl Model {
    /// After power-on.
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            state: State::new(),
            device_feature_select: 0,
            driver_feature_select: 0,
            offered: None,
            driver_features: [0; 4],
            config_vector: NO_VECTOR,
            generation: 0,
            config_pending: false,
            queue_select: 0,
            queues: vec![Queue::new(limits); usize::from(limits.queues)],
        }
    }

    /// Takes back what a reset takes back. The generation goes on: it tells one configuration from another, not one driver.
    pub(crate) fn clear(&mut self, limits: &Limits) {
        *self = Self {
            state: self.state,
            generation: self.generation,
            ..Self::new(limits)
        };
    }

    /// The features that the driver accepted, of those that can be.
    pub(crate) fn accepted(&self) -> u64 {
        u64::from(self.driver_features[0]) | u64::from(self.driver_features[1]) << 32
    }

    /// Whether the driver's features can be served: offered, and not those of a legacy driver (6.1, 2.2.2).
    pub(crate) fn is_acceptable(&self, offered: u64) -> bool {
        let accepted = self.accepted();
        accepted & !offered == 0
            && accepted & VERSION_1 != 0
            && self.driver_features[2..].iter().all(|bits| *bits == 0)
    }

    /// Whether a feature was negotiated.
    pub(crate) fn has(&self, feature: u64) -> bool {
        self.state.is_negotiated() && self.accepted() & feature != 0
    }

    /// One of the queues.
    pub(crate) fn queue(&mut self, index: u16) -> Option<&mut Queue> {
        self.queues.get_mut(usize::from(index))
    }

    /// The common configuration structure as it reads now.
    pub(crate) fn common(&self, limits: &Limits, offered: u64) -> CommonConfig {
        let offered = [low(offered), high(offered)];
        let word = |words: &[u32], select: u32| {
            let word = usize::try_from(select).ok().and_then(|at| words.get(at));
            word.copied().unwrap_or(0)
        };
        let common = CommonConfig {
            device_feature_select: self.device_feature_select,
            device_feature: word(&offered, self.device_feature_select),
            driver_feature_select: self.driver_feature_select,
            driver_feature: word(&self.driver_features, self.driver_feature_select),
            config_msix_vector: self.config_vector,
            num_queues: limits.queues,
            device_status: self.state.status(),
            config_generation: self.generation,
            queue_select: self.queue_select,
            // A queue that is not there has size 0 (4.1.4.3.1).
            queue_msix_vector: NO_VECTOR,
            ..CommonConfig::default()
        };
        let Some(queue) = self.queues.get(usize::from(self.queue_select)) else {
            return common;
        };
        CommonConfig {
            queue_size: queue.size,
            queue_msix_vector: queue.vector,
            queue_enable: u16::from(queue.enabled),
            queue_notify_off: self.queue_select,
            queue_desc_lo: low(queue.desc),
            queue_desc_hi: high(queue.desc),
            queue_driver_lo: low(queue.driver),
            queue_driver_hi: high(queue.driver),
            queue_device_lo: low(queue.device),
            queue_device_hi: high(queue.device),
            queue_reset: u16::from(queue.resetting),
            ..common
        }
    }

    /// Writes one register; what it asks for. A value that the driver must not write changes nothing.
    pub(crate) fn write(
        &mut self,
        limits: &Limits,
        register: Register,
        value: u32,
    ) -> Option<Request> {
        let short = u16::try_from(value).unwrap_or(u16::MAX);
        match register {
            Register::DeviceFeatureSelect => self.device_feature_select = value,
            Register::DriverFeatureSelect => self.driver_feature_select = value,
            Register::DriverFeature => self.accept(value),
            Register::ConfigVector => self.config_vector = limits.vector(short),
            Register::Status => return Some(Request::Status(value.to_le_bytes()[0])),
            Register::QueueSelect => self.queue_select = short,
            _ => return self.write_queue(limits, register, value, short),
        }
        None
    }

    /// The choice is fixed by FEATURES_OK (3.1.1).
    fn accept(&mut self, value: u32) {
        let select = usize::try_from(self.driver_feature_select);
        let word = select
            .ok()
            .and_then(|select| self.driver_features.get_mut(select));
        if let Some(word) = word.filter(|_| !self.state.is_negotiated()) {
            *word = value;
        }
    }

    fn write_queue(
        &mut self,
        limits: &Limits,
        register: Register,
        value: u32,
        short: u16,
    ) -> Option<Request> {
        let (packed, can_reset) = (self.has(RING_PACKED), self.has(RING_RESET));
        let negotiated = self.state.is_negotiated();
        let index = self.queue_select;
        let queue = self.queue(index)?;
        match register {
            Register::QueueVector => {
                queue.vector = limits.vector(short);
                return Some(Request::Vector(index));
            }
            Register::QueueReset => {
                if short != 1 || !can_reset || !queue.enabled {
                    return None;
                }
                queue.resetting = true;
                return Some(Request::ResetQueue(index));
            }
            // What describes an enabled queue is not the driver's to change (4.1.4.3.2).
            _ if queue.enabled => {}
            Register::QueueSize => {
                let allowed = (1..=limits.queue_size).contains(&short);
                if allowed && (packed || short.is_power_of_two()) {
                    queue.size = short;
                }
            }
            // 0 is not the driver's to write, and without features a queue has no format.
            Register::QueueEnable if short == 1 && negotiated => {
                queue.enabled = true;
                return Some(Request::Enable(index));
            }
            Register::DescLow => queue.desc = with_low(queue.desc, value),
            Register::DescHigh => queue.desc = with_high(queue.desc, value),
            Register::DriverLow => queue.driver = with_low(queue.driver, value),
            Register::DriverHigh => queue.driver = with_high(queue.driver, value),
            Register::DeviceLow => queue.device = with_low(queue.device, value),
            Register::DeviceHigh => queue.device = with_high(queue.device, value),
            _ => {}
        }
        None
    }
}

fn low(value: u64) -> u32 {
    (value & 0xffff_ffff) as u32
}

fn high(value: u64) -> u32 {
    (value >> 32) as u32
}

fn with_low(value: u64, dword: u32) -> u64 {
    (value & !0xffff_ffff) | u64::from(dword)
}

fn with_high(value: u64, dword: u32) -> u64 {
    u64::from(low(value)) | u64::from(dword) << 32
}
