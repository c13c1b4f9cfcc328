//! The PCI function with a block device behind it, over a real vfio-user socket and real reactors, driven by a driver that knows
//! the specification alone.
#![expect(clippy::unwrap_used, reason = "a test's trouble is to end the test")]

use std::mem::offset_of;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bdev::Features;
use bdev::test_disk::TestDisk;
use crossbeam_channel::{Receiver, unbounded};
use reactor::{Ack, Config, ReactorHandle};
use testkit::virtio::pci::{Interrupts, Options, VirtioPci};
use testkit::virtio::{BlkDriver, BlkQueue, Buffer, PATIENCE, Setup, When};
use vfio_user::{Endpoint, EndpointHandle, Listener};
use virtio::{Blk, BlkConfig, BlkHandle, VirtioPciConfig};
use virtio_spec::blk::{S_OK, T_IN};
use virtio_spec::pci::{CommonConfig, ISR_CONFIG, ISR_QUEUE};
use virtio_spec::{feature, status};

const BLOCKS: u64 = 4096;
const QUEUES: u16 = 2;

/// A daemon in small: one endpoint, its queues on two reactors.
struct Server {
    reactors: Vec<ReactorHandle>,
    threads: Vec<JoinHandle<()>>,
    _directory: tempfile::TempDir,
    endpoint: EndpointHandle,
    disk: Arc<TestDisk>,
    handles: Receiver<BlkHandle>,
}

impl Server {
    fn start(packed: bool, mappable_notify: bool) -> Self {
        let spawned = (0..2).map(|_| reactor::spawn(Config::default()).unwrap());
        let (reactors, threads): (Vec<ReactorHandle>, _) = spawned.unzip();
        let directory = tempfile::tempdir().unwrap();
        let listener = Listener::bind(&directory.path().join("disk")).unwrap();
        let features = Features::WRITE | Features::WRITE_CACHE;
        let disk = TestDisk::new(512, BLOCKS, features);
        let config = BlkConfig {
            num_queues: QUEUES,
            queue_size: 64,
            packed,
            ..BlkConfig::default()
        };
        let (sender, handles) = unbounded();
        let (shown, others) = (disk.shared(), reactors.clone());
        let factory = move |cx: &mut reactor::Cx| {
            let (blk, handle) = Blk::new(cx, config.clone(), Some(shown.clone()), others.clone());
            let pci = VirtioPciConfig {
                mappable_notify,
                ..VirtioPciConfig::default()
            };
            sender.send(handle)?;
            let function = virtio::VirtioPci::new(pci, Box::new(blk))?;
            Ok(Box::new(function) as Box<dyn pci::Function>)
        };
        let options = vfio_user::Options {
            answer_within: PATIENCE,
        };
        let endpoint = Endpoint::start(listener, &reactors[0], options, Box::new(factory));
        Self {
            reactors,
            threads,
            _directory: directory,
            endpoint,
            disk,
            handles,
        }
    }

    fn path(&self) -> &Path {
        self.endpoint.path()
    }

    fn driver(&self, options: &Options, setup: &Setup) -> (BlkDriver<VirtioPci>, Vec<BlkQueue>) {
        let transport = VirtioPci::connect(self.path(), options).unwrap();
        let mut driver = BlkDriver::start(transport, setup).unwrap();
        let queues = driver.queues().unwrap();
        (driver, queues)
    }

    fn simple(&self, packed: bool) -> (BlkDriver<VirtioPci>, Vec<BlkQueue>) {
        self.driver(&Options::default(), &Setup::linux(packed).queues(QUEUES))
    }

    fn hold(&self) {
        self.disk.script(|script| script.gated = true);
    }

    /// Waits until the disk has that many requests.
    fn wait_taken(&self, count: usize) {
        wait_for(|| self.disk.script(|script| script.log.len()) >= count);
    }

