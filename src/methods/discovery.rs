//! nvmf_discovery_* and targets: what belongs to NVMe over networks. Referrals are kept, shown and saved; nobody can read
//! them, since the discovery subsystem cannot be reached over vfio-user.

use rpc::{Params, RegistryError, RpcError, When};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Table;
use super::params::{NVMF, check_target, text_or_number};
use crate::control::{Control, done, internal};
use crate::nvmf::{DISCOVERY_NQN, TARGET, check_nqn};

pub(super) fn register(table: &mut Table) -> Result<(), RegistryError> {
    table
        .method("nvmf_discovery_add_referral", When::Runtime, add_referral)?
        .method(
            "nvmf_discovery_remove_referral",
            When::Runtime,
            remove_referral,
        )?
        .method("nvmf_discovery_get_referrals", When::Runtime, get_referrals)?
        .method("nvmf_create_target", When::Runtime, create_target)?
        .method("nvmf_delete_target", When::Runtime, delete_target)?;
    Ok(())
}

/// Where another target is.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Address {
    trtype: String,
    traddr: String,
    adrfam: Option<String>,
    #[serde(default, deserialize_with = "text_or_number")]
    trsvcid: Option<String>,
}

impl Address {
    /// As SPDK shows it.
    fn shown(self) -> Result<Value, RpcError> {
        let known = ["IPv4", "IPv6", "IB", "FC", "INTRA_HOST", "unknown"];
        let family = self.adrfam.as_deref().unwrap_or("unknown");
        let found = known.iter().find(|it| it.eq_ignore_ascii_case(family));
        let Some(family) = found else {
            return Err(RpcError::invalid_params(format!(
                "there is no adrfam `{family}`"
            )));
        };
        Ok(json!({
            "trtype": self.trtype.to_uppercase(), "adrfam": family, "traddr": self.traddr,
            "trsvcid": self.trsvcid.unwrap_or_default(),
        }))
    }
}

/// Unknown members are taken, as SPDK does here.
#[derive(Deserialize)]
struct AddReferral {
    tgt_name: Option<String>,
    address: Address,
    #[serde(default)]
    secure_channel: bool,
    subnqn: Option<String>,
    #[expect(dead_code, reason = "there is nobody to allow")]
    allow_any_host: Option<bool>,
}

fn add_referral(control: &mut Control, params: Params) -> Result<Value, RpcError> {
    let wanted: AddReferral = params.decode(NVMF)?;
    check_target(wanted.tgt_name.as_deref())?;
    let subnqn = wanted.subnqn.as_deref().unwrap_or(DISCOVERY_NQN);
    if subnqn != DISCOVERY_NQN {
        check_nqn(subnqn).map_err(RpcError::invalid_params)?;
    }
    let referral = json!({
        "address": wanted.address.shown()?, "secure_channel": wanted.secure_channel, "subnqn": subnqn,
    });
    let referrals = &mut control.options.referrals;
    let is_same =
        |it: &Value| it["address"] == referral["address"] && it["subnqn"] == referral["subnqn"];
    // SPDK answers true to what is there already.
    if !referrals.iter().any(is_same) {
        referrals.push(referral);
    }
    done()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RemoveReferral {
    tgt_name: Option<String>,
    address: Address,
    subnqn: Option<String>,
}

fn remove_referral(control: &mut Control, params: Params) -> Result<Value, RpcError> {
    let wanted: RemoveReferral = params.decode(NVMF)?;
    check_target(wanted.tgt_name.as_deref())?;
    let subnqn = wanted.subnqn.as_deref().unwrap_or(DISCOVERY_NQN);
    let address = wanted.address.shown()?;
    let referrals = &mut control.options.referrals;
    let before = referrals.len();
    referrals.retain(|it| it["address"] != address || it["subnqn"] != subnqn);
    if referrals.len() == before {
        let reason = format!("there is none at {address} to {subnqn}");
        return Err(internal("Unable to remove a referral", reason));
    }
    done()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GetReferrals {
    tgt_name: Option<String>,
}

fn get_referrals(control: &mut Control, params: Params) -> Result<Value, RpcError> {
    let GetReferrals { tgt_name } = params.decode(NVMF)?;
    check_target(tgt_name.as_deref())?;
    Ok(control.options.referrals.clone().into())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "a second target cannot be made")]
struct CreateTarget {
    name: String,
    max_subsystems: Option<u32>,
    discovery_filter: Option<Value>,
    dup_host_policy: Option<DupHostPolicy>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum DupHostPolicy {
    Allow,
    RestrictPerListener,
}

fn create_target(_: &mut Control, params: Params) -> Result<Value, RpcError> {
    let CreateTarget { name, .. } = params.decode(NVMF)?;
    if name == TARGET {
        let text = format!("Target already exists.: {TARGET} is always there");
        return Err(RpcError::new(rpc::code::INVALID_PARAMS, text));
    }
    let reason = format!("there is one target, {TARGET}: leave out tgt_name, or name it");
    Err(internal("Unable to create a target", reason))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DeleteTarget {
    name: String,
}

fn delete_target(_: &mut Control, params: Params) -> Result<Value, RpcError> {
    let DeleteTarget { name } = params.decode(NVMF)?;
    if name == TARGET {
        return Err(internal(
            "Unable to delete the target",
            format_args!("{TARGET} is the only one; delete its subsystems"),
        ));
    }
    let text = format!("The specified target doesn't exist, cannot delete it.: it is `{name}`");
    Err(RpcError::new(rpc::code::INVALID_PARAMS, text))
}
