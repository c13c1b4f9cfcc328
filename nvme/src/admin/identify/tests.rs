use bdev::Features;
use nvme_spec::identify::{IdentifyController, IdentifyNamespace, IdentifyNamespaceIndependent};
use std::sync::Arc;
use zerocopy::FromBytes;

use super::*;
use crate::testing::{identify as command, namespace};

const SHOWN: Shown = Shown {
    write_cache: true,
    doorbell_buffers: false,
};

fn set() -> Arc<NamespaceSet> {
    NamespaceSet::new(vec![
        namespace(1, 1000, Features::WRITE),
        namespace(4, 2000, Features::UNMAP | Features::UNMAP_ZEROES),
        namespace(9, 1 << 40, Features::WRITE | Features::WRITE_CACHE),
    ])
}

fn config() -> ControllerConfig {
    ControllerConfig {
        subnqn: "nqn.2014-08.org.nvmexpress:test".to_owned(),
        serial_number: "S\u{e9}rial".to_owned(),
        cntlid: 5,
        ..ControllerConfig::default()
    }
    .clamped()
}

fn page(sqe: &Sqe) -> Result<Vec<u8>, Status> {
    let page = identify(sqe, &config(), &set(), SHOWN).map_err(Status::code)?;
    assert_eq!(page.len(), 4096);
    Ok(page)
}

fn controller(config: &ControllerConfig) -> IdentifyController {
    let page = identify(&command(1, 0), config, &set(), SHOWN).unwrap();
    IdentifyController::read_from_bytes(&page).unwrap()
}

#[test]
fn the_controller_says_who_it_is_and_what_it_can() {
    let id = controller(&config());
    assert_eq!(
        (id.vid, id.ssvid, id.cntlid, id.nn),
        (0x4e58, 0x4e58, 5, 32)
    );
    assert_eq!(&id.sn, b"S??rial             ");
    assert_eq!(&id.mn[..24], b"vtarget NVMe controller ");
    assert_eq!(id.fr[0], b'0');
    assert_eq!(id.mdts, 8, "1 MiB in pages of 4 KiB");
    assert_eq!(id.ver.into_bits(), 0x0002_0000);
    assert_eq!((id.sqes.into_bits(), id.cqes.into_bits()), (0x66, 0x44));
    assert_eq!((id.acl_z, id.aerl_z, id.elpe_z, id.npss_z), (3, 7, 63, 0));
    assert_eq!(id.oncs.into_bits(), 0b101_1101);
    assert_eq!(id.vwc.into_bits(), 0b111);
    assert_eq!(id.fuses.into_bits(), 0);
    assert_eq!(id.oacs.into_bits(), 0);
    assert_eq!(id.oaes.into_bits(), 1 << 8);
    assert_eq!(id.cntrltype.0, 1);
    assert_eq!(id.frmw.into_bits(), 0b11);
    assert!(id.subnqn.starts_with(b"nqn.2014-08.org.nvmexpress:test\0"));
    assert_eq!(id.sgls.support(), nvme_spec::identify::SglAlignment::ANY);
}

#[test]
fn settings_show_and_do_not_overflow() {
    let extreme = ControllerConfig {
        subnqn: "x".repeat(400),
        serial_number: "s".repeat(400),
        max_transfer: u32::MAX,
        max_queue_depth: u32::MAX,
        max_namespaces: u32::MAX,
        mappable_bar0: false,
        ..ControllerConfig::default()
    };
    let id = controller(&extreme.clamped());
    assert_eq!((id.mdts, id.maxcmd, id.nn), (9, u16::MAX, 0xffff_fffd));
    assert_eq!(id.subnqn[255], 0);
    let none = identify(
        &command(1, 0),
        &config(),
        &NamespaceSet::default(),
        Shown::default(),
    )
    .unwrap();
    let buffers = Shown {
        doorbell_buffers: true,
        ..SHOWN
    };
    let page = identify(&command(1, 0), &config(), &set(), buffers).unwrap();
    assert_eq!(page[257], 1, "OACS bit 8");
    let none = IdentifyController::read_from_bytes(&none).unwrap();
    assert_eq!(none.vwc.into_bits(), 0b110, "no disk has a cache");
}

#[test]
fn a_namespace_is_its_disk() {
    let ns = IdentifyNamespace::read_from_bytes(&page(&command(0, 1)).unwrap()).unwrap();
    assert_eq!((ns.nsze, ns.ncap, ns.nuse), (1000, 1000, 1000));
    assert_eq!((ns.lbaf[0].lbads(), ns.lbaf[0].ms(), ns.nlbaf_z), (9, 0, 0));
    assert_eq!(
        (ns.npwg_z, ns.npdg_z),
        (7, 7),
        "4 KiB in blocks of 512 bytes"
    );
    assert_eq!(ns.nvmcap.get(), 512_000);
    assert_eq!(ns.nguid, [0x11; 16]);
    assert!(!ns.nsattr.write_protected());
    assert_eq!(ns.dlfeat.read_behavior(), 0);
    let ns = IdentifyNamespace::read_from_bytes(&page(&command(0x11, 4)).unwrap()).unwrap();
    assert!(ns.nsattr.write_protected());
    assert_eq!(ns.dlfeat.read_behavior(), 1);
    assert_eq!(page(&command(0, 2)).unwrap(), vec![0; 4096], "inactive");
    for nsid in [0, 33, NSID_ALL] {
        for cns in [0, 5, 8, 0x11] {
            assert_eq!(
                page(&command(cns, nsid)),
                Err(Status::INVALID_NAMESPACE_OR_FORMAT)
            );
        }
    }
}

