//! Metrics over HTTP: what a scraper reads, and what those cost who want something else.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use openmetrics_parser::PrometheusValue;
use openmetrics_parser::prometheus::parse_prometheus;
use serde_json::json;
use testkit::nvme::{Driver, Options};

use crate::common::{Daemon, directory, refusal};
use crate::guests::start_writes;

/// Long enough that only what never comes is missed.
const PATIENCE: Duration = Duration::from_secs(30);

fn start(place: &std::path::Path) -> (Daemon, SocketAddr) {
    let mut daemon = Daemon::start(place, &["--metrics", "0"]);
    let line = daemon.line();
    let address = line
        .trim()
        .strip_prefix("Metrics at http://")
        .and_then(|rest| rest.strip_suffix("/metrics"));
    let address = address.unwrap_or_else(|| panic!("no address in {line:?}"));
    let address: SocketAddr = address.parse().expect("an address");
    assert!(
        address.ip().is_loopback(),
        "a bare port is for this machine"
    );
    (daemon, address)
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("a connection");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream
}

/// Sends a request; the status line, the head and the body of the response.
fn ask(stream: &mut (impl Read + Write), request: &str) -> (String, String, String) {
    stream.write_all(request.as_bytes()).expect("room");
    let mut response = String::new();
    stream.read_to_string(&mut response).expect("a response");
    let (head, body) = response.split_once("\r\n\r\n").expect("a head");
    let status = head.lines().next().unwrap_or_default();
    (
        status.to_owned(),
        head.to_ascii_lowercase(),
        body.to_owned(),
    )
}

fn request(method: &str, path: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nHost: vtarget\r\n\r\n")
}

fn scrape(address: SocketAddr) -> String {
    let (status, head, body) = ask(&mut connect(address), &request("GET", "/metrics"));
    assert_eq!(status, "HTTP/1.1 200 OK");
    assert!(
        head.contains("content-type: text/plain; version=0.0.4"),
        "{head}"
    );
    body
}

