//! The client of the `vfio_user` crate, which cloud-hypervisor uses: an implementation that knows nothing of ours.

use std::os::fd::{AsFd, AsRawFd};

use nix::sys::eventfd::EventFd;
use pci::{Function, InterruptKind};
use rust_vmm_vfio_user::Client;
use vfio_user::wire::{CONFIG_REGION, INTX_IRQ, IrqSetFlags, MSIX_IRQ};

use crate::fake::{BAR2_SIZE, SHARED, VECTORS};
use crate::harness::{Server, guest_memory};

#[test]
fn it_finds_the_regions() {
    let server = Server::start();
    let mut client = Client::new(server.path()).unwrap();
    let bar0 = client.region(0).unwrap();
    assert_eq!((bar0.size, bar0.sparse_areas.len()), (0x4000, 1));
    let area = &bar0.sparse_areas[0];
    assert_eq!(area.offset..area.offset + area.size, SHARED);
    let file = bar0.file_offset.as_ref().unwrap();
    // It maps at the region's offset in the file plus the area's, as everybody does.
    let fd = file.file().as_fd().try_clone_to_owned().unwrap();
    let offset = file.start() + area.offset;
    let doorbells = guest_memory::SharedMemory::from_fd(fd, offset, area.size).unwrap();
    doorbells.store_u32(0, 42);
    assert_eq!(server.device.run(|fake| fake.memory.load_u32(0)), 42);
    assert_eq!(client.region(2).unwrap().size, BAR2_SIZE);
    assert_eq!(client.region(CONFIG_REGION).unwrap().size, 4096);
    client.reset().unwrap();
}

#[test]
fn it_reads_and_writes() {
    let server = Server::start();
    let mut client = Client::new(server.path()).unwrap();
    let mut id = [0; 4];
    client.region_read(CONFIG_REGION, 0, &mut id).unwrap();
    assert_eq!(u32::from_le_bytes(id), 0x5845_1b36);
    for width in [1, 2, 4, 8] {
        let data = vec![width as u8; width];
        client.region_write(0, 0x14, &data).unwrap();
        let mut back = vec![0; width];
        client.region_read(0, 0x14, &mut back).unwrap();
        assert_eq!(back, data);
    }
}

#[test]
fn it_shares_memory_and_takes_it_back() {
    let server = Server::start();
    let mut client = Client::new(server.path()).unwrap();
    let memory = guest_memory(4);
    let fd = memory.fd().as_raw_fd();
    client.dma_map(0, 0, 4 * 4096, fd).unwrap();
    server
        .device
        .run(|fake| fake.view.write(4096, &1_u32))
        .unwrap();
    assert_eq!(memory.load_u32(4096), 1);
    client.dma_unmap(0, 4 * 4096).unwrap();
    server
        .device
        .run(|fake| fake.view.read::<u32>(0))
        .unwrap_err();
    client.dma_map(0, 0, 4 * 4096, fd).unwrap();
}

#[test]
fn it_gets_interrupts() {
    let server = Server::start();
    let mut client = Client::new(server.path()).unwrap();
    let info = client.get_irq_info(MSIX_IRQ).unwrap();
    assert_eq!(info.count, u32::from(VECTORS));
    assert_eq!(client.get_irq_info(INTX_IRQ).unwrap().count, 1);
    let event = EventFd::new().unwrap();
    let enable = IrqSetFlags::DATA_EVENTFD | IrqSetFlags::ACTION_TRIGGER;
    let fd = event.as_fd().as_raw_fd();
    client
        .set_irqs(MSIX_IRQ, enable.bits(), 5, 1, &[fd])
        .unwrap();
    server.device.run(|fake| {
        fake.interrupts()
            .vector(InterruptKind::Msix, 5)
            .unwrap()
            .signal()
    });
    assert_eq!(event.read(), Ok(1));
    let disable = IrqSetFlags::DATA_NONE | IrqSetFlags::ACTION_TRIGGER;
    client
        .set_irqs(MSIX_IRQ, disable.bits(), 0, 0, &[])
        .unwrap();
    let enabled = server.device.run(|fake| {
        fake.interrupts()
            .vector(InterruptKind::Msix, 5)
            .unwrap()
            .is_enabled()
    });
    assert!(!enabled);
}

#[test]
fn it_can_come_back() {
    let server = Server::start();
    for _ in 0..3 {
        let client = Client::new(server.path()).unwrap();
        client.shutdown().unwrap();
    }
}
