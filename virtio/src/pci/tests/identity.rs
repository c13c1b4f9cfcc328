//! What hosts, firmware and VMMs look at before anything else.

use ::pci::{CONFIG_REGION, Function, InterruptKind, SharedArea};

use super::rig::*;
use crate::VirtioPciConfig;

#[test]
fn a_modern_block_device_that_windows_and_ovmf_know() {
    with_rig(|rig| {
        let header = rig.read_region(CONFIG_REGION, 0, 64);
        assert_eq!(header[..4], [0xf4, 0x1a, 0x42, 0x10]);
        assert_eq!(header[8..12], [1, 0, 0, 1], "revision 1, mass storage");
        assert_eq!(header[0x2c..0x30], [0xf4, 0x1a, 0x00, 0x11]);
        assert_eq!(header[0x3d], 1, "pin A");
        assert_ne!(header[6] & 0x10, 0, "capabilities");
        for (id, what) in [(0x01, "PM"), (0x10, "PCIe"), (0x11, "MSI-X")] {
            assert_eq!(rig.capability(id).len(), 1, "{what}");
        }
    });
}

#[test]
fn structures_lie_where_spdks_initiator_looks() {
    with_rig(|rig| {
        let mut found = Vec::new();
        for at in rig.capability(9) {
            assert_eq!(at % 4, 0);
            let cap = rig.read_region(CONFIG_REGION, at, 20);
            let dword = |at: usize| u32::from_le_bytes(cap[at..at + 4].try_into().unwrap());
            found.push((cap[3], cap[2], cap[4], dword(8), dword(12)));
            if cap[3] == 2 {
                assert_eq!(dword(16), 4, "notify multiplier");
            }
        }
        let expected = [
            (1, 16, 4, 0x0000, 64),
            (3, 16, 4, 0x1000, 1),
            (4, 16, 4, 0x2000, 72),
            (2, 20, 4, 0x3000, 0x1000),
            (5, 20, 0, 0, 0),
        ];
        assert_eq!(found, expected);
    });
}

#[test]
fn regions_are_what_clients_map() {
    with_rig(|rig| {
        let regions = rig.pci.regions();
        let sizes: Vec<u64> = regions.iter().map(|region| region.size).collect();
        assert_eq!(sizes, [0, 4096, 4096, 0, 0x4000, 0, 0, 4096, 0]);
        let Some(SharedArea { offset, memory }) = &regions[4].shared else {
            panic!("the notification page is not shared");
        };
        assert_eq!(
            (*offset, memory.len(), memory.file_offset()),
            (0x3000, 4096, 0x3000)
        );
        assert!(
            regions
                .iter()
                .enumerate()
                .all(|(index, region)| index == 4 || region.shared.is_none())
        );
        let interrupts = rig.pci.interrupts();
        assert_eq!(interrupts.count(InterruptKind::Msix), u32::from(QUEUES) + 1);
        assert_eq!(interrupts.count(InterruptKind::Intx), 1);
        for (bar, size) in [(1u64, 0x1000u32), (2, 0x1000), (4, 0x4000)] {
            rig.write_region(CONFIG_REGION, 0x10 + 4 * bar, &[0xff; 4]);
            let sized = rig.read_region(CONFIG_REGION, 0x10 + 4 * bar, 4);
            assert_eq!(sized, (!(size - 1)).to_le_bytes(), "32 bits wide");
        }
    });
    let config = VirtioPciConfig {
        msix_vectors: 512,
        mappable_notify: false,
        ..VirtioPciConfig::default()
    };
    with_config(config, |rig| {
        let regions = rig.pci.regions();
        assert!(regions[4].shared.is_none());
        assert_eq!(regions[1].size, 8192);
        let at = rig.capability(0x11)[0];
        assert_eq!(
            rig.read_region(CONFIG_REGION, at + 2, 2),
            511u16.to_le_bytes()
        );
    });
}

#[test]
fn other_regions_do_not_exist() {
    with_rig(|rig| {
        for region in [0, 3, 5, 6, 8] {
            let read = rig.pci.read(rig.cx, region, 0, &mut [0; 4]);
            let written = rig.write_region(region, 0, &[0; 4]);
            assert!(matches!(read, ::pci::Access::Fault(_)));
            assert!(matches!(written, ::pci::Access::Fault(_)));
        }
        rig.write_region(1, 0, &[1, 2, 3, 4]);
        assert_eq!(rig.read_region(1, 0, 4), [1, 2, 3, 4], "MSI-X table");
        rig.write_region(2, 0, &[0xff; 8]);
        assert_eq!(
            rig.read_region(2, 0, 8),
            [0; 8],
            "pending bits are read-only"
        );
        rig.flr();
        assert_eq!(rig.read_region(1, 0, 4), [0; 4]);
    });
}
