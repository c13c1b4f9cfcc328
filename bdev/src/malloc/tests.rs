use super::*;

fn options() -> MallocOptions {
    MallocOptions {
        name: "Malloc0".into(),
        block_size: 512,
        num_blocks: 2048,
        physical_block_size: Some(4096),
        uuid: None,
    }
}

#[test]
fn information_is_what_was_asked_for() {
    let uuid = Uuid::from_u128(7);
    let bdev = create(MallocOptions {
        uuid: Some(uuid),
        ..options()
    })
    .unwrap();
    let info = bdev.info();
    assert_eq!(
        (info.name.as_str(), info.product_name),
        ("Malloc0", "Malloc disk")
    );
    assert_eq!(
        (info.block_size, info.physical_block_size, info.num_blocks),
        (512, 4096, 2048)
    );
    assert_eq!(info.uuid, uuid);
    assert!(!info.features.contains(Features::WRITE_CACHE));
    assert!(bdev.driver_specific().is_empty());
    assert!(bdev.rescan().is_err() && bdev.resize(1).is_err());
}

#[test]
fn two_disks_without_identity_differ() {
    let (a, b) = (create(options()).unwrap(), create(options()).unwrap());
    assert_ne!(a.info().uuid, b.info().uuid);
}

#[test]
fn more_memory_than_there_can_be_is_refused_in_words() {
    let error = create(MallocOptions {
        num_blocks: 1 << 53,
        ..options()
    })
    .unwrap_err();
    assert_eq!(error.errno, Errno::ENOMEM);
    assert!(error.reason.contains("make it smaller"), "{error}");
}
