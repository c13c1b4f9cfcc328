//! Device, region and interrupt information.

use testkit::vfio_user::Client;
use vfio_user::wire::{Command, DeviceFlags, IrqFlags, RegionFlags};

use crate::fake::{BAR0_SIZE, BAR1_SIZE, BAR2_SIZE, SHARED, VECTORS};
use crate::harness::{Server, alive, invalid, words};

fn send(
    client: &mut Client,
    command: Command,
    payload: &[u8],
) -> testkit::vfio_user::Result<Vec<u8>> {
    Ok(client.request(command, payload, &[])?.payload)
}

const RW: RegionFlags = RegionFlags::READ.union(RegionFlags::WRITE);

#[test]
fn device_info_says_pci_with_reset() {
    let server = Server::start();
    let mut client = server.client();
    let info = client.device_info().unwrap();
    assert_eq!(info.flags, DeviceFlags::PCI | DeviceFlags::RESET);
    assert_eq!((info.num_regions, info.num_irqs), (9, 5));
}

#[test]
fn device_info_takes_a_larger_argsz_and_no_smaller() {
    let server = Server::start();
    let mut client = server.client();
    let reply = send(
        &mut client,
        Command::DEVICE_GET_INFO,
        &words(&[32, 0, 0, 0]),
    )
    .unwrap();
    assert_eq!(reply, words(&[16, 3, 9, 5]));
    invalid(send(
        &mut client,
        Command::DEVICE_GET_INFO,
        &words(&[16, 0]),
    ));
    invalid(send(
        &mut client,
        Command::DEVICE_GET_INFO,
        &words(&[8, 0, 0, 0]),
    ));
    alive(&mut client);
}

#[test]
fn every_advertised_index_can_be_queried() {
    let server = Server::start();
    let mut client = server.client();
    for index in 0..9 {
        client.region_info(index).unwrap();
    }
    for index in 0..5 {
        client.irq_info(index).unwrap();
    }
}

#[test]
fn irq_info_counts_vectors() {
    let server = Server::start();
    let mut client = server.client();
    for (index, count) in [(0, 1), (1, 0), (2, u32::from(VECTORS)), (3, 1), (4, 1)] {
        let info = client.irq_info(index).unwrap();
        assert_eq!(
            (info.flags, info.count),
            (IrqFlags::EVENTFD, count),
            "{index}"
        );
    }
    let reply = send(
        &mut client,
        Command::DEVICE_GET_IRQ_INFO,
        &words(&[32, 0, 4, 0]),
    )
    .unwrap();
    assert_eq!(reply, words(&[16, 1, 4, 1]));
}

#[test]
fn irq_info_errors() {
    let server = Server::start();
    let mut client = server.client();
    invalid(send(
        &mut client,
        Command::DEVICE_GET_IRQ_INFO,
        &words(&[16, 0]),
    ));
    invalid(send(
        &mut client,
        Command::DEVICE_GET_IRQ_INFO,
        &words(&[8, 0, 0, 0]),
    ));
    invalid(client.irq_info(5));
    alive(&mut client);
}

#[test]
fn region_info_errors() {
    let server = Server::start();
    let mut client = server.client();
    let command = Command::DEVICE_GET_REGION_INFO;
    invalid(send(&mut client, command, &words(&[32, 0])));
    invalid(send(
        &mut client,
        command,
        &words(&[8, 0, 0, 0, 0, 0, 0, 0]),
    ));
    invalid(client.region_info(9));
    invalid(client.region_info(u32::MAX));
    alive(&mut client);
}

#[test]
fn a_plain_region_has_no_capabilities() {
    let server = Server::start();
    let mut client = server.client();
    let reply = send(
        &mut client,
        Command::DEVICE_GET_REGION_INFO,
        &words(&[40, 0, 1, 0, 0, 0, 0, 0]),
    );
    let size = u32::try_from(BAR1_SIZE).unwrap();
    assert_eq!(reply.unwrap(), words(&[32, 3, 1, 0, size, 0, 0, 0]));
    assert!(client.region_info(1).unwrap().fd.is_none());
}

#[test]
fn configuration_space_is_four_kib() {
    let server = Server::start();
    let info = server.client().region_info(7).unwrap();
    assert_eq!((info.flags, info.size), (RW, 4096));
}

#[test]
fn an_absent_region_has_no_size() {
    let server = Server::start();
    let mut client = server.client();
    for index in [3, 4, 5, 6, 8] {
        let request = words(&[32, 0, index, 0, 0, 0, 0, 0]);
        let reply = send(&mut client, Command::DEVICE_GET_REGION_INFO, &request).unwrap();
        assert_eq!(reply, words(&[32, 0, index, 0, 0, 0, 0, 0]));
    }
}