/// The one sample of a family with these labels.
fn value(text: &str, name: &str, labels: &[(&str, &str)]) -> f64 {
    let page = parse_prometheus(text).expect("the format");
    let family = page.families.get(name).expect(name);
    let mut found = family.iter_samples().filter(|sample| {
        let found = sample.get_labelset().expect("labels");
        let mut labels = labels.iter();
        labels.all(|(label, value)| found.get_label_value(label) == Some(value))
    });
    let sample = found
        .next()
        .unwrap_or_else(|| panic!("no {name} {labels:?}"));
    assert!(found.next().is_none(), "more than one {name} {labels:?}");
    match &sample.value {
        PrometheusValue::Counter(counter) => counter.value.as_f64(),
        PrometheusValue::Gauge(gauge) => gauge.as_f64(),
        PrometheusValue::Histogram(histogram) => histogram.count.map_or(0.0, |count| count as f64),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_guest_s_work_is_in_the_metrics_and_stays_when_it_goes() {
    let place = directory();
    let (mut daemon, address) = start(place.path());
    daemon.subsystem();
    daemon.malloc("disk");
    daemon.add_ns("disk");
    let home = place.path().join("vm");
    let socket = daemon.listen(&home);
    let controller = [("controller", home.to_str().expect("a path"))];
    let read = |name: &str, labels: &[(&str, &str)]| value(&scrape(address), name, labels);
    let writes = [controller[0], ("op", "write")];
    let near = |one: f64, other: f64| (one - other).abs() < 0.5;

    assert!(near(
        read("vtarget_bdev_size_bytes", &[("bdev", "disk")]),
        8_388_608.0
    ));
    assert!(near(
        read("vtarget_controller_operations_total", &writes),
        0.0
    ));
    for round in 1..=3 {
        let mut driver = Driver::connect(&socket, &Options::default()).expect("a controller");
        let mut queue = driver.create_queue_pair(64, None).expect("a queue pair");
        start_writes(&driver, &mut queue);
        for _ in 1..32 {
            queue.wait().expect("a completion");
        }
        let text = scrape(address);
        let done = f64::from(round) * 32.0;
        let state = [controller[0], ("state", "enabled")];
        assert!(near(value(&text, "vtarget_controller_state", &state), 1.0));
        // Those of former guests, and of queues that are gone, are among them.
        let commands = value(&text, "vtarget_controller_operations_total", &writes);
        assert!(near(commands, done), "{commands} in round {round}");
        let bytes = value(&text, "vtarget_controller_bytes_total", &writes);
        assert!(near(bytes, done * 4096.0));
        let namespace = value(&text, "vtarget_namespace_operations_total", &writes);
        assert!(near(namespace, done), "{namespace} in round {round}");
        let disk = [("bdev", "disk"), ("op", "write")];
        assert!(near(
            value(&text, "vtarget_bdev_operations_total", &disk),
            done
        ));
        assert!(near(
            value(&text, "vtarget_bdev_latency_seconds", &disk),
            done
        ));
        let connections = value(&text, "vtarget_controller_connections_total", &controller);
        assert!(near(connections, f64::from(round)));
        driver.delete_queue_pair(queue).expect("deleted");
        let commands = read("vtarget_controller_operations_total", &writes);
        assert!(near(commands, done), "{commands} after round {round}");
    }
    let listening = [controller[0], ("state", "listening")];
    while !near(read("vtarget_controller_state", &listening), 1.0) {}
    assert!(near(
        read("vtarget_controller_operations_total", &writes),
        96.0
    ));
    let events = read("vtarget_events_total", &[("type", "guest_connected")]);
    assert!(near(events, 3.0));
    daemon.stop();
}

#[test]
fn rate_limits_are_in_the_metrics_in_base_units() {
    let place = directory();
    let (mut daemon, address) = start(place.path());
    daemon.malloc("disk");
    assert!(!scrape(address).contains("vtarget_bdev_limit_bytes_per_second{"));
    let limits = json!({"name": "disk", "rw_ios_per_sec": 20_000, "r_mbytes_per_sec": 3});
    daemon.ok("bdev_set_qos_limit", limits);
    let text = scrape(address);
    let limit = |name: &str, labels: &[(&str, &str)]| value(&text, name, labels);
    let operations = limit("vtarget_bdev_limit_operations_per_second", &[]);
    assert!((operations - 20_000.0).abs() < 0.5);
    let bytes = limit("vtarget_bdev_limit_bytes_per_second", &[("op", "read")]);
    assert!((bytes - f64::from(3 << 20)).abs() < 0.5);
    daemon.stop();
}

#[test]
fn names_cannot_break_the_text() {
    let place = directory();
    let (mut daemon, address) = start(place.path());
    let name = "a\"b\\c\nd{e}=ü";
    let params = json!({"name": name, "num_blocks": 8, "block_size": 512});
    daemon.ok("bdev_null_create", params);
    let text = scrape(address);
    let size = value(&text, "vtarget_bdev_size_bytes", &[]);
    assert!((size - 4096.0).abs() < 0.5);
    assert!(text.contains(r#"bdev="a\"b\\c\nd{e}=ü""#), "{text}");
    daemon.stop();
}

#[test]
fn what_is_not_a_scrape_is_refused() {
    let place = directory();
    let (daemon, address) = start(place.path());
    let status = |request: &str| ask(&mut connect(address), request);
    let (line, ..) = status(&request("GET", "/"));
    assert_eq!(line, "HTTP/1.1 404 Not Found");
    let (line, ..) = status(&request("GET", "/metrics/"));
    assert_eq!(line, "HTTP/1.1 404 Not Found");
    let (line, head, _) = status(&request("DELETE", "/metrics"));
    assert_eq!(line, "HTTP/1.1 405 Method Not Allowed");
    assert!(head.contains("allow: get, head"), "{head}");
    let (line, head, body) = status(&request("HEAD", "/metrics"));
    assert_eq!((line.as_str(), body.as_str()), ("HTTP/1.1 200 OK", ""));
    assert!(head.contains("connection: close"), "{head}");
    let (line, ..) = status(
        "GET /metrics?debug=1 HTTP/1.1\r\nHost: x\r\nAccept: application/openmetrics-text\r\n\r\n",
    );
    assert_eq!(line, "HTTP/1.1 200 OK");
    let (line, ..) = status("nonsense\r\n\r\n");
    assert_eq!(line, "HTTP/1.1 400 Bad Request");
    daemon.stop();
}

#[test]
fn hostile_clients_cost_neither_scrapers_nor_the_daemon() {
    let place = directory();
    let (mut daemon, address) = start(place.path());
    // Heads without end.
    let mut endless = connect(address);
    let mut response = Vec::new();
    let header = [b"X-A: ".as_slice(), &[b'a'; 8000], b"\r\n"].concat();
    let _ = endless.write_all(b"GET /metrics HTTP/1.1\r\n");
    for _ in 0..1000 {
        // It is refused long before it is through.
        if endless.write_all(&header).is_err() {
            break;
        }
    }
    let _ = endless.read_to_end(&mut response);
    let response = String::from_utf8_lossy(&response);
    assert!(!response.contains("200 OK"), "{response}");
    // Many that say nothing, or stop in the middle, or do not read.
    let mut idle = Vec::new();
    for n in 0..300 {
        let mut stream = connect(address);
        let text = request("GET", "/metrics");
        let said = match n % 3 {
            0 => "",
            1 => text.get(..20).unwrap_or_default(),
            _ => &text,
        };
        let _ = stream.write_all(said.as_bytes());
        idle.push(stream);
    }
    for _ in 0..10 {
        assert!(scrape(address).contains("vtarget_build_info"));
        daemon.ok("spdk_get_version", serde_json::Value::Null);
    }
    // The first of them were ended for those that came later.
    let mut first = idle.swap_remove(0);
    assert_eq!(first.read(&mut [0; 16]).unwrap_or(0), 0);
    // Many at once share a look.
    let threads: Vec<_> = (0..32)
        .map(|_| std::thread::spawn(move || scrape(address).len()))
        .collect();
    for thread in threads {
        assert!(thread.join().expect("a scrape") > 1000);
    }
    drop(idle);
    daemon.stop();
}

#[test]
fn metrics_are_served_on_a_unix_socket_too() {
    let place = directory();
    let path = place.path().join("metrics.sock");
    let text = format!("unix:{}", path.display());
    for _ in 0..2 {
        let mut daemon = Daemon::start(place.path(), &["--metrics", &text]);
        assert_eq!(daemon.line().trim(), format!("Metrics at {text}"));
        let mut stream = UnixStream::connect(&path).expect("a connection");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let (line, ..) = ask(&mut stream, &request("GET", "/metrics"));
        assert_eq!(line, "HTTP/1.1 200 OK");
        // Killed, it leaves its socket, which the next one may take.
        drop(daemon);
        assert!(path.exists());
    }
    let daemon = Daemon::start(place.path(), &["--metrics", &text]);
    daemon.stop();
    assert!(!path.exists());
}

#[test]
fn an_address_that_is_taken_or_nonsense_is_refused_with_a_reason() {
    let place = directory();
    let (daemon, address) = start(place.path());
    let socket = place.path().join("other.sock");
    let socket = socket.to_str().expect("a path");
    let taken = refusal(&["-r", socket, "--metrics", &address.to_string()]);
    assert!(
        taken.contains("--metrics") && taken.contains("in use"),
        "{taken}"
    );
    let nonsense = refusal(&["-r", socket, "--metrics", "nowhere"]);
    assert!(nonsense.contains("give a port"), "{nonsense}");
    daemon.stop();
}
