//! Which numbers there are, and what they are called.

use super::Kind::{Counter, Gauge, Histogram};
use super::{Label, Page};
use crate::telemetry::{
    BdevTelemetry, ControllerState, ControllerTelemetry, OpTelemetry, QueueCounters, Telemetry,
};

/// Buckets of histograms: every fourth bound of the counters from a microsecond on, so that each is twice the one before it and
/// a disk has 26 for each kind of request.
const BOUND_STEP: usize = 4;
const FIRST_BOUND_NS: u64 = 1024;

/// The whole page.
pub(in super::super) fn render(telemetry: &Telemetry) -> String {
    let mut page = Page::default();
    daemon(&mut page, telemetry);
    reactors(&mut page, telemetry);
    bdevs(&mut page, telemetry);
    latency(&mut page, telemetry);
    controllers(&mut page, telemetry);
    namespaces(&mut page, telemetry);
    page.text
}

#[expect(
    clippy::cast_precision_loss,
    reason = "counters of this size lose nothing that anybody sees"
)]
fn float(number: u64) -> f64 {
    number as f64
}

fn seconds(ticks: u64, telemetry: &Telemetry) -> f64 {
    float(ticks) / float(telemetry.tick_rate.max(1))
}

fn daemon(page: &mut Page, telemetry: &Telemetry) {
    page.family(
        "vtarget_build_info",
        Gauge,
        "Always 1; its label tells the version.",
    )
    .count(&[("version", &telemetry.version)], 1);
    page.family(
        "vtarget_uptime_seconds",
        Gauge,
        "Since the daemon was started.",
    )
    .value(&[], float(telemetry.uptime_ms) / 1000.0);
    page.family(
        "vtarget_rpc_clients",
        Gauge,
        "Clients connected to the RPC sockets.",
    )
    .count(&[], telemetry.rpc.clients);
    page.family(
        "vtarget_rpc_requests_total",
        Counter,
        "Calls over the RPC sockets.",
    )
    .count(&[], telemetry.rpc.requests);
    let mut family = page.family(
        "vtarget_events_total",
        Counter,
        "Events so far, as vtarget_subscribe tells them.",
    );
    for (kind, count) in &telemetry.events {
        family.count(&[("type", kind)], *count);
    }
}

fn reactors(page: &mut Page, telemetry: &Telemetry) {
    let lcores: Vec<String> = telemetry
        .reactors
        .iter()
        .map(|it| it.lcore.to_string())
        .collect();
    let reactors = || lcores.iter().map(String::as_str).zip(&telemetry.reactors);
    let mut family = page.family(
        "vtarget_reactor_responding",
        Gauge,
        "1 if the reactor answered in time; if not, its other numbers are old.",
    );
    for (lcore, reactor) in reactors() {
        family.count(&[("lcore", lcore)], reactor.responding.into());
    }
    let mut family = page.family(
        "vtarget_reactor_busy_seconds_total",
        Counter,
        "Time in passes that found work.",
    );
    for (lcore, reactor) in reactors() {
        family.value(&[("lcore", lcore)], seconds(reactor.busy, telemetry));
    }
    let mut family = page.family(
        "vtarget_reactor_idle_seconds_total",
        Counter,
        "Time in passes that found none, and asleep.",
    );
    for (lcore, reactor) in reactors() {
        family.value(&[("lcore", lcore)], seconds(reactor.idle, telemetry));
    }
    let mut family = page.family(
        "vtarget_reactor_enters_total",
        Counter,
        "System calls on the reactor's ring.",
    );
    for (lcore, reactor) in reactors() {
        family.count(&[("lcore", lcore)], reactor.enters);
    }
    let mut family = page.family(
        "vtarget_reactor_in_flight",
        Gauge,
        "Operations in the reactor's ring.",
    );
    for (lcore, reactor) in reactors() {
        family.count(&[("lcore", lcore)], reactor.in_flight);
    }
    let mut family = page.family("vtarget_reactor_pollers", Gauge, "What the reactor polls.");
    for (lcore, reactor) in reactors() {
        let pollers = u64::try_from(reactor.pollers.len()).unwrap_or(u64::MAX);
        family.count(&[("lcore", lcore)], pollers);
    }
}

