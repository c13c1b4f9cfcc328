//! Subsystems, who may use them, and where they listen.

use nix::errno::Errno;
use rpc::{Params, RegistryError, Responder, RpcError, When};
use serde::Deserialize;
use serde_json::Value;

use super::Table;
use super::params::{ListenAddress, NVMF, Nqn, check_host, check_target};
use crate::control::{Control, done, internal, reply_done, still_draining};
use crate::nvmf::{
    AnaState, DISCOVERY_NQN, DRAIN_TIMEOUT, Host, NewListener, Subsystem, SubsystemOptions,
    check_nqn, check_text,
};

pub(super) fn register(table: &mut Table) -> Result<(), RegistryError> {
    table
        .method("nvmf_create_subsystem", When::Runtime, create)?
        .deferred("nvmf_delete_subsystem", When::Runtime, delete)?
        .method(
            "nvmf_subsystem_allow_any_host",
            When::Runtime,
            allow_any_host,
        )?
        .method("nvmf_subsystem_add_host", When::Runtime, add_host)?
        .method("nvmf_subsystem_remove_host", When::Runtime, remove_host)?
        .method("nvmf_subsystem_add_listener", When::Runtime, add_listener)?
        .deferred(
            "nvmf_subsystem_remove_listener",
            When::Runtime,
            remove_listener,
        )?;
    Ok(())
}

/// Namespaces of a subsystem unless more are asked for, as in SPDK.
const DEFAULT_NAMESPACES: u32 = 32;
/// Most namespaces: 0xffffffff means "all" (NVM Express Base 2.0, section 3.2.1.5), and Identify lists go one below.
const MAX_NAMESPACES: u32 = 0xffff_fffd;
/// Highest controller ID (NVM Express Base 2.0, section 3.1.1: 0xfff0 and up are reserved).
const MAX_CNTLID: u16 = 0xffef;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Create {
    nqn: String,
    tgt_name: Option<String>,
    serial_number: Option<String>,
    model_number: Option<String>,
    admin_label: Option<String>,
    max_namespaces: Option<u32>,
    #[serde(default)]
    allow_any_host: bool,
    #[serde(default)]
    ana_reporting: bool,
    min_cntlid: Option<u16>,
    max_cntlid: Option<u16>,
    /// What SPDK had instead of `dmrsl` and `wzsl`, deprecated there.
    max_discard_size_kib: Option<u64>,
    max_write_zeroes_size_kib: Option<u64>,
    dmrsl: Option<u32>,
    wzsl: Option<u8>,
    #[serde(default)]
    passthrough: bool,
    #[serde(default)]
    enable_nssr: bool,
}

