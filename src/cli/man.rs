//! `vtarget man`: one manual page for the program and one for each command, made of what `--help` is made of.

use std::io::Write;
use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, Command, CommandFactory, ValueHint};
use clap_mangen::Man;
use clap_mangen::roff::{Inline, Roff, bold, roman};

use super::connection::EXIT_STATUS;

const EXAMPLES: &str = "\
Examples:
  vtarget man --dir /usr/share/man/man1
  vtarget man --dir /tmp/man && man /tmp/man/vtarget-get.1";

#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ManArgs {
    /// Directory for the pages; made if it is missing
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    dir: PathBuf,
}

/// Writes the pages.
///
/// # Errors
/// The directory cannot be written.
pub(super) fn run(args: &ManArgs) -> anyhow::Result<()> {
    let dir = &args.dir;
    std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    for (name, page) in pages() {
        let path = dir.join(name);
        std::fs::write(&path, page).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// File names and texts.
fn pages() -> Vec<(String, Vec<u8>)> {
    let mut program = super::Cli::command().disable_help_subcommand(true);
    program.build();
    let commands = program.get_subcommands().filter(|it| !it.is_hide_set());
    let all: Vec<&Command> = std::iter::once(&program).chain(commands).collect();
    let names: Vec<&str> = all.iter().map(|command| name(command)).collect();
    let page = |command: &&Command| {
        // Writing to memory does not fail.
        let page = page(command, &names).unwrap_or_default();
        (format!("{}.1", name(command)), page)
    };
    all.iter().map(page).collect()
}

fn name(command: &Command) -> &str {
    command.get_display_name().unwrap_or(command.get_name())
}

fn page(command: &Command, names: &[&str]) -> std::io::Result<Vec<u8>> {
    let version = command.get_version().unwrap_or(env!("CARGO_PKG_VERSION"));
    let man = Man::new(command.clone())
        .title(name(command).to_uppercase())
        .source(format!("vtarget {version}"))
        .manual("vtarget");
    let mut out = Vec::new();
    man.render_title(&mut out)?;
    man.render_name_section(&mut out)?;
    man.render_synopsis_section(&mut out)?;
    man.render_description_section(&mut out)?;
    man.render_options_section(&mut out)?;
    if command.has_subcommands() {
        man.render_subcommands_section(&mut out)?;
    }
    let mut roff = Roff::default();
    if let Some(text) = command.get_after_help() {
        prose(&mut roff, &text.to_string());
    }
    files(&mut roff, command);
    exit_status(&mut roff, command);
    see_also(&mut roff, command, names);
    roff.to_writer(&mut out)?;
    out.flush()?;
    Ok(out)
}

/// What follows the options in `--help`: paragraphs, and lines that stand as they are under a line that ends with a colon. The
/// examples come last, in a section of their own.
fn prose(roff: &mut Roff, text: &str) {
    let (mut notes, mut examples) = (Vec::new(), Vec::new());
    for block in text.split("\n\n") {
        match block.strip_prefix("Examples:\n") {
            Some(block) => examples.push(block),
            None => notes.push(block),
        }
    }
    for (title, blocks) in [("NOTES", notes), ("EXAMPLES", examples)] {
        if blocks.is_empty() {
            continue;
        }
        roff.control("SH", [title]);
        for (index, block) in blocks.into_iter().enumerate() {
            if index > 0 {
                roff.control("PP", []);
            }
            paragraph(roff, block);
        }
    }
}

fn paragraph(roff: &mut Roff, block: &str) {
    let mut literal = false;
    for line in block.lines() {
        let indented = line.starts_with(' ');
        if indented != literal {
            // Lines that stand as they are, indented.
            match indented {
                true => roff.control("RS", ["4"]).control("nf", []),
                false => roff.control("fi", []).control("RE", []),
            };
            literal = indented;
        }
        roff.text([roman(line.trim_start())]);
    }
    if literal {
        roff.control("fi", []).control("RE", []);
    }
}

fn entries<'a>(
    roff: &mut Roff,
    title: &str,
    entries: impl IntoIterator<Item = (&'a str, &'a str)>,
) {
    roff.control("SH", [title]);
    for (term, text) in entries {
        roff.control("TP", []);
        roff.text([bold(term)]);
        roff.text([roman(text)]);
    }
}

/// Only commands that ask a daemon, and the daemon, meet these files.
fn files(roff: &mut Roff, command: &Command) {
    let has = |id: &str| command.get_arguments().any(|arg| arg.get_id() == id);
    let whole = command.has_subcommands();
    if !(has("socket") || has("rpc_socket") || whole) {
        return;
    }
    let mut found = vec![(
        super::DEFAULT_RPC_SOCKET,
        "The RPC socket unless another is named: SPDK's place, so that its tools find it.",
    )];
    if has("rpc_socket") || whole {
        found.push((
            "/run/vtarget/",
            "Where the daemon puts endpoints of --disk, --ram and the RAM disk to try things out.",
        ));
    }
    entries(roff, "FILES", found);
    if has("socket") || whole {
        let variables = [
            (
                "VTARGET_RPC_SOCKET",
                "The RPC socket where no option names one.",
            ),
            (
                "NO_COLOR",
                "If it is set and not empty, nothing is coloured.",
            ),
        ];
        entries(roff, "ENVIRONMENT", variables);
    }
}

fn exit_status(roff: &mut Roff, command: &Command) {
    let asks = command.get_arguments().any(|arg| arg.get_id() == "socket");
    let codes = EXIT_STATUS.iter().copied();
    let codes = codes.filter(|(code, _)| *code != "3" || asks || command.has_subcommands());
    entries(roff, "EXIT STATUS", codes);
}

fn see_also(roff: &mut Roff, command: &Command, names: &[&str]) {
    roff.control("SH", ["SEE ALSO"]);
    let mut words: Vec<Inline> = Vec::new();
    for other in names.iter().filter(|other| **other != name(command)) {
        if !words.is_empty() {
            words.push(roman(", "));
        }
        words.extend([bold(*other), roman("(1)")]);
    }
    roff.text(words);
}

#[cfg(test)]
mod tests;
