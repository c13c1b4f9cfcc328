//! A whole RPC server with its socket: clients send anything in any pieces, between each other's pieces.
//!
//! Input: for up to four clients a count and that many lengths of pieces (taken in turn; 0 for everything that is left); then
//! the streams, cut into as many equal parts as there are clients. Clients send one piece each in turn, close their sending side
//! and read to the end.
//!
//! What each of them reads must be what it reads when it sends its stream at once and alone, in whatever order.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arbitrary::Unstructured;
use rpc::{Access, Params, Registry, RpcError, Server, ServerHandle, ServerOptions, State, When};
use serde_json::{Value, json};

use crate::Seed;

/// Only a server that hangs takes as long.
const PATIENCE: Duration = Duration::from_secs(8);

fn echo(_: &mut (), params: Params) -> Result<Value, RpcError> {
    Ok(params.value().cloned().unwrap_or(Value::Null))
}

fn refuse(_: &mut (), _: Params) -> Result<Value, RpcError> {
    Err(RpcError::new(-19, "No such device"))
}

fn registry() -> Registry<()> {
    let mut registry = Registry::new();
    registry
        .method("echo", When::Always, echo)
        .and_then(|it| it.method("refuse", When::Always, refuse))
        .and_then(|it| it.method("write", When::Always, echo))
        .and_then(|it| it.method("early", When::Startup, echo))
        .and_then(|it| it.deferred("forget", When::Always, |_, _, responder| drop(responder)))
        .and_then(|it| {
            it.deferred("notify", When::Always, |_, params, responder| {
                if let Some(notifier) = responder.notifier() {
                    let _ = notifier.notify("event", &params.value());
                }
                responder.ok(true);
            })
        })
        .and_then(|it| it.alias("old", "echo"))
        .and_then(|it| it.read_only(["echo", "refuse", "early", "forget", "notify"]))
        .expect("names that differ");
    registry
}

