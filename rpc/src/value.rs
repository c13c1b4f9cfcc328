//! Strict JSON values.
//!
//! `serde_json` takes the last of two equal keys and keeps `2.0` apart from `2`. SPDK refuses the
//! first and accepts the second where an integer is wanted, so values from outside are built here.

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use std::cell::RefCell;
use std::fmt;

/// A seed for one [`Value`] with integers normalised.
///
/// A duplicate key does not stop the parser, since the message around it is still good JSON: the
/// first one found is left in `duplicate`, and who decodes the value answers with the error of its
/// method.
#[derive(Clone, Copy)]
pub(crate) struct Strict<'a> {
    pub(crate) duplicate: &'a RefCell<Option<String>>,
}

/// Parses a whole text into a value. The inner error names the duplicate key.
#[cfg(test)]
pub(crate) fn parse(text: &str) -> serde_json::Result<Result<Value, String>> {
    let duplicate = RefCell::new(None);
    let mut parser = serde_json::Deserializer::from_str(text);
    let seed = Strict {
        duplicate: &duplicate,
    };
    let value = seed.deserialize(&mut parser)?;
    parser.end()?;
    Ok(match duplicate.into_inner() {
        None => Ok(value),
        Some(key) => Err(key),
    })
}

impl<'de> DeserializeSeed<'de> for Strict<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        normalise(value)
            .map(Value::Number)
            .ok_or_else(|| E::custom("number out of range"))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E: Error>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut array = Vec::new();
        while let Some(item) = items.next_element_seed(self)? {
            array.push(item);
        }
        Ok(Value::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            let value = entries.next_value_seed(self)?;
            if object.contains_key(&key) {
                self.duplicate.borrow_mut().get_or_insert(key);
            } else {
                object.insert(key, value);
            }
        }
        Ok(Value::Object(object))
    }
}

/// `1e3` and `2.0` become integers. Beyond 2^53 a float may already be a neighbour of what was
/// written, so it stays a float and an integer field refuses it instead of taking a wrong number.
/// `-0.0` stays too: SPDK refuses a sign on unsigned fields.
fn normalise(value: f64) -> Option<Number> {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    let integral = value.fract() == 0.0 && value.abs() <= EXACT;
    if integral && !(value == 0.0 && value.is_sign_negative()) {
        #[expect(clippy::cast_possible_truncation, reason = "within 2^53 and whole")]
        return Some(Number::from(value as i64));
    }
    Number::from_f64(value)
}

#[cfg(test)]
mod tests;
