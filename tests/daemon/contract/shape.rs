//! What a JSON value looks like, in a small language that people can read in the table.
//!
//! ```text
//! string  bool  u8 u16 u32 u64  i32 i64  null  any     "a text"  17  true  false
//! [T]                    a list          {a: T, b?: T}   these members, b may be missing; `...` at the end: and others
//! {*: T}                 any names       A | B           one of them
//! @name                  a shape of the file's [shapes]
//! ```

use std::collections::BTreeMap;
use std::fmt;

use serde_json::Value;

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Shape {
    Any,
    Text,
    Bool,
    /// A whole number of this range; its name.
    Int(&'static str, i128, i128),
    Is(Value),
    List(Box<Shape>),
    Map(Box<Shape>),
    Object {
        members: Vec<Member>,
        open: bool,
    },
    Either(Vec<Shape>),
    Named(String),
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Member {
    pub(crate) name: String,
    pub(crate) required: bool,
    pub(crate) shape: Shape,
}

/// The shapes that have names.
pub(crate) type Names = BTreeMap<String, Shape>;

const INTS: &[(&str, i128, i128)] = &[
    ("u8", 0, u8::MAX as i128),
    ("u16", 0, u16::MAX as i128),
    ("u32", 0, u32::MAX as i128),
    ("u64", 0, u64::MAX as i128),
    ("i32", i32::MIN as i128, i32::MAX as i128),
    ("i64", i64::MIN as i128, i64::MAX as i128),
];

impl Shape {
    /// Reads a whole text.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut parser = Parser { rest: text };
        let shape = parser.either()?;
        match parser.skip() {
            "" => Ok(shape),
            rest => Err(format!("`{rest}` is left over in `{text}`")),
        }
    }

    /// What is wrong with a value, and where.
    pub(crate) fn check(&self, value: &Value, names: &Names) -> Result<(), String> {
        let differs = || Err(format!("is {value} instead of {self}"));
        match self {
            Self::Any => Ok(()),
            Self::Text if value.is_string() => Ok(()),
            Self::Bool if value.is_boolean() => Ok(()),
            Self::Int(_, least, most) => {
                let number = match value {
                    Value::Number(number) => number
                        .as_u64()
                        .map(i128::from)
                        .or_else(|| number.as_i64().map(i128::from)),
                    _ => None,
                };
                match number.is_some_and(|number| (*least..=*most).contains(&number)) {
                    true => Ok(()),
                    false => differs(),
                }
            }
            Self::Is(expected) if expected == value => Ok(()),
            Self::List(element) => {
                let Value::Array(elements) = value else {
                    return differs();
                };
                for (index, value) in elements.iter().enumerate() {
                    let checked = element.check(value, names);
                    checked.map_err(|reason| format!("[{index}]{}", joined(&reason)))?;
                }
                Ok(())
            }
            Self::Map(element) => {
                let Value::Object(members) = value else {
                    return differs();
                };
                for (name, value) in members {
                    let checked = element.check(value, names);
                    checked.map_err(|reason| format!(".{name}{}", joined(&reason)))?;
                }
                Ok(())
            }
            Self::Object { members, open } => {
                let Value::Object(found) = value else {
                    return differs();
                };
                for member in members {
                    let Some(value) = found.get(&member.name) else {
                        if member.required {
                            return Err(format!(".{} is missing in {value}", member.name));
                        }
                        continue;
                    };
                    let checked = member.shape.check(value, names);
                    checked.map_err(|reason| format!(".{}{}", member.name, joined(&reason)))?;
                }
                let unknown = found
                    .keys()
                    .find(|name| members.iter().all(|member| member.name != **name));
                match unknown {
                    Some(name) if !open => Err(format!(
                        ".{name} is not in the table, and is {}",
                        found[name]
                    )),
                    _ => Ok(()),
                }
            }
            Self::Either(shapes) => {
                let mut reasons = Vec::new();
                for shape in shapes {
                    match shape.check(value, names) {
                        Ok(()) => return Ok(()),
                        Err(reason) => reasons.push(reason),
                    }
                }
                Err(reasons.join(", nor "))
            }
            Self::Named(name) => match names.get(name) {
                Some(shape) => shape.check(value, names),
                None => Err(format!("has the shape @{name}, which [shapes] lacks")),
            },
            Self::Text | Self::Bool | Self::Is(_) => differs(),
        }
    }

    /// A value that is not of this shape, if there is one.
    pub(crate) fn wrong(&self, names: &Names) -> Option<Value> {
        let candidates = [Value::from(7), Value::from("no such"), Value::from(true)];
        let mut candidates = candidates.into_iter();
        candidates.find(|value| self.check(value, names).is_err())
    }

    /// Its members, if it is an object that takes no others.
    pub(crate) fn closed_members<'a>(&'a self, names: &'a Names) -> Option<&'a [Member]> {
        match self {
            Self::Object {
                members,
                open: false,
            } => Some(members),
            Self::Named(name) => names.get(name)?.closed_members(names),
            _ => None,
        }
    }
}

/// A reason that belongs to a place within: places are joined, words have a space.
fn joined(reason: &str) -> String {
    match reason.starts_with(['.', '[']) {
        true => reason.to_owned(),
        false => format!(" {reason}"),
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("any"),
            Self::Text => f.write_str("string"),
            Self::Bool => f.write_str("bool"),
            Self::Int(name, ..) => f.write_str(name),
            Self::Is(value) => write!(f, "{value}"),
            Self::List(element) => match **element {
                Self::Either(_) => write!(f, "[({element})]"),
                _ => write!(f, "[{element}]"),
            },
            Self::Map(element) => write!(f, "{{*: {element}}}"),
            Self::Object { members, open } => {
                f.write_str("{")?;
                for (index, member) in members.iter().enumerate() {
                    let comma = if index == 0 { "" } else { ", " };
                    let mark = if member.required { "" } else { "?" };
                    let name = match member.name.contains(' ') {
                        true => format!("\"{}\"", member.name),
                        false => member.name.clone(),
                    };
                    write!(f, "{comma}{name}{mark}: {}", member.shape)?;
                }
                match (open, members.is_empty()) {
                    (true, true) => f.write_str("...}"),
                    (true, false) => f.write_str(", ...}"),
                    (false, _) => f.write_str("}"),
                }
            }
            Self::Either(shapes) => {
                for (index, shape) in shapes.iter().enumerate() {
                    let bar = if index == 0 { "" } else { " | " };
                    write!(f, "{bar}{shape}")?;
                }
                Ok(())
            }
            Self::Named(name) => write!(f, "@{name}"),
        }
    }
}

