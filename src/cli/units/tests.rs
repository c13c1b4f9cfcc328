use super::*;

#[test]
fn values_keep_three_digits_and_never_round_into_the_next_unit() {
    let counts = [0.0, 7.0, 999.0, 999.6, 1234.0, 45_600.0, 999_600.0, 1.5e9].map(count);
    assert_eq!(
        counts,
        ["0", "7", "999", "1.00k", "1.23k", "45.6k", "1.00M", "1.50G"]
    );
    let times = [850.0, 12_345.0, 999_999.0, 4_560_000.0, 1.2e9, 5e12].map(nanoseconds);
    assert_eq!(
        times,
        [
            "850 ns", "12.3 µs", "1.00 ms", "4.56 ms", "1.20 s", "5000 s"
        ]
    );
    let sizes = [0, 512, 1 << 10, 64 << 20, (3 << 40) / 2, u64::MAX].map(bytes);
    assert_eq!(
        sizes,
        ["0 B", "512 B", "1 KiB", "64 MiB", "1.50 TiB", "16 EiB"]
    );
    let rates = [0.0, 50_000.0, 12_345_678.0, 4_567_000_000.0].map(megabytes);
    assert_eq!(rates, ["0", "0.05", "12.3", "4567"]);
    let times = [42, 187, 18_720, 1_047_600].map(uptime);
    assert_eq!(times, ["42s", "3m07s", "5h12m", "12d03h"]);
    assert_eq!(percent(1.0, 8.0), "12.5");
    assert_eq!(percent(8.0, 8.0), "100");
    assert_eq!(percent(0.0, 0.0), "-");
}

#[test]
fn counts_are_read_as_people_write_them() {
    let read = |text| parse_count(text).ok();
    assert_eq!(read("500"), Some(500));
    assert_eq!(read("10k"), Some(10_000));
    assert_eq!(read("1.5M"), Some(1_500_000));
    assert_eq!(read(".5k"), Some(500));
    assert_eq!(read("none"), Some(0));
    for text in [
        "",
        "k",
        ".",
        "-1",
        "1e3",
        "10x",
        "1.2.3",
        "99999999999999999999",
        "99999999999G",
    ] {
        assert_eq!(read(text), None, "{text}");
    }
}

#[test]
fn times_are_read_with_their_units() {
    let read = |text| parse_milliseconds(text).ok();
    assert_eq!(read("500ms"), Some(500));
    assert_eq!(read("2s"), Some(2000));
    assert_eq!(read("1.5s"), Some(1500));
    assert_eq!(read("none"), Some(0));
    for text in ["", "s", "ms", "2", "2m", "2ks", "nones", "-1s"] {
        assert_eq!(read(text), None, "{text}");
    }
}
