//! `seeds DIRECTORY [TARGET]…` writes each target's seeds to `DIRECTORY/TARGET/`, of all targets if none is named.

use std::path::PathBuf;
use std::{env, fs, io};

use fuzz_model::TARGETS;

fn main() -> io::Result<()> {
    let mut arguments = env::args_os().skip(1);
    let directory = arguments
        .next()
        .map(PathBuf::from)
        .ok_or_else(|| io::Error::other("usage: seeds DIRECTORY [TARGET]…"))?;
    let names: Vec<_> = arguments.collect();
    for target in TARGETS {
        if !names.is_empty() && !names.iter().any(|name| name == target.name) {
            continue;
        }
        let directory = directory.join(target.name);
        fs::create_dir_all(&directory)?;
        for (name, data) in (target.seeds)() {
            fs::write(directory.join(name), data)?;
        }
    }
    Ok(())
}