fn create(control: &mut Control, params: Params) -> Result<Value, RpcError> {
    let wanted: Create = params.decode(NVMF)?;
    check_target(wanted.tgt_name.as_deref())?;
    let nqn = wanted.nqn;
    let unable = |reason: String| internal(&format!("Unable to create subsystem {nqn}"), reason);
    check_nqn(&nqn).map_err(unable)?;
    if control
        .nvmf
        .subsystems
        .iter()
        .any(|it| it.options.nqn == nqn)
    {
        return Err(unable("it exists already".to_owned()));
    }
    if u32::try_from(control.nvmf.subsystems.len()).unwrap_or(u32::MAX)
        >= control.options.nvmf_max_subsystems
    {
        let most = control.options.nvmf_max_subsystems;
        return Err(unable(format!(
            "there are {most} already, raise nvmf_set_max_subsystems"
        )));
    }
    let zeroes = || "00000000000000000000".to_owned();
    let serial_number = wanted.serial_number.unwrap_or_else(zeroes);
    let model_number = wanted
        .model_number
        .unwrap_or_else(|| "SPDK bdev Controller".to_owned());
    let invalid = |reason: String| RpcError::invalid_params(reason);
    check_text("serial_number", &serial_number, 20).map_err(invalid)?;
    check_text("model_number", &model_number, 40).map_err(invalid)?;
    if let Some(label) = &wanted.admin_label
        && !(4..=256).contains(&label.len())
    {
        return Err(RpcError::invalid_params(
            "admin_label must have 4 to 256 bytes",
        ));
    }
    let (first, last) = (
        wanted.min_cntlid.unwrap_or(1),
        wanted.max_cntlid.unwrap_or(MAX_CNTLID),
    );
    if first == 0 || first > last || last > MAX_CNTLID {
        let text = format!("Invalid cntlid range [{first}-{last}]: it must lie in 1-{MAX_CNTLID}");
        return Err(RpcError::new(rpc::code::INVALID_PARAMS, text));
    }
    let max_namespaces = match wanted.max_namespaces {
        None | Some(0) => DEFAULT_NAMESPACES,
        Some(most) if most > MAX_NAMESPACES => {
            let reason = format!("max_namespaces {most} is more than {MAX_NAMESPACES}");
            return Err(RpcError::invalid_params(reason));
        }
        Some(most) => most,
    };
    if wanted.passthrough {
        let reason =
            "passthrough needs a bdev that is an NVMe controller, and there is no such bdev here";
        return Err(RpcError::invalid_params(reason));
    }
    let dmrsl = match wanted.max_discard_size_kib {
        // A KiB is two of the blocks that SPDK counts in.
        Some(kib) => Some(u32::try_from(kib.saturating_mul(2)).unwrap_or(u32::MAX)),
        None => wanted.dmrsl,
    };
    let wzsl = match wanted.max_write_zeroes_size_kib {
        Some(kib) => Some(wzsl_of(kib)?),
        None => wanted.wzsl,
    };
    control
        .nvmf
        .subsystems
        .push(Subsystem::new(SubsystemOptions {
            nqn,
            allow_any_host: wanted.allow_any_host,
            serial_number,
            model_number,
            admin_label: wanted.admin_label,
            max_namespaces,
            min_cntlid: first,
            max_cntlid: last,
            ana_reporting: wanted.ana_reporting,
            dmrsl: dmrsl.unwrap_or(2_097_152),
            wzsl: wzsl.unwrap_or(12),
            passthrough: false,
            enable_nssr: wanted.enable_nssr,
        }));
    done()
}

/// The size limit of Write Zeroes, as a power of two of 4 KiB (NVM Command Set 1.0, figure 118: WZSL), from KiB.
fn wzsl_of(kib: u64) -> Result<u8, RpcError> {
    match kib {
        0 => Ok(0),
        8.. if kib.is_power_of_two() => Ok(u8::try_from((kib / 4).ilog2()).unwrap_or(u8::MAX)),
        _ => {
            let text = format!("Invalid max_write_zeroes_size_kib {kib}");
            let reason = "it is neither 0 nor a power of two from 8 on";
            Err(RpcError::new(
                rpc::code::INVALID_PARAMS,
                format!("{text}: {reason}"),
            ))
        }
    }
}