    fn release(&self, count: usize) {
        self.disk.script(|script| script.gated = false);
        self.disk.release(count);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let (done, gone) = Ack::channel();
        self.endpoint.remove(done);
        let gone = gone.wait(PATIENCE);
        let open = self.disk.script(|script| script.open);
        for reactor in &self.reactors {
            reactor.stop();
        }
        for thread in self.threads.drain(..) {
            drop(thread.join());
        }
        if !std::thread::panicking() {
            assert!(gone, "the endpoint is not gone");
            assert_eq!(open, 0, "channels are left open");
        }
    }
}

fn wait_for(mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < deadline, "it did not happen");
        std::thread::yield_now();
    }
}

/// Leaves `count` reads in the disk, spread over the queues.
fn load(server: &Server, queues: &mut [BlkQueue], count: usize) {
    server.hold();
    server.disk.taken();
    for queue in &mut *queues {
        let buffer = queue.bounce(4096).unwrap();
        for _ in 0..count / usize::from(QUEUES) {
            queue.submit(T_IN, 0, &[buffer]).unwrap();
        }
        queue.kick().unwrap();
    }
    server.wait_taken(count);
}

/// Writes and reads on every queue.
fn use_it(queues: &mut [BlkQueue]) {
    for (at, queue) in (0u64..).zip(queues) {
        let sector = 64 * at + 8;
        let data: Vec<u8> = (0..8192u64).map(|byte| (byte / 3 + at) as u8).collect();
        queue.write(sector, &data).unwrap();
        assert_eq!(queue.read(sector, 8192).unwrap(), data);
        queue.flush().unwrap();
    }
}

fn formats(test: fn(bool)) {
    for packed in [false, true] {
        test(packed);
    }
}

#[test]
fn requests_and_interrupts_travel_by_every_way() {
    formats(|packed| {
        for (mappable, trapped) in [(true, false), (true, true), (false, false)] {
            for interrupts in [Interrupts::Msix, Interrupts::Intx] {
                let server = Server::start(packed, mappable);
                let options = Options {
                    trapped,
                    interrupts,
                    ..Options::default()
                };
                let setup = Setup {
                    features: Setup::linux(packed).features | feature::NOTIFICATION_DATA,
                    ..Setup::linux(packed).queues(QUEUES)
                };
                let (mut driver, mut queues) = server.driver(&options, &setup);
                assert_eq!(driver.transport().is_mapped(), mappable && !trapped);
                assert_eq!(driver.features() & feature::RING_PACKED != 0, packed);
                use_it(&mut queues);
                driver.transport().isr().unwrap();
                for queue in &mut queues {
                    queue.wait_interrupt(Duration::ZERO).unwrap();
                    queue.interrupt(When::Always);
                    let buffer = queue.bounce(512).unwrap();
                    queue.submit(T_IN, 0, &[buffer]).unwrap();
                    queue.kick().unwrap();
                    assert_ne!(queue.wait_interrupt(PATIENCE).unwrap(), 0);
                    assert_eq!(queue.wait().unwrap().status, S_OK);
                    let isr = match interrupts {
                        Interrupts::Msix => 0,
                        Interrupts::Intx => ISR_QUEUE,
                    };
                    assert_eq!(driver.transport().isr().unwrap(), isr);
                    assert_eq!(driver.transport().isr().unwrap(), 0);
                }
            }
        }
    });
}

/// The client hears of a reset at once, as Linux wants it: it reads until the status is 0, and that is when the disk has ended.
#[test]
fn a_reset_ends_with_the_disk() {
    formats(|packed| {
        let server = Server::start(packed, true);
        let (mut driver, mut queues) = server.simple(packed);
        for _ in 0..3 {
            load(&server, &mut queues, 8);
            let at = offset_of!(CommonConfig, device_status);
            driver.transport().write_common(at, &[0]).unwrap();
            for _ in 0..100 {
                assert_ne!(driver.transport().status().unwrap(), 0);
            }
            server.release(8);
            driver.reset().unwrap();
            queues.iter_mut().for_each(BlkQueue::reset);
            driver.resume(&mut queues).unwrap();
            use_it(&mut queues);
        }
    });
}

