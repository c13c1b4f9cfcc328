//! A real reactor, a guest in the same process, and a disk that does what the test says.

mod changes;
mod commands;
mod cost;
mod endings;
mod flow;
mod refusals;
mod rig;
mod signals;

use bdev::test_disk as disk;
