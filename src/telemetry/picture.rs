//! Answers put together.

use std::collections::BTreeMap;

use bdev::{IoStats, LatencyHistogram, OpStats, Traffic};
use nvme::ControllerSnapshot;
use reactor::{Mode, tick_rate, ticks};
use virtio::BlkSnapshot;

use super::gather::{Answer, Party, ReactorAnswer};
use super::{
    BdevTelemetry, ControllerState, ControllerTelemetry, NamespaceTelemetry, OpTelemetry,
    PollerTelemetry, QueueCounters, QueueTelemetry, RateLimitTelemetry, ReactorTelemetry,
    RpcTelemetry, Telemetry,
};
use crate::control::Control;
use crate::disks::Disk;
use crate::nvmf::{Listener, Subsystem};
use crate::virtio_blk::BlkEndpoint;

impl Control {
    /// What is known now.
    pub(super) fn picture(&self) -> Telemetry {
        let nvme = self
            .nvmf
            .subsystems
            .iter()
            .flat_map(|subsystem| subsystem.listeners.iter().map(move |it| (subsystem, it)))
            .map(|(subsystem, listener)| self.nvme(subsystem, listener));
        let blk = self.blk.all().map(|endpoint| self.blk(endpoint));
        let uptime = self.gathering.uptime().as_millis();
        Telemetry {
            tick_rate: tick_rate(),
            ticks: ticks(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            uptime_ms: u64::try_from(uptime).unwrap_or(u64::MAX),
            latency_bounds_ns: LatencyHistogram::bounds_ns().to_vec(),
            reactors: (0..self.reactors.len())
                .map(|at| self.reactor(at))
                .collect(),
            bdevs: self.disks.iter().map(|disk| self.bdev(disk)).collect(),
            controllers: nvme.chain(blk).collect(),
            rpc: RpcTelemetry {
                clients: u64::try_from(self.rpc_clients()).unwrap_or(u64::MAX),
                requests: self.gathering.requests,
            },
            events: self.events.counts(),
        }
    }

    fn reactor_answer(&self, index: usize) -> Option<&ReactorAnswer> {
        match self.gathering.known(Party::Reactor(index)) {
            Some(Answer::Reactor(answer)) => Some(answer),
            _ => None,
        }
    }

    fn reactor(&self, index: usize) -> ReactorTelemetry {
        let lcore = self.reactors.get(index).map(reactor::ReactorHandle::lcore);
        let Some(answer) = self.reactor_answer(index) else {
            return ReactorTelemetry {
                lcore: lcore.unwrap_or_default(),
                ..ReactorTelemetry::default()
            };
        };
        let stats = &answer.stats;
        let pollers = stats.pollers.iter().map(|poller| PollerTelemetry {
            name: poller.name.clone(),
            id: poller.id,
            run_count: poller.run_count,
            busy_count: poller.busy_count,
        });
        let mode = match stats.mode {
            Mode::Poll => "poll",
            Mode::Adaptive => "adaptive",
            Mode::Interrupt => "interrupt",
        };
        ReactorTelemetry {
            lcore: stats.lcore,
            responding: self.gathering.is_fresh(Party::Reactor(index)),
            mode: mode.to_owned(),
            busy: stats.busy,
            idle: stats.idle,
            in_flight: stats.in_flight.into(),
            enters: stats.enters,
            pollers: pollers.collect(),
        }
    }

    fn bdev(&self, disk: &Disk) -> BdevTelemetry {
        let mut sum = IoStats::default();
        let answers = (0..self.reactors.len()).filter_map(|index| self.reactor_answer(index));
        for stats in answers.filter_map(|answer| answer.bdev(&disk.bdev)) {
            sum.add(stats);
        }
        let info = disk.bdev.info();
        BdevTelemetry {
            product_name: info.product_name.to_string(),
            name: info.name,
            block_size: info.block_size,
            num_blocks: info.num_blocks,
            claimed: disk.claim.is_some(),
            read: timed(&sum.read, &sum.read_latency),
            write: timed(&sum.write, &sum.write_latency),
            unmap: op(&sum.unmap),
            flush: op(&sum.flush),
            write_zeroes: op(&sum.write_zeroes),
            compare: op(&sum.compare),
            failed: sum.failures.total(),
            errors: errors(&sum),
            in_flight: sum.in_flight,
            queued: sum.held,
            rate_limits: RateLimitTelemetry {
                rw_ios_per_sec: disk.tuning.limits.rw_ios_per_sec,
                rw_mbytes_per_sec: disk.tuning.limits.rw_mbytes_per_sec,
                r_mbytes_per_sec: disk.tuning.limits.r_mbytes_per_sec,
                w_mbytes_per_sec: disk.tuning.limits.w_mbytes_per_sec,
            },
        }
    }

    fn nvme(&self, subsystem: &Subsystem, listener: &Listener) -> ControllerTelemetry {
        let party = Party::nvme(listener);
        let snapshot: Option<&ControllerSnapshot> = match self.gathering.known(party) {
            Some(Answer::Nvme(snapshot)) if listener.controller().is_some() => Some(snapshot),
            _ => None,
        };
        let state = match snapshot {
            _ if listener.controller().is_none() => ControllerState::Listening,
            Some(snapshot) if snapshot.failed => ControllerState::Failed,
            Some(snapshot) if snapshot.ready => ControllerState::Enabled,
            _ => ControllerState::Connected,
        };
        let queues = snapshot.into_iter().flat_map(|snapshot| &snapshot.queues);
        let queues = queues.map(|queue| QueueTelemetry {
            qid: queue.qid,
            entries: queue.entries,
            lcore: queue.lcore,
            in_flight: queue.in_flight.into(),
            counters: counters(&queue.traffic, queue.interrupts),
        });
        let counted = |nsid: u32| {
            let mut namespaces = snapshot?.namespaces.iter();
            let found = namespaces.find(|it| it.nsid == nsid)?;
            Some(counters(&found.traffic, 0))
        };
        let namespaces = subsystem.namespaces.iter();
        let namespaces = namespaces.map(|(nsid, entry)| NamespaceTelemetry {
            nsid: *nsid,
            bdev: entry.bdev_name.clone(),
            counters: counted(*nsid).unwrap_or_default(),
            total: self.gathering.namespace_total(party, *nsid),
        });
        ControllerTelemetry {
            kind: "nvme".to_owned(),
            name: listener.address.traddr.clone(),
            address: listener.address.traddr.clone(),
            subsystem: Some(subsystem.options.nqn.clone()),
            cntlid: Some(listener.cntlid()),
            state,
            responding: listener.controller().is_none() || self.gathering.is_fresh(party),
            lcore: listener.lcore(),
            connections: listener.connections(),
            total: self.gathering.total(party),
            queues: queues.collect(),
            namespaces: namespaces.collect(),
        }
    }

    fn blk(&self, endpoint: &BlkEndpoint) -> ControllerTelemetry {
        let party = Party::blk(endpoint);
        let snapshot: Option<&BlkSnapshot> = match self.gathering.known(party) {
            Some(Answer::Blk(snapshot)) if endpoint.client().is_some() => Some(snapshot),
            _ => None,
        };
        let state = match snapshot {
            _ if endpoint.client().is_none() => ControllerState::Listening,
            // Without a queue no driver can do anything; with one, it does.
            Some(snapshot) if !snapshot.queues.is_empty() => ControllerState::Enabled,
            _ => ControllerState::Connected,
        };
        let queues = snapshot.into_iter().flat_map(|snapshot| &snapshot.queues);
        let queues = queues.map(|queue| QueueTelemetry {
            qid: queue.index,
            entries: queue.size.into(),
            lcore: queue.lcore,
            in_flight: queue.in_flight.into(),
            counters: counters(&queue.traffic, queue.interrupts),
        });
        let queues: Vec<_> = queues.collect();
        let mut sum = QueueCounters::default();
        for queue in &queues {
            sum.add(&queue.counters);
        }
        let namespaces = endpoint.disk().map(|disk| NamespaceTelemetry {
            nsid: 1,
            bdev: disk.name.clone(),
            counters: sum,
            total: self.gathering.total(party),
        });
        ControllerTelemetry {
            kind: endpoint.transport.kind().to_owned(),
            name: endpoint.settings.name.clone(),
            address: endpoint.path().display().to_string(),
            state,
            responding: endpoint.client().is_none() || self.gathering.is_fresh(party),
            lcore: endpoint.lcore(),
            connections: endpoint.connections(),
            total: self.gathering.total(party),
            queues,
            namespaces: namespaces.into_iter().collect(),
            ..ControllerTelemetry::default()
        }
    }
}

/// Counters by number.
type Counts = Vec<(u32, QueueCounters)>;

/// What a controller has counted, by queue and by namespace.
pub(super) fn counts(answer: &Answer) -> (Counts, Counts) {
    match answer {
        Answer::Reactor(_) => (Vec::new(), Vec::new()),
        Answer::Nvme(snapshot) => {
            let queues = snapshot.queues.iter();
            let queues = queues.map(|it| (it.qid.into(), counters(&it.traffic, it.interrupts)));
            let namespaces = snapshot.namespaces.iter();
            let namespaces = namespaces.map(|it| (it.nsid, counters(&it.traffic, 0)));
            (queues.collect(), namespaces.collect())
        }
        Answer::Blk(snapshot) => {
            let queues = snapshot.queues.iter();
            let queues = queues.map(|it| (it.index.into(), counters(&it.traffic, it.interrupts)));
            (queues.collect(), Vec::new())
        }
    }
}

fn counters(traffic: &Traffic, interrupts: u64) -> QueueCounters {
    QueueCounters {
        commands: traffic.commands(),
        read_ops: traffic.read().commands,
        read_bytes: traffic.read().bytes,
        write_ops: traffic.written().commands,
        written_bytes: traffic.written().bytes,
        errors: traffic.errors,
        interrupts,
    }
}

fn timed(stats: &OpStats, latency: &LatencyHistogram) -> OpTelemetry {
    OpTelemetry {
        buckets: latency.counts().to_vec(),
        ..op(stats)
    }
}

fn errors(stats: &IoStats) -> BTreeMap<String, u64> {
    let named = stats.failures.named().into_iter();
    let found = named.filter(|(_, count)| *count > 0);
    found
        .map(|(name, count)| (name.to_owned(), count))
        .collect()
}

fn op(stats: &OpStats) -> OpTelemetry {
    let none = stats.ops == 0;
    OpTelemetry {
        ops: stats.ops,
        bytes: stats.bytes,
        latency_ticks: stats.latency_ticks,
        max_latency_ticks: stats.max_latency_ticks,
        min_latency_ticks: if none { 0 } else { stats.min_latency_ticks },
        buckets: Vec::new(),
    }
}