struct Parser<'a> {
    rest: &'a str,
}

impl<'a> Parser<'a> {
    fn skip(&mut self) -> &'a str {
        self.rest = self.rest.trim_start();
        self.rest
    }

    fn eat(&mut self, mark: &str) -> bool {
        match self.skip().strip_prefix(mark) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn expect(&mut self, mark: &str) -> Result<(), String> {
        match self.eat(mark) {
            true => Ok(()),
            false => Err(format!("`{mark}` is missing before `{}`", self.rest)),
        }
    }

    fn word(&mut self) -> Result<&'a str, String> {
        let rest = self.skip();
        let is_part = |it: char| it.is_ascii_alphanumeric() || it == '_' || it == '-';
        let end = rest.find(|it| !is_part(it)).unwrap_or(rest.len());
        if end == 0 {
            return Err(format!("a word is missing before `{rest}`"));
        }
        let (word, rest) = rest.split_at(end);
        self.rest = rest;
        Ok(word)
    }

    /// The rest of a quotation.
    fn quoted(&mut self) -> Result<String, String> {
        let Some((text, rest)) = self.rest.split_once('"') else {
            return Err(format!("a quotation does not end: {}", self.rest));
        };
        self.rest = rest;
        Ok(text.to_owned())
    }

    fn either(&mut self) -> Result<Shape, String> {
        let mut shapes = vec![self.one()?];
        while self.eat("|") {
            shapes.push(self.one()?);
        }
        match shapes.len() {
            1 => Ok(shapes.remove(0)),
            _ => Ok(Shape::Either(shapes)),
        }
    }

    fn one(&mut self) -> Result<Shape, String> {
        if self.eat("(") {
            let shape = self.either()?;
            self.expect(")")?;
            return Ok(shape);
        }
        if self.eat("[") {
            let element = self.either()?;
            self.expect("]")?;
            return Ok(Shape::List(Box::new(element)));
        }
        if self.eat("{") {
            return self.object();
        }
        if self.eat("@") {
            return Ok(Shape::Named(self.word()?.to_owned()));
        }
        if self.eat("\"") {
            return Ok(Shape::Is(self.quoted()?.into()));
        }
        let word = self.word()?;
        if let Some((name, least, most)) = INTS.iter().find(|(name, ..)| *name == word) {
            return Ok(Shape::Int(name, *least, *most));
        }
        match word {
            "any" => Ok(Shape::Any),
            "string" => Ok(Shape::Text),
            "bool" => Ok(Shape::Bool),
            _ => match word.parse::<Value>() {
                Ok(value) => Ok(Shape::Is(value)),
                Err(_) => Err(format!("`{word}` is no shape")),
            },
        }
    }

    fn object(&mut self) -> Result<Shape, String> {
        let (mut members, mut open) = (Vec::new(), false);
        if self.eat("*") {
            self.expect(":")?;
            let element = self.either()?;
            self.expect("}")?;
            return Ok(Shape::Map(Box::new(element)));
        }
        while !self.eat("}") {
            if self.eat("...") {
                open = true;
                self.expect("}")?;
                break;
            }
            let name = match self.eat("\"") {
                true => self.quoted()?,
                false => self.word()?.to_owned(),
            };
            let required = !self.eat("?");
            self.expect(":")?;
            members.push(Member {
                name,
                required,
                shape: self.either()?,
            });
            if !self.eat(",") {
                self.expect("}")?;
                break;
            }
        }
        Ok(Shape::Object { members, open })
    }
}

