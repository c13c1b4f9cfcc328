//! Subsystems, their namespaces, and the endpoints behind which guests find them.

mod access;
mod endpoint;
mod names;
mod publish;
mod save;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bdev::SharedBdev;
use nvme::{ControllerHandle, NamespaceSet};
use reactor::{Ack, ReactorHandle};
use rpc::RpcError;
use serde::{Deserialize, Serialize};
use uuid::Uuid;
use vfio_user::EndpointHandle;

pub(crate) use access::{AnaState, AnaStates, View};
pub(crate) use endpoint::NewListener;
pub(crate) use names::{check_nqn, check_text, hex, parse_uuid};
pub(crate) use publish::DRAIN_TIMEOUT;

/// The subsystem that every target has.
pub(crate) const DISCOVERY_NQN: &str = "nqn.2014-08.org.nvmexpress.discovery";
/// The only target there is.
pub(crate) const TARGET: &str = "nvmf_tgt";
/// The only transport there is.
pub(crate) const TRANSPORT: &str = "VFIOUSER";

/// Settings of the transport, which hold for every controller made afterwards.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Transport {
    pub(crate) max_queue_depth: u32,
    pub(crate) max_io_qpairs_per_ctrlr: u16,
    pub(crate) in_capsule_data_size: u32,
    pub(crate) max_io_size: u32,
    pub(crate) max_aq_depth: u32,
    pub(crate) iobuf_small_cache_size: u32,
    pub(crate) iobuf_large_cache_size: u32,
    pub(crate) dif_insert_or_strip: bool,
    pub(crate) zcopy: bool,
    pub(crate) abort_timeout_sec: u32,
    pub(crate) ack_timeout: u32,
    pub(crate) data_wr_pool_size: u32,
    pub(crate) disable_command_passthru: bool,
    pub(crate) kas: u16,
    pub(crate) min_kato: u32,
    pub(crate) acceptor_poll_rate: u32,
    pub(crate) masked_oncs: Vec<String>,
    pub(crate) masked_fuses: Vec<String>,
    pub(crate) disable_mappable_bar0: bool,
    pub(crate) disable_adaptive_irq: bool,
    pub(crate) disable_shadow_doorbells: bool,
    pub(crate) enable_intr_mode_sq_spreading: bool,
}

impl Default for Transport {
    fn default() -> Self {
        Self {
            max_queue_depth: 1024,
            max_io_qpairs_per_ctrlr: 127,
            in_capsule_data_size: 0,
            max_io_size: 1 << 20,
            max_aq_depth: 32,
            iobuf_small_cache_size: 0,
            iobuf_large_cache_size: 0,
            dif_insert_or_strip: false,
            zcopy: false,
            abort_timeout_sec: 1,
            ack_timeout: 0,
            data_wr_pool_size: 0,
            disable_command_passthru: false,
            kas: 100,
            min_kato: 10_000,
            acceptor_poll_rate: 10_000,
            masked_oncs: Vec::new(),
            masked_fuses: Vec::new(),
            disable_mappable_bar0: false,
            disable_adaptive_irq: false,
            disable_shadow_doorbells: false,
            enable_intr_mode_sq_spreading: false,
        }
    }
}

/// A host that may connect; see the module `access` for what that means here.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Host {
    pub(crate) nqn: String,
}

/// What `nvmf_create_subsystem` says.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct SubsystemOptions {
    pub(crate) nqn: String,
    pub(crate) allow_any_host: bool,
    pub(crate) serial_number: String,
    pub(crate) model_number: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) admin_label: Option<String>,
    pub(crate) max_namespaces: u32,
    pub(crate) min_cntlid: u16,
    pub(crate) max_cntlid: u16,
    pub(crate) ana_reporting: bool,
    pub(crate) dmrsl: u32,
    pub(crate) wzsl: u8,
    pub(crate) passthrough: bool,
    pub(crate) enable_nssr: bool,
}

/// A namespace and the disk behind it.
#[derive(Clone, Debug)]
pub(crate) struct NamespaceEntry {
    pub(crate) bdev: SharedBdev,
    pub(crate) bdev_name: String,
    pub(crate) uuid: Uuid,
    pub(crate) nguid: Option<[u8; 16]>,
    pub(crate) eui64: Option<[u8; 8]>,
    pub(crate) anagrpid: Option<u32>,
    pub(crate) ptpl_file: Option<String>,
    pub(crate) no_auto_visible: bool,
    /// Hosts that see it, if not all do.
    pub(crate) hosts: BTreeSet<String>,
}

/// Where a listener is, in SPDK's words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Address {
    pub(crate) trtype: &'static str,
    pub(crate) adrfam: &'static str,
    pub(crate) traddr: String,
    pub(crate) trsvcid: String,
}