/// A server of its own for each input; its files go with it.
fn start() -> ServerHandle {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let (process, number) = (std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let mut options = ServerOptions::new(format!("/tmp/vtarget-fuzz-rpc-{process}-{number}.sock"));
    options.access = Access::ReadOnly;
    let server = Server::bind(options).expect("a socket");
    let registry = registry();
    let server = server.start(move |request| registry.dispatch(&mut (), State::Runtime, request));
    server.expect("a thread")
}

fn connect(path: &Path) -> UnixStream {
    let stream = UnixStream::connect(path).expect("a connection");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream.set_write_timeout(Some(PATIENCE)).expect("a timeout");
    stream
}

/// Sends a piece. A client that was refused may be gone.
fn send(stream: &mut UnixStream, piece: &[u8]) {
    if let Err(error) = stream.write_all(piece) {
        assert!(
            matches!(
                error.kind(),
                ErrorKind::BrokenPipe | ErrorKind::ConnectionReset
            ),
            "{error}"
        );
    }
}

/// Everything that comes until the server closes, as lines of JSON.
fn receive(mut stream: UnixStream) -> Vec<Value> {
    let _ = stream.shutdown(Shutdown::Write);
    let mut bytes = Vec::new();
    if let Err(error) = stream.read_to_end(&mut bytes) {
        assert_eq!(
            error.kind(),
            ErrorKind::ConnectionReset,
            "the server is stuck"
        );
    }
    let lines = bytes.split_inclusive(|byte| *byte == b'\n');
    let replies: Vec<Value> = lines
        .map(|line| serde_json::from_slice(line).expect("a line of JSON"))
        .collect();
    for reply in replies.iter().flat_map(|reply| match reply {
        Value::Array(batch) => batch.as_slice(),
        single => std::slice::from_ref(single),
    }) {
        check(reply);
    }
    // Notifications end with the client's sending, which may be before they are written. What is refused at once may overtake
    // what a method answers.
    let mut replies = replies;
    replies.retain(|reply| reply.get("method").is_none());
    replies.sort_by_cached_key(Value::to_string);
    replies
}

/// JSON-RPC 2.0 section 5: a result or an error, and an id; or a notification of ours.
fn check(reply: &Value) {
    assert_eq!(reply["jsonrpc"], "2.0", "{reply}");
    if reply.get("method").is_some() {
        assert_eq!(reply["method"], "event", "{reply}");
        return;
    }
    assert!(reply.get("id").is_some(), "{reply}");
    assert_ne!(
        reply.get("result").is_some(),
        reply.get("error").is_some(),
        "{reply}"
    );
    if let Some(error) = reply.get("error") {
        assert!(
            error["code"].is_i64() && error["message"].is_string(),
            "{reply}"
        );
    }
}

/// Runs one input.
pub fn run(data: &[u8]) {
    let mut input = Unstructured::new(data);
    let clients = usize::from(input.arbitrary::<u8>().unwrap_or_default() % 4) + 1;
    let mut lengths = Vec::new();
    for _ in 0..clients {
        let count = usize::from(input.arbitrary::<u8>().unwrap_or_default() % 16);
        let count = count.min(input.len());
        lengths.push(input.bytes(count).unwrap_or_default());
    }
    // What a socket buffers, so that nobody waits for a reader.
    let rest = input.take_rest();
    let rest = rest.get(..rest.len().min(16 << 10)).unwrap_or_default();
    let streams: Vec<&[u8]> = rest.chunks(rest.len().div_ceil(clients).max(1)).collect();

    let server = start();
    let path = server.path();
    let mut sockets: Vec<UnixStream> = streams.iter().map(|_| connect(path)).collect();
    let mut left = streams.clone();
    let mut turn = 0;
    while left.iter().any(|stream| !stream.is_empty()) {
        for ((socket, stream), lengths) in sockets.iter_mut().zip(&mut left).zip(&lengths) {
            let length = match turn % lengths.len().max(1) {
                at if lengths.get(at).is_some_and(|length| *length > 0) => usize::from(lengths[at]),
                _ => stream.len(),
            };
            let (piece, behind) = stream.split_at(length.min(stream.len()));
            *stream = behind;
            send(socket, piece);
        }
        turn += 1;
    }
    let together: Vec<Vec<Value>> = sockets.into_iter().map(receive).collect();
    for (stream, together) in streams.iter().zip(together) {
        let mut socket = connect(path);
        send(&mut socket, stream);
        assert_eq!(
            receive(socket),
            together,
            "answers depend on pieces or neighbours"
        );
    }
    // It is in good health.
    let mut socket = connect(path);
    send(
        &mut socket,
        br#"{"jsonrpc":"2.0","id":"last","method":"echo","params":[1]}"#,
    );
    let last = json!({"jsonrpc": "2.0", "id": "last", "result": [1]});
    assert_eq!(receive(socket), [last]);
}

/// Requests, batches, refusals and near misses, from one client and from several.
pub fn seeds() -> Vec<Seed> {
    let call = |method: &str| {
        format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{{"a":[1]}}}}"#)
    };
    let streams = [
        ("echo", call("echo")),
        ("alias", call("old")),
        ("refused", call("write")),
        ("forgotten", call("forget")),
        ("early", call("early")),
        ("notified", call("notify")),
        (
            "methods",
            r#"{"id":2,"method":"rpc_get_methods"}"#.to_owned(),
        ),
        ("batch", format!("[{},{},7]", call("echo"), call("refuse"))),
        ("empty-batch", "[]".to_owned()),
        (
            "silent",
            r#"{"method":"echo"}{"method":"nothing"}"#.to_owned(),
        ),
        ("garbage", format!("{}}}{}", call("echo"), call("echo"))),
        ("cut", call("echo")[..20].to_owned()),
        ("deep", "[".repeat(70)),
    ];
    let mut seeds = Vec::new();
    for (name, stream) in streams {
        for (how, prefix, copies) in [
            ("whole", [0, 0].as_slice(), 1),
            ("bytes", &[0, 1, 1], 1),
            ("four", &[3, 1, 3, 2, 1, 0, 0, 1, 7], 4),
        ] {
            let data = [prefix, stream.repeat(copies).as_bytes()].concat();
            seeds.push((format!("{name}-{how}"), data));
        }
    }
    seeds
}
