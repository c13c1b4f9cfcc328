//! The resumable scanner: JSON's grammar (RFC 8259) as a state machine over single bytes.

use super::{FrameError, FrameLimits};
use std::fmt;

/// Bracket depth allowed, SPDK's. One bit per level is remembered, so a `u64` holds the stack.
pub const MAX_DEPTH: u32 = 64;

/// A byte that JSON does not allow where it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SyntaxError {
    /// The byte.
    pub found: u8,
    /// What could have stood there.
    pub expected: &'static str,
}

impl fmt::Display for SyntaxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.found {
            byte @ b'!'..=b'~' => write!(f, "unexpected '{}'", char::from(byte))?,
            byte => write!(f, "unexpected byte {byte:#04x}")?,
        }
        write!(f, ", expected {}", self.expected)
    }
}

/// What the bytes taken by one [`Scanner::push`] amount to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// White space between values.
    Skipped,
    /// The rest of a top-level number, which was reported already, ends with them; there may be none.
    NumberEnd,
    /// They continue a value, and the input is used up.
    More,
    /// The last of them ends a top-level object or array.
    Container,
    /// The last of them ends a top-level scalar, or is the first digit of a top-level number.
    Scalar,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    Syntax(SyntaxError),
    TooDeep,
    TooManyValues,
}

impl Fault {
    pub(super) fn at(self, offset: usize, limits: &FrameLimits) -> FrameError {
        match self {
            Fault::Syntax(error) => FrameError::Syntax { error, offset },
            Fault::TooDeep => FrameError::TooDeep,
            Fault::TooManyValues => FrameError::TooManyValues(limits.values),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Between top-level values.
    Idle,
    Value,
    ValueOrEnd,
    Name,
    NameOrEnd,
    Colon,
    CommaOrEnd,
    String {
        name: bool,
    },
    Escape {
        name: bool,
    },
    Hex {
        name: bool,
        left: u8,
    },
    Literal {
        rest: &'static [u8],
    },
    Number(Number),
}

/// The part of a number that the last byte belonged to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Number {
    Minus,
    Zero,
    Integer,
    Point,
    Fraction,
    E,
    ESign,
    Exponent,
}

impl Number {
    /// The state after one more byte; `Ok(None)` where the number ended before it.
    fn step(self, byte: u8) -> Result<Option<Self>, Fault> {
        use Number::*;
        let next = match (self, byte) {
            (Minus, b'0') => Zero,
            (Minus, b'1'..=b'9') => Integer,
            (Integer, b'0'..=b'9') => Integer,
            (Zero | Integer, b'.') => Point,
            (Zero | Integer | Fraction, b'e' | b'E') => E,
            (Point | Fraction, b'0'..=b'9') => Fraction,
            (E, b'+' | b'-') => ESign,
            (E | ESign | Exponent, b'0'..=b'9') => Exponent,
            (Minus | Point | E | ESign, _) => return Err(unexpected(byte, "a digit")),
            (Zero | Integer | Fraction | Exponent, _) => return Ok(None),
        };
        Ok(Some(next))
    }

    fn is_complete(self) -> bool {
        use Number::*;
        matches!(self, Zero | Integer | Fraction | Exponent)
    }
}

fn unexpected(found: u8, expected: &'static str) -> Fault {
    Fault::Syntax(SyntaxError { found, expected })
}

#[derive(Debug)]
pub(super) struct Scanner {
    state: State,
    /// One bit per open bracket, the innermost lowest: 1 for an object.
    objects: u64,
    depth: u32,
    values: usize,
    max_values: usize,
}

impl Scanner {
    pub(super) fn new(max_values: usize) -> Self {
        Self {
            state: State::Idle,
            objects: 0,
            depth: 0,
            values: 0,
            max_values,
        }
    }

    pub(super) fn in_container(&self) -> bool {
        self.depth > 0
    }

    /// Whether the stream may end here.
    pub(super) fn may_end(&self) -> bool {
        match self.state {
            State::Idle => true,
            State::Number(number) => self.depth == 0 && number.is_complete(),
            _ => false,
        }
    }

    /// Takes bytes until a value ends, a run of skipped bytes ends, or the input does. Returns how
    /// many were taken; of an error, the last one taken is the offender. Takes at least one byte
    /// of a non-empty input, but for a `NumberEnd`.
    pub(super) fn push(&mut self, input: &[u8]) -> (usize, Result<Step, Fault>) {
        let mut at = 0;
        while let Some(&byte) = input.get(at) {
            match self.state {
                State::Idle if is_space(byte) => {
                    let rest = input.get(at..).unwrap_or_default();
                    let run = rest.iter().take_while(|&&byte| is_space(byte)).count();
                    return (at + run, Ok(Step::Skipped));
                }
                // The bulk of a message is inside strings.
                State::String { .. } => {
                    let rest = input.get(at..).unwrap_or_default();
                    at += rest.iter().take_while(|&&byte| is_plain(byte)).count();
                    let Some(&byte) = input.get(at) else { break };
                    match self.step(byte) {
                        Ok(None) => at += 1,
                        Ok(Some(step)) => return (at + 1, Ok(step)),
                        Err(fault) => return (at + 1, Err(fault)),
                    }
                }
                State::Number(number) => match number.step(byte) {
                    Err(fault) => return (at + 1, Err(fault)),
                    Ok(Some(next)) => {
                        self.state = State::Number(next);
                        at += 1;
                        // The first digit after a minus; without one, `begin` has reported it.
                        if self.depth == 0 && number == Number::Minus {
                            return (at, Ok(Step::Scalar));
                        }
                    }
                    // The byte is the next state's to judge.
                    Ok(None) if self.depth == 0 => {
                        self.state = State::Idle;
                        return (at, Ok(Step::NumberEnd));
                    }
                    Ok(None) => self.state = State::CommaOrEnd,
                },
                _ => match self.step(byte) {
                    Ok(None) => at += 1,
                    Ok(Some(step)) => return (at + 1, Ok(step)),
                    Err(fault) => return (at + 1, Err(fault)),
                },
            }
        }
        (input.len(), Ok(Step::More))
    }

