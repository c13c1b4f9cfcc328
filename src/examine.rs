//! Looking at disks that have appeared: what was asked for on them is made, and partitions for us are found.
//!
//! ```text
//!  registered ─► decorators that wait for it ─► nobody has it? ─► read, on a reactor ─► a table? ─► a bdev per partition
//! ```
//! A look may take as long as the disk likes. Meanwhile anybody may have the disk: then its partitions are not shown.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use bdev::gpt::{self, Copy, Geometry, Partition, Table};
use bdev::part::{self, PartOptions};
use bdev::peek::{self, Peek};
use bdev::{Bdev, DriverValue, IoStatus};
use reactor::Ack;
use rpc::Responder;
use serde_json::Value;

use crate::control::{Control, Message};
use crate::disks::{Disk, Hints, Kind, Knob};
use crate::tuning::Tuning;

/// A disk that is being looked at.
struct Look {
    name: String,
    bdev: Weak<dyn Bdev>,
    peek: Peek,
    /// Who may not go on before it has ended.
    acks: Vec<Ack>,
}

/// Looks that go on, and calls that wait for them.
#[derive(Default)]
pub(crate) struct Examination {
    looks: BTreeMap<u64, Look>,
    last: u64,
    waiting: Vec<Responder>,
}

impl Examination {
    /// Answers `true` when no look goes on.
    pub(crate) fn when_done(&mut self, responder: Responder) {
        if self.looks.is_empty() {
            responder.ok(true);
        } else {
            self.waiting.push(responder);
        }
    }

    /// Lets go of calls that wait: nothing will come of it any more.
    pub(crate) fn abandon(&mut self) {
        self.waiting.clear();
    }

    /// Ends looks at a disk that goes; `ack` is kept until they have.
    pub(crate) fn hurry(&mut self, name: &str, ack: &Ack) {
        for look in self.looks.values_mut().filter(|look| look.name == name) {
            look.peek.hurry();
            look.acks.push(ack.clone());
        }
    }

    fn ended(&mut self) {
        if self.looks.is_empty() {
            for responder in self.waiting.drain(..) {
                responder.ok(true);
            }
        }
    }
}

impl Control {
    /// A disk has appeared: makes what waits for it, and looks for partitions.
    pub(crate) fn examine(&mut self, name: &str) {
        self.build_waiting(name);
        let wanted = self.options.bdev["vtarget_examine_gpt"] != false;
        let free = self
            .disks
            .find(name)
            .is_ok_and(|disk| self.holder_of(disk).is_none());
        if wanted && free {
            self.look(name, Copy::Primary);
        }
    }

    fn look(&mut self, name: &str, copy: Copy) {
        let (Ok(disk), Some(reactor)) = (self.disks.find(name), self.reactors.first()) else {
            return;
        };
        let Some(range) = geometry(disk).range_of(copy) else {
            return;
        };
        self.examination.last += 1;
        let (id, inbox) = (self.examination.last, self.inbox());
        let bdev = Arc::clone(&disk.bdev);
        let weak = Arc::downgrade(&bdev);
        let then = move |outcome| {
            let looked = move |control: &mut Control| control.looked(id, copy, outcome);
            let _ = inbox.send(Message::Run(Box::new(looked)));
        };
        let look = Look {
            name: name.to_owned(),
            bdev: weak,
            peek: peek::read(reactor, bdev, range.lba, range.blocks, then),
            acks: Vec::new(),
        };
        self.examination.looks.insert(id, look);
    }

    fn looked(&mut self, id: u64, copy: Copy, outcome: Result<Vec<u8>, IoStatus>) {
        let Some(look) = self.examination.looks.remove(&id) else {
            return;
        };
        let name = &look.name;
        let disk = self.disks.find(name).ok();
        let disk = disk.filter(|disk| Weak::ptr_eq(&Arc::downgrade(&disk.bdev), &look.bdev));
        if let Some(disk) = disk {
            match (copy, judge(copy, geometry(disk), outcome)) {
                (_, Judgement::Table(table)) => self.partition(name, &table),
                (Copy::Primary, Judgement::Damaged(reason)) => {
                    tracing::warn!(
                        bdev = name,
                        "the first copy of its partition table is damaged: {reason}"
                    );
                    self.look(name, Copy::Backup);
                }
                (Copy::Backup, Judgement::Damaged(reason)) => {
                    tracing::warn!(
                        bdev = name,
                        "so is the second; no partition is shown: {reason}"
                    );
                }
                (_, Judgement::Nothing) => {}
            }
        }
        drop(look);
        self.examination.ended();
    }

