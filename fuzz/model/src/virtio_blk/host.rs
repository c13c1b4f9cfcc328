//! The device, and whoever drives it, on a reactor.

use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::mpsc::Sender;

use bdev::{SharedBdev, malloc, uring};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::unistd::ftruncate;
use pci::{Access, CONFIG_REGION, Function, ResetKind};
use reactor::{Ack, Cx, Event, Idle, Poll, Poller, ReactorHandle};
use virtio::{Blk, BlkConfig, BlkHandle, VirtioPci, VirtioPciConfig};
use virtio_spec::feature;

use super::guest::{Guest, QUEUES, SECTORS, SIZE};
use super::steps::Step;

const BAR: u32 = 4;
const STATUS: u64 = 0x14;
const NOTIFY: u64 = 0x3000;
/// Acknowledged, driver, features, ready.
const READY: u8 = 1 | 2 | 8 | 4;

/// What the device is.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Shape {
    /// The disk is a file, so that requests are in flight for a while.
    file: bool,
    /// Notifications are messages.
    trapped: bool,
    readonly: bool,
    coalescing: bool,
}

impl From<u8> for Shape {
    fn from(code: u8) -> Self {
        Self {
            file: code & 1 != 0,
            trapped: code & 2 != 0,
            readonly: code & 0xf0 == 0xf0,
            coalescing: code & 4 != 0,
        }
    }
}

/// What comes next.
enum Phase {
    /// The next step.
    Steps,
    /// An access or a reset that was deferred.
    Deferred,
    /// Requests that have to end.
    Requests,
    /// The client is gone.
    Closing,
}

pub(super) struct Host {
    shape: Shape,
    steps: std::vec::IntoIter<Step>,
    other: ReactorHandle,
    done: Sender<()>,
    guest: Guest,
    device: Option<(VirtioPci, BlkHandle)>,
    disk: (SharedBdev, Option<OwnedFd>),
    phase: Phase,
    /// Polls to wait.
    wait: u8,
    /// Since the driver began it, and its VMM, kept to the rules.
    is_clean: bool,
    /// Register accesses that wait for their turn.
    accesses: std::collections::VecDeque<(u64, Vec<u8>)>,
    /// They bring the device up.
    is_beginning: bool,
    map: u8,
    has_disk: bool,
    /// No layout is the ordinary one any more.
    is_truncated: bool,
}

fn disk(file: bool) -> (SharedBdev, Option<OwnedFd>) {
    if !file {
        let options = malloc::MallocOptions {
            name: "fuzz".into(),
            block_size: 512,
            num_blocks: SECTORS,
            physical_block_size: None,
            uuid: None,
        };
        return (malloc::create(options).expect("a disk"), None);
    }
    let fd = memfd_create(c"disk", MFdFlags::MFD_CLOEXEC).expect("a memfd");
    ftruncate(&fd, (SECTORS * 512).cast_signed()).expect("a memfd's size");
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    let mut options = uring::UringOptions::new("fuzz", path);
    options.block_size = Some(512);
    let disk = uring::create(options).expect("a disk");
    (disk, Some(fd))
}

impl Host {
    pub(super) fn new(
        shape: Shape,
        steps: Vec<Step>,
        other: ReactorHandle,
        done: Sender<()>,
    ) -> Self {
        Self {
            shape,
            steps: steps.into_iter(),
            other,
            done,
            guest: Guest::new(),
            device: None,
            disk: disk(shape.file),
            phase: Phase::Steps,
            wait: 0,
            is_clean: false,
            accesses: std::collections::VecDeque::new(),
            is_beginning: false,
            map: 0,
            has_disk: true,
            is_truncated: false,
        }
    }

