//! Requests: every rule that can be checked without knowing the device.
//!
//! Decoding is total: whatever the bytes and descriptors, the result is a [`Request`] or a refusal. Payloads have exactly the size
//! that the text gives them, and a message carries exactly the descriptors that it calls for.

use std::os::fd::OwnedFd;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::Refusal;
use crate::frame::Message;
use crate::wire::{self, Code};

/// A request, structurally valid. Indexes and ranges are still to be held against the device and its state.
#[derive(Debug)]
pub enum Request<'a> {
    /// GET_FEATURES.
    GetFeatures,
    /// SET_FEATURES.
    SetFeatures(u64),
    /// SET_OWNER.
    SetOwner,
    /// RESET_OWNER.
    ResetOwner,
    /// SET_MEM_TABLE.
    SetMemTable(Vec<(wire::MemoryRegion, OwnedFd)>),
    /// SET_LOG_BASE with a descriptor.
    SetLogBase(wire::Log, OwnedFd),
    /// SET_LOG_FD.
    SetLogFd(OwnedFd),
    /// SET_VRING_NUM.
    SetVringNum(wire::VringState),
    /// SET_VRING_ADDR.
    SetVringAddress(wire::VringAddress),
    /// SET_VRING_BASE.
    SetVringBase(wire::VringState),
    /// GET_VRING_BASE.
    GetVringBase(u32),
    /// SET_VRING_KICK.
    SetVringKick(u32, Option<OwnedFd>),
    /// SET_VRING_CALL.
    SetVringCall(u32, Option<OwnedFd>),
    /// SET_VRING_ERR.
    SetVringError(u32, Option<OwnedFd>),
    /// GET_PROTOCOL_FEATURES.
    GetProtocolFeatures,
    /// SET_PROTOCOL_FEATURES.
    SetProtocolFeatures(u64),
    /// GET_QUEUE_NUM.
    GetQueueNum,
    /// SET_VRING_ENABLE.
    SetVringEnable(u32, bool),
    /// SET_BACKEND_REQ_FD.
    SetBackendReqFd(OwnedFd),
    /// GET_CONFIG, to be answered with a payload as long as the request's: the structure and this many bytes.
    GetConfig(wire::ConfigHeader, usize),
    /// SET_CONFIG.
    SetConfig(wire::ConfigHeader, &'a [u8]),
    /// GET_INFLIGHT_FD.
    GetInflightFd(wire::Inflight),
    /// SET_INFLIGHT_FD.
    SetInflightFd(wire::Inflight, OwnedFd),
    /// RESET_DEVICE.
    ResetDevice,
    /// GET_MAX_MEM_SLOTS.
    GetMaxMemSlots,
    /// ADD_MEM_REG.
    AddMemRegion(wire::MemoryRegion, OwnedFd),
    /// REM_MEM_REG.
    RemoveMemRegion(wire::MemoryRegion),
    /// SET_STATUS.
    SetStatus(u8),
    /// GET_STATUS.
    GetStatus,
}

/// Whether an answer of its own belongs to a request, so that "need reply" changes nothing (REPLY_ACK).
#[must_use]
pub fn has_own_reply(code: Code) -> bool {
    matches!(
        code,
        Code::GET_FEATURES
            | Code::GET_PROTOCOL_FEATURES
            | Code::GET_VRING_BASE
            | Code::SET_LOG_BASE
            | Code::GET_QUEUE_NUM
            | Code::GET_CONFIG
            | Code::GET_INFLIGHT_FD
            | Code::GET_MAX_MEM_SLOTS
            | Code::GET_STATUS
            // Never served; whoever sends them waits for something that is not an acknowledgement.
            | Code::CREATE_CRYPTO_SESSION
            | Code::POSTCOPY_ADVISE
            | Code::POSTCOPY_END
            | Code::GET_SHARED_OBJECT
            | Code::SET_DEVICE_STATE_FD
            | Code::CHECK_DEVICE_STATE
    )
}

