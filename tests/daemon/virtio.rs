//! virtio-blk guests: what both transports must do alike, and what it takes to say so.

pub(crate) mod mix;
pub(crate) mod scenarios;

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tempfile::TempDir;
use testkit::vhost_user::{self, Frontend};
use testkit::virtio::pci::{self, VirtioPci};
use testkit::virtio::{BlkDriver, BlkQueue, Setup, Transport};

use crate::common::{Daemon, directory, file};

/// One of the two transports.
pub(crate) trait Way {
    /// The driver's side of it.
    type Driver: Transport;
    /// Makes an endpoint; `more` are further parameters.
    fn create(daemon: &mut Daemon, name: &str, bdev: &str, more: Value);
    /// Deletes it.
    fn delete(daemon: &mut Daemon, name: &str);
    /// Puts another disk under it.
    fn set_bdev(daemon: &mut Daemon, name: &str, bdev: Value);
    /// Connects a guest with this much memory.
    fn connect(socket: &Path, ram: usize) -> testkit::virtio::Result<Self::Driver>;
}

/// virtio-pci over vfio-user.
pub(crate) struct Vfio;

impl Way for Vfio {
    type Driver = VirtioPci;

    fn create(daemon: &mut Daemon, name: &str, bdev: &str, more: Value) {
        let params = with(json!({"name": name, "bdev_name": bdev, "qsize": 128}), more);
        daemon.ok("vfu_virtio_create_blk_endpoint", params);
    }

    fn delete(daemon: &mut Daemon, name: &str) {
        daemon.ok("vfu_virtio_delete_endpoint", json!({"name": name}));
    }

    fn set_bdev(daemon: &mut Daemon, name: &str, bdev: Value) {
        let params = json!({"name": name, "bdev_name": bdev});
        daemon.ok("vfu_virtio_blk_set_bdev", params);
    }

    fn connect(socket: &Path, ram: usize) -> testkit::virtio::Result<VirtioPci> {
        let options = pci::Options {
            ram,
            ..pci::Options::default()
        };
        VirtioPci::connect(socket, &options)
    }
}

/// vhost-user.
pub(crate) struct Vhost;

impl Way for Vhost {
    type Driver = Frontend;

    fn create(daemon: &mut Daemon, name: &str, bdev: &str, more: Value) {
        let params = with(json!({"ctrlr": name, "dev_name": bdev}), more);
        daemon.ok("vhost_create_blk_controller", params);
    }

    fn delete(daemon: &mut Daemon, name: &str) {
        let params = json!({"ctrlr": name, "grace_ms": 0});
        daemon.ok("vhost_delete_controller", params);
    }

    fn set_bdev(daemon: &mut Daemon, name: &str, bdev: Value) {
        let params = json!({"ctrlr": name, "dev_name": bdev});
        daemon.ok("vhost_blk_controller_set_bdev", params);
    }

    fn connect(socket: &Path, ram: usize) -> testkit::virtio::Result<Frontend> {
        Frontend::connect(socket, &vhost_options(ram))
    }
}

pub(crate) fn vhost_options(ram: usize) -> vhost_user::Options {
    vhost_user::Options {
        ram,
        inflight: (4, 128),
        ..vhost_user::Options::default()
    }
}

fn with(mut params: Value, more: Value) -> Value {
    if let (Some(params), Value::Object(more)) = (params.as_object_mut(), more) {
        params.extend(more);
    }
    params
}

pub(crate) const MIB: usize = 1 << 20;

/// A daemon whose endpoints are made in its directory.
pub(crate) struct Rig {
    pub(crate) daemon: Daemon,
    pub(crate) place: TempDir,
}

impl Rig {
    pub(crate) fn start(args: &[&str]) -> Self {
        let place = directory();
        let mut rig = Self {
            daemon: start(place.path(), args),
            place,
        };
        let base = json!({"path": rig.place.path()});
        rig.daemon.ok("vfu_tgt_set_base_path", base);
        rig
    }

