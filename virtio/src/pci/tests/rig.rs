//! A device model that does as it is told and checks the contract, and a driver on top of it.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use ::pci::{Access, CONFIG_REGION, Function, InterruptKind};
use guest_memory::DmaMap;
use nix::sys::eventfd::{EfdFlags, EventFd};
use reactor::{Config, Cx, Event, Idle};
use virtio_spec::feature::VERSION_1;
use virtio_spec::status::{ACKNOWLEDGE, DRIVER, DRIVER_OK, FEATURES_OK};

use super::super::{BAR, VirtioPci, VirtioPciConfig};
use crate::device::{Device, DeviceEvent, Interrupt, QueueSetup, RingState};

const WAIT: Duration = Duration::from_secs(60);

pub(super) const QUEUES: u16 = 4;
pub(super) const QUEUE_SIZE: u16 = 256;
/// What the fake device offers: two of its own, and packed rings.
pub(super) const OFFERED: u64 =
    1 << 5 | 1 << 9 | virtio_spec::feature::RING_PACKED | virtio_spec::feature::EVENT_IDX;
pub(super) const READY: u8 = ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK;

/// Offsets of registers.
pub(super) mod at {
    pub(crate) const DEVICE_FEATURE_SELECT: u64 = 0x00;
    pub(crate) const DEVICE_FEATURE: u64 = 0x04;
    pub(crate) const DRIVER_FEATURE_SELECT: u64 = 0x08;
    pub(crate) const DRIVER_FEATURE: u64 = 0x0c;
    pub(crate) const CONFIG_VECTOR: u64 = 0x10;
    pub(crate) const STATUS: u64 = 0x14;
    pub(crate) const GENERATION: u64 = 0x15;
    pub(crate) const QUEUE_SELECT: u64 = 0x16;
    pub(crate) const QUEUE_SIZE: u64 = 0x18;
    pub(crate) const QUEUE_VECTOR: u64 = 0x1a;
    pub(crate) const QUEUE_ENABLE: u64 = 0x1c;
    pub(crate) const QUEUE_DESC: u64 = 0x20;
    pub(crate) const QUEUE_DRIVER: u64 = 0x28;
    pub(crate) const QUEUE_DEVICE: u64 = 0x30;
    pub(crate) const QUEUE_RESET: u64 = 0x3a;
    pub(crate) const ISR: u64 = 0x1000;
    pub(crate) const DEVICE: u64 = 0x2000;
    pub(crate) const NOTIFY: u64 = 0x3000;
}

/// What the device model was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Call {
    Features(u64),
    Start(u16),
    Stop(u16),
    Interrupt(u16),
    Notify(u16),
    Map(u64),
    Reset,
    WriteConfig(usize, Vec<u8>),
}

#[derive(Debug, Default)]
pub(super) struct Fake {
    pub(super) calls: Vec<Call>,
    pub(super) offered: u64,
    pub(super) config: Vec<u8>,
    /// Keep the answers to stops and resets back.
    pub(super) hold: bool,
    owed: Vec<DeviceEvent>,
    pub(super) say: VecDeque<DeviceEvent>,
    pub(super) features: Option<u64>,
    pub(super) running: BTreeMap<u16, QueueSetup>,
    stopping: BTreeSet<u16>,
    pub(super) resetting: bool,
}

impl Fake {
    fn owe(&mut self, event: DeviceEvent) {
        if self.hold {
            self.owed.push(event);
        } else {
            self.say.push_back(event);
        }
    }

    /// Gives the answers that were kept back.
    pub(super) fn release(&mut self) {
        self.hold = false;
        self.say.extend(self.owed.drain(..));
    }

    fn call(&mut self, call: Call) {
        assert!(
            !self.resetting || matches!(call, Call::Map(_)),
            "{call:?} while a reset is outstanding"
        );
        self.calls.push(call);
    }

    pub(super) fn take_calls(&mut self) -> Vec<Call> {
        std::mem::take(&mut self.calls)
    }

    /// Raises a queue's interrupt as a worker does.
    pub(super) fn interrupt(&self, index: u16) {
        if let Some(interrupt) = &self.running[&index].interrupt {
            interrupt.signal();
        }
    }
}

#[derive(Debug)]
struct FakeDevice(Rc<RefCell<Fake>>);

impl Device for FakeDevice {
    fn device_id(&self) -> u16 {
        2
    }

    fn features(&self) -> u64 {
        self.0.borrow().offered
    }

    fn num_queues(&self) -> u16 {
        QUEUES
    }

    fn max_queue_size(&self) -> u16 {
        QUEUE_SIZE
    }

    fn config_len(&self) -> usize {
        self.0.borrow().config.len()
    }

    fn read_config(&self, offset: usize, data: &mut [u8]) {
        let fake = self.0.borrow();
        for (out, byte) in data.iter_mut().zip(&fake.config[offset..]) {
            *out = *byte;
        }
    }

