use super::*;

fn text(name: &str) -> String {
    let page = pages().into_iter().find(|(page, _)| page == name);
    String::from_utf8(page.expect("a page").1).expect("text")
}

#[test]
fn every_command_has_a_page_with_the_sections_that_people_look_for() {
    for command in super::super::Cli::command().get_subcommands() {
        let page = text(&format!("vtarget-{}.1", command.get_name()));
        for section in [
            "NAME",
            "SYNOPSIS",
            "OPTIONS",
            "EXAMPLES",
            "\"EXIT STATUS\"",
            "\"SEE ALSO\"",
        ] {
            let head = format!("\n.SH {section}\n");
            assert!(
                page.contains(&head),
                "{} has no {section}:\n{page}",
                command.get_name()
            );
        }
    }
}

#[test]
fn examples_stand_as_they_are_written() {
    let page = text("vtarget-get.1");
    let examples = page.split(".SH EXAMPLES\n").nth(1).expect("examples");
    assert!(
        examples.starts_with(".RS 4\n.nf\nvtarget get bdevs\n"),
        "{examples}"
    );
}
