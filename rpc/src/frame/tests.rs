use super::*;
use proptest::prelude::*;
use serde::de::IgnoredAny;
use serde_json::Value;

type Event = Result<Frame, FrameError>;

/// Feeds pieces one after the other and collects everything up to and including the first error.
fn feed<'a>(
    limits: FrameLimits,
    pieces: impl IntoIterator<Item = &'a [u8]>,
) -> (Vec<Event>, Framer) {
    let mut framer = Framer::new(limits);
    let mut events = Vec::new();
    for piece in pieces {
        let mut input = piece;
        while let Some(event) = framer.next(&mut input) {
            events.push(event);
        }
        assert!(input.is_empty());
    }
    (events, framer)
}

fn whole(text: &str) -> Vec<Event> {
    feed(FrameLimits::REQUEST, [text.as_bytes()]).0
}

fn container(text: &str) -> Event {
    Ok(Frame::Container(text.as_bytes().to_vec()))
}

fn only_error(text: &str) -> String {
    match whole(text).as_slice() {
        [Err(error)] => error.to_string(),
        other => panic!("{text}: {other:?}"),
    }
}

#[test]
fn values_are_cut_without_delimiters() {
    assert_eq!(
        whole(" {\"a\":[1,{}]}{} \r\n\t[]\n"),
        [
            container("{\"a\":[1,{}]}"),
            container("{}"),
            container("[]")
        ]
    );
}

#[test]
fn brackets_and_quotes_inside_strings_do_not_count() {
    let text = r#"{"}]\"{\\":"\u007d[\\"}"#;
    assert_eq!(whole(text), [container(text)]);
}

#[test]
fn top_level_scalars_are_reported_once_each() {
    for text in ["true", "null ", "\"x{\"", "-0.5e+3", "12", "0", " 7 "] {
        assert_eq!(whole(text), [Ok(Frame::Scalar)], "{text}");
    }
    assert_eq!(
        whole("1 2{}3[]"),
        [
            Ok(Frame::Scalar),
            Ok(Frame::Scalar),
            container("{}"),
            Ok(Frame::Scalar),
            container("[]")
        ]
    );
    let many = "1 ".repeat(9000);
    assert_eq!(whole(&many).len(), 9000);
}

#[test]
fn a_syntax_error_is_seen_at_its_byte_and_ends_everything() {
    assert_eq!(
        only_error("hello"),
        "unexpected 'h', expected a value at byte 0 of the message"
    );
    assert_eq!(
        only_error("  {\"a\" 1}"),
        "unexpected '1', expected ':' at byte 5 of the message"
    );
    assert_eq!(
        only_error("{\"a\":1,}{}"),
        "unexpected '}', expected a name at byte 7 of the message"
    );
    assert_eq!(
        only_error("[1}"),
        "unexpected '}', expected ',' or ']' at byte 2 of the message"
    );
    for text in [
        "]",
        "}",
        "[,]",
        "[1,]",
        "{,}",
        "{1:2}",
        "{\"a\"}",
        "{\"a\":}",
        "[01]",
        "[1.]",
        "[.5]",
        "[+1]",
        "[-]",
        "[1e]",
        "[1e+]",
        "[tru]",
        "[nul1]",
        "[\"\\x\"]",
        "[\"\\u12g4\"]",
        "[\"\n\"]",
        "[\u{7f}]",
        "\u{e4}",
        "// no\n{}",
        "[/**/]",
        "'a'",
        "[1 2]",
    ] {
        assert!(
            matches!(whole(text).last(), Some(Err(FrameError::Syntax { .. }))),
            "{text}: {:?}",
            whole(text)
        );
    }
}

#[test]
fn the_offset_counts_over_pieces() {
    let pieces: [&[u8]; 4] = [b" {}\n{\"a", b"bc", b"\":", b"x"];
    let (events, _) = feed(FrameLimits::REQUEST, pieces);
    assert!(
        matches!(
            events.last(),
            Some(Err(FrameError::Syntax { offset: 7, .. }))
        ),
        "{events:?}"
    );
}

#[test]
fn depth_is_limited_to_spdk_s_64() {
    let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
    assert_eq!(whole(&nested(64)), [container(&nested(64))]);
    assert_eq!(whole(&nested(65)), [Err(FrameError::TooDeep)]);
    assert_eq!(
        whole(&"{\"a\":".repeat(100_000)),
        [Err(FrameError::TooDeep)]
    );
}

#[test]
fn values_are_counted_as_spdk_counts_them() {
    // Brackets are two, each element one.
    let array = |values: usize| format!("[{}]", vec!["1"; values].join(","));
    assert_eq!(whole(&array(8190)).len(), 1);
    assert!(whole(&array(8190))[0].is_ok());
    assert_eq!(whole(&array(8191)), [Err(FrameError::TooManyValues(8192))]);
    // Names count too, and the count begins anew with each message.
    let limits = FrameLimits {
        bytes: 100,
        values: 4,
    };
    let (events, _) = feed(limits, [&b"{\"a\":1}{\"a\":\"\"}[1,2]"[..]]);
    assert!(events.iter().all(Result::is_ok), "{events:?}");
    let (events, _) = feed(limits, [&b"{\"a\":[]}"[..]]);
    assert_eq!(events, [Err(FrameError::TooManyValues(4))]);
}

