use std::collections::HashSet;

use crate::{TARGETS, noise};

#[test]
fn every_seed_passes() {
    for target in TARGETS {
        let seeds = (target.seeds)();
        let names: HashSet<_> = seeds.iter().map(|(name, _)| name).collect();
        assert_eq!(names.len(), seeds.len(), "{}: names differ", target.name);
        for (name, data) in &seeds {
            println!("{} {name}", target.name);
            (target.run)(data);
        }
    }
}

#[test]
fn short_input_passes() {
    for target in TARGETS {
        (target.run)(&[]);
        for byte in 0..=u8::MAX {
            (target.run)(&[byte]);
        }
    }
}

#[test]
fn noise_passes() {
    for target in TARGETS {
        for number in 0..200 {
            println!("{} {number}", target.name);
            (target.run)(&noise::bytes(1000 + number, 1 << (number % 12)));
        }
    }
}

#[test]
fn every_target_has_its_binary() {
    let manifest = include_str!("../../Cargo.toml");
    for target in TARGETS {
        let path = format!("path = \"targets/{}.rs\"", target.name);
        assert!(manifest.contains(&path), "{path}");
    }
    assert_eq!(manifest.matches("[[bin]]").count(), TARGETS.len());
}
