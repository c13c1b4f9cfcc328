//! bdev_error_*: disks that fail on demand.

use std::sync::Arc;

use bdev::error::{ErrorDisk, Fault, Injection, Target};
use nix::errno::Errno;
use rpc::{Params, RegistryError, Responder, RpcError, When};
use serde::Deserialize;
use serde_json::Value;
use uuid::Uuid;

use super::Table;
use super::bdev_create::refused;
use super::bdev_delete::delete_layer;
use super::params::{BDEV, Name, uuid};
use crate::control::{Control, done};
use crate::disks::{Kind, Knob, Recipe};

pub(super) fn register(table: &mut Table) -> Result<(), RegistryError> {
    table
        .method("bdev_error_create", When::Runtime, create)?
        .deferred("bdev_error_delete", When::Runtime, delete)?
        .method("bdev_error_inject_error", When::Runtime, inject)?
        .method("bdev_error_resume_pending", When::Runtime, resume)?;
    Ok(())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Create {
    base_name: String,
    #[serde(default, deserialize_with = "uuid")]
    uuid: Option<Uuid>,
}

fn create(control: &mut Control, params: Params) -> Result<Value, RpcError> {
    let Create { base_name, uuid } = params.decode(BDEV)?;
    control.add_layer(&base_name, Recipe::Error { uuid })?;
    done()
}

fn delete(control: &mut Control, params: Params, responder: Responder) {
    delete_layer(control, params, responder, Kind::Error);
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum IoType {
    Clear,
    Read,
    Write,
    Unmap,
    Flush,
    All,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum ErrorType {
    Failure,
    Pending,
    CorruptData,
    Nomem,
    NvmeFailure,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Inject {
    name: String,
    io_type: IoType,
    error_type: ErrorType,
    #[serde(default)]
    nvme_sct: u32,
    #[serde(default)]
    nvme_sc: u32,
    #[serde(default = "once")]
    num: u32,
    #[serde(default)]
    queue_depth: u64,
    #[serde(default)]
    corrupt_offset: u64,
    #[serde(default)]
    corrupt_value: u8,
}

fn once() -> u32 {
    1
}

impl Inject {
    fn fault(&self) -> Result<Fault, RpcError> {
        let invalid = |reason: String| RpcError::errno(Errno::EINVAL, reason);
        let has_status = self.nvme_sct != 0 || self.nvme_sc != 0;
        if has_status != (self.error_type == ErrorType::NvmeFailure) {
            // SPDK's own text, without the errno's.
            let text = "nvme_sct or nvme_sc should be specified for NVMe error injection, and for no other";
            return Err(RpcError::new(-i64::from(Errno::EINVAL as i32), text));
        }
        Ok(match self.error_type {
            ErrorType::Failure => Fault::Failure,
            ErrorType::Pending => Fault::Pending,
            ErrorType::Nomem => Fault::NoMemory,
            ErrorType::CorruptData => Fault::CorruptData {
                offset: self.corrupt_offset,
                value: self.corrupt_value,
            },
            ErrorType::NvmeFailure => {
                // Three bits and eight (NVM Express Base 2.0c, figure 93).
                let sct = u8::try_from(self.nvme_sct).ok().filter(|sct| *sct <= 7);
                let sct = sct
                    .ok_or_else(|| invalid(format!("nvme_sct {} is more than 7", self.nvme_sct)))?;
                let sc = u8::try_from(self.nvme_sc)
                    .map_err(|_| invalid(format!("nvme_sc {} is more than 255", self.nvme_sc)))?;
                Fault::NvmeFailure { sct, sc }
            }
        })
    }
}

fn find(control: &Control, name: &str) -> Result<Arc<ErrorDisk>, RpcError> {
    match &control.disks.find_kind(name, Kind::Error)?.knob {
        Knob::Error(disk) => Ok(Arc::clone(disk)),
        Knob::None | Knob::Delay(_) => Err(RpcError::internal("an error bdev without its knob")),
    }
}

fn inject(control: &mut Control, params: Params) -> Result<Value, RpcError> {
    let wanted: Inject = params.decode(BDEV)?;
    let fault = wanted.fault()?;
    let disk = find(control, &wanted.name)?;
    let injection = Injection {
        fault,
        count: u64::from(wanted.num),
        queue_depth: wanted.queue_depth,
    };
    let targets = match wanted.io_type {
        IoType::Clear => {
            disk.clear();
            return done();
        }
        IoType::Read => &[Target::Read][..],
        IoType::Write => &[Target::Write],
        IoType::Unmap => &[Target::Unmap],
        IoType::Flush => &[Target::Flush],
        IoType::All => &Target::ALL,
    };
    disk.inject(targets, injection).map_err(refused)?;
    done()
}

fn resume(control: &mut Control, params: Params) -> Result<Value, RpcError> {
    let Name { name } = params.decode(BDEV)?;
    let disk = find(control, &name)?;
    disk.resume();
    for reactor in &control.reactors {
        let disk = Arc::clone(&disk);
        reactor.send(move |reactor| disk.wake(reactor.cx()));
    }
    done()
}