/// Numbers listeners over the daemon's life, so that news of one that is gone is not taken for another's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ListenerId(u64);

/// An endpoint of a subsystem.
#[derive(Debug)]
pub(crate) struct Listener {
    id: ListenerId,
    pub(crate) address: Address,
    pub(crate) view: View,
    pub(crate) numa_id: i32,
    pub(crate) secure_channel: bool,
    /// Of each controller behind it; there is one at a time.
    cntlid: u16,
    home: ReactorHandle,
    endpoint: EndpointHandle,
    /// The last client's.
    controller: Option<ControllerHandle>,
    /// Clients so far.
    connections: u64,
}

impl Listener {
    /// The controller, if a client is connected.
    pub(crate) fn controller(&self) -> Option<&ControllerHandle> {
        self.controller
            .as_ref()
            .filter(|_| self.endpoint.is_connected())
    }

    pub(crate) fn id(&self) -> ListenerId {
        self.id
    }

    /// Of each controller behind it.
    pub(crate) fn cntlid(&self) -> u16 {
        self.cntlid
    }

    /// Its home reactor.
    pub(crate) fn lcore(&self) -> u32 {
        self.home.lcore()
    }

    /// Clients so far.
    pub(crate) fn connections(&self) -> u64 {
        self.connections
    }
}

/// A subsystem.
#[derive(Debug)]
pub(crate) struct Subsystem {
    pub(crate) options: SubsystemOptions,
    pub(crate) hosts: Vec<Host>,
    pub(crate) namespaces: BTreeMap<u32, NamespaceEntry>,
    pub(crate) listeners: Vec<Listener>,
    /// It is being deleted: nothing about it may change any more.
    pub(crate) deleting: bool,
}

impl Subsystem {
    pub(crate) fn new(options: SubsystemOptions) -> Self {
        Self {
            options,
            hosts: Vec::new(),
            namespaces: BTreeMap::new(),
            listeners: Vec::new(),
            deleting: false,
        }
    }
}

/// All of it.
#[derive(Debug, Default)]
pub(crate) struct Nvmf {
    pub(crate) transport: Option<Transport>,
    /// The transport was not asked for, so `nvmf_create_transport` may still replace it.
    pub(crate) transport_is_default: bool,
    pub(crate) subsystems: Vec<Subsystem>,
    last_listener: u64,
}

impl Nvmf {
    /// Makes a transport for disks of the command line, if there is none.
    pub(crate) fn default_transport(&mut self) {
        if self.transport.is_none() {
            self.transport = Some(Transport::default());
            self.transport_is_default = true;
        }
    }

    /// The subsystem with this NQN, if it is not on its way out.
    ///
    /// # Errors
    /// -32602, as SPDK.
    pub(crate) fn find(&self, nqn: &str) -> Result<&Subsystem, RpcError> {
        let found = self.subsystems.iter().find(|it| it.options.nqn == nqn);
        found.ok_or_else(|| no_subsystem(nqn))
    }

    /// The subsystem with this NQN, to change it.
    ///
    /// # Errors
    /// -32602 if there is none or it is being deleted.
    pub(crate) fn find_mut(&mut self, nqn: &str) -> Result<&mut Subsystem, RpcError> {
        let found = self.subsystems.iter_mut().find(|it| it.options.nqn == nqn);
        let subsystem = found.ok_or_else(|| no_subsystem(nqn))?;
        if subsystem.deleting {
            let reason = format!("subsystem {nqn} is already being destroyed");
            return Err(RpcError::invalid_params(reason));
        }
        Ok(subsystem)
    }

    /// A client got its controller.
    pub(crate) fn connected(
        &mut self,
        id: ListenerId,
        controller: ControllerHandle,
        namespaces: &Arc<NamespaceSet>,
    ) {
        for subsystem in &mut self.subsystems {
            let Some(listener) = subsystem.listeners.iter_mut().find(|it| it.id == id) else {
                continue;
            };
            let shown = listener.view.shown.load_full();
            tracing::debug!(endpoint = listener.address.traddr, "a client has connected");
            if !Arc::ptr_eq(&shown, namespaces) {
                // It was made just before the namespaces changed.
                controller.set_namespaces(shown, Ack::with(|| {}));
            }
            listener.controller = Some(controller);
            listener.connections += 1;
            return;
        }
    }

    /// Removes all endpoints; `ack` goes when their guests' I/O has ended.
    pub(crate) fn remove_endpoints(&self, ack: &Ack) {
        for listener in self.subsystems.iter().flat_map(|it| &it.listeners) {
            listener.endpoint.remove(ack.clone());
        }
    }
}

fn no_subsystem(nqn: &str) -> RpcError {
    RpcError::invalid_params(format!("there is no subsystem {nqn}"))
}
