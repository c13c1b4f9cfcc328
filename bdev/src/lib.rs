//! What a disk is.
//!
//! ```text
//!  control thread:  Arc<dyn Bdev> ── info, size, resize ──┐
//!                                                         │ open(cx), once per user and reactor
//!  reactor:         Box<dyn Channel> ◄──── counted ───────┘
//!                     submit(cx, tag, Io) ─► Done(status)          RAM and null: right here
//!                                        ├─► Queued ─ ring ─► Event::Complete{tag, op, result} ─► finish ─► Done(status)
//!                                        └─► Full(io)              no room in the ring: the caller keeps the request
//! ```
//! The caller owns the tag and gets its completion from the ring as [`reactor::Event::Complete`]; it passes the event's
//! parts to [`Channel::finish`] of the channel it submitted to. So a request needs no boxed future, no callback and no
//! second table.
//!
//! Device models call [`open()`], which counts; [`Bdev::open`] is the bare channel.
//!
//! | module | SPDK's product | ends | remarks |
//! | --- | --- | --- | --- |
//! | [`malloc`] | Malloc disk | at once | memory taken on first write, given back by unmap |
//! | [`null`] | Null disk | at once | reads leave memory as it was |
//! | [`uring`] | URING bdev, AIO disk | by the ring | files and block devices, direct I/O where possible |
//! | [`passthru`] | passthru | as its base | another name for a disk |
//! | [`delay`] | delay | later than its base | latencies for tests |
//! | [`error`] | Error Injection Disk | as its base, or as told | faults for tests |
//! | [`part`] | Split Disk, GPT Disk | as its base | a range of a disk |
//!
//! `unsafe` is denied but for one call of `statx`, which no safe wrapper makes ([`uring`] asks for the alignment of direct I/O).
//!
//! [`gpt`] says where partitions are, [`peek`] reads the blocks that say so.
//!
//! What it does not do: no volumes or caches; no policy about who may open what beyond the write claim of
//! [`Bdev`]; no knowledge of any device that stands above.
#![deny(unsafe_code)]

#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
mod counted;
pub mod delay;
mod disk;
pub mod error;
pub mod gpt;
mod histogram;
mod io;
mod limit;
pub mod malloc;
pub mod null;
mod over;
pub mod part;
pub mod passthru;
pub mod peek;
mod stats;
#[cfg(test)]
mod suites;
mod tags;
#[cfg(feature = "test-disk")]
pub mod test_disk;
#[cfg(test)]
mod test_loop;
#[cfg(test)]
mod test_reactor;
mod traffic;
mod traits;
pub mod uring;

pub use counted::open;
pub use histogram::{Histogram, HistogramError, HistogramOptions, LatencyHistogram};
pub use io::{Io, IoKind, IoStatus};
pub use limit::{Limiter, RateLimits};
pub use stats::{
    Failures, IoStats, OpStats, StatsReset, local_histogram, local_stats, reset_local_stats,
    set_local_histogram, set_local_limits, watch_local_depth,
};
pub use traffic::{Count, Tally, Traffic};
pub use traits::{
    Bdev, BdevError, BdevInfo, Channel, DriverValue, Features, Finished, SharedBdev, Submitted,
};
