use vfio_user::wire::{
    Command, DeviceInfo, DmaMap, DmaUnmap, FLAG_NO_REPLY, HEADER_SIZE, Header, IrqInfo,
    RegionAccess, RegionInfo, RegionIoFds, SetIrqs, TYPE_REPLY, Version, WriteMultiEntry,
};
use zerocopy::{Immutable, IntoBytes};

use crate::Seed;

/// The messages of a client's life, one by one and as a whole, whole and in pieces.
pub fn seeds() -> Vec<Seed> {
    let messages = messages();
    let mut seeds = Vec::new();
    for (name, message) in &messages {
        seeds.push((format!("{name}-whole"), input(&[], message)));
        seeds.push((format!("{name}-with-fd"), input(&[0x40, 0x40], message)));
    }
    let life: Vec<u8> = messages.into_iter().flat_map(|(_, bytes)| bytes).collect();
    seeds.push(("life-whole".into(), input(&[], &life)));
    seeds.push(("life-in-pieces".into(), input(&[7; 250], &life)));
    seeds.push(("too-many-fds".into(), input(&[0xc1; 4], &life)));
    seeds.push(("lost-fds".into(), input(&[0xff], &life)));
    seeds
}

/// An input from how the reads go and the stream.
fn input(reads: &[u8], stream: &[u8]) -> Vec<u8> {
    let count = u8::try_from(reads.len()).expect("at most 255 reads");
    [&[count], reads, stream].concat()
}

/// A message with the size field given.
fn sized(command: Command, flags: u32, message_size: usize, payload: &[u8]) -> Vec<u8> {
    let header = Header {
        message_id: 0x1234,
        command: command.0,
        message_size: u32::try_from(message_size).expect("a small message"),
        flags,
        error: 0,
    };
    [header.as_bytes(), payload].concat()
}

fn bytes(command: Command, payload: &[u8]) -> Vec<u8> {
    sized(command, 0, HEADER_SIZE + payload.len(), payload)
}

fn message(command: Command, payload: &(impl IntoBytes + Immutable)) -> Vec<u8> {
    bytes(command, payload.as_bytes())
}

fn version(text: &str) -> Vec<u8> {
    let version = Version { major: 0, minor: 1 };
    let payload = [version.as_bytes(), text.as_bytes(), &[0]].concat();
    bytes(Command::VERSION, &payload)
}

fn set_irqs(flags: u32, start: u32, count: u32, data: &[u8]) -> Vec<u8> {
    let request = SetIrqs {
        argsz: 20,
        flags,
        index: 2,
        start,
        count,
    };
    bytes(
        Command::DEVICE_SET_IRQS,
        &[request.as_bytes(), data].concat(),
    )
}

fn messages() -> Vec<(&'static str, Vec<u8>)> {
    let map = DmaMap {
        argsz: 32,
        flags: 3,
        offset: 0,
        address: 0x10_0000,
        size: 0x1000,
    };
    let unmap = DmaUnmap {
        argsz: 24,
        flags: 0,
        address: 0x10_0000,
        size: 0x1000,
    };
    let unmap_all = DmaUnmap {
        argsz: 24,
        flags: 2,
        address: 0,
        size: 0,
    };
    let device = DeviceInfo {
        argsz: 16,
        flags: 0,
        num_regions: 0,
        num_irqs: 0,
    };
    let region = RegionInfo {
        argsz: 64,
        flags: 0,
        index: 0,
        cap_offset: 0,
        size: 0,
        offset: 0,
    };
    let io_fds = RegionIoFds {
        argsz: 16,
        flags: 0,
        index: 0,
        count: 0,
    };
    let irq = IrqInfo {
        argsz: 16,
        flags: 0,
        index: 2,
        count: 0,
    };
    let access = RegionAccess {
        offset: 0x14,
        region: 0,
        count: 4,
    };
    let data = [access.as_bytes(), &[1, 0, 0x46, 0]].concat();
    let entry = WriteMultiEntry {
        access,
        data: [1; 8],
    };
    let multi = [2u64.as_bytes(), entry.as_bytes(), entry.as_bytes()].concat();
    let capabilities = r#"{"capabilities":{"max_msg_fds":8,"max_data_xfer_size":1048576,"max_dma_maps":65535,"pgsizes":4096,"write_multiple":true,"twin_socket":{"supported":false},"migration":{"pgsize":4096}}}"#;
    vec![
        ("version", version(capabilities)),
        ("version-empty", version("{}")),
        ("device-info", message(Command::DEVICE_GET_INFO, &device)),
        (
            "region-info",
            message(Command::DEVICE_GET_REGION_INFO, &region),
        ),
        (
            "io-fds",
            message(Command::DEVICE_GET_REGION_IO_FDS, &io_fds),
        ),
        ("irq-info", message(Command::DEVICE_GET_IRQ_INFO, &irq)),
        ("map", message(Command::DMA_MAP, &map)),
        // Trigger with eventfds, with bytes, with nothing; mask; unmask; disable.
        ("irq-eventfd", set_irqs(0x24, 0, 1, &[])),
        ("irq-bool", set_irqs(0x22, 0, 4, &[1, 0, 1, 0])),
        ("irq-none", set_irqs(0x21, 1, 3, &[])),
        ("irq-mask", set_irqs(0x09, 0, 1, &[])),
        ("irq-unmask", set_irqs(0x11, 0, 1, &[])),
        ("irq-disable", set_irqs(0x21, 0, 0, &[])),
        ("read", message(Command::REGION_READ, &access)),
        ("write", bytes(Command::REGION_WRITE, &data)),
        (
            "write-posted",
            sized(
                Command::REGION_WRITE,
                FLAG_NO_REPLY,
                HEADER_SIZE + data.len(),
                &data,
            ),
        ),
        ("write-multi", bytes(Command::REGION_WRITE_MULTI, &multi)),
        ("reset", bytes(Command::DEVICE_RESET, &[])),
        ("feature", bytes(Command::DEVICE_FEATURE, &[0; 16])),
        ("unmap", message(Command::DMA_UNMAP, &unmap)),
        ("unmap-all", message(Command::DMA_UNMAP, &unmap_all)),
        (
            "stray-reply",
            sized(Command::DMA_READ, TYPE_REPLY, HEADER_SIZE, &[]),
        ),
        ("size-too-small", sized(Command::DMA_MAP, 0, 8, &[])),
        (
            "size-too-large",
            sized(Command::REGION_WRITE, 0, 2 << 20, &[0; 64]),
        ),
    ]
}
