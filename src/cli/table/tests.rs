use super::*;

fn sample() -> Table {
    let columns = [("NAME", Align::Left), ("SIZE", Align::Right)];
    let mut table = Table::new("no disks", &columns);
    table.row(["disk0".to_owned(), "64 MiB".to_owned()]);
    table.row(["a-disk-with-a-long-name".to_owned(), "1 TiB".to_owned()]);
    table
}

#[test]
fn columns_are_aligned_and_lines_have_no_trailing_spaces() {
    let text = sample().print(Style::default());
    let lines = [
        "NAME                       SIZE",
        "disk0                    64 MiB",
        "a-disk-with-a-long-name   1 TiB",
    ];
    assert_eq!(text, lines.join("\n"));
}

#[test]
fn names_give_way_to_a_narrow_terminal_and_numbers_do_not() {
    let style = Style {
        width: Some(20),
        bold: true,
    };
    let lines = [
        "\x1b[1mNAME            SIZE\x1b[0m",
        "disk0         64 MiB",
        "a-disk-with…   1 TiB",
    ];
    assert_eq!(sample().print(style), lines.join("\n"));
    let style = Style {
        width: Some(3),
        bold: false,
    };
    assert!(sample().print(style).ends_with("a-disk-…   1 TiB"));
}

#[test]
fn nothing_is_said_in_words_and_names_cannot_steer_a_terminal() {
    let columns = [("NAME", Align::Left)];
    let mut table = Table::new("no disks", &columns);
    assert_eq!(table.print(Style::default()), "no disks");
    table.row(["a\x1b[2Jb\n".to_owned()]);
    assert_eq!(table.print(Style::default()), "NAME\na\u{fffd}[2Jb\u{fffd}");
}

#[test]
fn wide_characters_count_twice() {
    assert_eq!(cut("磁盘磁盘", 5), "磁盘…");
    assert_eq!(cut("磁盘", 4), "磁盘");
    assert_eq!(cut("abc", 0), "");
}