/// Reads a request. Descriptors that it does not call for are closed, and it is refused.
///
/// # Errors
///
/// What the operator is told.
pub fn decode(message: Message<'_>) -> Result<Request<'_>, Refusal> {
    let Message {
        header,
        payload,
        fds,
    } = message;
    let code = header.code();
    match code {
        Code::SET_MEM_TABLE => memory_table(payload, fds),
        Code::SET_LOG_BASE => log_base(payload, fds),
        Code::SET_LOG_FD => {
            nothing(payload)?;
            one(fds).map(Request::SetLogFd)
        }
        Code::SET_VRING_KICK => {
            vring_file(payload, fds).map(|(index, fd)| Request::SetVringKick(index, fd))
        }
        Code::SET_VRING_CALL => {
            vring_file(payload, fds).map(|(index, fd)| Request::SetVringCall(index, fd))
        }
        Code::SET_VRING_ERR => {
            vring_file(payload, fds).map(|(index, fd)| Request::SetVringError(index, fd))
        }
        Code::SET_BACKEND_REQ_FD => {
            nothing(payload)?;
            one(fds).map(Request::SetBackendReqFd)
        }
        Code::SET_INFLIGHT_FD => {
            let inflight = inflight(payload)?;
            Ok(Request::SetInflightFd(inflight, one(fds)?))
        }
        Code::ADD_MEM_REG => {
            let single: wire::SingleRegion = exact(payload)?;
            Ok(Request::AddMemRegion(single.region, one(fds)?))
        }
        // Front-ends exist that send a descriptor along; the text says to close it.
        Code::REM_MEM_REG if fds.len() <= 1 => {
            exact(payload).map(|single: wire::SingleRegion| Request::RemoveMemRegion(single.region))
        }
        _ if !fds.is_empty() => Err(Refusal::new(
            "descriptors came with a request that takes none",
        )),
        Code::GET_CONFIG => {
            let (header, _) = config(payload)?;
            let room = payload.len().saturating_sub(size_of_val(&header));
            Ok(Request::GetConfig(header, room))
        }
        Code::SET_CONFIG => config(payload).map(|(header, data)| Request::SetConfig(header, data)),
        Code::GET_INFLIGHT_FD => inflight(payload).map(Request::GetInflightFd),
        _ => plain(code, payload),
    }
}

/// Requests of a fixed size without descriptors.
fn plain(code: Code, payload: &[u8]) -> Result<Request<'_>, Refusal> {
    let bare = |request| nothing(payload).map(|()| request);
    match code {
        Code::GET_FEATURES => bare(Request::GetFeatures),
        Code::SET_FEATURES => exact(payload).map(Request::SetFeatures),
        Code::SET_OWNER => bare(Request::SetOwner),
        Code::RESET_OWNER => bare(Request::ResetOwner),
        Code::SET_VRING_NUM => exact(payload).map(Request::SetVringNum),
        Code::SET_VRING_ADDR => exact(payload).map(Request::SetVringAddress),
        Code::SET_VRING_BASE => exact(payload).map(Request::SetVringBase),
        Code::GET_VRING_BASE => {
            exact(payload).map(|state: wire::VringState| Request::GetVringBase(state.index))
        }
        Code::GET_PROTOCOL_FEATURES => bare(Request::GetProtocolFeatures),
        Code::SET_PROTOCOL_FEATURES => exact(payload).map(Request::SetProtocolFeatures),
        Code::GET_QUEUE_NUM => bare(Request::GetQueueNum),
        Code::SET_VRING_ENABLE => match exact(payload)? {
            wire::VringState { index, num: 0 } => Ok(Request::SetVringEnable(index, false)),
            wire::VringState { index, num: 1 } => Ok(Request::SetVringEnable(index, true)),
            _ => Err(Refusal::new("a ring is neither enabled nor disabled")),
        },
        Code::RESET_DEVICE => bare(Request::ResetDevice),
        Code::GET_MAX_MEM_SLOTS => bare(Request::GetMaxMemSlots),
        Code::SET_STATUS => {
            let status: u64 = exact(payload)?;
            u8::try_from(status)
                .map(Request::SetStatus)
                .map_err(|_| Refusal::new("the device status has only 8 bits"))
        }
        Code::GET_STATUS => bare(Request::GetStatus),
        _ => Err(Refusal::new("this request is not served")),
    }
}