#[test]
fn bytes_are_limited_and_an_endless_message_is_not_kept() {
    let limits = FrameLimits {
        bytes: 10,
        values: 100,
    };
    let (events, _) = feed(limits, [&b"  [123456]  [1234567]  "[..]]);
    assert_eq!(events.len(), 2);
    assert!(events.iter().all(Result::is_ok), "{events:?}");
    let (events, _) = feed(limits, [&b"[1234567] [123456789]"[..]]);
    assert_eq!(events.last(), Some(&Err(FrameError::TooLong(10))));
    for start in ["[\"", "\"", "{\"", "1"] {
        let pieces = std::iter::once(start.as_bytes()).chain([&b"1111"[..]; 1000]);
        let (events, framer) = feed(limits, pieces);
        assert_eq!(
            events.last(),
            Some(&Err(FrameError::TooLong(10))),
            "{start}"
        );
        assert_eq!(framer.partial.capacity(), 0);
    }
    // White space between messages is no message.
    let (events, _) = feed(limits, [&b"    "[..]; 1000]);
    assert_eq!(events, []);
}

#[test]
fn a_number_is_too_long_in_any_pieces() {
    let limits = FrameLimits {
        bytes: 16,
        values: 16,
    };
    // Pre-fix, its length counted only where a piece ended within it: at once, a number of any length was taken.
    let text = format!("{} []", "4".repeat(100));
    for size in [1, 13, 99, 100, 101, 200] {
        let (events, _) = feed(limits, text.as_bytes().chunks(size));
        let too_long = [Ok(Frame::Scalar), Err(FrameError::TooLong(16))];
        assert_eq!(events, too_long, "in pieces of {size}");
    }
}

#[test]
fn an_end_within_a_message_is_noticed() {
    for (text, truncated) in [
        ("", false),
        ("{} ", false),
        ("12", false),
        ("{} {\"a\":", true),
        ("-", true),
        ("1.", true),
        ("tru", true),
        ("\"", true),
    ] {
        let (_, framer) = feed(FrameLimits::REQUEST, [text.as_bytes()]);
        assert_eq!(framer.finish().is_err(), truncated, "{text}");
    }
}

/// JSON-looking text, so that the interesting states are reached often.
fn nearly_json() -> impl Strategy<Value = Vec<u8>> {
    let token = prop_oneof![
        8 => prop::sample::select(vec!["{", "}", "[", "]", ",", ":", "\"", " ", "\\"]),
        4 => prop::sample::select(vec!["\"a\":", "\"\\n\"", "true", "null", "12", "-0", "1.5e3"]),
        1 => prop::sample::select(vec!["e", "-", ".", "0", "u", "\n", "\u{1}", "\u{e4}"]),
    ];
    prop::collection::vec(token, 0..40).prop_map(|tokens| tokens.concat().into_bytes())
}

fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-1e9..1e9).prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::btree_map(".{0,4}", inner, 0..5)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

fn split<'a>(bytes: &'a [u8], cuts: &[prop::sample::Index]) -> Vec<&'a [u8]> {
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
    cuts.extend([0, bytes.len()]);
    cuts.sort_unstable();
    cuts.windows(2)
        .map(|pair| &bytes[pair[0]..pair[1]])
        .collect()
}

proptest! {
    #[test]
    fn any_split_of_any_bytes_gives_the_same_frames(
        bytes in prop_oneof![prop::collection::vec(any::<u8>(), 0..200), nearly_json()],
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..10),
    ) {
        let (once, framer) = feed(FrameLimits::REQUEST, [bytes.as_slice()]);
        let (cut, cut_framer) = feed(FrameLimits::REQUEST, split(&bytes, &cuts));
        let (single, single_framer) = feed(FrameLimits::REQUEST, bytes.chunks(1));
        prop_assert_eq!(&once, &cut);
        prop_assert_eq!(&once, &single);
        prop_assert_eq!(framer.finish(), cut_framer.finish());
        prop_assert_eq!(framer.finish(), single_framer.finish());
    }

    #[test]
    fn a_stream_of_values_is_cut_into_those_values(
        values in prop::collection::vec((json_value(), any::<bool>()), 0..5),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..10),
    ) {
        let mut stream = String::new();
        let mut expected = Vec::new();
        for (value, pretty) in &values {
            let text = if *pretty {
                serde_json::to_string_pretty(value).unwrap()
            } else {
                value.to_string()
            };
            stream.push_str(&text);
            if value.is_object() || value.is_array() {
                expected.push(container(&text));
            } else {
                expected.push(Ok(Frame::Scalar));
                // Nothing else would keep two numbers apart.
                stream.push(' ');
            }
        }
        let (events, framer) = feed(FrameLimits::REQUEST, split(stream.as_bytes(), &cuts));
        prop_assert_eq!(events, expected);
        prop_assert_eq!(framer.finish(), Ok(()));
    }

    #[test]
    fn the_grammar_is_serde_json_s(bytes in nearly_json()) {
        let mut text = b"[".to_vec();
        text.extend(bytes);
        text.push(b']');
        let (events, _) = feed(FrameLimits::REQUEST, [text.as_slice()]);
        let accepted = events == [Ok(Frame::Container(text.clone()))];
        // One control character and no \u escape in the alphabet: the scanner decides alone.
        prop_assert_eq!(accepted, serde_json::from_slice::<IgnoredAny>(&text).is_ok());
    }
}
