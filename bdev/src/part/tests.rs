use super::*;
use crate::conformance::{Request, Rig};
use crate::io::IoStatus;
use crate::null::{self, NullOptions};

fn base(num_blocks: u64) -> SharedBdev {
    let options = NullOptions {
        name: "B".into(),
        block_size: 512,
        num_blocks,
        physical_block_size: None,
        uuid: Some(uuid!("b185b160-36e6-583a-9b35-6198d86ef93a")),
    };
    null::create(options).unwrap()
}

#[test]
fn shares_are_equal_and_called_as_spdk_calls_them() {
    // Figures of a running SPDK target.
    let parts = split(&base(20_480), 3, 0).unwrap();
    let infos: Vec<_> = parts.iter().map(|part| part.info()).collect();
    let names: Vec<_> = infos.iter().map(|info| info.name.as_str()).collect();
    assert_eq!(names, ["Bp0", "Bp1", "Bp2"]);
    assert!(infos.iter().all(|info| info.num_blocks == 6826));
    assert!(infos.iter().all(|info| info.product_name == "Split Disk"));
    assert_eq!(infos[0].uuid, uuid!("30992c03-f2e9-52c0-b212-07530a8f640c"));
    assert_eq!(infos[1].uuid, uuid!("982489fc-8623-55d8-8f51-1c14a00f0d61"));
    let values = parts[1].driver_specific();
    assert!(values.contains(&("offset_blocks", DriverValue::Number(6826))));
}

#[test]
fn as_many_as_fit() {
    assert_eq!(split(&base(1000), 9, 300).unwrap().len(), 3);
    assert_eq!(split(&base(1000), 2, 300).unwrap().len(), 2);
    assert_eq!(split(&base(1000), 2, 1001).unwrap().len(), 0);
    assert_eq!(split(&base(3), 5, 0).unwrap_err().errno, Errno::EINVAL);
    assert_eq!(split(&base(3), 0, 0).unwrap_err().errno, Errno::EINVAL);
}

#[test]
fn a_range_must_be_on_the_base() {
    for (offset, len) in [(0, 11), (10, 1), (u64::MAX, 2), (11, u64::MAX), (0, 0)] {
        let options = PartOptions {
            name: "x".into(),
            product_name: "Split Disk",
            uuid: None,
            offset_blocks: offset,
            num_blocks: len,
            more: Vec::new(),
        };
        assert!(create(base(10), options).is_err(), "{len} at {offset}");
    }
}

#[test]
fn what_the_base_lost_is_out_of_range() {
    let base = base(1000);
    let parts = split(&base, 2, 0).unwrap();
    base.resize(750).unwrap();
    assert_eq!(parts[1].info().num_blocks, 500);
    let rig = Rig::new(&parts[1]);
    let read = |lba| rig.run(Request::new(IoKind::Read, lba, 1, (0, 512)));
    assert_eq!(read(249), IoStatus::Ok);
    assert_eq!(read(250), IoStatus::OutOfRange);
}