    fn write_config(&mut self, _cx: &mut Cx, offset: usize, data: &[u8]) {
        let mut fake = self.0.borrow_mut();
        fake.call(Call::WriteConfig(offset, data.to_vec()));
    }

    fn set_features(&mut self, _cx: &mut Cx, accepted: u64) {
        let mut fake = self.0.borrow_mut();
        assert_eq!(fake.features, None, "chosen once");
        fake.features = Some(accepted);
        fake.call(Call::Features(accepted));
    }

    fn start_queue(&mut self, _cx: &mut Cx, index: u16, setup: QueueSetup) {
        let mut fake = self.0.borrow_mut();
        assert_eq!(fake.features, Some(setup.features));
        assert!(index < QUEUES && (1..=QUEUE_SIZE).contains(&setup.size));
        assert!(!fake.stopping.contains(&index));
        fake.call(Call::Start(index));
        let former = fake.running.insert(index, setup);
        assert!(former.is_none(), "queue {index} runs already");
    }

    fn stop_queue(&mut self, _cx: &mut Cx, index: u16) {
        let mut fake = self.0.borrow_mut();
        assert!(
            fake.running.contains_key(&index),
            "queue {index} does not run"
        );
        assert!(fake.stopping.insert(index));
        fake.call(Call::Stop(index));
        fake.owe(DeviceEvent::QueueStopped {
            index,
            state: Some(RingState::default()),
        });
    }

    fn set_interrupt(&mut self, index: u16, interrupt: Option<Interrupt>) {
        let mut fake = self.0.borrow_mut();
        fake.call(Call::Interrupt(index));
        let setup = fake.running.get_mut(&index).expect("a running queue");
        setup.interrupt = interrupt;
    }

    fn notify(&mut self, index: u16) {
        let mut fake = self.0.borrow_mut();
        assert!(fake.running.contains_key(&index));
        fake.call(Call::Notify(index));
    }

    fn map_changed(&mut self, _cx: &mut Cx, map: &Arc<DmaMap>) {
        self.0.borrow_mut().call(Call::Map(map.epoch()));
    }

    fn reset(&mut self, _cx: &mut Cx) {
        let mut fake = self.0.borrow_mut();
        fake.call(Call::Reset);
        fake.resetting = true;
        fake.running.clear();
        fake.stopping.clear();
        fake.features = None;
        // Stops under way end with the reset or before it.
        fake.owe(DeviceEvent::Reset);
    }

    fn poll(&mut self, _cx: &mut Cx) -> Option<DeviceEvent> {
        let mut fake = self.0.borrow_mut();
        let event = fake.say.pop_front()?;
        match &event {
            DeviceEvent::Reset => fake.resetting = false,
            DeviceEvent::QueueStopped { index, .. } if fake.stopping.remove(index) => {
                fake.running.remove(index);
            }
            _ => {}
        }
        Some(event)
    }

    fn event(&mut self, _cx: &mut Cx, _event: Event) {}

    fn idle(&self) -> Idle {
        Idle::UntilEvent
    }
}

/// A driver.
pub(super) struct Rig<'a> {
    pub(super) cx: &'a mut Cx,
    pub(super) pci: VirtioPci,
    pub(super) fake: Rc<RefCell<Fake>>,
}

