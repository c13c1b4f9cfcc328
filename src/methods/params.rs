//! Forms of parameters that many methods share.

use rpc::{DecodeStyle, RpcError};
use serde::Deserialize;
use serde::de::{Deserializer, Error};
use uuid::Uuid;

use crate::nvmf::{TARGET, check_nqn};

/// Of `bdev_*` and `log_*`.
pub(super) const BDEV: DecodeStyle = DecodeStyle::INTERNAL;
/// Of `nvmf_*` and `framework_*`.
pub(super) const NVMF: DecodeStyle = DecodeStyle::INVALID_PARAMS;
/// Of `vhost_*` and `vfu_*`.
pub(super) const VHOST: DecodeStyle = DecodeStyle::INVALID_ARGUMENT;

/// Parameters that may all be left out, and are only kept if they are given.
macro_rules! optional {
    ($(#[$doc:meta])* $name:ident { $($member:ident: $kind:ty),* $(,)? }) => {
        $(#[$doc])*
        #[derive(serde::Deserialize, serde::Serialize)]
        #[serde(deny_unknown_fields)]
        struct $name {
            $(#[serde(default, skip_serializing_if = "Option::is_none")] $member: Option<$kind>,)*
        }
    };
}
pub(super) use optional;

/// The parameters of methods that only need a name.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Name {
    pub(super) name: String,
}

/// The parameters of methods that only need a subsystem.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Nqn {
    pub(super) nqn: String,
    tgt_name: Option<String>,
}

impl Nqn {
    /// The NQN, once the target's name is right.
    pub(super) fn checked(self) -> Result<String, RpcError> {
        check_target(self.tgt_name.as_deref())?;
        Ok(self.nqn)
    }
}

/// Refuses a target that is not there.
pub(super) fn check_target(name: Option<&str>) -> Result<(), RpcError> {
    match name {
        None | Some(TARGET) => Ok(()),
        Some(name) => Err(crate::control::internal(
            &format!("Unable to find target {name}"),
            format_args!("the only one is {TARGET}"),
        )),
    }
}

/// A host's NQN.
pub(super) fn check_host(nqn: &str) -> Result<(), RpcError> {
    check_nqn(nqn).map_err(RpcError::invalid_params)
}

/// A UUID in canonical text.
pub(super) fn uuid<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Uuid>, D::Error> {
    let Some(text) = Option::<String>::deserialize(deserializer)? else {
        return Ok(None);
    };
    let uuid = crate::nvmf::parse_uuid(&text);
    uuid.map(Some).ok_or_else(|| {
        Error::custom(format_args!(
            "`{text}` is no UUID: give one such as 6b0a9f7c-7d3c-4ad5-9b9c-8a0b4d8b2a01"
        ))
    })
}

/// Text that command lines easily give as a number.
pub(super) fn text_or_number<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Either {
        Text(String),
        Number(u64),
    }
    Ok(match Option::<Either>::deserialize(deserializer)? {
        None => None,
        Some(Either::Text(text)) => Some(text),
        Some(Either::Number(number)) => Some(number.to_string()),
    })
}

/// A listener's address.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ListenAddress {
    pub(super) trtype: String,
    pub(super) traddr: String,
    pub(super) adrfam: Option<String>,
    #[serde(default, deserialize_with = "text_or_number")]
    pub(super) trsvcid: Option<String>,
}

impl ListenAddress {
    /// As it is kept and shown.
    pub(super) fn checked(self) -> Result<crate::nvmf::Address, RpcError> {
        check_trtype(&self.trtype)?;
        if let Some(family) = self.adrfam.as_deref()
            && !["ipv4", "ipv6", "ib", "fc", "intra_host", "unknown"]
                .iter()
                .any(|known| known.eq_ignore_ascii_case(family))
        {
            return Err(RpcError::invalid_params(format!(
                "there is no adrfam `{family}`"
            )));
        }
        if self.traddr.is_empty() {
            return Err(RpcError::invalid_params(
                "traddr is empty: give a directory",
            ));
        }
        Ok(crate::nvmf::Address {
            trtype: crate::nvmf::TRANSPORT,
            adrfam: "unknown",
            traddr: self.traddr,
            trsvcid: self.trsvcid.unwrap_or_default(),
        })
    }
}

/// Refuses other transports than ours.
pub(super) fn check_trtype(trtype: &str) -> Result<(), RpcError> {
    if trtype.eq_ignore_ascii_case(crate::nvmf::TRANSPORT) {
        return Ok(());
    }
    Err(RpcError::new(
        rpc::code::INVALID_PARAMS,
        format!(
            "Invalid transport type '{trtype}': the only one here is {}",
            crate::nvmf::TRANSPORT
        ),
    ))
}
