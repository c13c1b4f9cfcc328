//! A stream of JSON values as the RPC socket brings it, cut twice: as it comes in pieces, and all at once.
//!
//! Input: a byte for the limits (0: those of the product), a count, that many lengths of pieces (taken in turn; 0 for
//! everything that is left), and the stream.

use arbitrary::Unstructured;
use rpc::{Frame, FrameError, FrameLimits, Framer};
use serde::de::IgnoredAny;

use crate::Seed;

mod reference;

use reference::{Outcome, Verdict};

/// What a framer made of a stream.
#[derive(Debug, PartialEq)]
struct Cut {
    frames: Vec<Frame>,
    error: Option<FrameError>,
    end: Result<(), FrameError>,
}

/// Runs one input.
pub fn run(data: &[u8]) {
    let mut input = Unstructured::new(data);
    let limits = limits(input.arbitrary().unwrap_or_default());
    let count: u8 = input.arbitrary().unwrap_or_default();
    let count = usize::from(count).min(input.len());
    let lengths = input.bytes(count).unwrap_or_default();
    let stream = input.take_rest();

    let whole = cut(limits, std::iter::once(stream));
    let pieces = cut(limits, pieces(stream, lengths));
    assert_eq!(whole.frames, pieces.frames, "frames depend on the pieces");
    assert_eq!(whole.error.is_some(), pieces.error.is_some());
    assert_eq!(whole.end.is_ok(), pieces.end.is_ok());

    let reference = reference::cut(stream, limits.values);
    compare(&whole, &reference, limits);
    compare(&pieces, &reference, limits);
}

fn limits(code: u8) -> FrameLimits {
    match code {
        0 => FrameLimits::REQUEST,
        _ => FrameLimits {
            bytes: usize::from(code & 0x1f) * 8 + 8,
            values: usize::from(code >> 5) * 4 + 2,
        },
    }
}

fn pieces<'a>(stream: &'a [u8], lengths: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
    let mut lengths = lengths.iter().cycle();
    let mut rest = stream;
    std::iter::from_fn(move || {
        let len = match lengths.next() {
            None | Some(0) => rest.len(),
            Some(&len) => usize::from(len).min(rest.len()),
        };
        let (piece, behind) = rest.split_at(len);
        rest = behind;
        (!piece.is_empty()).then_some(piece)
    })
}

fn cut<'a>(limits: FrameLimits, pieces: impl Iterator<Item = &'a [u8]>) -> Cut {
    let mut framer = Framer::new(limits);
    let mut cut = Cut {
        frames: Vec::new(),
        error: None,
        end: Ok(()),
    };
    for mut piece in pieces {
        loop {
            let before = piece.len();
            let Some(next) = framer.next(&mut piece) else {
                break;
            };
            assert!(piece.len() < before, "a frame of no bytes");
            match next {
                Ok(frame) => {
                    assert_eq!(cut.error, None, "a frame behind an error");
                    cut.frames.push(frame);
                }
                Err(error) => {
                    assert_eq!(cut.error, None, "a second error");
                    assert!(piece.is_empty(), "input left behind an error");
                    cut.error = Some(error);
                }
            }
        }
        assert!(piece.is_empty(), "input left over");
    }
    cut.end = framer.finish();
    cut
}

fn compare(cut: &Cut, reference: &Outcome, limits: FrameLimits) {
    for (at, frame) in cut.frames.iter().enumerate() {
        assert_eq!(reference.frames.get(at), Some(frame), "frame {at}");
        if let Frame::Container(bytes) = frame {
            assert!(bytes.len() <= limits.bytes);
            serde_json::from_slice::<IgnoredAny>(bytes).expect("good JSON");
        }
    }
    // What comes after the last frame. Whether it is refused for its length or for something behind the limit depends on
    // the pieces.
    let frames = cut.frames.len();
    let last = frames.checked_sub(1).and_then(|at| reference.tails.get(at));
    let mut seen = reference.lengths.get(frames).into_iter().chain(last);
    let too_long = seen.any(|&seen| seen > limits.bytes);
    match (&cut.error, &reference.verdict) {
        (Some(FrameError::TooLong(limit)), _) => {
            assert_eq!(*limit, limits.bytes);
            assert!(too_long, "{reference:?}");
        }
        (Some(FrameError::Syntax { offset, .. }), Verdict::Syntax(expected)) => {
            assert_eq!(offset, expected);
        }
        (Some(FrameError::TooDeep), Verdict::TooDeep) => {}
        (Some(FrameError::TooManyValues(values)), Verdict::TooManyValues) => {
            assert_eq!(*values, limits.values);
        }
        (None, Verdict::Complete) => assert_eq!(cut.end, Ok(())),
        (None, &Verdict::Truncated(expected)) => {
            assert_eq!(cut.end, Err(FrameError::Truncated(expected)));
        }
        pair => panic!("{pair:?}"),
    }
    if !matches!(cut.error, Some(FrameError::TooLong(_))) {
        assert_eq!(cut.frames.len(), reference.frames.len());
    }
    if cut.error.is_none() {
        assert!(!too_long);
        assert!(reference.tails.iter().all(|&tail| tail <= limits.bytes));
    } else {
        assert_eq!(cut.end, Ok(()), "the end of a stream already given up");
    }
}

/// Requests as clients send them, values that are no requests, and near misses.
pub fn seeds() -> Vec<Seed> {
    const REQUEST: &str = r#"{"jsonrpc":"2.0","id":1,"method":"bdev_malloc_create","params":{"name":"Malloc0","num_blocks":2048,"block_size":512,"physical_block_size":4.096e3,"optimal":null,"x":[true,false,-0.5E+2]}}"#;
    let deep = format!("{}{}", "[".repeat(64), "]".repeat(64));
    let too_deep = "[".repeat(65);
    let streams: &[(&str, &str)] = &[
        ("request", REQUEST),
        ("two", &format!("{REQUEST}\n{REQUEST}")),
        ("batch", &format!("[{REQUEST},{REQUEST}]")),
        ("strings", r#"["\u00e4\uD83D\uDE00\"\\\/\b\f\n\r\t", "ä"]"#),
        ("scalars", r#"1 -2.5e3 "x" true false null {} []"#),
        ("deep", &deep),
        ("too-deep", &too_deep),
        ("truncated", &REQUEST[..40]),
        ("comma", r#"{"a":1,}"#),
        ("number", "[01]"),
        ("control", "[\"\u{1}\"]"),
    ];
    let mut seeds = Vec::new();
    for (name, stream) in streams {
        for (how, prefix) in [
            ("whole", [0, 0].as_slice()),
            ("bytes", &[0, 1, 1]),
            ("pieces", &[0, 3, 5, 1, 17]),
            ("limited", &[0x29, 1, 13]),
        ] {
            let data = [prefix, stream.as_bytes()].concat();
            seeds.push((format!("{name}-{how}"), data));
        }
    }
    seeds
}
