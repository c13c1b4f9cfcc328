//! RFC 8259 by recursive descent over the whole stream, with the framer's limits on depth and values.

use rpc::{Frame, MAX_DEPTH};

/// What a stream consists of.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) frames: Vec<Frame>,
    pub(super) verdict: Verdict,
    /// Bytes that had to be seen of each frame, and then of the value after them that is wrong or not whole.
    pub(super) lengths: Vec<usize>,
    /// Bytes that follow each frame as the rest of a top-level number, which is a frame from its first digit on.
    pub(super) tails: Vec<usize>,
}

/// How a stream ends. Places are counted in bytes from the beginning of the value, or of the rest of a top-level number.
#[derive(Debug, PartialEq)]
pub(super) enum Verdict {
    /// After a value.
    Complete,
    /// Within a value.
    Truncated(usize),
    /// With a byte that cannot be there.
    Syntax(usize),
    /// With one bracket too many.
    TooDeep,
    /// With one value too many.
    TooManyValues,
}

/// Cuts the stream.
pub(super) fn cut(text: &[u8], max_values: usize) -> Outcome {
    let mut parser = Parser {
        text,
        at: 0,
        depth: 0,
        values: 0,
        max_values,
    };
    let mut outcome = Outcome {
        frames: Vec::new(),
        verdict: Verdict::Complete,
        lengths: Vec::new(),
        tails: Vec::new(),
    };
    loop {
        parser.skip_space();
        if parser.at == text.len() {
            return outcome;
        }
        let mut start = parser.at;
        let mut result = parser.top_level().map(|frame| {
            outcome.frames.push(frame);
            outcome.lengths.push(parser.at - start);
        });
        let sizes = if result.is_ok() {
            start = parser.at;
            result = parser.rest_of_number(text[start - 1]);
            &mut outcome.tails
        } else {
            &mut outcome.lengths
        };
        let seen = parser.at - start;
        let (verdict, size) = match result {
            Ok(()) => {
                sizes.push(seen);
                continue;
            }
            Err(Stop::End) => (Verdict::Truncated(seen), seen),
            Err(Stop::Unexpected) => (Verdict::Syntax(seen), seen + 1),
            Err(Stop::Deep) => (Verdict::TooDeep, seen + 1),
            Err(Stop::Many) => (Verdict::TooManyValues, seen + 1),
        };
        sizes.push(size);
        outcome.verdict = verdict;
        return outcome;
    }
}

/// Why there is no value; but for `End`, the parser stands before the byte that is to blame.
enum Stop {
    End,
    Unexpected,
    Deep,
    Many,
}

struct Parser<'a> {
    text: &'a [u8],
    at: usize,
    depth: u32,
    values: usize,
    max_values: usize,
}

type Parse = Result<(), Stop>;

impl Parser<'_> {
    fn peek(&self) -> Result<u8, Stop> {
        self.text.get(self.at).copied().ok_or(Stop::End)
    }

    fn expect(&mut self, fits: impl Fn(u8) -> bool) -> Parse {
        if !fits(self.peek()?) {
            return Err(Stop::Unexpected);
        }
        self.at += 1;
        Ok(())
    }

    fn accept(&mut self, fits: impl Fn(u8) -> bool) -> bool {
        self.expect(fits).is_ok()
    }

    fn skip_space(&mut self) {
        while self.accept(|byte| b" \t\r\n".contains(&byte)) {}
    }

    /// Counts the value whose last byte was just taken.
    fn count(&mut self) -> Parse {
        self.values += 1;
        if self.values > self.max_values {
            self.at -= 1;
            return Err(Stop::Many);
        }
        Ok(())
    }

    /// A whole container, string or literal, or a number up to its first digit.
    fn top_level(&mut self) -> Result<Frame, Stop> {
        let start = self.at;
        self.values = 0;
        match self.peek()? {
            b'{' | b'[' => {
                self.container()?;
                let frame = self.text[start..self.at].to_vec();
                return Ok(Frame::Container(frame));
            }
            b'-' | b'0'..=b'9' => {
                self.accept(|byte| byte == b'-');
                self.expect(|byte| byte.is_ascii_digit())?;
            }
            _ => self.string_or_literal()?,
        }
        Ok(Frame::Scalar)
    }

    fn container(&mut self) -> Parse {
        let object = self.peek()? == b'{';
        if self.depth == MAX_DEPTH {
            return Err(Stop::Deep);
        }
        self.depth += 1;
        self.at += 1;
        self.count()?;
        let close = if object { b'}' } else { b']' };
        self.skip_space();
        if !self.accept(|byte| byte == close) {
            loop {
                if object {
                    self.skip_space();
                    self.string()?;
                    self.count()?;
                    self.skip_space();
                    self.expect(|byte| byte == b':')?;
                }
                self.skip_space();
                self.value()?;
                self.skip_space();
                if !self.accept(|byte| byte == b',') {
                    break;
                }
            }
            self.expect(|byte| byte == close)?;
        }
        self.depth -= 1;
        self.count()
    }

    fn value(&mut self) -> Parse {
        match self.peek()? {
            b'{' | b'[' => self.container(),
            first @ (b'-' | b'0'..=b'9') => {
                self.at += 1;
                self.count()?;
                if first == b'-' {
                    self.expect(|byte| byte.is_ascii_digit())?;
                }
                self.rest_of_number(self.text[self.at - 1])
            }
            _ => {
                self.string_or_literal()?;
                self.count()
            }
        }
    }

    fn string_or_literal(&mut self) -> Parse {
        let literal: &[u8] = match self.peek()? {
            b't' => b"true",
            b'f' => b"false",
            b'n' => b"null",
            _ => return self.string(),
        };
        literal
            .iter()
            .try_for_each(|&want| self.expect(|byte| byte == want))
    }

    fn string(&mut self) -> Parse {
        self.expect(|byte| byte == b'"')?;
        loop {
            if self.accept(|byte| byte == b'"') {
                return Ok(());
            }
            if !self.accept(|byte| byte == b'\\') {
                self.expect(|byte| byte >= 0x20)?;
            } else if self.accept(|byte| byte == b'u') {
                for _ in 0..4 {
                    self.expect(|byte| byte.is_ascii_hexdigit())?;
                }
            } else {
                self.expect(|byte| b"\"\\/bfnrt".contains(&byte))?;
            }
        }
    }

    /// What may follow a number's first digit; nothing if `last` is none.
    fn rest_of_number(&mut self, last: u8) -> Parse {
        if !last.is_ascii_digit() {
            return Ok(());
        }
        if last != b'0' {
            self.digits();
        }
        if self.accept(|byte| byte == b'.') {
            self.expect(|byte| byte.is_ascii_digit())?;
            self.digits();
        }
        if self.accept(|byte| matches!(byte, b'e' | b'E')) {
            self.accept(|byte| matches!(byte, b'+' | b'-'));
            self.expect(|byte| byte.is_ascii_digit())?;
            self.digits();
        }
        Ok(())
    }

    fn digits(&mut self) {
        while self.accept(|byte| byte.is_ascii_digit()) {}
    }
}
