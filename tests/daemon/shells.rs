//! Completions in a real shell, and manual pages in a real formatter.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::common::{Daemon, directory};

const VTARGET: &str = env!("CARGO_BIN_EXE_vtarget");

/// Feeds a program this input, with `vtarget` in its path.
fn run(program: &str, words: &[&str], input: &str) -> Output {
    let own = Path::new(VTARGET)
        .parent()
        .expect("a directory")
        .to_path_buf();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::iter::once(own).chain(std::env::split_paths(&path));
    let mut child = Command::new(program)
        .args(words)
        .env("PATH", std::env::join_paths(path).expect("a path"))
        .env_remove("VTARGET_RPC_SOCKET")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut stdin = child.stdin.take().expect("its input");
    stdin.write_all(input.as_bytes()).expect("it reads");
    drop(stdin);
    child.wait_with_output().expect("it ends")
}

/// Runs a program that must succeed and have nothing to complain of.
fn quiet(program: &str, words: &[&str], input: &str) -> String {
    let output = run(program, words, input);
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && complaint.is_empty(),
        "{program} {words:?}: {complaint}"
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn is_there(program: &str) -> bool {
    let found = Command::new("sh")
        .args(["-c", &format!("command -v {program}")])
        .output();
    let found = found.is_ok_and(|output| output.status.success());
    if !found {
        println!("skipped: there is no {program}");
    }
    found
}

fn script(shell: &str) -> String {
    quiet(VTARGET, &["completions", shell], "")
}

/// What bash offers for the last of these words.
fn offered(words: &[&str]) -> Vec<String> {
    let line = words.join(" ");
    let last = words.last().expect("a word");
    let quoted: Vec<String> = words.iter().map(|word| format!("'{word}'")).collect();
    let input = format!(
        "source <(vtarget completions bash)\n\
         COMP_WORDS=({}); COMP_CWORD={}; COMP_LINE='{line}'; COMP_POINT=${{#COMP_LINE}}; COMP_TYPE=9\n\
         function=$(complete -p vtarget | sed -E 's/.*-F ([^ ]+).*/\\1/')\n\
         $function vtarget '{last}' ''\n\
         printf '%s\\n' \"${{COMPREPLY[@]}}\"\n",
        quoted.join(" "),
        words.len() - 1,
    );
    let printed = quiet("bash", &["--norc"], &input);
    printed
        .lines()
        .filter(|line| !line.is_empty())
        .map(str::to_owned)
        .collect()
}

#[test]
fn bash_completes_commands_kinds_and_what_the_daemon_has() {
    quiet("bash", &["-n"], &script("bash"));
    let directory = directory();
    let mut daemon = Daemon::start(directory.path(), &[]);
    for disk in ["disk0", "disk1", "other"] {
        daemon.malloc(disk);
    }
    let socket = daemon.socket().to_str().expect("a path").to_owned();
    assert_eq!(offered(&["vtarget", "ge"]), ["get"]);
    assert_eq!(offered(&["vtarget", "get", "b"]), ["bdevs"]);
    assert_eq!(offered(&["vtarget", "top", "--onc"]), ["--once"]);
    let names = offered(&["vtarget", "get", "-s", &socket, "bdevs", "di"]);
    assert_eq!(names, ["disk0", "disk1"]);
    let names = offered(&["vtarget", "limit", "--socket", &socket, "o"]);
    assert_eq!(names, ["other"]);
    let methods = offered(&["vtarget", "rpc", "-s", &socket, "bdev_malloc_c"]);
    assert_eq!(methods, ["bdev_malloc_create"]);
    daemon.stop();
    // Nobody to ask is no reason to complain into a command line.
    let names = offered(&["vtarget", "get", "-s", &socket, "bdevs", "di"]);
    assert!(names.is_empty(), "{names:?}");
}

#[test]
fn other_shells_take_their_scripts() {
    for (shell, check) in [("zsh", "-n"), ("fish", "--no-execute")] {
        let script = script(shell);
        assert!(script.contains("VTARGET_COMPLETE"), "{script}");
        if is_there(shell) {
            quiet(shell, &[check], &script);
        }
    }
}

#[test]
fn manual_pages_render_without_warnings() {
    let directory = directory();
    let dir = directory.path().to_str().expect("a path");
    quiet(VTARGET, &["man", "--dir", dir], "");
    let pages: Vec<_> = std::fs::read_dir(dir)
        .expect("a directory")
        .flatten()
        .collect();
    let names: Vec<String> = pages
        .iter()
        .map(|it| it.file_name().to_string_lossy().into_owned())
        .collect();
    for name in [
        "vtarget.1",
        "vtarget-serve.1",
        "vtarget-top.1",
        "vtarget-get.1",
        "vtarget-rpc.1",
    ] {
        assert!(names.contains(&name.to_owned()), "{names:?}");
    }
    for page in pages {
        let path = page.path();
        let path = path.to_str().expect("a path");
        if is_there("mandoc") {
            quiet("mandoc", &["-T", "lint", "-W", "warning", path], "");
        }
        if is_there("man") {
            let text = quiet("man", &["--warnings", "-E", "UTF-8", "-l", path], "");
            assert!(
                text.contains("EXIT STATUS") && text.contains("EXAMPLES"),
                "{text}"
            );
        }
    }
}