fn bdevs(page: &mut Page, telemetry: &Telemetry) {
    let bdevs = &telemetry.bdevs;
    let mut family = page.family(
        "vtarget_bdev_info",
        Gauge,
        "Always 1; its labels tell what the disk is.",
    );
    for bdev in bdevs {
        let labels: [Label<'_>; 2] = [("bdev", &bdev.name), ("product", &bdev.product_name)];
        family.count(&labels, 1);
    }
    let mut each = |name, kind, help, value: &dyn Fn(&BdevTelemetry) -> u64| {
        let mut family = page.family(name, kind, help);
        for bdev in bdevs {
            family.count(&[("bdev", &bdev.name)], value(bdev));
        }
    };
    each(
        "vtarget_bdev_size_bytes",
        Gauge,
        "Size of the disk.",
        &|bdev| bdev.num_blocks.saturating_mul(bdev.block_size.into()),
    );
    each(
        "vtarget_bdev_claimed",
        Gauge,
        "1 if somebody has the disk for himself.",
        &|bdev| bdev.claimed.into(),
    );
    each(
        "vtarget_bdev_in_flight",
        Gauge,
        "Requests that have not ended, those held back included.",
        &|bdev| bdev.in_flight,
    );
    each(
        "vtarget_bdev_queued",
        Gauge,
        "Requests that a rate limit holds back.",
        &|bdev| bdev.queued,
    );
    let mut kinds = |name, help, value: &dyn Fn(&OpTelemetry) -> f64| {
        let mut family = page.family(name, Counter, help);
        for bdev in bdevs {
            for (op, stats) in bdev.kinds() {
                family.value(&[("bdev", &bdev.name), ("op", op)], value(stats));
            }
        }
    };
    kinds(
        "vtarget_bdev_operations_total",
        "Requests that ended well.",
        &|op| float(op.ops),
    );
    kinds(
        "vtarget_bdev_bytes_total",
        "Bytes of requests that ended well.",
        &|op| float(op.bytes),
    );
    kinds(
        "vtarget_bdev_operation_seconds_total",
        "Time that requests took that ended well, added up.",
        &|op| seconds(op.latency_ticks, telemetry),
    );
    let mut family = page.family(
        "vtarget_bdev_errors_total",
        Counter,
        "Requests that did not end well.",
    );
    for bdev in bdevs {
        for (error, _) in bdev::Failures::default().named() {
            let count = bdev.errors.get(error).copied().unwrap_or(0);
            family.count(&[("bdev", &bdev.name), ("error", error)], count);
        }
    }
    let mut family = page.family(
        "vtarget_bdev_limit_operations_per_second",
        Gauge,
        "Rate limit of reads and writes; none if there is none.",
    );
    for bdev in bdevs
        .iter()
        .filter(|bdev| bdev.rate_limits.rw_ios_per_sec > 0)
    {
        family.count(&[("bdev", &bdev.name)], bdev.rate_limits.rw_ios_per_sec);
    }
    let mut family = page.family(
        "vtarget_bdev_limit_bytes_per_second",
        Gauge,
        "Bandwidth limits; none if there is none.",
    );
    for bdev in bdevs {
        let limits = &bdev.rate_limits;
        let kinds = [
            ("all", limits.rw_mbytes_per_sec),
            ("read", limits.r_mbytes_per_sec),
            ("write", limits.w_mbytes_per_sec),
        ];
        for (op, mebibytes) in kinds.into_iter().filter(|(_, limit)| *limit > 0) {
            family.count(
                &[("bdev", &bdev.name), ("op", op)],
                mebibytes.saturating_mul(1 << 20),
            );
        }
    }
}

fn latency(page: &mut Page, telemetry: &Telemetry) {
    let mut family = page.family(
        "vtarget_bdev_latency_seconds",
        Histogram,
        "How long reads and writes took that ended well.",
    );
    for bdev in &telemetry.bdevs {
        for (op, stats) in [("read", &bdev.read), ("write", &bdev.write)] {
            let (buckets, beyond) = coarse(&telemetry.latency_bounds_ns, &stats.buckets);
            let sum = seconds(stats.latency_ticks, telemetry);
            family.histogram(&[("bdev", &bdev.name), ("op", op)], &buckets, beyond, sum);
        }
    }
}

/// Puts fine buckets together into coarse ones; what is beyond the last bound is apart.
fn coarse(bounds_ns: &[u64], counts: &[u64]) -> (Vec<(f64, u64)>, u64) {
    let first = bounds_ns
        .iter()
        .position(|bound| *bound >= FIRST_BOUND_NS)
        .unwrap_or(0);
    let mut buckets = Vec::new();
    let mut count = 0u64;
    for (index, bound) in bounds_ns.iter().enumerate() {
        count = count.saturating_add(counts.get(index).copied().unwrap_or(0));
        if index >= first && (index - first).is_multiple_of(BOUND_STEP) {
            buckets.push((float(*bound) / 1e9, std::mem::take(&mut count)));
        }
    }
    let rest = counts.get(bounds_ns.len()..).unwrap_or_default().iter();
    (
        buckets,
        rest.fold(count, |sum, count| sum.saturating_add(*count)),
    )
}

fn labels(controller: &ControllerTelemetry) -> [Label<'_>; 2] {
    [("kind", &controller.kind), ("controller", &controller.name)]
}

fn controllers(page: &mut Page, telemetry: &Telemetry) {
    let controllers = &telemetry.controllers;
    let mut family = page.family(
        "vtarget_controller_info",
        Gauge,
        "Always 1; its labels tell where the endpoint is and what it shows.",
    );
    for controller in controllers {
        let [kind, name] = labels(controller);
        let subsystem = controller.subsystem.as_deref().unwrap_or_default();
        family.count(
            &[
                kind,
                name,
                ("address", &controller.address),
                ("subsystem", subsystem),
            ],
            1,
        );
    }
    let mut family = page.family(
        "vtarget_controller_state",
        Gauge,
        "1 for the state that the endpoint's controller is in, 0 for the others.",
    );
    for controller in controllers {
        let [kind, name] = labels(controller);
        for (state, text) in ControllerState::ALL {
            family.count(
                &[kind, name, ("state", text)],
                u64::from(controller.state == state),
            );
        }
    }
    let mut each = |name, kind, help, value: &dyn Fn(&ControllerTelemetry) -> u64| {
        let mut family = page.family(name, kind, help);
        for controller in controllers {
            family.count(&labels(controller), value(controller));
        }
    };
    each(
        "vtarget_controller_responding",
        Gauge,
        "1 if the controller answered in time or there is no guest; if not, its other numbers are old.",
        &|it| it.responding.into(),
    );
    each(
        "vtarget_controller_connections_total",
        Counter,
        "Guests that have connected.",
        &|it| it.connections,
    );
    each(
        "vtarget_controller_queues",
        Gauge,
        "Queues that the guest has made.",
        &|it| u64::try_from(it.queues.len()).unwrap_or(u64::MAX),
    );
    each(
        "vtarget_controller_in_flight",
        Gauge,
        "Commands that have not ended.",
        &|it| {
            it.queues
                .iter()
                .fold(0, |sum, queue| sum.saturating_add(queue.in_flight))
        },
    );
    each(
        "vtarget_controller_errors_total",
        Counter,
        "Commands that ended with an error.",
        &|it| it.total.errors,
    );
    each(
        "vtarget_controller_interrupts_total",
        Counter,
        "Interrupts raised.",
        &|it| it.total.interrupts,
    );
    let mut family = page.family(
        "vtarget_controller_operations_total",
        Counter,
        "Commands that have ended, by what they were.",
    );
    for controller in controllers {
        let [kind, name] = labels(controller);
        for (op, count) in operations(&controller.total) {
            family.count(&[kind, name, ("op", op)], count);
        }
    }
    let mut family = page.family(
        "vtarget_controller_bytes_total",
        Counter,
        "Bytes read and written.",
    );
    for controller in controllers {
        let [kind, name] = labels(controller);
        for (op, count) in bytes(&controller.total) {
            family.count(&[kind, name, ("op", op)], count);
        }
    }
}

fn namespaces(page: &mut Page, telemetry: &Telemetry) {
    let namespaces = || {
        telemetry.controllers.iter().flat_map(|controller| {
            controller
                .namespaces
                .iter()
                .map(move |it| (controller, it.nsid.to_string(), it))
        })
    };
    let mut family = page.family(
        "vtarget_namespace_operations_total",
        Counter,
        "Commands that have ended, by what they were.",
    );
    for (controller, nsid, namespace) in namespaces() {
        let [kind, name] = labels(controller);
        for (op, count) in operations(&namespace.total) {
            let labels = [
                kind,
                name,
                ("nsid", &nsid),
                ("bdev", &namespace.bdev),
                ("op", op),
            ];
            family.count(&labels, count);
        }
    }
    let mut family = page.family(
        "vtarget_namespace_bytes_total",
        Counter,
        "Bytes read and written.",
    );
    for (controller, nsid, namespace) in namespaces() {
        let [kind, name] = labels(controller);
        for (op, count) in bytes(&namespace.total) {
            let labels = [
                kind,
                name,
                ("nsid", &nsid),
                ("bdev", &namespace.bdev),
                ("op", op),
            ];
            family.count(&labels, count);
        }
    }
    let mut family = page.family(
        "vtarget_namespace_errors_total",
        Counter,
        "Commands that ended with an error.",
    );
    for (controller, nsid, namespace) in namespaces() {
        let [kind, name] = labels(controller);
        let labels = [kind, name, ("nsid", &nsid), ("bdev", &namespace.bdev)];
        family.count(&labels, namespace.total.errors);
    }
}

/// Commands that ended with an error are among the others.
fn operations(counters: &QueueCounters) -> [(&'static str, u64); 3] {
    let known = counters.read_ops.saturating_add(counters.write_ops);
    [
        ("read", counters.read_ops),
        ("write", counters.write_ops),
        ("other", counters.commands.saturating_sub(known)),
    ]
}

fn bytes(counters: &QueueCounters) -> [(&'static str, u64); 2] {
    [
        ("read", counters.read_bytes),
        ("write", counters.written_bytes),
    ]
}
