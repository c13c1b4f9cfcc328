//! What a well-behaved client does, with the point in which it is wrong.

use std::io::{Read, Write};

use arbitrary::{Result, Unstructured};
use vhost_user::wire::{self, Code, ProtocolFeatures};
use virtio_spec::feature;
use virtio_spec::ring::{DESC_F_AVAIL, DESC_F_NEXT, DESC_F_USED, DESC_F_WRITE};
use zerocopy::IntoBytes;

use super::memory::{FILE, GUEST, USER, region};
use super::{Client, Gift};

/// Places of a ring's parts behind its beginning.
const DRIVER: u64 = 0x1000;
const DEVICE: u64 = 0x2000;
/// Bytes between the rings.
const RING: u64 = 0x4000;

/// A ring's number: one of the device's unless the code says otherwise.
fn index(code: u8) -> u32 {
    match code {
        0xff => u32::MAX,
        0xfe => 4,
        0xfd => 128,
        _ => u32::from(code) % 4,
    }
}

impl Client {
    fn state(&mut self, code: Code, index: u32, num: u32) {
        self.request(code, wire::VringState { index, num }.as_bytes(), &[]);
    }

    /// All that comes before a ring is started.
    pub(super) fn begin(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        self.request(Code::GET_FEATURES, &[], &[]);
        self.request(Code::GET_PROTOCOL_FEATURES, &[], &[]);
        let all = ProtocolFeatures::all().bits();
        self.request(Code::SET_PROTOCOL_FEATURES, all.as_bytes(), &[]);
        self.request(Code::GET_QUEUE_NUM, &[], &[]);
        self.request(Code::SET_OWNER, &[], &[]);
        self.choose(input)?;
        self.table(&[0, 1]);
        Ok(())
    }

    pub(super) fn choose(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        let code: u8 = input.arbitrary()?;
        let mut features = feature::VERSION_1;
        for (bit, feature) in [
            (0, feature::RING_PACKED),
            (1, feature::EVENT_IDX),
            (2, feature::INDIRECT_DESC),
            (3, feature::VHOST_LOG_ALL),
            (4, feature::IN_ORDER),
        ] {
            if code >> bit & 1 != 0 {
                features |= feature;
            }
        }
        match code >> 5 {
            0..=4 => features |= feature::VHOST_USER_PROTOCOL_FEATURES,
            5 => {}
            6 => features |= 1 << 63,
            _ => features = input.arbitrary()?,
        }
        self.request(Code::SET_FEATURES, features.as_bytes(), &[]);
        Ok(())
    }

    pub(super) fn choose_protocol(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        let code: u8 = input.arbitrary()?;
        let bits = match code {
            0..=0xef => ProtocolFeatures::all().bits() & !(u64::from(code) << 8),
            _ => input.arbitrary()?,
        };
        self.request(Code::SET_PROTOCOL_FEATURES, bits.as_bytes(), &[]);
        self.wants_replies = code & 0x10 != 0;
        Ok(())
    }

    fn table(&mut self, codes: &[u8]) {
        let (mut regions, mut gifts) = (Vec::new(), Vec::new());
        for (region, file) in codes.iter().map(|code| region(*code)) {
            regions.extend_from_slice(region.as_bytes());
            gifts.push(Gift::Memory(file));
        }
        let header = wire::MemoryHeader {
            count: u32::try_from(codes.len()).expect("a few"),
            padding: 0,
        };
        let payload = [header.as_bytes(), &regions].concat();
        self.request(Code::SET_MEM_TABLE, &payload, &gifts);
    }

    pub(super) fn share(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        let code: u8 = input.arbitrary()?;
        match code % 8 {
            0..=2 => self.table(&[0, 1]),
            3 => self.table(&[0]),
            4 => self.table(&[1]),
            5 => self.table(&[]),
            6 => self.table(&[input.arbitrary()?]),
            _ => {
                let codes: [u8; 3] = input.arbitrary()?;
                self.table(&codes);
            }
        }
        Ok(())
    }

    pub(super) fn share_one(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        let code: u8 = input.arbitrary()?;
        let (region, file) = region(code);
        let single = wire::SingleRegion { padding: 0, region };
        if input.arbitrary::<u8>()? % 2 == 0 {
            let gifts = [Gift::Memory(file)];
            self.request(Code::ADD_MEM_REG, single.as_bytes(), &gifts);
        } else {
            self.request(Code::REM_MEM_REG, single.as_bytes(), &[]);
        }
        Ok(())
    }

    fn ring(index: u32) -> u64 {
        u64::from(index % 4) * RING
    }

