//! What a decoded request promises to whoever acts on it, and what its reply promises to the client.

use nix::errno::Errno;
use vfio_user::Rejection;
use vfio_user::frame::Message;
use vfio_user::reply::{self, Mappable, Region, Reply};
use vfio_user::request::{self, IrqChange, IrqData, Request};
use vfio_user::wire::{
    self, DeviceFlags, FLAG_ERROR, HEADER_SIZE, Header, IrqFlags, MAX_DATA_XFER, MAX_MESSAGE_SIZE,
    NUM_IRQS, NUM_REGIONS, RegionAccess, RegionFlags, SparseArea, TYPE_REPLY, WRITE_MULTI_DATA,
};
use zerocopy::FromBytes;

/// Decodes the message and holds the outcome against the promises.
pub(super) fn check(message: Message<'_>) {
    let header = message.header;
    let payload_len = message.payload.len();
    let fds = message.fds.len();
    match request::decode(message) {
        Err(rejection) => check_error(&header, rejection),
        Ok(request) => {
            assert!(header.is_command());
            check_request(&header, &request, payload_len, fds);
        }
    }
}

/// Holds an error reply against the promises.
pub(super) fn check_error(header: &Header, rejection: Rejection) {
    assert!(!rejection.why.is_empty());
    let mut out = Vec::new();
    reply::encode_error(header, rejection.errno, &mut out);
    assert_eq!(out.len(), HEADER_SIZE);
    let reply = check_header(header, &out);
    assert_eq!(reply.flags, TYPE_REPLY | FLAG_ERROR);
    assert_eq!(
        Errno::from_raw(i32::try_from(reply.error).expect("small")),
        rejection.errno
    );
    assert_ne!(reply.error, 0);
}

fn check_request(header: &Header, request: &Request<'_>, payload_len: usize, fds: usize) {
    static ZEROES: [u8; MAX_DATA_XFER] = [0; MAX_DATA_XFER];
    // Most bytes of payload that the client takes, where it said so.
    let (reply, limit) = match request {
        Request::Version(proposal) => {
            let minor = proposal.agreed_minor();
            assert!(minor <= proposal.minor && minor <= wire::VERSION_MINOR);
            assert!(proposal.capabilities.max_msg_fds <= 1024);
            (Reply::Version { minor }, None)
        }
        Request::DmaMap(map) => {
            assert_ne!(map.size, 0);
            assert!(map.address.checked_add(map.size).is_some());
            assert!(map.offset.checked_add(map.size).is_some());
            assert_eq!(map.fd.is_some(), fds > 0);
            (Reply::Done, Some(0))
        }
        Request::DmaUnmap(unmap) => (Reply::DmaUnmap(*unmap), Some(unmap.argsz)),
        Request::DmaUnmapAll(unmap) => {
            assert_eq!((unmap.address, unmap.size), (0, 0));
            (Reply::DmaUnmap(*unmap), Some(unmap.argsz))
        }
        Request::DeviceInfo => (Reply::DeviceInfo(DeviceFlags::all()), None),
        Request::RegionInfo { argsz, index } => {
            check_index(*index);
            let region = region(*index);
            let argsz = *argsz;
            (Reply::RegionInfo { argsz, region }, Some(argsz))
        }
        Request::RegionIoFds { index } => {
            check_index(*index);
            (Reply::RegionIoFds { index: *index }, None)
        }
        Request::IrqInfo { index } => {
            assert!(*index < NUM_IRQS);
            let reply = Reply::IrqInfo {
                index: *index,
                flags: IrqFlags::all(),
                count: u32::MAX,
            };
            (reply, None)
        }
        Request::SetIrqs(change) => {
            check_irqs(change, fds);
            (Reply::Done, Some(0))
        }
        Request::RegionRead(access) => {
            check_access(access);
            let data = &ZEROES[..access.count as usize];
            (Reply::RegionRead(*access, data), None)
        }
        Request::RegionWrite(access, data) => {
            check_access(access);
            assert_eq!(data.len(), access.count as usize);
            (Reply::RegionWrite(*access), None)
        }
        Request::RegionWriteMulti(writes) => {
            let mut count = 0;
            for (access, data) in writes.iter() {
                check_access(&access);
                assert_eq!(data.len(), access.count as usize);
                assert!((1..=WRITE_MULTI_DATA).contains(&data.len()));
                count += 1;
            }
            assert_eq!(count, writes.len());
            assert_eq!(writes.is_empty(), count == 0);
            assert!(payload_len as u64 / 24 >= count);
            (Reply::RegionWriteMulti(count), None)
        }
        Request::DeviceReset => (Reply::Done, Some(0)),
    };
    // Behind a reply that is still to be sent.
    let mut out = vec![0xee; 3];
    reply::encode(header, &reply, &mut out);
    assert_eq!(out[..3], [0xee; 3]);
    let reply = &out[3..];
    assert_eq!(check_header(header, reply).flags, TYPE_REPLY);
    if let Some(limit) = limit {
        assert!(reply.len() - HEADER_SIZE <= limit as usize);
    }
}

/// Regions with and without a part to map.
fn region(index: u32) -> Region {
    let area = SparseArea {
        offset: 0x1000,
        size: 0x1000,
    };
    Region {
        index,
        flags: RegionFlags::READ | RegionFlags::WRITE,
        size: 0x4000,
        mappable: (index == 0).then_some(Mappable {
            area,
            file_offset: 0,
        }),
    }
}

fn check_header(request: &Header, reply: &[u8]) -> Header {
    assert!(reply.len() <= MAX_MESSAGE_SIZE);
    let (header, _) = Header::read_from_prefix(reply).expect("a whole header");
    assert_eq!(header.message_size as usize, reply.len());
    assert_eq!(header.message_id, request.message_id);
    assert_eq!(header.command, request.command);
    header
}

fn check_index(index: u32) {
    assert!(index < NUM_REGIONS);
}

fn check_access(access: &RegionAccess) {
    check_index(access.region);
    assert!(access.count as usize <= MAX_DATA_XFER);
    assert!(access.offset.checked_add(access.count.into()).is_some());
}

fn check_irqs(change: &IrqChange<'_>, fds: usize) {
    assert!(change.index() < NUM_IRQS);
    for vectors in [0, 1, 16, u32::MAX] {
        let fits = match change {
            IrqChange::Disable { .. } => vectors > 0,
            IrqChange::Range(range) => {
                u64::from(range.start) + u64::from(range.count) <= u64::from(vectors)
            }
        };
        let allowed = change.check_vectors(vectors).is_ok();
        // A range that reaches 2³² has no device to be compared with.
        assert!(allowed == fits || vectors == u32::MAX);
    }
    let IrqChange::Range(range) = change else {
        assert_eq!(fds, 0);
        return;
    };
    assert_ne!(range.count, 0);
    match &range.data {
        IrqData::None => assert_eq!(fds, 0),
        IrqData::Bool(bytes) => {
            assert_eq!(fds, 0);
            assert_eq!(bytes.len(), range.count as usize);
        }
        IrqData::EventFd(events) => {
            assert_eq!(events.len(), fds);
            assert!(events.is_empty() || events.len() == range.count as usize);
        }
    }
}
