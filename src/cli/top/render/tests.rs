use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::*;
use crate::cli::top::keys::{Action, handle};
use crate::cli::top::samples;

fn terminal(model: &mut Model, width: u16, height: u16) -> Terminal<TestBackend> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a terminal");
    let theme = Theme { color: true };
    terminal
        .draw(|frame| draw(frame, model, theme))
        .expect("drawn");
    terminal
}

/// The screen's lines without trailing spaces.
fn screen(model: &mut Model, width: u16, height: u16) -> Vec<String> {
    let terminal = terminal(model, width, height);
    let buffer = terminal.backend().buffer();
    let line = |y| {
        let cells = (0..width).map(|x| buffer[(x, y)].symbol());
        cells.collect::<String>().trim_end().to_owned()
    };
    (0..height).map(line).collect()
}

fn press(model: &mut Model, keys: &[KeyCode]) -> Action {
    let keys = keys
        .iter()
        .map(|key| KeyEvent::new(*key, KeyModifiers::NONE));
    keys.map(|key| handle(model, key))
        .last()
        .unwrap_or(Action::None)
}

#[test]
fn overview() {
    let expected = [
        "vtarget 1.2.3, pid 4711, up 1m42s: 2 reactors, 3 bdevs, 2 guests",
        "262k IOPS, 1061 MB/s read, 12.3 MB/s written, reactors 65.5 % busy, over 2.0 s",
        " Reactors 2 by REACTOR",
        "REACTOR MODE      BUSY % IN FLIGHT ENTERS/S POLLERS",
        "0       adaptive    96.0        31    1.50k       2",
        "1       adaptive    35.0        31    1.50k       2",
        " Bdevs 3 by IOPS",
        "BDEV     IOPS  READ/S WRITE/S  R MB/S  W MB/S     P50     P99   R P99   W P99      QD    HELD LIMITS     ERRORS",
        "disk1    250k    250k       0    1024       0 5.00 µs 9.90 µs 9.90 µs       -       0       0 -               3",
        "disk0   12.0k   9.00k   3.00k    36.9    12.3 17.4 µs 99.4 µs  100 µs 99.2 µs      31       5 12k 100Mr       0",
        "spare       0       0       0       0       0       -       -       -       -       0       0 -               0",
        " Controllers 3 by IOPS",
        "CONTROLLER       KIND           STATE        IOPS  R MB/S  W MB/S      QD  QUEUES   IRQ/S  ERRORS REACTOR DISKS",
        "vhost.1          vhost_blk      enabled      250k     768     256      16       1    125k       0       1 disk1",
        "/run/vtarget/vm0 nvme           enabled     12.0k    36.9    12.3      31       2   6.00k       0       0 disk0",
        "virtio.2         vfu_virtio_blk listening       0       0       0       0       0       0       0       0",
        "",
        "",
        "",
        "",
        "   before  bdev_register  spare",
        "1m15s ago  bdev_resize  disk1",
        "",
        "every 1 s (+ -)  ? help  Tab table  Enter zoom  / filter  space hold  q quit",
    ];
    assert_eq!(screen(&mut samples::model(), 120, 24), expected);
}

#[test]
fn narrow() {
    let expected = [
        "vtarget 1.2.3, pid 4711, up 1m42s: 2 reactors, 3 bdevs, 2 guests",
        "262k IOPS, 1061 MB/s read, 12.3 MB/s written, reactors 65.5 % busy, over 2.0 s",
        " Reactors 2 by REACTOR",
        "REACTOR MODE      BUSY % IN FLIGHT ENTERS/S POLLERS",
        "0       adaptive    96.0        31    1.50k       2",
        "1       adaptive    35.0        31    1.50k       2",
        " Bdevs 3 by IOPS",
        "BDEV     IOPS  R MB/S  W MB/S     P50     P99      QD    HELD LIMITS     ERRORS",
        "disk1    250k    1024       0 5.00 µs 9.90 µs       0       0 -               3",
        "disk0   12.0k    36.9    12.3 17.4 µs 99.4 µs      31       5 12k 100Mr       0",
        "spare       0       0       0       -       -       0       0 -               0",
        " Controllers 3 by IOPS",
        "CONTROLLER       STATE        IOPS  R MB/S  W MB/S      QD  ERRORS DISKS",
        "vhost.1          enabled      250k     768     256      16       0 disk1",
        "/run/vtarget/vm0 enabled     12.0k    36.9    12.3      31       0 disk0",
        "virtio.2         listening       0       0       0       0       0",
        "",
        "   before  bdev_register  spare",
        "1m15s ago  bdev_resize  disk1",
        "every 1 s (+ -)  ? help  Tab table  Enter zoom  / filter  space hold  q quit",
    ];
    assert_eq!(screen(&mut samples::model(), 80, 20), expected);
}