#[test]
fn shapes_are_read_printed_and_told_apart() {
    let names = Names::from([("p".to_owned(), Shape::Text)]);
    for (text, right, wrong) in [
        ("u8", "255", "256"),
        ("i32", "-1", "\"1\""),
        ("u64", "18446744073709551615", "-1"),
        ("string | null", "null", "0"),
        ("[@p]", "[\"a\"]", "[1]"),
        ("{a: u8, b?: bool}", "{\"a\": 1}", "{\"a\": 1, \"c\": 2}"),
        ("{\"a b\": u8}", "{\"a b\": 1}", "{\"a\": 1}"),
        ("{a: u8, ...}", "{\"a\": 1, \"c\": 2}", "{\"c\": 2}"),
        ("{*: true}", "{\"x\": true}", "{\"x\": false}"),
        ("\"one\" | \"two\"", "\"two\"", "\"three\""),
        (
            "[{n: [u8 | null]}]",
            "[{\"n\": [1, null]}]",
            "[{\"n\": [\"\"]}]",
        ),
    ] {
        let shape = Shape::parse(text).expect(text);
        let value = |text: &str| text.parse::<Value>().expect("JSON");
        assert_eq!(shape.check(&value(right), &names), Ok(()), "{text}");
        assert!(shape.check(&value(wrong), &names).is_err(), "{text}");
        assert_eq!(Shape::parse(&shape.to_string()), Ok(shape), "{text}");
    }
    let shape = Shape::parse("{a: [{b: u8}]}").expect("a shape");
    let wrong = serde_json::json!({"a": [{"b": 1}, {"b": "x"}]});
    let reason = shape.check(&wrong, &names).expect_err("wrong");
    assert_eq!(reason, ".a[1].b is \"x\" instead of u8");
    for text in ["", "u8 u8", "{a}", "[u8", "thing", "{a: u8"] {
        assert!(Shape::parse(text).is_err(), "{text}");
    }
}
