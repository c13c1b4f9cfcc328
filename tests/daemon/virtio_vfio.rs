//! virtio-blk over vfio-user.

use std::time::Duration;

use testkit::virtio::pci::{Interrupts, Options, VirtioPci};
use testkit::virtio::{BlkDriver, Error, Setup, Transport, When};
use virtio_spec::blk::{self, S_OK, T_IN};
use virtio_spec::{feature, pci, status};

use crate::virtio::mix::Mix;
use crate::virtio::{Guest, MIB, Rig, Vfio};

crate::virtio::virtio_scenarios!(Vfio);

fn rig() -> (Rig, std::path::PathBuf) {
    let mut rig = Rig::start(&[]);
    rig.malloc("disk");
    let socket = rig.endpoint::<Vfio>("ep", "disk");
    (rig, socket)
}

#[test]
fn notifications_by_message_and_with_data_work() {
    let (rig, socket) = rig();
    for (trapped, data, packed) in [
        (true, false, false),
        (true, true, true),
        (false, true, false),
        (false, true, true),
        (true, true, false),
    ] {
        let options = Options {
            trapped,
            ..Options::default()
        };
        let device = VirtioPci::connect(&socket, &options).expect("a device");
        assert_eq!(device.is_mapped(), !trapped);
        let mut setup = Setup::linux(packed).queues(2);
        if data {
            setup.features |= feature::NOTIFICATION_DATA;
        }
        let mut guest = Guest::<Vfio>::over(device, &setup);
        for queue in &mut guest.queues {
            queue.write(0, &[7; 512]).expect("written");
            assert!(queue.read(0, 512).expect("read") == [7; 512]);
        }
    }
    rig.daemon.stop();
}

#[test]
fn the_pin_interrupts_and_the_status_says_why() {
    let mut rig = Rig::start(&[]);
    let disk = serde_json::json!({"name": "disk", "num_blocks": 16384, "block_size": 512});
    rig.daemon.ok("bdev_null_create", disk);
    let socket = rig.endpoint::<Vfio>("ep", "disk");
    let options = Options {
        interrupts: Interrupts::Intx,
        ..Options::default()
    };
    let device = VirtioPci::connect(&socket, &options).expect("a device");
    let mut guest = Guest::<Vfio>::over(device, &Setup::linux(false));
    let room = guest.queue().bounce(512).expect("guest memory");
    guest.queue().interrupt(When::Always);
    guest.queue().submit(T_IN, 0, &[room]).expect("room");
    guest.queue().kick().expect("kicked");
    let wait = Duration::from_secs(20);
    assert!(guest.queue().wait_interrupt(wait).expect("an eventfd") > 0);
    let done = guest.queue().poll().expect("a good ring").expect("used");
    assert_eq!(done.status, S_OK);
    assert_eq!(guest.driver.transport().isr().expect("ISR"), pci::ISR_QUEUE);
    assert_eq!(guest.driver.transport().isr().expect("ISR"), 0);
    let size = serde_json::json!({"name": "disk", "new_size": 16});
    rig.daemon.ok("bdev_null_resize", size);
    let config = guest.driver.wait_config_change().expect("a change");
    assert_eq!(config.capacity, 32768);
    assert_eq!(
        guest.driver.transport().isr().expect("ISR"),
        pci::ISR_CONFIG
    );
    drop(guest);
    rig.daemon.stop();
}

#[test]
fn features_that_were_not_offered_are_not_taken() {
    let (rig, socket) = rig();
    let mut device = VirtioPci::connect(&socket, &Options::default()).expect("a device");
    let offered = device.offered().expect("features");
    for features in [
        offered | feature::SR_IOV,
        offered | blk::feature::ZONED,
        offered | 1 << 63,
        offered & !feature::VERSION_1,
    ] {
        match device.accept(features) {
            Err(Error::Features(refused)) => assert_eq!(refused, features),
            other => panic!("{features:#x}: {other:?}"),
        }
        device.reset().expect("reset");
    }
    device.accept(offered).expect("what was offered");
    device.reset().expect("reset");
    Guest::<Vfio>::over(device, &Setup::linux(true)).works();
    rig.daemon.stop();
}

#[test]
fn resets_under_load_leave_a_device_that_works() {
    let mut rig = Rig::start(&["-m", "0x3"]);
    rig.malloc("disk");
    let socket = rig.endpoint::<Vfio>("ep", "disk");
    for packed in [false, true] {
        let mut guest = Guest::<Vfio>::start(&socket, &Setup::linux(packed).queues(4));
        for round in 0..20 {
            let room = guest.queue().bounce(4096).expect("guest memory");
            for queue in &mut guest.queues {
                for n in 0..32 {
                    queue.submit(T_IN, n * 8, &[room]).expect("room");
                }
                queue.kick().expect("kicked");
            }
            match round % 3 {
                0 => guest.driver.transport().client().reset().expect("reset"),
                1 => guest.driver.transport().reset().expect("reset"),
                _ => {
                    // Each queue by itself: what was in flight is forgotten.
                    for queue in &mut guest.queues {
                        let index = queue.index();
                        guest
                            .driver
                            .transport()
                            .reset_queue(index)
                            .expect("a queue reset");
                        queue.reset();
                    }
                    guest.driver.resume(&mut guest.queues).expect("resumed");
                    guest.works();
                    continue;
                }
            }
            let bits = guest.driver.transport().status().expect("status");
            assert_eq!(bits, 0);
            guest.driver.reset().expect("negotiated again");
            for queue in &mut guest.queues {
                queue.reset();
            }
            guest.driver.resume(&mut guest.queues).expect("resumed");
            let bits = guest.driver.transport().status().expect("status");
            assert_ne!(bits & status::DRIVER_OK, 0);
            guest.works();
        }
    }
    rig.daemon.stop();
}

#[test]
fn as_many_queues_as_offered_work_on_two_reactors() {
    let mut rig = Rig::start(&["-m", "0x3"]);
    rig.malloc("disk");
    let socket = rig.endpoint::<Vfio>("ep", "disk");
    let device = VirtioPci::connect(&socket, &Options::default()).expect("a device");
    let mut driver = BlkDriver::start(device, &Setup::linux(true)).expect("negotiated");
    let offered = driver.config().expect("a configuration").num_queues;
    drop(driver);
    let mut guest = Guest::<Vfio>::start(&socket, &Setup::linux(true).queues(offered));
    let mut mix = Mix::new(&guest.queues[..16], 8 * MIB, 2, 8);
    mix.run(&mut guest.queues[..16], 300);
    for queue in &mut guest.queues {
        queue.read(0, 512).expect("read");
    }
    let endpoints = rig
        .daemon
        .ok("vfu_get_endpoints", serde_json::json!({"name": "ep"}));
    let queues = endpoints[0]["queues"].as_array().expect("queues");
    assert_eq!(queues.len(), usize::from(offered));
    let on = |lcore: u64| queues.iter().filter(|it| it["lcore"] == lcore).count();
    assert_eq!(on(0) + on(1), queues.len());
    assert!(on(0).abs_diff(on(1)) <= 1, "{} and {}", on(0), on(1));
    drop(guest);
    rig.daemon.stop();
}
