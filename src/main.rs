//! vtarget
fn main() {}
