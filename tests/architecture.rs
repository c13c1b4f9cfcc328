//! The house's own rules, held by a test: which crate may see which, where `unsafe` may be, how long a file may get.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// What each crate may use of the workspace, tests aside. `vtarget`, the root, may use everything.
const ARROWS: &[(&str, &[&str])] = &[
    ("guest-memory", &[]),
    ("reactor", &["guest-memory"]),
    ("pci", &["guest-memory", "reactor"]),
    ("bdev", &["guest-memory", "reactor"]),
    ("unix-socket", &["reactor"]),
    (
        "vfio-user",
        &["pci", "unix-socket", "guest-memory", "reactor"],
    ),
    (
        "vhost-user",
        &[
            "virtio",
            "virtio-spec",
            "unix-socket",
            "guest-memory",
            "reactor",
        ],
    ),
    ("nvme-spec", &[]),
    (
        "nvme",
        &["nvme-spec", "pci", "bdev", "guest-memory", "reactor"],
    ),
    ("virtio-spec", &[]),
    (
        "virtio",
        &["virtio-spec", "pci", "bdev", "guest-memory", "reactor"],
    ),
    ("rpc", &[]),
];

/// What only tests (and the load generator behind `vtarget bench`) may use.
const TESTKIT: &str = "testkit";

/// Crates that may hold `unsafe`, in any of their files.
const UNSAFE_CRATES: &[&str] = &["guest-memory", "reactor"];

/// Single files that may, in crates that may not: a system call that no safe crate offers, and allocators that count in tests.
const UNSAFE_FILES: &[&str] = &["bdev/src/uring/statx.rs", "testkit/src/alloc.rs"];
const COUNTING_ALLOCATORS: &str = "tests/allocations.rs";

/// Longest Rust file in lines.
const MAX_LINES: usize = 800;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn metadata() -> Value {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args([
            "metadata",
            "--format-version",
            "1",
            "--no-deps",
            "--offline",
        ])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).expect("cargo metadata is JSON")
}

/// Each package's uses of other packages of the workspace: (name, whether only for tests).
fn arrows(metadata: &Value) -> BTreeMap<String, Vec<(String, bool)>> {
    let packages = metadata["packages"].as_array().expect("packages");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let members: BTreeSet<String> = packages.iter().map(|it| text(&it["name"])).collect();
    let uses = |package: &Value| {
        let dependencies = package["dependencies"].as_array().expect("dependencies");
        dependencies
            .iter()
            .filter(|it| members.contains(&text(&it["name"])))
            .map(|it| (text(&it["name"]), it["kind"] == "dev"))
            .collect()
    };
    packages
        .iter()
        .map(|it| (text(&it["name"]), uses(it)))
        .collect()
}

#[test]
fn arrows_between_crates_point_one_way() {
    let arrows = arrows(&metadata());
    let mut wrong = Vec::new();
    for (package, uses) in &arrows {
        if package == "vtarget" || package == TESTKIT {
            continue;
        }
        let Some((_, allowed)) = ARROWS.iter().find(|(name, _)| name == package) else {
            wrong.push(format!(
                "{package} is not in the table of arrows: add it, with its reason"
            ));
            continue;
        };
        for (used, for_tests) in uses {
            let is_allowed = allowed.contains(&used.as_str())
                || (*for_tests && used != "vtarget" && used != "rpc");
            if !is_allowed {
                wrong.push(format!("{package} must not use {used}"));
            }
        }
    }
    for used in arrows
        .get(TESTKIT)
        .into_iter()
        .flatten()
        .map(|(used, _)| used)
    {
        if used == "vtarget" || used == "rpc" {
            wrong.push(format!("{TESTKIT} must not use {used}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// All Rust files of the repository, build output aside.
fn rust_files() -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut directories = vec![root().to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).expect("a readable directory") {
            let path = entry.expect("an entry").path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if path.is_dir() {
                // A build directory says so itself; hidden ones belong to tools.
                if !name.starts_with('.') && !path.join("CACHEDIR.TAG").exists() {
                    directories.push(path);
                }
            } else if name.ends_with(".rs") {
                files.push(path);
            }
        }
    }
    assert!(files.len() > 50, "the repository has not been found");
    files
}

fn name_of(path: &Path) -> String {
    path.strip_prefix(root())
        .unwrap_or(path)
        .display()
        .to_string()
}

#[test]
fn files_stay_readable_in_one_sitting() {
    let mut wrong = Vec::new();
    for path in rust_files() {
        let text = std::fs::read_to_string(&path).expect("a readable file");
        let lines = text.lines().count();
        if lines > MAX_LINES {
            wrong.push(format!(
                "{}: {lines} lines, at most {MAX_LINES}",
                name_of(&path)
            ));
        }
    }
    assert!(wrong.is_empty(), "split these:\n{}", wrong.join("\n"));
}

/// Whether a line of code, comments aside, opens a door to `unsafe`.
fn opens_unsafe(line: &str) -> bool {
    let code = line.split("//").next().unwrap_or_default();
    let words = code.split(|c: char| !c.is_alphanumeric() && c != '_');
    let mut words = words.filter(|word| !word.is_empty());
    words.any(|word| word == "unsafe")
        || code.contains("allow(unsafe_code")
        || code.contains("expect(unsafe_code")
}

#[test]
fn unsafe_stays_where_it_is_argued() {
    let mut wrong = Vec::new();
    for path in rust_files() {
        let name = name_of(&path);
        let package = name.split('/').next().unwrap_or_default();
        let is_open = UNSAFE_CRATES.contains(&package)
            || UNSAFE_FILES.contains(&name.as_str())
            || name.ends_with(COUNTING_ALLOCATORS)
            || name == "tests/architecture.rs"
            || package == "fuzz";
        if is_open {
            continue;
        }
        let text = std::fs::read_to_string(&path).expect("a readable file");
        for (number, line) in text.lines().enumerate() {
            if opens_unsafe(line) && !line.contains("forbid(unsafe_code)") {
                wrong.push(format!("{name}:{}: {}", number + 1, line.trim()));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "unsafe outside {UNSAFE_CRATES:?}:\n{}",
        wrong.join("\n")
    );
}

#[test]
fn crates_without_unsafe_forbid_it() {
    let mut wrong = Vec::new();
    let metadata = metadata();
    for package in metadata["packages"].as_array().expect("packages") {
        let name = package["name"].as_str().unwrap_or_default();
        let has_open_file = UNSAFE_FILES
            .iter()
            .any(|file| file.split('/').next() == Some(name));
        if UNSAFE_CRATES.contains(&name) || has_open_file {
            continue;
        }
        for target in package["targets"].as_array().expect("targets") {
            let kind = target["kind"][0].as_str().unwrap_or_default();
            if !["lib", "bin"].contains(&kind) {
                continue;
            }
            let path = target["src_path"].as_str().unwrap_or_default();
            let text = std::fs::read_to_string(path).expect("a readable file");
            if !text.contains("#![forbid(unsafe_code)]") {
                wrong.push(format!("{name}: {path}"));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "without #![forbid(unsafe_code)]:\n{}",
        wrong.join("\n")
    );
}