/// Firmware writes 0 and goes on.
#[test]
fn a_driver_that_does_not_wait_finds_the_device_reset() {
    let server = Server::start(false, true);
    let (mut driver, mut queues) = server.simple(false);
    load(&server, &mut queues, 8);
    let at = offset_of!(CommonConfig, device_status);
    driver.transport().write_common(at, &[0]).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| server.release(8));
        let written = driver.transport().write_common(at, &[status::ACKNOWLEDGE]);
        written.unwrap();
    });
    assert_eq!(driver.transport().status().unwrap(), status::ACKNOWLEDGE);
    driver.reset().unwrap();
    queues.iter_mut().for_each(BlkQueue::reset);
    driver.resume(&mut queues).unwrap();
    use_it(&mut queues);
}

#[test]
fn a_device_reset_is_answered_when_the_disk_has_ended() {
    formats(|packed| {
        let server = Server::start(packed, true);
        let (mut driver, mut queues) = server.simple(packed);
        load(&server, &mut queues, 8);
        std::thread::scope(|scope| {
            scope.spawn(|| server.release(8));
            driver.transport().client().reset().unwrap();
        });
        assert_eq!(driver.transport().status().unwrap(), 0);
        let command: u16 = driver.transport().client().read(7, 4).unwrap();
        assert_eq!(command, 0, "as after power-on");
        driver.reset().unwrap();
        queues.iter_mut().for_each(BlkQueue::reset);
        driver.resume(&mut queues).unwrap();
        use_it(&mut queues);
    });
}

#[test]
fn one_queue_is_reset_while_the_other_works() {
    formats(|packed| {
        let server = Server::start(packed, true);
        let (mut driver, mut queues) = server.simple(packed);
        for _ in 0..3 {
            let buffer = queues[1].bounce(512).unwrap();
            for sector in 0..16 {
                queues[1].submit(T_IN, sector, &[buffer]).unwrap();
            }
            queues[1].kick().unwrap();
            driver.transport().reset_queue(1).unwrap();
            // What was taken has ended in order, the rest was never looked at.
            use_it(&mut queues[..1]);
            queues[1].reset();
            driver.resume(&mut queues[1..]).unwrap();
            use_it(&mut queues);
        }
    });
}

#[test]
fn a_client_that_goes_is_let_go_of_and_the_next_one_served() {
    formats(|packed| {
        let server = Server::start(packed, true);
        let (driver, mut queues) = server.simple(packed);
        load(&server, &mut queues, 8);
        drop((driver, queues));
        server.release(8);
        let (_driver, mut queues) = server.simple(packed);
        use_it(&mut queues);
    });
}

#[test]
fn a_resize_reaches_the_driver() {
    for interrupts in [Interrupts::Msix, Interrupts::Intx] {
        let server = Server::start(false, true);
        let options = Options {
            interrupts,
            ..Options::default()
        };
        let (mut driver, _queues) = server.driver(&options, &Setup::linux(false));
        let handle = server.handles.recv_timeout(PATIENCE).unwrap();
        assert_eq!(driver.config().unwrap().capacity, BLOCKS);
        let at = offset_of!(CommonConfig, config_generation);
        let before: u8 = driver.transport().read_common(at).unwrap();
        server.disk.set_blocks(BLOCKS / 2);
        handle.resized();
        let config = driver.wait_config_change().unwrap();
        assert_eq!(config.capacity, BLOCKS / 2);
        let after: u8 = driver.transport().read_common(at).unwrap();
        assert_ne!(before, after);
        if interrupts == Interrupts::Intx {
            assert_eq!(driver.transport().isr().unwrap() & ISR_CONFIG, ISR_CONFIG);
        }
    }
}

#[test]
fn a_driver_that_breaks_the_rules_is_told_and_may_begin_anew() {
    formats(|packed| {
        let server = Server::start(packed, true);
        let (mut driver, mut queues) = server.simple(packed);
        use_it(&mut queues);
        let beyond = Buffer { addr: 0, len: 0 };
        queues[1].submit(T_IN, 0, &[beyond]).unwrap();
        queues[1].kick().unwrap();
        driver.wait_broken().unwrap();
        driver.reset().unwrap();
        queues.iter_mut().for_each(BlkQueue::reset);
        driver.resume(&mut queues).unwrap();
        use_it(&mut queues);
    });
}
