use super::{check_nqn, check_text, hex, parse_uuid};

#[test]
fn nqns_are_checked() {
    let longest = format!("nqn.2026-11.io.example:{}", "x".repeat(223 - 23));
    for good in [
        "nqn.2019-07.io.spdk:cnode0",
        "nqn.2016-06.io.spdk:a:b c",
        "nqn.2026-12.org.ex-ample.s3:\u{e9}",
        "nqn.2014-08.org.nvmexpress:uuid:6b0a9f7c-7d3c-4ad5-9b9c-8a0b4d8b2a01",
        longest.as_str(),
    ] {
        assert_eq!(check_nqn(good), Ok(()), "{good}");
    }
    let too_long = format!("{longest}x");
    for (bad, part) in [
        ("foo", "does not begin"),
        ("", "does not begin"),
        ("nqn.2019-07.io.spdk", "no name after a colon"),
        ("nqn.2019-07.io.spdk:", "no name after the colon"),
        ("nqn.2019-13.io.spdk:x", "no year and month"),
        ("nqn.19-01.io.spdk:x", "no year and month"),
        ("nqn.2019-1.io.spdk:x", "no year and month"),
        ("nqn.2019-01:x", "no domain"),
        ("nqn.2019-01.io..spdk:x", "no domain"),
        ("nqn.2019-01.3io.spdk:x", "no domain"),
        ("nqn.2019-01.io.spdk-:x", "no domain"),
        ("nqn.2014-08.org.nvmexpress:uuid:6b0a9f7c", "no UUID"),
        ("nqn.2014-08.org.nvmexpress.discovery", "discovery"),
        (too_long.as_str(), "at most 223"),
    ] {
        let error = check_nqn(bad).expect_err(bad);
        assert!(error.contains(part), "{bad}: {error}");
    }
}

#[test]
fn texts_fit_their_fields() {
    assert_eq!(check_text("serial_number", "SPDK 01", 20), Ok(()));
    assert!(check_text("serial_number", &"x".repeat(21), 20).is_err());
    assert!(check_text("serial_number", "a\nb", 20).is_err());
    assert!(check_text("serial_number", "\u{e9}", 20).is_err());
}

#[test]
fn identifiers_have_one_form() {
    assert_eq!(hex::parse::<2>("00ff"), Some([0, 255]));
    assert_eq!(hex::print(&[0, 255]), "00FF");
    for bad in ["", "00f", "00fg", "00ff0", "+0ff"] {
        assert_eq!(hex::parse::<2>(bad), None, "{bad}");
    }
    assert!(parse_uuid("6b0a9f7c-7d3c-4ad5-9b9c-8a0b4d8b2a01").is_some());
    assert!(parse_uuid("6b0a9f7c7d3c4ad59b9c8a0b4d8b2a01").is_none());
    assert!(parse_uuid("{6b0a9f7c-7d3c-4ad5-9b9c-8a0b4d8b2a0}").is_none());
}
