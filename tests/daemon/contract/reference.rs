//! `docs/RPC.md`: the table for readers.

use std::fmt::Write;
use std::path::Path;

use super::table::{self, Family, Method, Origin, When};

const HEAD: &str = "# RPC methods

What `vtarget` answers on its RPC socket. Names, parameters, results and codes are SPDK's (v26.05), so that its clients and
scripts work; where something differs or is added, the method says so. This file is made of `tests/daemon/contract/*.toml`,
which a running daemon is held against by `cargo test --test daemon contract`.

- Parameters are an object. Unknown ones are refused unless the method says otherwise. **Bold** ones are required; those with
  a ⁺ are additions, which SPDK does not know.
- Methods whose state is *startup* work only before `framework_start_init` (a daemon started with `--wait-for-rpc`, or its
  configuration file), those with *runtime* only after it; otherwise the answer is -1.
- Errors carry SPDK's code; their text begins with SPDK's and goes on with what is wrong and what to do.
- Several requests may come in one array, their answers come in one array.
";

/// The whole file.
fn page(families: &[Family]) -> String {
    let mut page = HEAD.to_owned();
    for family in families {
        let _ = write!(page, "\n## {}\n", family.title);
        if !family.about.is_empty() {
            let _ = write!(page, "\n{}\n", family.about.trim());
        }
        for method in &family.methods {
            entry(&mut page, method, family);
        }
    }
    page
}

fn entry(page: &mut String, method: &Method, family: &Family) {
    let _ = write!(page, "\n### {}\n\n{}\n", method.name, method.what.trim());
    let mut notes = Vec::new();
    notes.push(match method.state {
        When::Startup => "startup".to_owned(),
        When::Runtime => "runtime".to_owned(),
        When::Always => "startup and runtime".to_owned(),
    });
    if method.ours {
        notes.push("not in SPDK".to_owned());
    }
    if !method.aliases.is_empty() {
        notes.push(format!("also called {}", method.aliases.join(", ")));
    }
    let codes = method.codes;
    notes.push(match codes.unknown {
        None => format!("wrong parameters: {}, unknown ones are taken", codes.wrong),
        Some(_) => format!("wrong parameters: {}", codes.wrong),
    });
    let _ = write!(page, "\n*{}*\n", notes.join("; "));
    if !method.params.is_empty() {
        page.push_str("\n| parameter | type | default | |\n| --- | --- | --- | --- |\n");
    }
    let cell = |text: &str| text.replace('|', "\\|");
    for param in &method.params {
        let mark = match param.origin {
            Origin::Ours => "⁺",
            Origin::Spdk | Origin::SomeVersions => "",
        };
        let name = match param.required {
            true => format!("**{}**{mark}", param.name),
            false => format!("{}{mark}", param.name),
        };
        let _ = writeln!(
            page,
            "| {name} | `{}` | {} | {} |",
            cell(&param.shape.to_string()),
            cell(&param.default),
            cell(&param.what)
        );
    }
    match method.result_text.contains('\n') {
        true => {
            let _ = write!(page, "\nResult:\n\n```\n{}\n```\n", method.result_text);
        }
        false => {
            let _ = write!(page, "\nResult: `{}`\n", method.result_text);
        }
    }
    for (name, shape) in &family.names {
        if method.result_text.contains(&format!("@{name}")) && !name.is_empty() {
            let _ = write!(page, "\n`@{name}` is `{shape}`\n");
        }
    }
    if !method.differs.is_empty() {
        let _ = write!(page, "\nDiffers from SPDK: {}\n", method.differs.trim());
    }
}

#[test]
fn the_reference_is_what_the_table_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/RPC.md");
    let page = page(&table::read());
    if std::env::var_os("VTARGET_WRITE_DOCS").is_some() {
        std::fs::write(&path, &page).expect("docs/RPC.md is written");
        return;
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == page,
        "docs/RPC.md does not say what the table says; write it anew with\n\
         VTARGET_WRITE_DOCS=1 cargo test --test daemon contract::reference"
    );
}