#[test]
fn lists_go_on_above_the_nsid() {
    let entries = |cns, nsid| -> Vec<u32> {
        let page = page(&command(cns, nsid)).unwrap();
        let dwords = page
            .as_chunks::<4>()
            .0
            .iter()
            .map(|dword| u32::from_le_bytes(*dword));
        dwords.take_while(|nsid| *nsid != 0).collect()
    };
    for cns in [2, 7, 0x10] {
        assert_eq!(entries(cns, 0), [1, 4, 9]);
        assert_eq!(entries(cns, 4), [9]);
        assert_eq!(entries(cns, 0xffff_fffd), [] as [u32; 0]);
        assert_eq!(
            page(&command(cns, 0xffff_fffe)),
            Err(Status::INVALID_NAMESPACE_OR_FORMAT)
        );
    }
    let many = NamespaceSet::new(
        (1..=2000)
            .map(|nsid| namespace(nsid, 1, Features::empty()))
            .collect(),
    );
    let page = identify(&command(2, 0), &config(), &many, SHOWN).unwrap();
    assert_eq!(page[4092..], 1024u32.to_le_bytes());
}

#[test]
fn descriptors_name_every_identifier() {
    let page = page(&command(3, 1)).unwrap();
    assert_eq!(page[..4], [2, 16, 0, 0]);
    assert_eq!(page[4..20], [0x11; 16]);
    assert_eq!(page[20..24], [3, 16, 0, 0]);
    assert_eq!(page[39], 1, "the UUID's last byte");
    assert_eq!(
        page[40..46],
        [4, 1, 0, 0, 0, 0],
        "NVM command set, then the end"
    );
    let inactive = identify(&command(3, 2), &config(), &set(), SHOWN);
    assert_eq!(
        inactive.map_err(Status::code),
        Err(Status::INVALID_NAMESPACE_OR_FORMAT)
    );
}

#[test]
fn command_sets_other_than_nvm_are_refused() {
    for cns in [5, 6, 7] {
        let mut sqe = command(cns, 1);
        assert!(page(&sqe).is_ok());
        sqe.cdw11 = 2 << 24;
        assert_eq!(page(&sqe), Err(Status::INVALID_FIELD));
    }
    assert_eq!(
        page(&command(6, 0)).unwrap()[..8],
        [0, 13, 0, 0, 0, 0, 0, 0]
    );
    assert_eq!(
        page(&command(0x1c, 0)).unwrap()[..9],
        [1, 0, 0, 0, 0, 0, 0, 0, 0]
    );
}

#[test]
fn a_disk_without_a_cache_says_so() {
    let independent = |nsid| {
        let page = page(&command(8, nsid)).unwrap();
        IdentifyNamespaceIndependent::read_from_bytes(&page).unwrap()
    };
    assert!(independent(1).nsfeat.vwcnp() && independent(1).nstat.nrdy());
    assert!(!independent(9).nsfeat.vwcnp());
    assert!(independent(4).nsattr.write_protected());
}

#[test]
fn the_controller_list_starts_at_the_given_id() {
    let first = |cns, nsid, cntid: u32| {
        let mut sqe = command(cns, nsid);
        sqe.cdw10 |= cntid << 16;
        page(&sqe).map(|page| page[..4].to_vec())
    };
    assert_eq!(first(0x13, 0, 0), Ok(vec![1, 0, 5, 0]));
    assert_eq!(first(0x13, 0, 5), Ok(vec![1, 0, 5, 0]));
    assert_eq!(first(0x13, 0, 6), Ok(vec![0, 0, 0, 0]));
    assert_eq!(first(0x12, 1, 0), Ok(vec![1, 0, 5, 0]));
    assert_eq!(first(0x12, 2, 0), Err(Status::INVALID_NAMESPACE_OR_FORMAT));
}

#[test]
fn everything_else_is_an_invalid_field() {
    let known = [0, 1, 2, 3, 5, 6, 7, 8, 0x10, 0x11, 0x12, 0x13, 0x1c];
    for cns in (0..=255).filter(|cns| !known.contains(cns)) {
        assert_eq!(
            page(&command(cns, 1)),
            Err(Status::INVALID_FIELD),
            "{cns:#x}"
        );
    }
}
