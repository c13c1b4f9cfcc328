//! `vtarget serve`: what is started in which order, and stopped.

mod quick;
mod sockets;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::thread::JoinHandle;

use anyhow::{Context, anyhow, bail};
use crossbeam_channel::{Sender, bounded, unbounded};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use reactor::ReactorHandle;
use rpc::config::Config;
use signal_hook::consts::signal::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1};
use signal_hook::iterator::Signals;

use crate::cli::{DEFAULT_RPC_SOCKET, ServeArgs};
use crate::control::{Control, Helpers, Message, Methods, Parts};
use crate::cpumask::CpuMask;
use crate::logging::{Level, Logging};
use crate::metrics::Listener;
use crate::replay::Replay;
use crate::state::{Saved, Store};
use crate::virtio_blk::BasePath;

/// Runs the daemon until a signal ends it.
///
/// # Errors
/// What keeps it from starting.
pub(crate) fn run(args: &ServeArgs) -> anyhow::Result<ExitCode> {
    let level = if args.silence_noticelog {
        Level::Warning
    } else {
        Level::Notice
    };
    let mut logging = Logging::start(level).map_err(|reason| anyhow!(reason))?;
    for flag in &args.logflag {
        if !logging.set_flag(flag, true) {
            bail!("-L {flag}: there is no such flag; `vtarget rpc log_get_flags` lists them");
        }
    }
    // Everything that may be wrong with the command line comes before everything that has effects.
    let cpus = cpus(args)?;
    let Start {
        config,
        source,
        store,
        saved,
    } = start(args)?;
    let methods = methods(args)?;
    raise_file_limit();

    let socket = args
        .rpc_socket
        .clone()
        .unwrap_or_else(|| PathBuf::from(DEFAULT_RPC_SOCKET));
    let servers = sockets::bind(args, &socket)?;
    let metrics = args.metrics.as_ref().map(Listener::bind).transpose()?;
    let quick = quick::Quick::prepare(args)?;
    let place = quick.as_ref().and_then(quick::Quick::vhost_dir);
    let sockets = BasePath::new(place.or(args.vhost_dir.as_deref()))
        .context("no directory for sockets: choose one with -S")?;
    let _pidfile = args.pidfile.as_deref().map(PidFile::write).transpose()?;

    let (inbox, messages) = unbounded();
    listen_for_signals(inbox.clone())?;
    let (reactors, threads) = start_reactors(args, &cpus)?;
    let metrics_at = metrics
        .as_ref()
        .map(|it| format!("Metrics at {}", it.address()));
    let _metrics = metrics.map(|it| it.start(inbox.clone())).transpose()?;
    let (go, may_go) = bounded(1);
    let replay = Replay {
        config,
        source: source.display().to_string(),
        keep_skipped: saved.as_ref().and(store.clone()),
        extra: quick.as_ref().map(quick::Quick::calls).unwrap_or_default(),
        needs_transport: quick.as_ref().is_some_and(quick::Quick::needs_transport),
        ignore_errors: args.json_ignore_init_errors,
        methods: Arc::clone(&methods.all),
        control: inbox.clone(),
    };
    let mut ready = vec![match args.no_rpc_server {
        true => format!(
            "vtarget {} ready, without RPC socket",
            env!("CARGO_PKG_VERSION")
        ),
        false => format!(
            "vtarget {} listening on {}",
            env!("CARGO_PKG_VERSION"),
            socket.display()
        ),
    }];
    ready.extend(metrics_at);
    ready.extend(quick.as_ref().map(quick::Quick::advice));
    let parts = Parts {
        inbox,
        logging,
        reactors: reactors.clone(),
        servers,
        go,
        wait_for_rpc: args.wait_for_rpc,
        store: store.map(|store| (store, saved)),
        sockets,
        ready,
    };
    let mut control = Control::new(parts, Helpers::start().context("no helper threads")?);
    replay
        .start(may_go)
        .context("no thread for the configuration")?;
    let orderly = control.run(&messages, &methods);

    control.close_rpc();
    for reactor in &reactors {
        reactor.stop();
    }
    drop(control);
    for thread in threads {
        // A panic has been logged where it happened.
        let _ = thread.join();
    }
    Ok(if orderly {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// What the daemon starts from.
#[derive(Default)]
struct Start {
    config: Config,
    /// The file that it is from.
    source: PathBuf,
    /// Where the configuration is kept.
    store: Option<Arc<Store>>,
    /// What is there.
    saved: Option<String>,
}

/// `--state` comes before `-c`: what was changed since the file was written must not be lost, and the file may be there to
/// fill a new machine's directory.
fn start(args: &ServeArgs) -> anyhow::Result<Start> {
    let mut start = Start::default();
    if let Some(directory) = &args.state {
        let (store, saved) = Store::open(directory)?;
        let source = store.current();
        start.store = Some(Arc::new(store));
        if let Some(Saved { config, text }) = saved {
            if let Some(path) = &args.config {
                tracing::info!(
                    "-c {path:?} is not read: {source:?} has the configuration, as it was changed since"
                );
            }
            return Ok(Start {
                config,
                source,
                saved: Some(text),
                ..start
            });
        }
    }
    if let Some(path) = &args.config {
        start.config = Config::read(path)?;
        start.source.clone_from(path);
    }
    Ok(start)
}

fn methods(args: &ServeArgs) -> anyhow::Result<Methods> {
    let mut offered = crate::methods::table()?;
    if let Some(allowed) = &args.rpcs_allowed {
        let unknown = offered.allow_only(allowed.iter().cloned());
        if !unknown.is_empty() {
            tracing::warn!(
                "--rpcs-allowed names methods that do not exist: {}",
                unknown.join(", ")
            );
        }
    }
    let all = Arc::new(crate::methods::table()?);
    Ok(Methods { offered, all })
}

fn cpus(args: &ServeArgs) -> anyhow::Result<CpuMask> {
    let mut cpus = match &args.cpumask {
        Some(text) => CpuMask::parse(text).map_err(|reason| anyhow!("-m: {reason}"))?,
        None => CpuMask::single(0),
    };
    if let Some(cpu) = args.main_core {
        cpus = cpus
            .with_first(cpu)
            .map_err(|reason| anyhow!("-p: {reason}"))?;
    }
    if let Some(cpu) = cpus.first_missing() {
        bail!("-m: this machine has no processor {cpu}");
    }
    Ok(cpus)
}

/// Guests bring a descriptor for every queue's interrupt and every piece of memory.
fn raise_file_limit() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(soft, hard)| {
        if soft < hard {
            setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
        }
        Ok(())
    });
    if let Err(error) = raised {
        tracing::warn!(%error, "the limit of open files could not be raised: many guests may not fit");
    }
}

fn start_reactors(
    args: &ServeArgs,
    cpus: &CpuMask,
) -> anyhow::Result<(Vec<ReactorHandle>, Vec<JoinHandle<()>>)> {
    let mode = if args.interrupt_mode {
        reactor::Mode::Interrupt
    } else {
        args.reactor_mode.into()
    };
    let mut reactors = Vec::new();
    let mut threads = Vec::new();
    for cpu in cpus.cpus() {
        let config = reactor::Config {
            lcore: *cpu,
            pin: args.cpumask.is_some(),
            mode,
            ..reactor::Config::default()
        };
        let (reactor, thread) = reactor::spawn(config).with_context(|| {
            format!("no reactor on processor {cpu}; does this system allow io_uring (sysctl kernel.io_uring_disabled)?")
        })?;
        reactors.push(reactor);
        threads.push(thread);
    }
    Ok((reactors, threads))
}

/// The first signal asks the control thread to end; the second ends the process.
fn listen_for_signals(control: Sender<Message>) -> anyhow::Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGQUIT, SIGHUP, SIGUSR1])?;
    std::thread::Builder::new()
        .name("signals".into())
        .stack_size(128 << 10)
        .spawn(move || {
            let mut asked = false;
            for signal in signals.forever() {
                if signal == SIGUSR1 {
                    tracing::info!("SIGUSR1 has no meaning here");
                } else if asked {
                    tracing::warn!("ending at once, on a second signal");
                    signal_hook::low_level::exit(128 + signal);
                } else {
                    asked = true;
                    let _ = control.send(Message::Signal(signal));
                }
            }
        })
        .context("no thread for signals")?;
    Ok(())
}

/// A file with the process id, removed at the end.
struct PidFile(PathBuf);

impl PidFile {
    fn write(path: &Path) -> anyhow::Result<Self> {
        std::fs::write(path, format!("{}\n", std::process::id()))
            .with_context(|| format!("-f: {} cannot be written", path.display()))?;
        Ok(Self(path.to_owned()))
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}
