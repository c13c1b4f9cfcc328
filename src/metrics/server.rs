//! HTTP.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use crossbeam_channel::Sender;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{Mutex, oneshot};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::Address;
use crate::control::Message;

/// Connections at a time. One more ends the oldest: whoever holds many and does nothing with them loses them, not others.
const CONNECTIONS: usize = 64;
/// How long a connection may take, from its beginning to its end: one request.
const LIFETIME: Duration = Duration::from_secs(10);
/// How long a request's head may be.
const HEAD_BYTES: usize = 16 << 10;
/// How long the daemon may take to answer; its own patience with reactors is less.
const PATIENCE: Duration = Duration::from_secs(5);
/// The least time between two looks at the counters.
const INTERVAL: Duration = Duration::from_millis(50);
/// After accepting failed for want of files.
const RETRY: Duration = Duration::from_millis(100);

/// A bound address.
#[derive(Debug)]
pub(crate) struct Listener {
    socket: Socket,
    file: Option<SocketFile>,
    /// For people.
    address: String,
}

#[derive(Debug)]
enum Socket {
    Tcp(std::net::TcpListener),
    Unix(std::os::unix::net::UnixListener),
}

/// The name of a socket, removed at the end.
#[derive(Debug)]
pub(crate) struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

impl Listener {
    /// Listens; nobody is answered yet.
    ///
    /// # Errors
    /// What stands in the way.
    pub(crate) fn bind(address: &Address) -> anyhow::Result<Self> {
        match address {
            Address::Tcp(address) => {
                let socket = std::net::TcpListener::bind(address)
                    .and_then(|socket| socket.set_nonblocking(true).map(|()| socket))
                    .with_context(|| format!("--metrics: nobody can listen on {address}"))?;
                let address = format!("http://{}/metrics", socket.local_addr()?);
                Ok(Self {
                    socket: Socket::Tcp(socket),
                    file: None,
                    address,
                })
            }
            Address::Unix(path) => {
                let (socket, file) = bind_unix(path).with_context(|| {
                    format!("--metrics: nobody can listen on {}", path.display())
                })?;
                Ok(Self {
                    socket: Socket::Unix(socket),
                    file: Some(file),
                    address: format!("unix:{}", path.display()),
                })
            }
        }
    }

    /// Where it listens, for people.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Starts to answer, on a thread of its own that lasts as long as the process. What it returns removes the socket's name.
    ///
    /// # Errors
    /// The system has no thread, or no files, to give.
    pub(crate) fn start(self, control: Sender<Message>) -> anyhow::Result<Option<SocketFile>> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .build()
            .context("no event loop for metrics")?;
        let Self { socket, file, .. } = self;
        let pages = Arc::new(Pages {
            control,
            last: Mutex::default(),
        });
        std::thread::Builder::new()
            .name("metrics".into())
            .spawn(move || {
                if let Err(error) = runtime.block_on(serve(socket, &pages)) {
                    tracing::error!(%error, "metrics are not served any more");
                }
            })
            .context("no thread for metrics")?;
        Ok(file)
    }
}

fn bind_unix(path: &Path) -> io::Result<(std::os::unix::net::UnixListener, SocketFile)> {
    use std::os::unix::net::{UnixListener, UnixStream};
    let socket = match UnixListener::bind(path) {
        // The socket of a daemon that is no more.
        Err(error)
            if error.kind() == io::ErrorKind::AddrInUse
                && UnixStream::connect(path)
                    .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused) =>
        {
            std::fs::remove_file(path)?;
            UnixListener::bind(path)?
        }
        socket => socket?,
    };
    socket.set_nonblocking(true)?;
    Ok((socket, SocketFile(path.to_owned())))
}

async fn serve(socket: Socket, pages: &Arc<Pages>) -> io::Result<()> {
    let mut connections = Connections::default();
    match socket {
        Socket::Tcp(socket) => {
            let socket = TcpListener::from_std(socket)?;
            loop {
                let accepted = socket.accept().await.map(|(stream, _)| stream);
                connections.take(accepted, pages).await;
            }
        }
        Socket::Unix(socket) => {
            let socket = UnixListener::from_std(socket)?;
            loop {
                let accepted = socket.accept().await.map(|(stream, _)| stream);
                connections.take(accepted, pages).await;
            }
        }
    }
}