#[test]
fn a_table_can_have_the_whole_screen_with_its_details() {
    let mut model = samples::model();
    press(&mut model, &[KeyCode::Char('3'), KeyCode::Enter]);
    let expected = [
        "vtarget 1.2.3, pid 4711, up 1m42s: 2 reactors, 3 bdevs, 2 guests",
        "262k IOPS, 1061 MB/s read, 12.3 MB/s written, reactors 65.5 % busy, over 2.0 s",
        " Controllers 3 by IOPS",
        "CONTROLLER       KIND           STATE        IOPS  R MB/S  W MB/S      QD  QUEUES  ERRORS DISKS",
        "vhost.1          vhost_blk      enabled      250k     768     256      16       1       0 disk1",
        "  queue 0                                    250k     768     256      16     128       0",
        "/run/vtarget/vm0 nvme           enabled     12.0k    36.9    12.3      31       2       0 disk0",
        "  queue 0                                       0       0       0       1      32       0",
        "  queue 1                                   12.0k    36.9    12.3      30     256       0",
        "virtio.2         vfu_virtio_blk listening       0       0       0       0       0       0",
        "",
        "",
        "",
        "",
        "1m15s ago  bdev_resize  disk1",
        "every 1 s (+ -)  ? help  Tab table  Enter zoom  / filter  space hold  q quit",
    ];
    assert_eq!(screen(&mut model, 100, 16), expected);
    press(
        &mut model,
        &[KeyCode::Esc, KeyCode::Char('1'), KeyCode::Char('z')],
    );
    let expected = [
        "vtarget 1.2.3, pid 4711, up 1m42s: 2 reactors, 3 bdevs, 2 guests",
        "262k IOPS, 1061 MB/s read, 12.3 MB/s written, reactors 65.5 % busy, over 2.0 s",
        " Reactors 2 by REACTOR",
        "REACTOR MODE      BUSY % IN FLIGHT ENTERS/S POLLERS",
        "0       adaptive    96.0        31    1.50k       2",
        "  nvme              25.0                      1.00M",
        "  vhost              0.0                      1.00M",
        "1       adaptive    35.0        31    1.50k       2",
        "  nvme              25.0                      1.00M",
        "  vhost              0.0                      1.00M",
        "",
        "",
        "1m15s ago  bdev_resize  disk1",
        "every 1 s (+ -)  ? help  Tab table  Enter zoom  / filter  space hold  q quit",
    ];
    assert_eq!(screen(&mut model, 80, 14), expected);
}

#[test]
fn what_does_not_fit_can_be_scrolled_to_and_no_further() {
    let mut model = samples::model();
    let mut many = samples::telemetry(104);
    let bdev = many.bdevs[0].clone();
    many.bdevs = (0..100)
        .map(|number| {
            let mut bdev = bdev.clone();
            bdev.name = format!("disk{number:02}");
            bdev
        })
        .collect();
    model.sample(many);
    press(
        &mut model,
        &[
            KeyCode::Char('n'),
            KeyCode::Char('z'),
            KeyCode::PageDown,
            KeyCode::Down,
        ],
    );
    let lines = screen(&mut model, 80, 20);
    assert_eq!(lines[2], " Bdevs 100 by BDEV, lines 12-24 of 100");
    assert!(lines[4].starts_with("disk11 "), "{lines:#?}");
    press(&mut model, &[KeyCode::End]);
    let lines = screen(&mut model, 80, 20);
    assert!(lines[16].starts_with("disk99 "), "{lines:#?}");
    // One step up is one line, however often End was pressed.
    press(&mut model, &[KeyCode::End, KeyCode::PageDown]);
    screen(&mut model, 80, 20);
    press(&mut model, &[KeyCode::Up]);
    assert!(screen(&mut model, 80, 20)[16].starts_with("disk98 "));
    // Rows that are gone are not shown.
    model.sample(samples::telemetry(106));
    assert!(screen(&mut model, 80, 20)[4].starts_with("disk0 "));
}

#[test]
fn a_filter_is_written_on_the_last_line_and_can_be_taken_back() {
    let mut model = samples::model();
    press(
        &mut model,
        &[
            KeyCode::Char('/'),
            KeyCode::Char('q'),
            KeyCode::Backspace,
            KeyCode::Char('1'),
        ],
    );
    let lines = screen(&mut model, 80, 20);
    assert_eq!(lines[19], "filter: 1_");
    assert!(
        lines.contains(&" Bdevs 1 of 3 by IOPS".to_owned()),
        "{lines:#?}"
    );
    press(&mut model, &[KeyCode::Enter]);
    assert!(screen(&mut model, 80, 20)[19].starts_with("filter 1 (Esc)  every 1 s"));
    press(
        &mut model,
        &[KeyCode::Char('/'), KeyCode::Char('x'), KeyCode::Esc],
    );
    assert_eq!(model.filter, "1");
    press(&mut model, &[KeyCode::Esc]);
    assert_eq!(model.filter, "");
}