    /// The device, plugged in with the ordinary memory.
    fn device(&mut self, cx: &mut Cx) -> &mut VirtioPci {
        let Self {
            device,
            shape,
            disk,
            other,
            guest,
            ..
        } = self;
        let (function, _) = device.get_or_insert_with(|| {
            let mut config = BlkConfig {
                num_queues: QUEUES,
                queue_size: 64,
                readonly: shape.readonly,
                ..BlkConfig::default()
            };
            if shape.coalescing {
                (config.coalescing.delay_us, config.coalescing.iops_threshold) = (10, 10);
            }
            let reactors = vec![cx.handle().clone(), other.clone()];
            let (blk, handle) = Blk::new(cx, config, Some(disk.0.clone()), reactors);
            let config = VirtioPciConfig {
                mappable_notify: !shape.trapped,
                ..VirtioPciConfig::default()
            };
            let mut function = VirtioPci::new(config, Box::new(blk)).expect("a function");
            function.map_changed(cx, &guest.map(0));
            (function, handle)
        });
        function
    }

    /// All that a driver writes to bring the device up.
    fn bring_up(&mut self, code: u8) {
        let mut write = |at: u64, data: &[u8]| self.accesses.push_back((at, data.to_vec()));
        for status in [0, 1, 3] {
            write(STATUS, &[status]);
        }
        let mut low = 0u32;
        for (bit, feature) in [(0, feature::INDIRECT_DESC), (1, feature::EVENT_IDX)] {
            if code >> bit & 1 != 0 {
                low |= u32::try_from(feature).expect("a low feature");
            }
        }
        if code & 0x80 != 0 {
            low |= 1 << (code & 31);
        }
        for (select, word) in [(0u32, low), (1, 1)] {
            write(0x08, &select.to_le_bytes());
            write(0x0c, &word.to_le_bytes());
        }
        write(STATUS, &[11]);
        for queue in 0..QUEUES {
            write(0x16, &queue.to_le_bytes());
            write(0x18, &SIZE.to_le_bytes());
            for (place, at) in Guest::places(queue).into_iter().zip([0x20, 0x28, 0x30]) {
                let place = place.to_le_bytes();
                write(at, &place[..4]);
                write(at + 4, &place[4..]);
            }
            write(0x1c, &1u16.to_le_bytes());
        }
        write(STATUS, &[READY]);
        self.is_beginning = true;
    }

    fn after(&mut self, access: Access) {
        if access == Access::Defer {
            self.phase = Phase::Deferred;
        }
    }

    /// The register accesses of one step.
    fn access(&mut self, cx: &mut Cx) {
        let Some((at, data)) = self.accesses.pop_front() else {
            return;
        };
        if at == STATUS && data == [0] {
            // Nothing is written any more from here on, or it is held.
            self.is_clean &= !self.guest.is_waiting();
        }
        if self.is_beginning && at == STATUS && data == [3] {
            // The write before has ended, and with it the reset.
            self.guest.begin(self.is_clean);
        }
        let access = self.device(cx).write(cx, BAR, at, &data);
        assert!(!matches!(access, Access::Fault(_)), "{access:?}");
        self.after(access);
        if self.accesses.is_empty() && std::mem::take(&mut self.is_beginning) {
            let mut status = [0];
            let access = self.device(cx).read(cx, BAR, STATUS, &mut status);
            assert_eq!(access, Access::Done);
            self.is_clean =
                status[0] == READY && self.map < 3 && self.has_disk && !self.is_truncated;
        }
    }

