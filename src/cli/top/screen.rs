//! `top` on a terminal: threads, and what they say to each other.

use std::process::ExitCode;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use nix::sys::signal::{Signal, raise};
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::iterator::Signals;

use super::keys::{self, Action};
use super::model::Model;
use super::render::{self, Theme};
use super::source::{Source, Update};

/// How often to draw when nothing comes: what says for how long needs it.
const IDLE: Duration = Duration::from_secs(1);
/// How soon to try again after a failed look, at the latest.
const RETRY: Duration = Duration::from_secs(1);
/// The second look comes soon: before it there are no rates.
const FIRST: Duration = Duration::from_millis(300);

/// What main waits for.
enum Message {
    Input(Event),
    /// The terminal says nothing any more.
    InputEnded(std::io::Error),
    Update(Box<Update>),
    Lost(String),
    Signal(i32),
    /// A thread has panicked, which has put the terminal in order already.
    Broken,
}

/// Says so when its thread panics.
struct Alarm(Sender<Message>);

impl Drop for Alarm {
    fn drop(&mut self) {
        if thread::panicking() {
            let _ = self.0.send(Message::Broken);
        }
    }
}

/// Puts the terminal in order, however the program ends but by SIGKILL; panics have ratatui's hook.
struct Screen(DefaultTerminal);

impl Drop for Screen {
    fn drop(&mut self) {
        ratatui::restore();
    }
}

/// Shows until the user, a signal or the terminal's end says stop. A signal's exit code is the shells' one.
///
/// # Errors
/// The terminal fails.
pub(super) fn run(model: Model, source: Source) -> anyhow::Result<ExitCode> {
    let (sender, messages) = channel();
    let (interval, intervals) = channel();
    // Before the terminal changes: a signal in between would leave it as it is.
    watch_signals(sender.clone())?;
    let mut screen = Screen(ratatui::try_init().context("cannot use the terminal")?);
    sample(source, model.interval, intervals, sender.clone())?;
    read_input(sender)?;
    show(model, &mut screen, &messages, &interval)
}

fn spawn(
    name: &str,
    sender: Sender<Message>,
    body: impl FnOnce(&Sender<Message>) + Send + 'static,
) -> anyhow::Result<()> {
    let body = move || {
        let alarm = Alarm(sender);
        body(&alarm.0);
    };
    let thread = thread::Builder::new().name(name.to_owned());
    thread.spawn(body).context("cannot start a thread")?;
    Ok(())
}

fn watch_signals(sender: Sender<Message>) -> anyhow::Result<()> {
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP, SIGQUIT])?;
    spawn("signals", sender, move |sender| {
        for signal in signals.forever() {
            let _ = sender.send(Message::Signal(signal));
        }
    })
}

fn read_input(sender: Sender<Message>) -> anyhow::Result<()> {
    spawn("input", sender, |sender| {
        loop {
            let message = event::read().map_or_else(Message::InputEnded, Message::Input);
            let ended = matches!(message, Message::InputEnded(_));
            if sender.send(message).is_err() || ended {
                return;
            }
        }
    })
}

/// Looks at the daemon again and again.
fn sample(
    mut source: Source,
    mut interval: Duration,
    intervals: Receiver<Duration>,
    sender: Sender<Message>,
) -> anyhow::Result<()> {
    spawn("sampler", sender, move |sender| {
        let mut looks = 0_u64;
        loop {
            let started = Instant::now();
            let (message, pause) = match source.look() {
                Ok(update) => {
                    looks = looks.saturating_add(1);
                    let pause = if looks == 1 {
                        interval.min(FIRST)
                    } else {
                        interval
                    };
                    (Message::Update(Box::new(update)), pause)
                }
                Err(error) => (Message::Lost(error.to_string()), interval.min(RETRY)),
            };
            if sender.send(message).is_err() {
                return;
            }
            match intervals.recv_timeout(pause.saturating_sub(started.elapsed())) {
                Ok(changed) => interval = changed,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    })
}

fn show(
    mut model: Model,
    screen: &mut Screen,
    messages: &Receiver<Message>,
    interval: &Sender<Duration>,
) -> anyhow::Result<ExitCode> {
    let theme = Theme::of_environment();
    let started = Instant::now();
    loop {
        model.clock = started.elapsed();
        let draw = |frame: &mut ratatui::Frame<'_>| render::draw(frame, &mut model, theme);
        screen
            .0
            .draw(draw)
            .context("cannot write to the terminal")?;
        let first = match messages.recv_timeout(IDLE) {
            Ok(message) => message,
            Err(RecvTimeoutError::Timeout) => continue,
            Err(RecvTimeoutError::Disconnected) => bail!("all threads have ended"),
        };
        model.clock = started.elapsed();
        // A burst of keys or a resize is one picture.
        for message in std::iter::once(first).chain(messages.try_iter()) {
            match message {
                Message::Update(update) => {
                    for (kind, context) in &update.events {
                        model.event(kind, context, update.new);
                    }
                    model.sample(update.telemetry);
                }
                Message::Lost(reason) => model.lost(reason),
                Message::Signal(signal) => {
                    let code = u8::try_from(signal).map_or(1, |signal| 128 | signal);
                    return Ok(code.into());
                }
                Message::InputEnded(error) => {
                    return Err(error).context("cannot read from the terminal");
                }
                Message::Broken => bail!("a thread of vtarget top has failed"),
                Message::Input(Event::Key(key)) => match keys::handle(&mut model, key) {
                    Action::None => {}
                    Action::Quit => return Ok(ExitCode::SUCCESS),
                    Action::Interval => {
                        let _ = interval.send(model.interval);
                    }
                    Action::Repaint => screen.0.clear().context("cannot write to the terminal")?,
                    Action::Suspend => suspend(screen)?,
                },
                // Drawing asks for the size by itself.
                Message::Input(_) => {}
            }
        }
    }
}

/// Gives the terminal back to the shell until it continues this program.
fn suspend(screen: &mut Screen) -> anyhow::Result<()> {
    ratatui::restore();
    raise(Signal::SIGTSTP)?;
    screen.0 = ratatui::try_init().context("cannot use the terminal")?;
    Ok(())
}