#[test]
fn a_daemon_that_does_not_answer_is_said_so_over_its_last_picture() {
    let mut model = samples::model();
    model.clock = std::time::Duration::from_secs(100);
    model.lost("nothing listens on \"/run/rpc.sock\"\x1b[2J".to_owned());
    model.clock = std::time::Duration::from_secs(107);
    let lines = screen(&mut model, 80, 20);
    assert_eq!(
        lines[1],
        "NO ANSWER for 7s: nothing listens on \"/run/rpc.sock\"\u{fffd}[2J"
    );
    assert!(
        lines.iter().any(|line| line.starts_with("disk0 ")),
        "{lines:#?}"
    );
    let color = |model: &mut Model| terminal(model, 80, 20).backend().buffer()[(0, 1)].fg;
    assert_eq!(color(&mut model), Color::Red);
    model.sample(samples::telemetry(110));
    assert_eq!(color(&mut model), Color::Reset);
}

#[test]
fn before_the_first_picture_there_is_a_screen() {
    let mut model = Model::new(
        "/run/rpc.sock".to_owned(),
        std::time::Duration::from_secs(1),
    );
    let lines = screen(&mut model, 80, 14);
    assert_eq!(lines[..2], ["vtarget at /run/rpc.sock", "connecting"]);
    model.sample(samples::telemetry(1));
    let lines = screen(&mut model, 80, 14);
    assert_eq!(lines[1], "measuring");
}

#[test]
fn a_screen_that_is_too_small_says_so_and_any_other_size_is_drawn() {
    let mut model = samples::model();
    let lines = screen(&mut model, 30, 4);
    assert_eq!(
        lines[..2],
        ["The terminal has 30x4; 50x14", "is the least. q ends."]
    );
    let modes = [
        Mode::Normal,
        Mode::Help,
        Mode::Filter {
            before: String::new(),
        },
    ];
    for mode in modes {
        for zoomed in [false, true] {
            model.zoomed = zoomed;
            model.mode = mode.clone();
            for width in [1, 2, 10, 49, 50, 51, 79, 100, 133, 200, 400] {
                for height in [1, 2, 13, 14, 15, 16, 17, 24, 25, 60] {
                    terminal(&mut model, width, height);
                }
            }
        }
    }
}

#[test]
fn help_shows_keys_and_what_columns_mean_and_any_key_leaves_it() {
    let mut model = samples::model();
    press(&mut model, &[KeyCode::Char('?')]);
    let lines = screen(&mut model, 110, 40);
    assert!(
        lines
            .iter()
            .any(|line| line.contains("q, Ctrl-C") && line.contains("end"))
    );
    assert!(
        lines
            .iter()
            .any(|line| line.contains("HELD") && line.contains("requests that limits hold back"))
    );
    assert_eq!(press(&mut model, &[KeyCode::Char('q')]), Action::None);
    assert_eq!(model.mode, Mode::Normal);
    assert_eq!(press(&mut model, &[KeyCode::Char('q')]), Action::Quit);
}

#[test]
fn without_colors_attributes_say_what_matters() {
    let mut model = samples::model();
    let mut terminal = Terminal::new(TestBackend::new(120, 24)).expect("a terminal");
    let theme = Theme { color: false };
    terminal
        .draw(|frame| draw(frame, &mut model, theme))
        .expect("drawn");
    let buffer = terminal.backend().buffer();
    for cell in buffer.content() {
        assert_eq!((cell.fg, cell.bg), (Color::Reset, Color::Reset));
    }
}

#[test]
fn no_key_leads_into_a_state_that_cannot_be_drawn() {
    let keys = [
        KeyCode::Tab,
        KeyCode::BackTab,
        KeyCode::Enter,
        KeyCode::Left,
        KeyCode::Right,
        KeyCode::Up,
        KeyCode::Down,
        KeyCode::PageUp,
        KeyCode::PageDown,
        KeyCode::Home,
        KeyCode::End,
        KeyCode::Esc,
        KeyCode::Backspace,
        KeyCode::Char('/'),
        KeyCode::Char('r'),
        KeyCode::Char('n'),
        KeyCode::Char('l'),
        KeyCode::Char('e'),
        KeyCode::Char('+'),
        KeyCode::Char('-'),
        KeyCode::Char(' '),
        KeyCode::Char('?'),
        KeyCode::Char('磁'),
        KeyCode::F(5),
    ];
    let mut model = samples::model();
    let mut random: u32 = 1;
    for step in 0..2000_u64 {
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let key = keys[usize::try_from(random >> 16).expect("small") % keys.len()];
        press(&mut model, &[key]);
        if step % 7 == 0 {
            model.sample(samples::telemetry(200 + step));
        }
        let size = 60 + u16::try_from(random >> 28).expect("small");
        terminal(&mut model, size, size / 3);
    }
}