/// A subsystem goes: endpoints first, with their guests' I/O, then everything else.
fn delete(control: &mut Control, params: Params, responder: Responder) {
    let found = params
        .decode(NVMF)
        .and_then(Nqn::checked)
        .and_then(|nqn| match nqn.as_str() {
            DISCOVERY_NQN => Err(RpcError::invalid_params("the discovery subsystem stays")),
            _ => control.nvmf.find_mut(&nqn).map(|_| nqn),
        });
    let nqn = match found {
        Ok(nqn) => nqn,
        Err(error) => return responder.err(error),
    };
    let late = still_draining(&format!("subsystem {nqn}"));
    let name = nqn.clone();
    let ack = control.wait(
        Some(responder),
        DRAIN_TIMEOUT,
        late,
        move |control, responder| {
            control.nvmf.subsystems.retain(|it| it.options.nqn != name);
            control.disks.release_claims(&name);
            reply_done(control, responder);
        },
    );
    if let Ok(subsystem) = control.nvmf.find_mut(&nqn) {
        subsystem.delete(ack);
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AllowAnyHost {
    nqn: String,
    tgt_name: Option<String>,
    allow_any_host: bool,
}

fn allow_any_host(control: &mut Control, params: Params) -> Result<Value, RpcError> {
    let wanted: AllowAnyHost = params.decode(NVMF)?;
    check_target(wanted.tgt_name.as_deref())?;
    let subsystem = control.nvmf.find_mut(&wanted.nqn)?;
    subsystem.options.allow_any_host = wanted.allow_any_host;
    subsystem.hosts_changed();
    done()
}

/// Unknown members are taken, as SPDK does here. Keys for authentication have no use: vfio-user has none.
#[derive(Deserialize)]
#[expect(dead_code, reason = "the types of what has no use are checked too")]
struct AddHost {
    nqn: String,
    tgt_name: Option<String>,
    host: String,
    dhchap_key: Option<String>,
    dhchap_ctrlr_key: Option<String>,
}

fn add_host(control: &mut Control, params: Params) -> Result<Value, RpcError> {
    let wanted: AddHost = params.decode(NVMF)?;
    check_target(wanted.tgt_name.as_deref())?;
    check_host(&wanted.host)?;
    let subsystem = control.nvmf.find_mut(&wanted.nqn)?;
    if subsystem.hosts.iter().any(|host| host.nqn == wanted.host) {
        let reason = format!("host {} is allowed already", wanted.host);
        return Err(RpcError::internal(reason));
    }
    subsystem.hosts.push(Host { nqn: wanted.host });
    subsystem.hosts_changed();
    done()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RemoveHost {
    nqn: String,
    tgt_name: Option<String>,
    host: String,
    #[expect(dead_code, reason = "nobody waits for clients to be gone")]
    timeout_ms: Option<u64>,
}

fn remove_host(control: &mut Control, params: Params) -> Result<Value, RpcError> {
    let wanted: RemoveHost = params.decode(NVMF)?;
    check_target(wanted.tgt_name.as_deref())?;
    let subsystem = control.nvmf.find_mut(&wanted.nqn)?;
    let before = subsystem.hosts.len();
    subsystem.hosts.retain(|host| host.nqn != wanted.host);
    if subsystem.hosts.len() == before {
        let reason = format!("host {} was not allowed", wanted.host);
        return Err(RpcError::internal(reason));
    }
    subsystem.hosts_changed();
    subsystem.dismiss(&wanted.host);
    done()
}

/// Unknown members are taken, as SPDK does here.
#[derive(Deserialize)]
struct AddListener {
    nqn: String,
    tgt_name: Option<String>,
    listen_address: ListenAddress,
    #[serde(default)]
    secure_channel: bool,
    ana_state: Option<AnaState>,
    #[expect(dead_code, reason = "there is no network socket")]
    sock_impl: Option<String>,
    numa_id: Option<i32>,
    /// Ours: who is behind the socket.
    hostnqn: Option<String>,
}

fn add_listener(control: &mut Control, params: Params) -> Result<Value, RpcError> {
    let wanted: AddListener = params.decode(NVMF)?;
    check_target(wanted.tgt_name.as_deref())?;
    let address = wanted.listen_address.checked()?;
    if [DISCOVERY_NQN, "discovery"].contains(&wanted.nqn.as_str()) {
        let reason = "the discovery subsystem cannot be reached over vfio-user";
        return Err(RpcError::invalid_params(reason));
    }
    if let Some(host) = &wanted.hostnqn {
        check_host(host)?;
    }
    control.add_listener(
        &wanted.nqn,
        NewListener {
            address,
            ana_state: wanted.ana_state,
            host: wanted.hostnqn,
            numa_id: wanted.numa_id.unwrap_or(-1),
            secure_channel: wanted.secure_channel,
        },
    )?;
    done()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RemoveListener {
    nqn: String,
    tgt_name: Option<String>,
    listen_address: ListenAddress,
}

fn remove_listener(control: &mut Control, params: Params, responder: Responder) {
    let decoded = params.decode(NVMF).and_then(|wanted: RemoveListener| {
        check_target(wanted.tgt_name.as_deref())?;
        let address = wanted.listen_address.checked()?;
        control
            .nvmf
            .find_mut(&wanted.nqn)?
            .check_listens(&address)?;
        Ok((wanted.nqn, address))
    });
    let (nqn, address) = match decoded {
        Ok(decoded) => decoded,
        Err(error) => return responder.err(error),
    };
    let late = RpcError::errno(
        Errno::EBUSY,
        format!(
            "the endpoint {} is closed, but its guest's I/O has not ended yet",
            address.traddr
        ),
    );
    let ack = control.wait(Some(responder), DRAIN_TIMEOUT, late, reply_done);
    if let Ok(subsystem) = control.nvmf.find_mut(&nqn) {
        subsystem.remove_listener(&address, ack);
    }
}
