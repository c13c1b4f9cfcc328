use super::*;

fn nvme() -> ConfigSpace {
    let identity = Identity {
        vendor: 0x4e58,
        device: 1,
        subsystem_vendor: 0x4e58,
        subsystem: 0,
        class: 0x01_08_02,
        revision: 3,
    };
    ConfigSpace::new(identity, true)
        .with_bar64(0, 0x4000)
        .with_bar32(4, 0x2000)
        .with_bar32(5, 0x1000)
        .with_power_management()
        .with_pcie()
        .with_msix(MsixLayout {
            vectors: 129,
            table: (4, 0),
            pending: (5, 0),
        })
}

fn read32(space: &ConfigSpace, at: u64) -> u32 {
    let mut data = [0; 4];
    space.read(at, &mut data);
    u32::from_le_bytes(data)
}

fn read16(space: &ConfigSpace, at: u64) -> u16 {
    let mut data = [0; 2];
    space.read(at, &mut data);
    u16::from_le_bytes(data)
}

fn capability(space: &ConfigSpace, id: u8) -> u64 {
    let mut at = u64::from(read16(space, 0x34) as u8);
    while at != 0 {
        let head = read16(space, at).to_le_bytes();
        if head[0] == id {
            return at;
        }
        at = u64::from(head[1]);
    }
    panic!("no capability {id:#x}");
}

#[test]
fn header_shows_the_identity() {
    let space = nvme();
    assert_eq!(read32(&space, 0), 0x0001_4e58);
    assert_eq!(read32(&space, 8), 0x0108_0203);
    assert_eq!(read32(&space, 0x2c), 0x0000_4e58);
    assert_eq!(read16(&space, 0x3c), 0x0100, "pin A");
    assert_ne!(read16(&space, 6) & STATUS_CAP_LIST, 0);
}

#[test]
fn bar_sizing_answers_with_the_size_and_type() {
    let mut space = nvme();
    space.write(0x10, &[0xff; 8]);
    assert_eq!(read32(&space, 0x10), 0xffff_c004);
    assert_eq!(read32(&space, 0x14), 0xffff_ffff);
    space.write(0x20, &0xffff_ffffu32.to_le_bytes());
    assert_eq!(read32(&space, 0x20), 0xffff_e000);
    space.write(0x18, &0xffff_ffffu32.to_le_bytes());
    assert_eq!(read32(&space, 0x18), 0, "an absent BAR stays zero");
    space.write(0x10, &0xfebd_0000u32.to_le_bytes());
    assert_eq!(read32(&space, 0x10), 0xfebd_0004);
    assert_eq!(read32(&space, 0x30), 0, "no expansion ROM");
    space.write(0x30, &0xffff_f800u32.to_le_bytes());
    assert_eq!(read32(&space, 0x30), 0);
}

#[test]
fn capabilities_are_linked_and_read_only() {
    let mut space = nvme();
    for id in [CAP_PM, CAP_PCIE, CAP_MSIX] {
        let at = capability(&space, id);
        assert_eq!(at % 4, 0);
        let head = read16(&space, at);
        space.write(at, &[0xff, 0xff]);
        assert_eq!(read16(&space, at), head);
    }
    let msix = capability(&space, CAP_MSIX);
    assert_eq!(read16(&space, msix + 2), 128, "table size minus one");
    assert_eq!(read32(&space, msix + 4), 4);
    assert_eq!(read32(&space, msix + 8), 5);
}

#[test]
fn vendor_capabilities_tell_their_length_and_keep_what_is_the_drivers() {
    let mut space = nvme();
    let first = space.add_vendor(&[1, 4, 0, 0, 0], &[]);
    let second = space.add_vendor(&[5, 0, 0, 0, 0, 0xee], &[0, 0xff, 0x0f]);
    let at = capability(&space, CAP_VENDOR);
    assert_eq!(at + 3, first);
    assert_eq!(read16(&space, at + 2), 0x0108, "length 8, then the body");
    let next = u64::from(read16(&space, at).to_le_bytes()[1]);
    assert_eq!(next + 3, second);
    assert_eq!(
        read16(&space, next).to_le_bytes(),
        [CAP_VENDOR, 0],
        "the last one"
    );
    assert_eq!(read16(&space, next + 2), 0x0509);
    assert_eq!(next % 4, 0);
    space.write(next, &[0xff; 12]);
    let mut body = [0; 6];
    space.read(second, &mut body);
    assert_eq!(body, [5, 0xff, 0x0f, 0, 0, 0xee]);
    space.write(first, &[0xff; 5]);
    space.read(first, &mut body[..5]);
    assert_eq!(body[..5], [1, 4, 0, 0, 0]);
    space.reset();
    space.read(second, &mut body);
    assert_eq!(body, [5, 0, 0, 0, 0, 0xee]);
}

#[test]
fn msix_control_keeps_only_enable_and_mask() {
    let mut space = nvme();
    let at = capability(&space, CAP_MSIX) + 2;
    assert!(space.write(at, &0xffffu16.to_le_bytes()).msix_changed);
    assert_eq!(read16(&space, at), 0xc080);
    assert!(space.is_msix_enabled() && space.is_msix_masked());
    assert!(
        space.write(at + 1, &[0x80]).msix_changed,
        "a byte write reaches the upper half"
    );
    assert!(space.is_msix_enabled() && !space.is_msix_masked());
    assert!(!space.write(at, &0x8000u16.to_le_bytes()).msix_changed);
}

#[test]
fn flr_is_reported_once_and_reads_zero() {
    let mut space = nvme();
    let devctl = capability(&space, CAP_PCIE) + 8;
    assert_ne!(read32(&space, devctl - 4) & 1 << 28, 0, "FLR capable");
    assert!(space.write(devctl, &0x8000u16.to_le_bytes()).flr);
    assert_eq!(read16(&space, devctl) & 0x8000, 0);
    assert!(!space.write(devctl, &0x2810u16.to_le_bytes()).flr);
    assert_eq!(read16(&space, devctl), 0x2810);
    assert!(
        !space.write(devctl, &[0x00]).flr,
        "the lower byte alone is no reset"
    );
}

#[test]
fn command_bits_are_masked_and_reported() {
    let mut space = nvme();
    assert!(space.write(4, &0xffffu16.to_le_bytes()).command_changed);
    assert_eq!(space.command(), COMMAND_WRITABLE);
    assert!(space.is_bus_master() && space.is_intx_disabled());
    space.reset();
    assert_eq!(space.command(), 0);
}

#[test]
fn odd_ranges_are_harmless() {
    let mut space = nvme();
    let mut data = [0xaa; 8];
    space.read(4092, &mut data);
    assert_eq!(data, [0; 8]);
    space.read(u64::MAX, &mut data);
    assert_eq!(data, [0; 8]);
    assert_eq!(space.write(u64::MAX, &[1]), ConfigEffects::default());
    assert_eq!(space.write(4090, &[0xff; 64]), ConfigEffects::default());
}

proptest::proptest! {
    #[test]
    fn writes_never_change_read_only_bits(
        writes in proptest::collection::vec((0u64..4200, proptest::collection::vec(0u8.., 0..9)), 0..64)
    ) {
        let mut space = nvme();
        let fresh = nvme();
        for (at, data) in &writes {
            space.write(*at, data);
        }
        for at in 0..CONFIG_SIZE {
            let fixed = !space.writable[at];
            proptest::prop_assert_eq!(space.bytes[at] & fixed, fresh.bytes[at] & fixed);
        }
    }
}