    /// Where an endpoint's socket is.
    pub(crate) fn socket(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    /// A RAM disk of 8 MiB.
    pub(crate) fn malloc(&mut self, name: &str) {
        self.daemon.malloc(name);
    }

    /// A disk of this many bytes in a file.
    pub(crate) fn file(&mut self, name: &str, bytes: u64) -> PathBuf {
        let path = file(self.place.path(), &format!("{name}.img"), bytes);
        let params = json!({"name": name, "filename": path, "block_size": 512});
        self.daemon.ok("bdev_uring_create", params);
        path
    }

    /// An endpoint over a disk, split and packed rings offered.
    pub(crate) fn endpoint<W: Way>(&mut self, name: &str, bdev: &str) -> PathBuf {
        W::create(&mut self.daemon, name, bdev, json!({"packed_ring": true}));
        self.socket(name)
    }

    /// Kills the daemon and starts it again with the configuration that it had.
    pub(crate) fn kill_and_restart(&mut self, args: &[&str]) {
        self.kill_and_restart_after(args, |_| {});
    }

    /// As [`Rig::kill_and_restart`]; something happens immediately before.
    pub(crate) fn kill_and_restart_after(&mut self, args: &[&str], before: impl FnOnce(&Daemon)) {
        let config = self.daemon.save_config();
        let path = self.place.path().join("saved.json");
        std::fs::write(&path, config.to_string()).expect("written");
        before(&self.daemon);
        self.daemon.signal(nix::sys::signal::Signal::SIGKILL);
        self.daemon.wait();
        let text = path.to_str().expect("a path").to_owned();
        let args: Vec<&str> = ["-c", &text]
            .into_iter()
            .chain(args.iter().copied())
            .collect();
        self.daemon = start(self.place.path(), &args);
    }
}

fn start(place: &Path, args: &[&str]) -> Daemon {
    let sockets = place.to_str().expect("a path");
    let args: Vec<&str> = ["-S", sockets]
        .into_iter()
        .chain(args.iter().copied())
        .collect();
    Daemon::start(place, &args)
}

/// A guest that is up, with its queues.
pub(crate) struct Guest<W: Way> {
    pub(crate) driver: BlkDriver<W::Driver>,
    pub(crate) queues: Vec<BlkQueue>,
}

impl<W: Way> Guest<W> {
    pub(crate) fn start(socket: &Path, setup: &Setup) -> Self {
        let transport = W::connect(socket, 64 * MIB).expect("a device");
        Self::over(transport, setup)
    }

    pub(crate) fn over(transport: W::Driver, setup: &Setup) -> Self {
        let mut driver = BlkDriver::start(transport, setup).expect("negotiated");
        let asked = setup.features & virtio_spec::feature::RING_PACKED;
        assert_eq!(driver.features() & asked, asked, "packed rings");
        let queues = driver.queues().expect("queues");
        Self { driver, queues }
    }

    /// With one queue and what Linux asks for.
    pub(crate) fn linux(socket: &Path, packed: bool) -> Self {
        Self::start(socket, &Setup::linux(packed))
    }

    pub(crate) fn queue(&mut self) -> &mut BlkQueue {
        &mut self.queues[0]
    }

    /// Proves that it works.
    pub(crate) fn works(&mut self) {
        let data = pattern(4096, 3);
        let queue = self.queue();
        queue.write(8, &data).expect("written");
        assert!(queue.read(8, 4096).expect("read") == data, "other data");
    }
}

pub(crate) fn pattern(len: usize, seed: usize) -> Vec<u8> {
    (0..len).map(|at| ((at / 7 + seed) % 251) as u8).collect()
}

/// The scenarios as tests, over one transport.
macro_rules! virtio_scenarios {
    ($way:ty) => {
        $crate::virtio::virtio_scenarios!(@each $way;
            split_rings_on_ram_are_verified = verified(false, 1, false),
            split_rings_on_a_file_are_verified = verified(false, 4, true),
            packed_rings_on_ram_are_verified = verified(true, 4, false),
            packed_rings_on_a_file_are_verified = verified(true, 1, true),
            large_requests_work_split = large(false),
            large_requests_work_packed = large(true),
            what_is_wrong_is_answered_split = refused(false),
            what_is_wrong_is_answered_packed = refused(true),
            identity_and_read_only = identity(),
            what_was_flushed_outlives_the_daemon_split = durable(false),
            what_was_flushed_outlives_the_daemon_packed = durable(true),
            what_is_discarded_leaves_the_file = discard(false),
            a_resize_is_a_change_of_the_configuration = resize(true),
            a_disk_can_be_swapped_under_load_split = swap(false),
            a_disk_can_be_swapped_under_load_packed = swap(true),
            an_endpoint_can_be_deleted_under_load = delete(true),
            interrupts_come_when_they_are_asked_for_split = interrupts(false),
            interrupts_come_when_they_are_asked_for_packed = interrupts(true),
            many_idle_guests_disturb_nobody = idle(),
            queues_of_one_reactor_get_equal_shares = fair(false),
        );
    };
    (@each $way:ty; $($name:ident = $scenario:ident($($argument:expr),*),)*) => {
        $(
            #[test]
            fn $name() {
                $crate::virtio::scenarios::$scenario::<$way>($($argument),*);
            }
        )*
    };
}
pub(crate) use virtio_scenarios;
