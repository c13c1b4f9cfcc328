use std::os::fd::AsFd;

use super::*;

fn wanted(num_queues: u16, queue_size: u16) -> wire::Inflight {
    wire::Inflight {
        num_queues,
        queue_size,
        ..wire::Inflight::default()
    }
}

#[test]
fn a_region_that_was_made_can_be_given_back_and_has_a_part_for_each_queue() {
    for features in [0, RING_PACKED] {
        let (granted, memory) = make(&wanted(3, 100), features).unwrap();
        let fd = memory.fd().as_fd().try_clone_to_owned().unwrap();
        let region = Region::map(granted, fd).unwrap();
        let parts: Vec<_> = (0..3)
            .map(|index| region.of(index, 100, features).unwrap())
            .collect();
        for pair in parts.windows(2) {
            assert_eq!(pair[0].offset + pair[0].len, pair[1].offset);
            assert!(pair[1].offset.is_multiple_of(64));
        }
        assert!(region.of(3, 100, features).is_err());
        assert!(region.of(0, 101, features).is_err());
    }
}

#[test]
fn a_region_of_the_smaller_format_does_not_serve_the_larger() {
    let chosen = virtio_spec::feature::VERSION_1;
    let (granted, memory) = make(&wanted(1, 256), chosen).unwrap();
    let fd = memory.fd().as_fd().try_clone_to_owned().unwrap();
    let region = Region::map(granted, fd).unwrap();
    assert!(region.of(0, 256, chosen).is_ok());
    assert!(region.of(0, 256, RING_PACKED).is_err());
}

#[test]
fn a_region_made_before_the_features_are_chosen_serves_both_formats() {
    let (granted, memory) = make(&wanted(2, 256), 0).unwrap();
    let fd = memory.fd().as_fd().try_clone_to_owned().unwrap();
    let region = Region::map(granted, fd).unwrap();
    assert!(region.of(1, 256, 0).is_ok());
    assert!(region.of(1, 256, RING_PACKED).is_ok());
}

#[test]
fn a_region_beyond_its_file_is_refused() {
    let (granted, memory) = make(&wanted(1, 256), 0).unwrap();
    let fd = memory.fd().as_fd().try_clone_to_owned().unwrap();
    let longer = wire::Inflight {
        mmap_size: granted.mmap_size + 1,
        ..granted
    };
    assert!(Region::map(longer, fd).is_err());
}