fn exact<T: FromBytes + KnownLayout + Immutable>(payload: &[u8]) -> Result<T, Refusal> {
    T::read_from_bytes(payload).map_err(|_| {
        let (has, needs) = (payload.len(), size_of::<T>());
        Refusal::new(format!("the payload has {has} bytes instead of {needs}"))
    })
}

fn nothing(payload: &[u8]) -> Result<(), Refusal> {
    exact::<[u8; 0]>(payload).map(drop)
}

/// The only descriptor.
fn one(fds: Vec<OwnedFd>) -> Result<OwnedFd, Refusal> {
    let count = fds.len();
    match (fds.into_iter().next(), count) {
        (Some(fd), 1) => Ok(fd),
        _ => Err(Refusal::new(format!(
            "{count} descriptors came with a request that takes one"
        ))),
    }
}

fn vring_file(payload: &[u8], fds: Vec<OwnedFd>) -> Result<(u32, Option<OwnedFd>), Refusal> {
    let word: u64 = exact(payload)?;
    // Eight bits.
    let index = (word & wire::VRING_INDEX_MASK) as u32;
    if word & wire::VRING_NO_FD == 0 {
        return Ok((index, Some(one(fds)?)));
    }
    if !fds.is_empty() {
        return Err(Refusal::new(
            "a descriptor came with a request that says there is none",
        ));
    }
    Ok((index, None))
}

fn memory_table<'a>(payload: &[u8], fds: Vec<OwnedFd>) -> Result<Request<'a>, Refusal> {
    let (header, regions) = wire::MemoryHeader::read_from_prefix(payload)
        .map_err(|_| Refusal::new("the memory table is too short"))?;
    let size = size_of::<wire::MemoryRegion>();
    let count = header.count as usize;
    if !regions.len().is_multiple_of(size) || regions.len() / size != count {
        return Err(Refusal::new(
            "the memory table has more or fewer regions than it says",
        ));
    }
    if fds.len() != count {
        return Err(Refusal::new(format!(
            "{} descriptors came with a memory table of {count} regions: the VM's memory must be shared (memfd, share=on)",
            fds.len()
        )));
    }
    let regions = regions
        .chunks_exact(size)
        .filter_map(|region| wire::MemoryRegion::read_from_bytes(region).ok());
    Ok(Request::SetMemTable(regions.zip(fds).collect()))
}

fn log_base<'a>(payload: &[u8], fds: Vec<OwnedFd>) -> Result<Request<'a>, Refusal> {
    if payload.len() == size_of::<u64>() && fds.is_empty() {
        return Err(Refusal::new(
            "the log of writes is an address in the client, not shared memory (LOG_SHMFD)",
        ));
    }
    let log = exact(payload)?;
    Ok(Request::SetLogBase(log, one(fds)?))
}

fn config(payload: &[u8]) -> Result<(wire::ConfigHeader, &[u8]), Refusal> {
    let (header, data) = wire::ConfigHeader::read_from_prefix(payload)
        .map_err(|_| Refusal::new("the configuration message is too short"))?;
    // SPDK's initiator always sends the room for the longest.
    let data = data.get(..header.size as usize).ok_or(Refusal::new(
        "the configuration message has less data than it says",
    ))?;
    let end = header.offset.checked_add(header.size);
    if end.is_none_or(|end| end as usize > wire::MAX_CONFIG) {
        return Err(Refusal::new(
            "the configuration space has at most 256 bytes",
        ));
    }
    Ok((header, data))
}

/// With or without what compilers pad the structure with.
fn inflight(payload: &[u8]) -> Result<wire::Inflight, Refusal> {
    let mut inflight = wire::Inflight::default();
    if payload.len() == wire::INFLIGHT_UNPADDED {
        inflight
            .as_mut_bytes()
            .iter_mut()
            .zip(payload)
            .for_each(|(to, from)| *to = *from);
    } else {
        inflight = exact(payload)?;
        inflight.padding = 0;
    }
    if inflight.num_queues == 0 || inflight.queue_size == 0 {
        return Err(Refusal::new("the in-flight region is of no queue"));
    }
    Ok(inflight)
}

#[cfg(test)]
mod tests;