    fn step(&mut self, cx: &mut Cx, step: Step) {
        match step {
            Step::BringUp(code) => self.bring_up(code),
            Step::Request {
                queue,
                kind,
                twist,
                value,
            } => {
                let made = self.guest.request(queue, kind, twist, value);
                let Some((queue, is_right)) = made else {
                    return;
                };
                // What a read-only disk answers, and what it does not offer, is not looked at here.
                self.is_clean &= is_right && !self.shape.readonly;
                let at = NOTIFY + 4 * u64::from(queue);
                self.accesses.push_back((at, queue.to_le_bytes().into()));
            }
            Step::Wait(255) => self.phase = Phase::Requests,
            Step::Wait(polls) => self.wait = polls,
            Step::Map(code) => {
                self.map = code % 8;
                // Ends what the driver may rely on, except that the same memory came back.
                self.is_clean &= code % 8 < 3 && !self.guest.is_waiting();
                let map = self.guest.map(code);
                self.device(cx).map_changed(cx, &map);
            }
            Step::Reset(code) => {
                self.is_clean = false;
                let device = self.device(cx);
                let access = if code % 2 == 0 {
                    device.reset(cx, ResetKind::Device)
                } else {
                    // Wherever the capability is.
                    device.write(cx, CONFIG_REGION, u64::from(code) & !3, &[0xff; 4])
                };
                self.after(access);
            }
            Step::Disk(code) => {
                self.is_clean = false;
                self.has_disk = code % 4 != 1;
                let disk = match code % 4 {
                    0 => Some(self.disk.0.clone()),
                    1 => None,
                    _ => Some(disk(false).0),
                };
                self.device(cx);
                if let Some((_, handle)) = &self.device {
                    handle.set_disk(disk, Ack::channel().0);
                    handle.resized();
                }
            }
            Step::Truncate => {
                self.is_clean = false;
                self.is_truncated = true;
                self.guest.truncate();
            }
            Step::Read(region, at, len) => {
                let mut data = vec![0; len];
                let device = self.device(cx);
                let size = device.regions().get(region as usize).map_or(0, |r| r.size);
                if at.checked_add(len as u64).is_some_and(|end| end <= size) {
                    let access = device.read(cx, region, at, &mut data);
                    self.after(access);
                }
            }
            Step::Write(region, at, data) => {
                self.is_clean = false;
                let device = self.device(cx);
                let size = device.regions().get(region as usize).map_or(0, |r| r.size);
                if at
                    .checked_add(data.len() as u64)
                    .is_some_and(|end| end <= size)
                {
                    let access = device.write(cx, region, at, &data);
                    self.after(access);
                }
            }
            Step::Poke(at, value) => {
                self.is_clean = false;
                self.guest.poke(at, value);
            }
        }
    }

    fn close(&mut self, cx: &mut Cx) {
        self.phase = Phase::Closing;
        let device = self.device(cx);
        let _ = device.reset(cx, ResetKind::ClientGone);
    }
}

impl Poller for Host {
    fn name(&self) -> String {
        "fuzz".into()
    }

    fn poll(&mut self, cx: &mut Cx) -> Poll {
        self.device(cx).poll(cx);
        match self.phase {
            Phase::Closing => {
                if self.device(cx).is_quiescent() {
                    self.device = None;
                    assert!(self.guest.has_all_back(), "memory is still held");
                    let _ = self.done.send(());
                    return Poll::Remove;
                }
                return Poll::Busy;
            }
            Phase::Deferred => {
                if self.device(cx).deferred().is_some() {
                    self.phase = Phase::Steps;
                }
                return Poll::Busy;
            }
            Phase::Requests => {
                self.guest.look(self.is_clean);
                if !self.is_clean || !self.guest.is_waiting() {
                    self.phase = Phase::Steps;
                }
                return Poll::Busy;
            }
            Phase::Steps => {}
        }
        if self.wait > 0 {
            self.wait -= 1;
            return Poll::Busy;
        }
        self.guest.look(self.is_clean);
        if !self.accesses.is_empty() {
            self.access(cx);
        } else if let Some(step) = self.steps.next() {
            self.step(cx, step);
        } else if self.is_clean && self.guest.is_waiting() {
            self.phase = Phase::Requests;
        } else {
            self.close(cx);
        }
        Poll::Busy
    }

    fn event(&mut self, cx: &mut Cx, event: Event) {
        self.device(cx).event(cx, event);
    }

    fn idle(&self) -> Idle {
        Idle::Never
    }
}
