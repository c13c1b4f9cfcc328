//! Negotiation: VERSION and the capabilities in its JSON.
//!
//! Capabilities are limits of the side that states them; neither side "wins". Keys that are not known are
//! ignored, in both directions. The server states its own and never more than a QEMU accepts: QEMU reads the
//! reply into a buffer of its request's size (214 bytes), refuses `max_msg_fds` above 16, `max_dma_maps` above
//! 65535, and any descriptor.

use serde::Deserialize;
use serde_json::json;
use zerocopy::FromBytes;

use crate::Rejection;
use crate::wire::{
    ADVERTISED_MAX_MSG_FDS, MAX_DATA_XFER, MAX_DMA_MAPS, PAGE_SIZES, VERSION_MAJOR, VERSION_MINOR,
    Version,
};

/// Largest `max_msg_fds` that makes sense: what the reference server takes.
const LARGEST_MAX_MSG_FDS: u64 = 1024;

/// What the client can take, with the specification's defaults for what it did not say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// Descriptors it receives with one message.
    pub max_msg_fds: u64,
    /// Bytes of data it receives in one message.
    pub max_data_xfer_size: u64,
    /// DMA regions at once.
    pub max_dma_maps: u64,
    /// Bitmap of page sizes for DMA mappings.
    pub pgsizes: u64,
    /// It can send or take REGION_WRITE_MULTI.
    pub write_multiple: bool,
    /// It asks for a second socket for requests of the server.
    pub twin_socket: bool,
}

impl Default for Capabilities {
    fn default() -> Self {
        Self {
            max_msg_fds: 1,
            max_data_xfer_size: 1 << 20,
            max_dma_maps: 65535,
            pgsizes: 4096,
            write_multiple: false,
            twin_socket: false,
        }
    }
}

/// A client's VERSION request, accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposal {
    /// Minor version proposed.
    pub minor: u16,
    /// Its capabilities.
    pub capabilities: Capabilities,
}

impl Proposal {
    /// Reads the payload of a VERSION request.
    ///
    /// # Errors
    ///
    /// EINVAL for another major version and for malformed data. The session ends then, so the reason is all that
    /// the operator gets to see.
    pub fn decode(payload: &[u8]) -> Result<Self, Rejection> {
        let (version, data) = Version::read_from_prefix(payload)
            .map_err(|_| Rejection::invalid("version request is too short"))?;
        if version.major != VERSION_MAJOR {
            return Err(Rejection::invalid("major version is not 0"));
        }
        let capabilities = match data {
            [] => Capabilities::default(),
            data => decode_capabilities(data)?,
        };
        Ok(Self {
            minor: version.minor,
            capabilities,
        })
    }

    /// The minor version that both sides speak.
    pub fn agreed_minor(&self) -> u16 {
        self.minor.min(VERSION_MINOR)
    }
}

#[derive(Deserialize)]
struct WireProposal {
    capabilities: Option<WireCapabilities>,
}

#[derive(Deserialize)]
struct WireCapabilities {
    max_msg_fds: Option<u64>,
    max_data_xfer_size: Option<u64>,
    max_dma_maps: Option<u64>,
    pgsizes: Option<u64>,
    write_multiple: Option<bool>,
    twin_socket: Option<WireTwinSocket>,
    migration: Option<WireMigration>,
}

#[derive(Deserialize)]
struct WireTwinSocket {
    #[serde(default)]
    supported: bool,
}

// Left over from a former version of the specification, and still sent by every client.
#[derive(Deserialize)]
struct WireMigration {
    pgsize: Option<u64>,
}

fn decode_capabilities(data: &[u8]) -> Result<Capabilities, Rejection> {
    let Some((0, text)) = data.split_last() else {
        return Err(Rejection::invalid("version data does not end in NUL"));
    };
    let text = text.split(|&byte| byte == 0).next().unwrap_or_default();
    let proposal: WireProposal = serde_json::from_slice(text).map_err(|error| {
        if error.is_data() {
            Rejection::invalid("version data has a capability of the wrong type")
        } else {
            Rejection::invalid("version data is not JSON")
        }
    })?;
    let default = Capabilities::default();
    let Some(wire) = proposal.capabilities else {
        return Ok(default);
    };
    let max_msg_fds = wire.max_msg_fds.unwrap_or(default.max_msg_fds);
    if max_msg_fds > LARGEST_MAX_MSG_FDS {
        return Err(Rejection::invalid("max_msg_fds is above 1024"));
    }
    if let Some(pgsize) = wire.migration.and_then(|migration| migration.pgsize)
        && (pgsize < 4096 || !pgsize.is_power_of_two())
    {
        return Err(Rejection::invalid("migration.pgsize is not a page size"));
    }
    Ok(Capabilities {
        max_msg_fds,
        max_data_xfer_size: wire
            .max_data_xfer_size
            .unwrap_or(default.max_data_xfer_size),
        max_dma_maps: wire.max_dma_maps.unwrap_or(default.max_dma_maps),
        pgsizes: wire.pgsizes.unwrap_or(default.pgsizes),
        write_multiple: wire.write_multiple.unwrap_or(default.write_multiple),
        twin_socket: wire.twin_socket.is_some_and(|twin| twin.supported),
    })
}

/// The server's own capabilities as they go into the reply, NUL included.
///
/// They are always sent, also to a client that sent none: the `vfio_user` crate does not do without.
///
/// REGION_WRITE_MULTI is handled but not offered: QEMU 10.x confuses the bit with another and then queues every
/// message. No `migration` either: its presence would promise what is not there.
pub(crate) fn offer() -> Vec<u8> {
    let mut text = json!({
        "capabilities": {
            "max_msg_fds": ADVERTISED_MAX_MSG_FDS,
            "max_data_xfer_size": MAX_DATA_XFER,
            "max_dma_maps": MAX_DMA_MAPS,
            "pgsizes": PAGE_SIZES,
        }
    })
    .to_string();
    text.push('\0');
    text.into_bytes()
}

#[cfg(test)]
mod tests;