/// Runs `test` with a device on a reactor.
pub(super) fn with_config(
    config: VirtioPciConfig,
    test: impl FnOnce(&mut Rig<'_>) + Send + 'static,
) {
    let (home, thread) = reactor::spawn(Config::default()).unwrap();
    let done = home.call(move |reactor| {
        let fake = Rc::new(RefCell::new(Fake {
            offered: OFFERED,
            config: (1..=72).collect(),
            ..Fake::default()
        }));
        let device = Box::new(FakeDevice(Rc::clone(&fake)));
        let pci = VirtioPci::new(config, device).unwrap();
        let cx = reactor.cx();
        test(&mut Rig { cx, pci, fake });
    });
    let done = done.wait(WAIT);
    home.stop();
    drop(thread.join());
    done.expect("the test failed on its reactor");
}

/// As [`with_config`], with the defaults.
pub(super) fn with_rig(test: impl FnOnce(&mut Rig<'_>) + Send + 'static) {
    with_config(VirtioPciConfig::default(), test);
}

impl Rig<'_> {
    pub(super) fn read_region(&mut self, region: u32, offset: u64, len: usize) -> Vec<u8> {
        let mut data = vec![0xaa; len];
        let access = self.pci.read(self.cx, region, offset, &mut data);
        assert_eq!(access, Access::Done);
        data
    }

    pub(super) fn write_region(&mut self, region: u32, offset: u64, data: &[u8]) -> Access {
        self.pci.write(self.cx, region, offset, data)
    }

    pub(super) fn read(&mut self, offset: u64, len: usize) -> u64 {
        let mut value = [0; 8];
        value[..len].copy_from_slice(&self.read_region(BAR, offset, len));
        u64::from_le_bytes(value)
    }

    pub(super) fn write(&mut self, offset: u64, value: u64, len: usize) {
        let access = self.write_region(BAR, offset, &value.to_le_bytes()[..len]);
        assert_eq!(access, Access::Done);
    }

    pub(super) fn common(&mut self) -> Vec<u8> {
        self.read_region(BAR, 0, 64)
    }

    pub(super) fn status(&mut self) -> u8 {
        self.read(at::STATUS, 1) as u8
    }

    pub(super) fn set_status(&mut self, status: u8) {
        self.write(at::STATUS, status.into(), 1);
    }

    pub(super) fn accept(&mut self, features: u64) {
        for (select, bits) in [(0, features), (1, features >> 32)] {
            self.write(at::DRIVER_FEATURE_SELECT, select, 4);
            self.write(at::DRIVER_FEATURE, bits & 0xffff_ffff, 4);
        }
    }

    /// Up to FEATURES_OK.
    pub(super) fn negotiate(&mut self, features: u64) {
        self.set_status(ACKNOWLEDGE);
        self.set_status(ACKNOWLEDGE | DRIVER);
        self.accept(features | VERSION_1);
        self.set_status(ACKNOWLEDGE | DRIVER | FEATURES_OK);
    }

    pub(super) fn enable(&mut self, index: u16) {
        let base = 0x10_0000 * u64::from(index + 1);
        self.write(at::QUEUE_SELECT, index.into(), 2);
        for (register, offset) in [
            (at::QUEUE_DESC, 0),
            (at::QUEUE_DRIVER, 0x1_0000),
            (at::QUEUE_DEVICE, 0x2_0000),
        ] {
            self.write(register, (base + offset) & 0xffff_ffff, 4);
            self.write(register + 4, 1, 4);
        }
        self.write(at::QUEUE_VECTOR, u64::from(index) + 1, 2);
        self.write(at::QUEUE_ENABLE, 1, 2);
    }

    /// As Linux does: all queues, then DRIVER_OK.
    pub(super) fn bring_up(&mut self, features: u64) {
        self.negotiate(features);
        self.write(at::CONFIG_VECTOR, 0, 2);
        for index in 0..QUEUES {
            self.enable(index);
        }
        self.set_status(READY);
        assert_eq!(self.status(), READY);
        let running = self.fake.borrow().running.len();
        assert_eq!(running, usize::from(QUEUES));
    }

    pub(super) fn poll(&mut self) {
        self.pci.poll(self.cx);
    }

    pub(super) fn say(&mut self, event: DeviceEvent) {
        self.fake.borrow_mut().say.push_back(event);
        self.poll();
    }

    pub(super) fn calls(&mut self) -> Vec<Call> {
        self.fake.borrow_mut().take_calls()
    }

    pub(super) fn hold(&mut self) {
        self.fake.borrow_mut().hold = true;
    }

    pub(super) fn release(&mut self) {
        self.fake.borrow_mut().release();
        self.poll();
    }

    pub(super) fn capability(&mut self, id: u8) -> Vec<u64> {
        let mut found = Vec::new();
        let mut at = u64::from(self.read_region(CONFIG_REGION, 0x34, 1)[0]);
        while at != 0 {
            let head = self.read_region(CONFIG_REGION, at, 2);
            if head[0] == id {
                found.push(at);
            }
            at = u64::from(head[1]);
        }
        found
    }

    /// Function level reset, as a guest writes it.
    pub(super) fn flr(&mut self) {
        let at = self.capability(0x10)[0] + 8;
        let access = self.write_region(CONFIG_REGION, at, &0x8000u16.to_le_bytes());
        assert_eq!(access, Access::Done);
    }

    pub(super) fn set_msix(&mut self, control: u16) {
        let at = self.capability(0x11)[0] + 2;
        let access = self.write_region(CONFIG_REGION, at, &control.to_le_bytes());
        assert_eq!(access, Access::Done);
    }

    pub(super) fn set_command(&mut self, command: u16) {
        let access = self.write_region(CONFIG_REGION, 4, &command.to_le_bytes());
        assert_eq!(access, Access::Done);
    }

    /// Installs a descriptor as a VMM does.
    pub(super) fn line(&self, kind: InterruptKind, index: u32) -> Line {
        let event = EventFd::from_flags(EfdFlags::EFD_NONBLOCK).unwrap();
        let line = Line(Arc::new(event.into()));
        self.pci
            .interrupts()
            .install(kind, index, vec![Some(Arc::clone(&line.0))])
            .unwrap();
        line
    }
}

/// An interrupt's descriptor on the VMM's side.
pub(super) struct Line(Arc<OwnedFd>);

impl Line {
    /// How often it was signalled since this was last asked.
    pub(super) fn count(&self) -> u64 {
        let mut count = [0; 8];
        nix::unistd::read(&self.0, &mut count).map_or(0, |_| u64::from_ne_bytes(count))
    }
}