    fn set_size(&mut self, index: u32, code: u8) {
        let size = match code {
            0..=0x7f => 16,
            0x80..=0xef => 1 << (code % 10),
            _ => u32::from(code) * 3,
        };
        self.state(Code::SET_VRING_NUM, index, size);
    }

    fn set_address(&mut self, index: u32, code: u8) {
        let ring = USER + Self::ring(index);
        let mut address = wire::VringAddress {
            index,
            flags: 0,
            descriptor: ring,
            used: ring + DEVICE,
            available: ring + DRIVER,
            log: GUEST + Self::ring(index) + DEVICE,
        };
        match code {
            0..=0xdf => address.flags = u32::from(code & 1),
            0xe0..=0xe7 => address.available += u64::from(code & 7) * 2,
            0xe8..=0xef => address.used += u64::from(code & 7) * 4,
            0xf0..=0xf3 => address.descriptor += FILE - 0x100,
            0xf4..=0xf7 => address.used = u64::MAX - 3,
            _ => address.descriptor += u64::from(code & 7) * 16,
        }
        self.request(Code::SET_VRING_ADDR, address.as_bytes(), &[]);
    }

    fn file(&mut self, code: Code, index: u32, kind: u8) {
        let word = u64::from(index & 0xff);
        match kind & 0xf0 {
            0xf0 => self.request(code, word.as_bytes(), &[Gift::Pipe]),
            0xe0 => self.request(code, (word | wire::VRING_NO_FD).as_bytes(), &[]),
            0xd0 => self.request(code, word.as_bytes(), &[]),
            _ => self.request(code, word.as_bytes(), &[Gift::Event(kind)]),
        }
    }

    /// Starts a ring.
    pub(super) fn start(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        let index = index(input.arbitrary()?);
        let [size, base, address, kick]: [u8; 4] = input.arbitrary()?;
        self.set_size(index, size);
        let packed_start = if base & 1 != 0 { 0x8000_8000 } else { 0 };
        let base = if base > 0xf0 {
            u32::from(base) << 12
        } else {
            packed_start
        };
        self.state(Code::SET_VRING_BASE, index, base);
        self.set_address(index, address);
        self.file(Code::SET_VRING_CALL, index, kick >> 4 & 3);
        self.file(Code::SET_VRING_ERR, index, 0);
        self.file(Code::SET_VRING_KICK, index, kick);
        self.state(Code::SET_VRING_ENABLE, index, 1);
        Ok(())
    }

    /// One of the messages about a ring.
    pub(super) fn one_of_a_ring(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        let [which, code, value]: [u8; 3] = input.arbitrary()?;
        let index = index(code);
        match which % 6 {
            0 => self.set_size(index, value),
            1 => self.set_address(index, value),
            2 => self.state(Code::SET_VRING_BASE, index, u32::from(value) * 0x0101_0101),
            3 => self.file(Code::SET_VRING_KICK, index, value),
            4 => self.file(Code::SET_VRING_CALL, index, value),
            _ => self.file(Code::SET_VRING_ERR, index, value),
        }
        Ok(())
    }

    pub(super) fn enable(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        let [code, on]: [u8; 2] = input.arbitrary()?;
        self.state(Code::SET_VRING_ENABLE, index(code), u32::from(on % 3));
        Ok(())
    }

    pub(super) fn stop(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        let index = index(input.arbitrary()?);
        self.state(Code::GET_VRING_BASE, index, 0);
        Ok(())
    }

    pub(super) fn reset(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        let code: u8 = input.arbitrary()?;
        match code % 4 {
            0 => self.request(Code::RESET_DEVICE, &[], &[]),
            1 => self.request(Code::SET_STATUS, 0u64.as_bytes(), &[]),
            2 => self.request(Code::SET_STATUS, u64::from(code).as_bytes(), &[]),
            _ => self.request(Code::GET_STATUS, &[], &[]),
        }
        Ok(())
    }

    pub(super) fn inflight(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        let code: u8 = input.arbitrary()?;
        let mut wanted = wire::Inflight {
            mmap_size: 0x4000,
            mmap_offset: 0,
            num_queues: 4,
            queue_size: 64,
            padding: 0,
        };
        match code >> 2 {
            0..=40 => {}
            41 => wanted.num_queues = 0,
            42 => wanted.num_queues = 5,
            43 => wanted.queue_size = u16::MAX,
            44 => wanted.mmap_size = 64,
            45 => wanted.mmap_size = u64::MAX,
            46 => wanted.mmap_offset = 0xc000,
            _ => wanted.mmap_offset = u64::MAX - 7,
        }
        if code & 1 == 0 {
            self.request(Code::GET_INFLIGHT_FD, wanted.as_bytes(), &[]);
        } else {
            let gifts = [Gift::Memory(1)];
            self.request(Code::SET_INFLIGHT_FD, wanted.as_bytes(), &gifts);
        }
        Ok(())
    }

