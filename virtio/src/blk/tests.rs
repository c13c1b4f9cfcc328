//! The whole device: real reactors, a guest in the same process, and a disk that does what the test says.

mod config;
mod cost;
mod endings;
mod flow;
mod hostile;
mod requests;
mod rig;
mod signals;
