use std::collections::BTreeMap;
use std::collections::BTreeSet;

use openmetrics_parser::prometheus::parse_prometheus;
use openmetrics_parser::{PrometheusType, PrometheusValue};

use super::render;
use crate::telemetry::{
    BdevTelemetry, ControllerState, ControllerTelemetry, NamespaceTelemetry, OpTelemetry,
    QueueCounters, RateLimitTelemetry, ReactorTelemetry, Telemetry,
};

/// One of everything, with names that need escapes.
fn everything() -> Telemetry {
    let bounds = bdev::LatencyHistogram::bounds_ns().to_vec();
    let mut buckets = vec![0; bounds.len() + 1];
    (buckets[0], buckets[40], buckets[bounds.len()]) = (3, 5, 7);
    let read = OpTelemetry {
        ops: 15,
        bytes: 15 * 4096,
        latency_ticks: 500,
        buckets,
        ..OpTelemetry::default()
    };
    let total = QueueCounters {
        commands: 20,
        read_ops: 15,
        read_bytes: 15 * 4096,
        write_ops: 3,
        written_bytes: 3 * 512,
        errors: 1,
        interrupts: 9,
    };
    Telemetry {
        tick_rate: 1000,
        version: "1".to_owned(),
        latency_bounds_ns: bounds,
        reactors: vec![ReactorTelemetry {
            lcore: 3,
            responding: true,
            busy: 1500,
            ..ReactorTelemetry::default()
        }],
        bdevs: vec![BdevTelemetry {
            name: "a \"disk\"\\with\nall".to_owned(),
            block_size: 512,
            num_blocks: 8,
            read,
            rate_limits: RateLimitTelemetry {
                rw_ios_per_sec: 100,
                r_mbytes_per_sec: 2,
                ..RateLimitTelemetry::default()
            },
            errors: BTreeMap::from([("failed".to_owned(), 4)]),
            ..BdevTelemetry::default()
        }],
        controllers: vec![ControllerTelemetry {
            kind: "nvme".to_owned(),
            name: "/run/vm0".to_owned(),
            state: ControllerState::Failed,
            total,
            namespaces: vec![NamespaceTelemetry {
                nsid: 1,
                bdev: "disk".to_owned(),
                total,
                ..NamespaceTelemetry::default()
            }],
            ..ControllerTelemetry::default()
        }],
        events: BTreeMap::from([("bdev_register".to_owned(), 1)]),
        ..Telemetry::default()
    }
}

#[test]
fn another_s_parser_reads_the_same() {
    let text = render(&everything());
    let page = parse_prometheus(&text).expect("the format");
    for (name, family) in &page.families {
        assert!(name.starts_with("vtarget_"), "{name}");
        assert!(!family.help.is_empty(), "{name} has no help");
        let is_counter = family.family_type == PrometheusType::Counter;
        assert_eq!(is_counter, name.ends_with("_total"), "{name}");
    }
    let value = |name: &str, labels: &[(&str, &str)]| {
        let family = page.families.get(name).expect(name);
        let mut samples = family.iter_samples();
        let found = samples.find(|sample| {
            let found = sample.get_labelset().expect("labels");
            let mut labels = labels.iter();
            labels.all(|(label, value)| found.get_label_value(label) == Some(value))
        });
        found.expect("a sample").value.clone()
    };
    let number = |name: &str, labels: &[(&str, &str)]| match value(name, labels) {
        PrometheusValue::Counter(counter) => counter.value.as_f64(),
        PrometheusValue::Gauge(gauge) => gauge.as_f64(),
        other => panic!("{other:?}"),
    };
    let close = |one: f64, other: f64| (one - other).abs() < 1e-9;
    let reads = number("vtarget_bdev_operations_total", &[("op", "read")]);
    assert!(close(reads, 15.0));
    let busy = number("vtarget_reactor_busy_seconds_total", &[("lcore", "3")]);
    assert!(close(busy, 1.5), "ticks are seconds");
    let limit = [("op", "read")];
    let limit = number("vtarget_bdev_limit_bytes_per_second", &limit);
    assert!(close(limit, f64::from(2 << 20)), "MiB are bytes");
    let failed = number("vtarget_controller_state", &[("state", "failed")]);
    let enabled = number("vtarget_controller_state", &[("state", "enabled")]);
    assert!(close(failed, 1.0) && close(enabled, 0.0));
    let others = number("vtarget_namespace_operations_total", &[("op", "other")]);
    assert!(close(others, 2.0));
    let never = number("vtarget_bdev_errors_total", &[("error", "nomem")]);
    assert!(close(never, 0.0), "what never happened is there too");

    let PrometheusValue::Histogram(latency) =
        value("vtarget_bdev_latency_seconds", &[("op", "read")])
    else {
        panic!("a histogram");
    };
    assert_eq!(latency.count, Some(15));
    assert!(latency.sum.is_some_and(|sum| close(sum.as_f64(), 0.5)));
    let bounds: Vec<f64> = latency.buckets.iter().map(|it| it.upper_bound).collect();
    assert!(bounds.is_sorted() && bounds.len() < 32, "{bounds:?}");
    let counts: Vec<f64> = latency.buckets.iter().map(|it| it.count.as_f64()).collect();
    assert!(counts.is_sorted(), "{counts:?}");
    assert!(close(counts[0], 3.0) && close(counts[counts.len() - 1], 15.0));
}

