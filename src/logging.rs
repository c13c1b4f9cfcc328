//! Logs: to standard error, through tracing, with SPDK's names for levels and flags.
//!
//! SPDK knows two levels: one for syslog (`log_set_level`) and one for standard error (`log_set_print_level`). Here only the
//! second has something to filter; the first is kept for those who ask for it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use tracing_subscriber::filter::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Registry, reload};

use crate::configuration::call;

/// SPDK's levels, the loudest last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub(crate) enum Level {
    Error,
    Warning,
    Notice,
    Info,
    Debug,
}

impl From<Level> for tracing::level_filters::LevelFilter {
    fn from(level: Level) -> Self {
        match level {
            Level::Error => Self::ERROR,
            Level::Warning => Self::WARN,
            Level::Notice => Self::INFO,
            Level::Info => Self::DEBUG,
            Level::Debug => Self::TRACE,
        }
    }
}

/// SPDK's flags and the crates that they make talk.
const FLAGS: &[(&str, &[&str])] = &[
    ("aio", &["bdev"]),
    ("app_config", &["vtarget::replay"]),
    ("app_rpc", &["vtarget"]),
    ("bdev", &["bdev", "vtarget::disks"]),
    ("bdev_malloc", &["bdev"]),
    ("bdev_null", &["bdev"]),
    ("json_util", &["rpc"]),
    ("log_rpc", &["vtarget"]),
    ("nvmf", &["nvme", "vtarget::nvmf"]),
    ("nvmf_vfio", &["nvme", "vfio_user"]),
    ("reactor", &["reactor"]),
    ("rpc", &["rpc"]),
    ("thread", &["reactor"]),
    ("uring", &["bdev"]),
    ("vfio_user", &["vfio_user"]),
    ("vfu", &["vfio_user", "vtarget::virtio_blk"]),
    ("vfu_virtio", &["virtio"]),
    ("vfu_virtio_blk", &["virtio"]),
    ("vhost", &["vhost_user", "vtarget::virtio_blk"]),
    ("vhost_blk", &["virtio", "vhost_user"]),
    ("vhost_rpc", &["vtarget::virtio_blk"]),
    ("virtio", &["virtio"]),
];

type Filter = reload::Handle<EnvFilter, Registry>;

/// What is logged; changes take effect at once.
#[derive(Debug)]
pub(crate) struct Logging {
    filter: Filter,
    /// For `log_get_level` only.
    level: Level,
    print_level: Level,
    flags: BTreeSet<&'static str>,
    asked: Asked,
}

/// What was set over RPC, for a configuration. What the command line says is not in it: the next command line may say
/// something else.
#[derive(Debug, Default)]
struct Asked {
    level: Option<Level>,
    print_level: Option<Level>,
    flags: BTreeMap<&'static str, bool>,
}

impl Logging {
    /// Starts logging. `VTARGET_LOG` (tracing's filter syntax) overrides the level until it is changed.
    ///
    /// # Errors
    /// `VTARGET_LOG` cannot be understood.
    pub(crate) fn start(print_level: Level) -> Result<Self, String> {
        let filter = match std::env::var("VTARGET_LOG") {
            Ok(directives) => EnvFilter::try_new(&directives)
                .map_err(|error| format!("VTARGET_LOG={directives}: {error}"))?,
            Err(_) => filter(print_level, &BTreeSet::new()),
        };
        let (filter, handle) = reload::Layer::new(filter);
        let lines = tracing_subscriber::fmt::layer()
            .with_writer(std::io::stderr)
            .with_ansi(false);
        // A second subscriber cannot be there: this is the only place that makes one.
        let _ = tracing_subscriber::registry()
            .with(filter)
            .with(lines)
            .try_init();
        Ok(Self {
            filter: handle,
            level: Level::Notice,
            print_level,
            flags: BTreeSet::new(),
            asked: Asked::default(),
        })
    }

    /// What `log_get_level` answers.
    pub(crate) fn level(&self) -> Level {
        self.level
    }

    /// `log_set_level`: kept, without effect.
    pub(crate) fn ask_level(&mut self, level: Level) {
        self.level = level;
        self.asked.level = Some(level);
    }

    /// `log_set_print_level`.
    pub(crate) fn ask_print_level(&mut self, level: Level) {
        self.asked.print_level = Some(level);
        self.print_level = level;
        self.apply();
    }

    /// `log_set_flag` and `log_clear_flag`; `false` if there is no such flag.
    pub(crate) fn ask_flag(&mut self, flag: &str, on: bool) -> bool {
        let names = FLAGS.iter().map(|(name, _)| *name);
        let matching = names.filter(|name| flag == "all" || flag == *name);
        self.asked.flags.extend(matching.map(|name| (name, on)));
        self.set_flag(flag, on)
    }

    /// The calls of a configuration that set again what was set over RPC.
    pub(crate) fn calls(&self) -> Vec<Value> {
        let Asked {
            level,
            print_level,
            flags,
        } = &self.asked;
        let levels = [
            ("log_set_level", level),
            ("log_set_print_level", print_level),
        ];
        let levels = levels
            .into_iter()
            .filter_map(|(method, level)| Some(call(method, json!({ "level": (*level)? }))));
        let flags = flags.iter().map(|(flag, on)| {
            let method = if *on {
                "log_set_flag"
            } else {
                "log_clear_flag"
            };
            call(method, json!({ "flag": flag }))
        });
        levels.chain(flags).collect()
    }

    /// What standard error gets.
    pub(crate) fn print_level(&self) -> Level {
        self.print_level
    }

    /// All flags and whether they are set.
    pub(crate) fn flags(&self) -> impl Iterator<Item = (&'static str, bool)> {
        FLAGS
            .iter()
            .map(|(name, _)| (*name, self.flags.contains(name)))
    }

    /// `-L`: sets or clears a flag, or `all`; `false` if there is no such flag.
    pub(crate) fn set_flag(&mut self, flag: &str, on: bool) -> bool {
        let matching: Vec<_> = FLAGS
            .iter()
            .map(|(name, _)| *name)
            .filter(|name| flag == "all" || flag == *name)
            .collect();
        for name in &matching {
            if on {
                self.flags.insert(name);
            } else {
                self.flags.remove(name);
            }
        }
        if !matching.is_empty() {
            self.apply();
        }
        !matching.is_empty()
    }

    fn apply(&self) {
        // Fails only after the subscriber is gone, and then nothing is logged anyway.
        let _ = self.filter.reload(filter(self.print_level, &self.flags));
    }
}

fn filter(level: Level, flags: &BTreeSet<&'static str>) -> EnvFilter {
    let mut filter =
        EnvFilter::default().add_directive(tracing::level_filters::LevelFilter::from(level).into());
    for (name, targets) in FLAGS {
        if !flags.contains(name) {
            continue;
        }
        for target in *targets {
            if let Ok(directive) = format!("{target}=trace").parse() {
                filter = filter.add_directive(directive);
            }
        }
    }
    filter
}
