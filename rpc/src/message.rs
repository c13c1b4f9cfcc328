//! Requests out of frames, and replies into bytes (JSON-RPC 2.0 sections 4 to 6).

use crate::error::RpcError;
use crate::params::Params;
use crate::value::Strict;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_json::Value;
use serde_json::value::RawValue;
use std::cell::RefCell;
use std::fmt;

/// A request's id, exactly as it was written: `1.0` and `1` are the same number but a client may
/// compare text. `None` for a notification, whose id is missing or null.
pub(crate) type Id = Option<Box<RawValue>>;

/// What a call ended with.
pub(crate) type Outcome = Result<Value, RpcError>;

/// A well-formed request.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) id: Id,
    pub(crate) method: String,
    pub(crate) params: Params,
}

/// A request that can only be refused.
#[derive(Debug)]
pub(crate) struct Invalid {
    pub(crate) id: Id,
    pub(crate) error: RpcError,
}

pub(crate) type Item = Result<Call, Invalid>;

/// One frame of a client.
#[derive(Debug)]
pub(crate) enum Message {
    Single(Item),
    /// Never empty.
    Batch(Vec<Item>),
}

/// Parses one frame.
///
/// # Errors
/// -32700 for what the framer leaves open: UTF-8, surrogates, numbers out of range.
pub(crate) fn parse(frame: &[u8]) -> Result<Message, RpcError> {
    let mut parser = serde_json::Deserializer::from_slice(frame);
    let message = parser
        .deserialize_any(MessageVisitor)
        .map_err(RpcError::parse_error)?;
    parser.end().map_err(RpcError::parse_error)?;
    Ok(message)
}

/// The refusal of something that has no id one could know.
pub(crate) fn invalid(reason: impl fmt::Display) -> Item {
    Err(Invalid {
        id: None,
        error: RpcError::invalid_request(reason),
    })
}

struct MessageVisitor;

impl<'de> Visitor<'de> for MessageVisitor {
    type Value = Message;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a request object or an array of them")
    }

    fn visit_map<A: MapAccess<'de>>(self, entries: A) -> Result<Message, A::Error> {
        ItemSeed.visit_map(entries).map(Message::Single)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Message, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = elements.next_element_seed(ItemSeed)? {
            items.push(item);
        }
        Ok(if items.is_empty() {
            Message::Single(invalid("the batch is empty"))
        } else {
            Message::Batch(items)
        })
    }
}

/// One request, alone or in a batch. A wrong one is a value, not an error, so that its neighbours
/// in the batch are still answered.
#[derive(Clone, Copy)]
struct ItemSeed;

const NOT_AN_OBJECT: &str = "a request is an object";

impl<'de> DeserializeSeed<'de> for ItemSeed {
    type Value = Item;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Item, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for ItemSeed {
    type Value = Item;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a request object")
    }

    fn visit_unit<E: Error>(self) -> Result<Item, E> {
        Ok(invalid(NOT_AN_OBJECT))
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<Item, E> {
        Ok(invalid(NOT_AN_OBJECT))
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<Item, E> {
        Ok(invalid(NOT_AN_OBJECT))
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<Item, E> {
        Ok(invalid(NOT_AN_OBJECT))
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Item, E> {
        Ok(invalid(NOT_AN_OBJECT))
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<Item, E> {
        Ok(invalid(NOT_AN_OBJECT))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Item, A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(invalid(NOT_AN_OBJECT))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Item, A::Error> {
        let mut fields = Fields::default();
        while let Some(key) = entries.next_key::<String>()? {
            let duplicate = RefCell::new(None);
            let seed = Strict {
                duplicate: &duplicate,
            };
            let again = match key.as_str() {
                "id" => fields.id.replace(entries.next_value()?).is_some(),
                "method" => fields
                    .method
                    .replace(entries.next_value_seed(seed)?)
                    .is_some(),
                "jsonrpc" => fields
                    .version
                    .replace(entries.next_value_seed(seed)?)
                    .is_some(),
                "params" => {
                    let value = entries.next_value_seed(seed)?;
                    let defect = duplicate
                        .into_inner()
                        .map(|key| format!("{key}: the key is given twice"));
                    let params = Params::with_defect(value, defect);
                    fields.params.replace(params).is_some()
                }
                _ => {
                    entries.next_value::<IgnoredAny>()?;
                    fields.complain(|| format!("unknown member {key:?}"));
                    false
                }
            };
            if again {
                fields.complain(|| format!("member {key:?} is given twice"));
            }
        }
        Ok(fields.check())
    }
}

/// The members of a request object before they are judged.
#[derive(Default)]
struct Fields {
    id: Id,
    version: Option<Value>,
    method: Option<Value>,
    params: Option<Params>,
    problem: Option<String>,
}

impl Fields {
    fn complain(&mut self, problem: impl FnOnce() -> String) {
        self.problem.get_or_insert_with(problem);
    }

    fn check(mut self) -> Item {
        let raw = self.id.take();
        let id = match raw
            .as_deref()
            .map(|raw| serde_json::from_str::<Value>(raw.get()))
        {
            None | Some(Ok(Value::Null)) => None,
            Some(Ok(Value::String(_) | Value::Number(_))) => raw,
            Some(_) => {
                self.complain(|| "id must be a string, a number or null".into());
                None
            }
        };
        if self.version.take().is_some_and(|version| version != "2.0") {
            self.complain(|| "jsonrpc must be \"2.0\" where given".into());
        }
        let params = self.params.take().unwrap_or_default();
        if !matches!(
            params.value(),
            None | Some(Value::Object(_) | Value::Array(_))
        ) {
            self.complain(|| "params must be an object, an array or null".into());
        }
        let method = match self.method.take() {
            Some(Value::String(method)) => method,
            Some(_) => {
                self.complain(|| "method must be a string".into());
                String::new()
            }
            None => {
                self.complain(|| "method is missing".into());
                String::new()
            }
        };
        match self.problem {
            None => Ok(Call { id, method, params }),
            Some(problem) => Err(Invalid {
                id,
                error: RpcError::invalid_request(problem),
            }),
        }
    }
}

/// A reply object. A method's result is written without a copy.
struct Reply<'a> {
    id: Option<&'a RawValue>,
    outcome: &'a Outcome,
}

impl Serialize for Reply<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(3))?;
        map.serialize_entry("jsonrpc", "2.0")?;
        map.serialize_entry("id", &self.id)?;
        match self.outcome {
            Ok(result) => map.serialize_entry("result", result)?,
            Err(error) => map.serialize_entry("error", error)?,
        }
        map.end()
    }
}

/// The bytes of a reply of at most `limit` bytes, without the final newline. A longer one becomes
/// an error, so that the client still hears of its call. Nothing for a notification that went well;
/// one that failed is answered with a null id, as SPDK does.
pub(crate) fn encode(id: &Id, outcome: &Outcome, limit: usize) -> Option<Vec<u8>> {
    let id = id.as_deref();
    if id.is_none() && outcome.is_ok() {
        return None;
    }
    let error = match serde_json::to_vec(&Reply { id, outcome }) {
        Ok(bytes) if bytes.len() <= limit => return Some(bytes),
        Ok(bytes) => RpcError::internal(format_args!(
            "the reply of {} bytes does not fit: the limit is {limit} bytes less what the client \
             has not yet read",
            bytes.len()
        )),
        Err(error) => RpcError::internal(error),
    };
    let outcome = &Err(error);
    serde_json::to_vec(&Reply { id, outcome }).ok()
}

#[cfg(test)]
mod tests;