#[test]
fn a_large_region_reports_all_of_its_size() {
    let server = Server::start();
    let info = server.client().region_info(2).unwrap();
    assert_eq!((info.size, info.flags), (BAR2_SIZE, RegionFlags::READ));
}

#[test]
fn capabilities_come_only_where_they_fit() {
    let server = Server::start();
    let mut client = server.client();
    for argsz in [32, 63] {
        let info = client.region_info_within(0, argsz).unwrap();
        assert_eq!(info.argsz, 64);
        assert_eq!(info.flags, RW | RegionFlags::MMAP);
        assert!(info.areas.is_empty() && info.fd.is_none());
        assert_eq!((info.size, info.offset), (BAR0_SIZE, 0));
    }
    let info = client.region_info_within(0, 64).unwrap();
    assert_eq!(info.flags, RW | RegionFlags::MMAP | RegionFlags::CAPS);
    assert_eq!(info.areas.len(), 1);
    assert_eq!(
        info.areas[0].offset..info.areas[0].offset + info.areas[0].size,
        SHARED
    );
    assert!(info.fd.is_some());
}

#[test]
fn a_request_padded_by_spdks_initiator_gets_the_same_answer() {
    let server = Server::start();
    let mut client = server.client();
    let mut request = words(&[4064, 0, 0, 0, 0, 0, 0, 0]);
    request.resize(4064, 0);
    let reply = client
        .request(Command::DEVICE_GET_REGION_INFO, &request, &[])
        .unwrap();
    let size = u32::try_from(BAR0_SIZE).unwrap();
    let expected = [
        64,
        0xf,
        0,
        32,
        size,
        0,
        0,
        0,
        1 << 16 | 1,
        0,
        1,
        0,
        0x1000,
        0,
        0x2000,
        0,
    ];
    assert_eq!(reply.payload, words(&expected));
    assert_eq!(reply.fds.len(), 1);
}

#[test]
fn client_and_device_share_the_mappable_area() {
    let server = Server::start();
    let mut client = server.client();
    let info = client.region_info(0).unwrap();
    let doorbells = info.map_area(0).unwrap();
    doorbells.store_u32(0x18, 4711);
    assert_eq!(server.device.run(|fake| fake.memory.load_u32(0x18)), 4711);
    server.device.run(|fake| fake.memory.store_u32(0x1ffc, 815));
    assert_eq!(doorbells.load_u32(0x1ffc), 815);
}

#[test]
fn a_client_cannot_pull_the_shared_area_away() {
    let server = Server::start();
    let fd = server.client().region_info(0).unwrap().fd.unwrap();
    let file = std::fs::File::from(fd);
    file.set_len(0).unwrap_err();
    file.set_len(1 << 20).unwrap_err();
}

#[test]
fn no_region_has_io_fds() {
    let server = Server::start();
    let mut client = server.client();
    for index in [0, 1, 7] {
        assert_eq!(client.region_io_fds(index).unwrap(), 0);
    }
}

#[test]
fn region_io_fd_errors() {
    let server = Server::start();
    let mut client = server.client();
    let command = Command::DEVICE_GET_REGION_IO_FDS;
    invalid(send(&mut client, command, &words(&[16, 1, 0, 0])));
    invalid(send(&mut client, command, &words(&[16, 0, 0, 1])));
    invalid(send(&mut client, command, &words(&[15, 0, 0, 0])));
    invalid(send(
        &mut client,
        command,
        &words(&[(1 << 20) + 1, 0, 0, 0]),
    ));
    invalid(client.region_io_fds(512));
    invalid(client.region_io_fds(5));
    alive(&mut client);
}

#[test]
fn migration_and_unknown_commands_are_refused() {
    let server = Server::start();
    let mut client = server.client();
    // PROBE of the migration feature.
    invalid(send(
        &mut client,
        Command::DEVICE_FEATURE,
        &words(&[8, 1 | 1 << 18]),
    ));
    invalid(send(&mut client, Command::MIG_DATA_READ, &words(&[8, 4])));
    invalid(send(
        &mut client,
        Command::MIG_DATA_WRITE,
        &words(&[8, 4, 0]),
    ));
    invalid(send(&mut client, Command::DMA_READ, &[0; 16]));
    invalid(send(&mut client, Command::DMA_WRITE, &[0; 16]));
    invalid(send(&mut client, Command(14), &[0; 16]));
    invalid(send(&mut client, Command(19), &[0]));
    alive(&mut client);
}