/// Connections that may not have ended, the oldest first.
#[derive(Default)]
struct Connections(VecDeque<AbortHandle>);

impl Connections {
    async fn take<S>(&mut self, accepted: io::Result<S>, pages: &Arc<Pages>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let stream = match accepted {
            Ok(stream) => stream,
            Err(error) if is_the_client_s(&error) => return,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a reader of metrics, will try again");
                return sleep(RETRY).await;
            }
        };
        self.0.retain(|connection| !connection.is_finished());
        if self.0.len() >= CONNECTIONS
            && let Some(oldest) = self.0.pop_front()
        {
            oldest.abort();
        }
        let pages = Arc::clone(pages);
        let connection = tokio::spawn(async move {
            let service = service_fn(move |request| {
                let pages = Arc::clone(&pages);
                async move { Ok::<_, Infallible>(pages.answer(&request).await) }
            });
            let connection = http1::Builder::new()
                .keep_alive(false)
                .max_buf_size(HEAD_BYTES)
                .timer(TokioTimer::new())
                .header_read_timeout(LIFETIME)
                .serve_connection(TokioIo::new(stream), service);
            // What is wrong with it is the client's business.
            let _ = timeout(LIFETIME, connection).await;
        });
        self.0.push_back(connection.abort_handle());
    }
}

fn is_the_client_s(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
    )
}

/// The page that was made last.
#[derive(Default)]
struct Last {
    /// When somebody began to make one.
    begun: Option<Instant>,
    /// The one that was begun then, unless nobody waited for its end.
    text: Option<Bytes>,
}

/// Where pages come from.
struct Pages {
    control: Sender<Message>,
    last: Mutex<Last>,
}

impl Pages {
    async fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let known = request.uri().path() == "/metrics";
        let may = matches!(*request.method(), Method::GET | Method::HEAD);
        if !known {
            let text = "There is /metrics and nothing else.\n";
            return text_of(StatusCode::NOT_FOUND, text.into());
        }
        if !may {
            let text = "Metrics can be read with GET and HEAD only.\n";
            let mut response = text_of(StatusCode::METHOD_NOT_ALLOWED, text.into());
            let allowed = HeaderValue::from_static("GET, HEAD");
            response.headers_mut().insert(ALLOW, allowed);
            return response;
        }
        match timeout(PATIENCE, self.page()).await {
            Ok(Some(page)) => {
                let mut response = text_of(StatusCode::OK, page);
                let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
                response.headers_mut().insert(CONTENT_TYPE, kind);
                response
            }
            Ok(None) | Err(_) => {
                let text = "The daemon does not answer: it is ending, or has no time.\n";
                text_of(StatusCode::SERVICE_UNAVAILABLE, text.into())
            }
        }
    }

    /// A page that was begun after it was asked for; all who wait for one share the next.
    async fn page(&self) -> Option<Bytes> {
        let asked = Instant::now();
        let mut last = self.last.lock().await;
        if let Some(begun) = last.begun {
            if begun >= asked && last.text.is_some() {
                return last.text.clone();
            }
            sleep_until(begun + INTERVAL).await;
        }
        *last = Last {
            begun: Some(Instant::now()),
            text: None,
        };
        let (sender, telemetry) = oneshot::channel();
        let ask = Message::Run(Box::new(move |control| {
            control.telemetry(move |_, telemetry| {
                // Whoever asked may have stopped waiting.
                let _ = sender.send(telemetry);
            });
        }));
        self.control.send(ask).ok()?;
        let telemetry = telemetry.await.ok()?;
        let text = Bytes::from(super::page::render(&telemetry));
        last.text = Some(text.clone());
        Some(text)
    }
}

fn text_of(status: StatusCode, text: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(text));
    *response.status_mut() = status;
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}