    /// One byte in any state but a number's. Says what ended with it, if a top-level value did.
    fn step(&mut self, byte: u8) -> Result<Option<Step>, Fault> {
        match self.state {
            State::Idle | State::Value => return self.begin(byte, "a value"),
            State::ValueOrEnd if byte == b']' => return self.close(),
            State::ValueOrEnd => return self.begin(byte, "a value or ']'"),
            State::NameOrEnd if byte == b'}' => return self.close(),
            State::Name | State::NameOrEnd => match byte {
                b'"' => self.state = State::String { name: true },
                _ if is_space(byte) => {}
                _ if self.state == State::Name => return Err(unexpected(byte, "a name")),
                _ => return Err(unexpected(byte, "a name or '}'")),
            },
            State::Colon => match byte {
                b':' => self.state = State::Value,
                _ if is_space(byte) => {}
                _ => return Err(unexpected(byte, "':'")),
            },
            State::CommaOrEnd => {
                let in_object = self.objects & 1 == 1;
                match byte {
                    b',' if in_object => self.state = State::Name,
                    b',' => self.state = State::Value,
                    b'}' if in_object => return self.close(),
                    b']' if !in_object => return self.close(),
                    _ if is_space(byte) => {}
                    _ if in_object => return Err(unexpected(byte, "',' or '}'")),
                    _ => return Err(unexpected(byte, "',' or ']'")),
                }
            }
            State::String { name } => match byte {
                b'"' if name => {
                    self.count()?;
                    self.state = State::Colon;
                }
                b'"' => return self.end_scalar(),
                b'\\' => self.state = State::Escape { name },
                _ if is_plain(byte) => {}
                _ => return Err(unexpected(byte, "control characters to be escaped")),
            },
            State::Escape { name } => match byte {
                b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => {
                    self.state = State::String { name };
                }
                b'u' => self.state = State::Hex { name, left: 4 },
                _ => return Err(unexpected(byte, "an escape")),
            },
            State::Hex { name, left } => match byte {
                b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F' => {
                    self.state = match left {
                        0 | 1 => State::String { name },
                        _ => State::Hex {
                            name,
                            left: left - 1,
                        },
                    };
                }
                _ => return Err(unexpected(byte, "four hexadecimal digits")),
            },
            State::Literal { rest } => match rest.split_first() {
                Some((&want, [])) if want == byte => return self.end_scalar(),
                Some((&want, rest)) if want == byte => self.state = State::Literal { rest },
                _ => return Err(unexpected(byte, "true, false or null")),
            },
            // `push` runs numbers itself.
            State::Number(_) => {}
        }
        Ok(None)
    }

    /// The first byte of a value.
    fn begin(&mut self, byte: u8, expected: &'static str) -> Result<Option<Step>, Fault> {
        self.state = match byte {
            b'{' | b'[' => return self.open(byte == b'{'),
            b'"' => State::String { name: false },
            b't' => State::Literal { rest: b"rue" },
            b'f' => State::Literal { rest: b"alse" },
            b'n' => State::Literal { rest: b"ull" },
            b'-' | b'0'..=b'9' => {
                if self.depth > 0 {
                    self.count()?;
                }
                let number = match byte {
                    b'-' => Number::Minus,
                    b'0' => Number::Zero,
                    _ => Number::Integer,
                };
                self.state = State::Number(number);
                return Ok((self.depth == 0 && number.is_complete()).then_some(Step::Scalar));
            }
            _ if is_space(byte) => return Ok(None),
            _ => return Err(unexpected(byte, expected)),
        };
        Ok(None)
    }

    fn open(&mut self, object: bool) -> Result<Option<Step>, Fault> {
        if self.depth == MAX_DEPTH {
            return Err(Fault::TooDeep);
        }
        if self.depth == 0 {
            self.values = 0;
        }
        self.depth += 1;
        self.count()?;
        self.objects = (self.objects << 1) | u64::from(object);
        self.state = if object {
            State::NameOrEnd
        } else {
            State::ValueOrEnd
        };
        Ok(None)
    }

    fn close(&mut self) -> Result<Option<Step>, Fault> {
        self.count()?;
        self.depth = self.depth.saturating_sub(1);
        self.objects >>= 1;
        if self.depth == 0 {
            self.state = State::Idle;
            return Ok(Some(Step::Container));
        }
        self.state = State::CommaOrEnd;
        Ok(None)
    }

    fn end_scalar(&mut self) -> Result<Option<Step>, Fault> {
        if self.depth == 0 {
            self.state = State::Idle;
            return Ok(Some(Step::Scalar));
        }
        self.count()?;
        self.state = State::CommaOrEnd;
        Ok(None)
    }

    fn count(&mut self) -> Result<(), Fault> {
        self.values = self.values.saturating_add(1);
        if self.values > self.max_values {
            return Err(Fault::TooManyValues);
        }
        Ok(())
    }
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}

/// A byte that means nothing special inside a string.
fn is_plain(byte: u8) -> bool {
    byte >= 0x20 && byte != b'"' && byte != b'\\'
}