    pub(super) fn log(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        let code: u8 = input.arbitrary()?;
        let log = match code {
            0..=0xdf => wire::Log {
                size: 0x1000,
                offset: 0x8000,
            },
            0xe0..=0xef => wire::Log {
                size: u64::from(code & 15),
                offset: u64::from(code & 3),
            },
            _ => wire::Log {
                size: u64::MAX,
                offset: u64::from(code),
            },
        };
        self.request(Code::SET_LOG_BASE, log.as_bytes(), &[Gift::Memory(1)]);
        Ok(())
    }

    pub(super) fn config(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        let [code, offset, size]: [u8; 3] = input.arbitrary()?;
        let mut header = wire::ConfigHeader {
            offset: offset.into(),
            size: size.into(),
            flags: u32::from(code >> 7),
        };
        if code == 0xff {
            header.size = u32::MAX;
        }
        let payload = [header.as_bytes(), &vec![code; size.into()]].concat();
        let request = [Code::GET_CONFIG, Code::SET_CONFIG][usize::from(code % 2)];
        self.request(request, &payload, &[]);
        Ok(())
    }

    /// The guest's driver: makes chains available, right or not, and kicks.
    pub(super) fn drive(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        let [code, count]: [u8; 2] = input.arbitrary()?;
        let ring = GUEST + Self::ring(code.into());
        let value = if code >= 0xc0 {
            input.arbitrary()?
        } else {
            0u16
        };
        let packed = count & 0x80 != 0;
        for n in 0..u64::from(count % 16) {
            let at = ring + 16 * n;
            let mut bytes = [0; 16];
            bytes[..8].copy_from_slice(&(GUEST + FILE + 0x800 * n).to_le_bytes());
            bytes[8..12].copy_from_slice(&512u32.to_le_bytes());
            let mut flags = [DESC_F_NEXT, DESC_F_WRITE][usize::from(n % 2 == 1)];
            if packed {
                flags |= DESC_F_AVAIL;
                if code & 0x20 != 0 {
                    flags ^= DESC_F_AVAIL | DESC_F_USED;
                }
                let id = u16::try_from(n).unwrap_or(0);
                bytes[12..14].copy_from_slice(&id.to_le_bytes());
                bytes[14..].copy_from_slice(&flags.to_le_bytes());
            } else {
                bytes[12..14].copy_from_slice(&flags.to_le_bytes());
                let next = u16::try_from(n + 1).unwrap_or(0);
                bytes[14..].copy_from_slice(&next.to_le_bytes());
            }
            self.memory.write(at, &bytes);
            let (element, head) = (n / 2, u16::try_from(n & !1).unwrap_or(0));
            self.memory
                .write(ring + DRIVER + 4 + 2 * element, &head.to_le_bytes());
        }
        if !packed {
            let idx = u16::from(count % 16) / 2;
            self.memory.write(ring + DRIVER + 2, &idx.to_le_bytes());
        }
        if code >= 0xc0 {
            let at = ring + u64::from(code & 0x3f) * 2;
            self.memory.write(at, &value.to_le_bytes());
        }
        if count & 0x40 == 0 {
            for kick in &self.kicks {
                // EAGAIN: it is full.
                let _ = kick.write(1);
            }
        }
        Ok(())
    }

    /// Answers the back-end's own requests, or says anything there.
    pub(super) fn answer(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        let code: u8 = input.arbitrary()?;
        let answer = wire::Header {
            request: wire::BACKEND_CONFIG_CHANGE,
            flags: wire::VERSION | wire::FLAG_REPLY,
            size: 8,
        };
        let bytes = [answer.as_bytes(), u64::from(code >> 4).as_bytes()].concat();
        for socket in &mut self.sockets {
            let mut seen = [0; 64];
            let _ = socket.read(&mut seen);
            match code % 4 {
                0 => drop(socket.write(&bytes)),
                1 => drop(socket.write(&bytes[..usize::from(code >> 4).min(bytes.len())])),
                2 => drop(socket.write(&[code; 40])),
                _ => {}
            }
        }
        if code == 0xff {
            self.sockets.clear();
        }
        Ok(())
    }
}