    /// Makes a bdev of each partition, unless somebody has the disk by now.
    fn partition(&mut self, base: &str, table: &Table) {
        let Ok(disk) = self.disks.find(base) else {
            return;
        };
        if let Some(holder) = self.holder_of(disk) {
            tracing::info!(
                bdev = base,
                holder,
                "its partitions are not shown: it is in use"
            );
            return;
        }
        let base_bdev = Arc::clone(&disk.bdev);
        let mut made: Vec<Disk> = Vec::new();
        for partition in &table.partitions {
            let uuid = Some(partition.guid).filter(|uuid| {
                let text = uuid.hyphenated().to_string();
                let is_taken = made.iter().any(|it| it.uuid == *uuid) || !self.is_free(&text);
                // Copies of a disk image have the same identities; a second one gets its own.
                !uuid.is_nil() && !is_taken
            });
            let options = PartOptions {
                name: format!("{base}p{}", partition.number),
                product_name: "GPT Disk",
                uuid,
                offset_blocks: partition.range.lba,
                num_blocks: partition.range.blocks,
                more: driver_specific(table, partition),
            };
            let name = options.name.clone();
            if !self.is_free(&name) {
                tracing::warn!(
                    bdev = base,
                    partition = name,
                    "a partition is not shown: its name is taken"
                );
                continue;
            }
            match part::create(Arc::clone(&base_bdev), options) {
                Ok(bdev) => made.push(Disk {
                    name,
                    uuid: bdev.info().uuid,
                    bdev,
                    kind: Kind::Gpt,
                    method: "its partition table",
                    params: Value::Null,
                    hints: Hints::default(),
                    claim: None,
                    base: Some(base.to_owned()),
                    layer: None,
                    knob: Knob::None,
                    tuning: Tuning::default(),
                }),
                Err(error) => tracing::warn!(
                    bdev = base,
                    partition = name,
                    "a partition is not shown: {error}"
                ),
            }
        }
        if let Err(error) = self.stack(base, "gpt", made) {
            tracing::warn!(bdev = base, "its partitions are not shown: {error}");
        }
    }

    fn is_free(&mut self, name: &str) -> bool {
        let is_free = self.disks.reserve(name).is_ok();
        if is_free {
            self.disks.release(name);
        }
        is_free
    }
}

fn geometry(disk: &Disk) -> Geometry {
    let info = disk.bdev.info();
    Geometry {
        block_size: info.block_size,
        num_blocks: info.num_blocks,
    }
}

/// What a look has found.
enum Judgement {
    Nothing,
    Damaged(gpt::GptError),
    Table(Table),
}

fn judge(copy: Copy, geometry: Geometry, outcome: Result<Vec<u8>, IoStatus>) -> Judgement {
    let Ok(data) = outcome else {
        return Judgement::Nothing;
    };
    if copy == Copy::Primary && gpt::check_mbr(&data).is_err() {
        return Judgement::Nothing;
    }
    match gpt::parse(copy, geometry, &data) {
        Ok(table) => Judgement::Table(table),
        Err(reason) => Judgement::Damaged(reason),
    }
}

fn driver_specific(table: &Table, partition: &Partition) -> Vec<(&'static str, DriverValue)> {
    let text = |uuid: uuid::Uuid| DriverValue::Text(uuid.hyphenated().to_string());
    vec![
        ("partition_table_guid", text(table.guid)),
        ("partition_type_guid", text(partition.type_guid)),
        ("unique_partition_guid", text(partition.guid)),
        ("partition_name", DriverValue::Text(partition.name.clone())),
    ]
}