#[test]
fn names_are_escaped() {
    let text = render(&everything());
    let escaped = r#"bdev="a \"disk\"\\with\nall""#;
    assert!(text.contains(escaped), "{text}");
    assert!(!text.contains("with\nall"));
}

#[test]
fn nothing_is_fine_too() {
    let text = render(&Telemetry::default());
    parse_prometheus(&text).expect("the format");
}

/// Names of samples that a page with everything has.
fn sample_names() -> BTreeSet<String> {
    let text = render(&everything());
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    let name = |line: &str| line.split(['{', ' ']).next().map(str::to_owned);
    samples.filter_map(name).collect()
}

/// Words in a text that look like metrics.
fn metrics_in(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let words = words.filter(|word| word.starts_with("vtarget_"));
    words.map(str::to_owned).collect()
}

#[test]
fn the_dashboard_asks_for_what_there_is() {
    let text = include_str!("../../../docs/grafana/vtarget.json");
    let dashboard: serde_json::Value = serde_json::from_str(text).expect("JSON");
    let known = sample_names();
    let mut queries = Vec::new();
    collect(&dashboard, &mut queries);
    assert!(queries.len() > 20, "queries are found");
    let mut used = BTreeSet::new();
    for query in queries {
        let metrics = metrics_in(query);
        assert!(!metrics.is_empty(), "{query:?} asks for nothing of ours");
        for metric in &metrics {
            assert!(known.contains(metric), "{query:?}: there is no {metric}");
        }
        used.extend(metrics);
    }
    assert!(used.contains("vtarget_bdev_latency_seconds_bucket"));
}

/// All expressions, of panels and of variables.
fn collect<'a>(value: &'a serde_json::Value, queries: &mut Vec<&'a str>) {
    match value {
        serde_json::Value::Object(members) => {
            for (key, member) in members {
                match (key.as_str(), member.as_str()) {
                    ("expr" | "definition", Some(query)) => queries.push(query),
                    _ => collect(member, queries),
                }
            }
        }
        serde_json::Value::Array(members) => {
            members.iter().for_each(|member| collect(member, queries));
        }
        _ => {}
    }
}

#[test]
fn the_documentation_names_every_family_and_no_other() {
    let text = include_str!("../../../docs/METRICS.md");
    let documented = metrics_in(text);
    let page = render(&everything());
    let families = page.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let families: BTreeSet<String> = families
        .filter_map(|line| line.split(' ').next().map(str::to_owned))
        .collect();
    let missing: Vec<_> = families.difference(&documented).collect();
    assert!(missing.is_empty(), "docs/METRICS.md lacks {missing:?}");
    // The rest are samples of these, or methods and notifications.
    let samples = sample_names();
    let other = [
        "vtarget_get_telemetry",
        "vtarget_subscribe",
        "vtarget_event",
    ];
    for name in documented {
        let known = families.contains(&name) || samples.contains(&name);
        assert!(
            known || other.contains(&name.as_str()),
            "there is no {name}"
        );
    }
}
