//! bdev_*_create.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use bdev::malloc::MallocOptions;
use bdev::null::NullOptions;
use bdev::uring::{Product, UringOptions};
use bdev::{BdevError, SharedBdev};
use nix::errno::Errno;
use rpc::{Params, RegistryError, Responder, RpcError, When};
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::Table;
use super::bdev::registered;
use super::params::{BDEV, uuid};
use crate::control::{Control, internal};
use crate::disks::{Disk, Hints, Kind, Knob};
use crate::tuning::Tuning;

pub(super) fn register(table: &mut Table) -> Result<(), RegistryError> {
    table
        .method("bdev_malloc_create", When::Runtime, malloc)?
        .method("bdev_null_create", When::Runtime, null)?
        .deferred("bdev_uring_create", When::Runtime, uring)?
        .deferred("bdev_aio_create", When::Runtime, aio)?;
    Ok(())
}

pub(crate) fn refused(error: BdevError) -> RpcError {
    RpcError::errno(error.errno, error.reason)
}

/// Metadata and protection information: the same words in two methods. Only none of it can be had.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Metadata {
    md_size: u32,
    dif_type: i32,
}

impl Metadata {
    fn refuse(&self) -> Result<(), RpcError> {
        if self.md_size == 0 && self.dif_type == 0 {
            return Ok(());
        }
        let reason =
            "metadata and protection information are not supported: leave out md_size and dif_type";
        Err(RpcError::errno(Errno::EINVAL, reason))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MallocCreate {
    name: Option<String>,
    block_size: u32,
    num_blocks: u64,
    #[serde(default, deserialize_with = "uuid")]
    uuid: Option<Uuid>,
    physical_block_size: Option<u32>,
    #[serde(default)]
    optimal_io_boundary: u32,
    #[serde(default)]
    md_size: u32,
    #[serde(default)]
    md_interleave: bool,
    #[serde(default)]
    dif_type: i32,
    #[serde(default)]
    dif_is_head_of_md: bool,
    #[serde(default)]
    dif_pi_format: u32,
    numa_id: Option<i32>,
}

fn malloc(control: &mut Control, params: Params) -> Result<Value, RpcError> {
    let wanted: MallocCreate = params.decode(BDEV)?;
    let (md_size, dif_type) = (wanted.md_size, wanted.dif_type);
    Metadata { md_size, dif_type }.refuse()?;
    let name = wanted
        .name
        .unwrap_or_else(|| control.disks.free_name("Malloc"));
    check_new(control, &name, wanted.uuid)?;
    let bdev = bdev::malloc::create(MallocOptions {
        name: name.clone(),
        block_size: wanted.block_size,
        num_blocks: wanted.num_blocks,
        physical_block_size: wanted.physical_block_size,
        uuid: wanted.uuid,
    })
    .map_err(refused)?;
    let info = bdev.info();
    let params = json!({
        "name": name, "num_blocks": info.num_blocks, "block_size": info.block_size,
        "physical_block_size": info.physical_block_size, "uuid": info.uuid.hyphenated().to_string(),
        "optimal_io_boundary": wanted.optimal_io_boundary, "md_size": 0, "md_interleave": wanted.md_interleave,
        "dif_type": 0, "dif_is_head_of_md": wanted.dif_is_head_of_md, "dif_pi_format": wanted.dif_pi_format,
        "numa_id": wanted.numa_id.unwrap_or(-1),
    });
    add(
        control,
        Kind::Malloc,
        "bdev_malloc_create",
        bdev,
        params,
        Hints::default(),
    )
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NullCreate {
    name: String,
    block_size: u32,
    num_blocks: u64,
    #[serde(default, deserialize_with = "uuid")]
    uuid: Option<Uuid>,
    physical_block_size: Option<u32>,
    #[serde(default)]
    md_size: u32,
    #[serde(default)]
    dif_type: i32,
    #[serde(default)]
    dif_pi_format: u32,
    #[serde(default)]
    dif_is_head_of_md: bool,
    #[serde(default)]
    preferred_write_granularity: u32,
    #[serde(default)]
    preferred_write_alignment: u32,
    #[serde(default)]
    optimal_write_size: u32,
    #[serde(default)]
    preferred_unmap_granularity: u32,
    #[serde(default)]
    preferred_unmap_alignment: u32,
}

fn null(control: &mut Control, params: Params) -> Result<Value, RpcError> {
    let wanted: NullCreate = params.decode(BDEV)?;
    let (md_size, dif_type) = (wanted.md_size, wanted.dif_type);
    Metadata { md_size, dif_type }.refuse()?;
    check_new(control, &wanted.name, wanted.uuid)?;
    let bdev = bdev::null::create(NullOptions {
        name: wanted.name.clone(),
        block_size: wanted.block_size,
        num_blocks: wanted.num_blocks,
        physical_block_size: wanted.physical_block_size,
        uuid: wanted.uuid,
    })
    .map_err(refused)?;
    let hints = Hints {
        preferred_write_granularity: wanted.preferred_write_granularity,
        preferred_write_alignment: wanted.preferred_write_alignment,
        optimal_write_size: wanted.optimal_write_size,
        preferred_unmap_granularity: wanted.preferred_unmap_granularity,
        preferred_unmap_alignment: wanted.preferred_unmap_alignment,
    };
    let info = bdev.info();
    let params = json!({
        "name": wanted.name, "num_blocks": info.num_blocks, "block_size": info.block_size,
        "physical_block_size": info.physical_block_size, "md_size": 0, "dif_type": 0,
        "dif_is_head_of_md": wanted.dif_is_head_of_md, "dif_pi_format": wanted.dif_pi_format,
        "uuid": info.uuid.hyphenated().to_string(),
        "preferred_write_granularity": hints.preferred_write_granularity,
        "preferred_write_alignment": hints.preferred_write_alignment,
        "optimal_write_size": hints.optimal_write_size,
        "preferred_unmap_granularity": hints.preferred_unmap_granularity,
        "preferred_unmap_alignment": hints.preferred_unmap_alignment,
    });
    add(control, Kind::Null, "bdev_null_create", bdev, params, hints)
}

/// Refuses a name or UUID that is taken, before anything is made.
fn check_new(control: &mut Control, name: &str, uuid: Option<Uuid>) -> Result<(), RpcError> {
    control.disks.reserve(name)?;
    control.disks.release(name);
    if let Some(uuid) = uuid.map(|uuid| uuid.hyphenated().to_string()) {
        control.disks.reserve(&uuid)?;
        control.disks.release(&uuid);
    }
    Ok(())
}

/// Adds a disk that was made; the answer is its name.
fn add(
    control: &mut Control,
    kind: Kind,
    method: &'static str,
    bdev: SharedBdev,
    params: Value,
    hints: Hints,
) -> Result<Value, RpcError> {
    let info = bdev.info();
    let name = info.name.clone();
    control.disks.add(Disk {
        bdev,
        name: info.name,
        uuid: info.uuid,
        kind,
        method,
        params,
        hints,
        claim: None,
        base: None,
        layer: None,
        knob: Knob::None,
        tuning: Tuning::default(),
    })?;
    registered(control, &name);
    Ok(name.into())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct UringCreate {
    name: String,
    filename: PathBuf,
    block_size: Option<u32>,
    #[serde(default, deserialize_with = "uuid")]
    uuid: Option<Uuid>,
}

fn uring(control: &mut Control, params: Params, responder: Responder) {
    // SPDK gives one code and text for everything that goes wrong here.
    let refuse = |error: RpcError| internal("Unable to create URING bdev", error.message);
    let wanted: UringCreate = match params.decode(BDEV) {
        Ok(wanted) => wanted,
        Err(error) => return responder.err(error),
    };
    let options = UringOptions {
        block_size: wanted.block_size.filter(|size| *size != 0),
        uuid: wanted.uuid,
        ..UringOptions::new(wanted.name, wanted.filename)
    };
    open_file(control, Kind::Uring, options, refuse, responder);
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AioCreate {
    name: String,
    filename: PathBuf,
    block_size: Option<u32>,
    #[serde(default)]
    readonly: bool,
    #[serde(default)]
    fallocate: bool,
    #[serde(default, deserialize_with = "uuid")]
    uuid: Option<Uuid>,
    #[serde(default)]
    nowait: bool,
}

fn aio(control: &mut Control, params: Params, responder: Responder) {
    let wanted: AioCreate = match params.decode(BDEV) {
        Ok(wanted) => wanted,
        Err(error) => return responder.err(error),
    };
    let options = UringOptions {
        block_size: wanted.block_size.filter(|size| *size != 0),
        readonly: wanted.readonly,
        uuid: wanted.uuid,
        unmap: wanted.fallocate,
        product: Product::Aio {
            nowait: wanted.nowait,
        },
        ..UringOptions::new(wanted.name, wanted.filename)
    };
    open_file(control, Kind::Aio, options, |error| error, responder);
}

/// How long a file may still be in the hands of whoever had it last. A daemon that was killed in the middle of I/O keeps its
/// files, and so their locks, until the kernel has ended that I/O and taken its ring apart; its successor may be here before.
const LAST_OWNER: Duration = Duration::from_secs(2);
/// Pause between looks at it.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// Makes the disk; tries again for some time while somebody else has the file.
fn create_patiently(options: &UringOptions, patience: Duration) -> Result<SharedBdev, BdevError> {
    let start = Instant::now();
    loop {
        match bdev::uring::create(options.clone()) {
            Err(error) if error.errno == Errno::EBUSY && start.elapsed() < patience => {
                std::thread::sleep(LOOK_AGAIN);
            }
            result => return result,
        }
    }
}

/// Opens a file on a helper thread, then adds the disk.
fn open_file(
    control: &mut Control,
    kind: Kind,
    options: UringOptions,
    refuse: impl Fn(RpcError) -> RpcError + Send + 'static,
    responder: Responder,
) {
    let name = options.name.clone();
    let uuid = options.uuid;
    if let Err(error) = check_new(control, &name, uuid).and_then(|()| control.disks.reserve(&name))
    {
        return responder.err(refuse(error));
    }
    let saved = options.clone();
    let mut others = control.disks.iter();
    let is_ours = others.any(|disk| disk.params["filename"] == json!(options.filename));
    let patience = if is_ours { Duration::ZERO } else { LAST_OWNER };
    control.help(
        move || create_patiently(&options, patience),
        move |control, result| {
            control.disks.release(&name);
            let outcome = match result {
                Some(Ok(bdev)) => {
                    let (method, params) = call(kind, &saved, &bdev);
                    add(control, kind, method, bdev, params, Hints::default())
                }
                Some(Err(error)) => Err(refused(error)),
                None => Err(RpcError::internal(
                    "opening the file has failed inside vtarget",
                )),
            };
            responder.answer(outcome.map_err(refuse));
        },
    );
}

/// The call that makes the disk again.
fn call(kind: Kind, options: &UringOptions, bdev: &SharedBdev) -> (&'static str, Value) {
    let uuid = bdev.info().uuid.hyphenated().to_string();
    let mut params = json!({"name": options.name, "filename": options.filename, "uuid": uuid});
    if let Some(block_size) = options.block_size {
        params["block_size"] = block_size.into();
    }
    let Product::Aio { nowait } = options.product else {
        return ("bdev_uring_create", params);
    };
    debug_assert_eq!(kind, Kind::Aio);
    params["readonly"] = options.readonly.into();
    params["fallocate"] = options.unmap.into();
    params["nowait"] = nowait.into();
    ("bdev_aio_create", params)
}
