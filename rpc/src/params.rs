//! A call's parameters and their strict decoding.

use crate::error::{RpcError, code};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::fmt::Display;

/// The parameters of a call, not yet decoded.
///
/// `null` is the same as none (JSON-RPC 2.0 section 4.2 knows only objects and arrays; SPDK takes
/// `null` for absent). Whole numbers written as `1e3` or `2.0` are integers here already.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Params {
    value: Option<Value>,
    /// What is wrong with the value whatever the method expects, such as a key given twice. Kept
    /// here because the code of the refusal depends on the method.
    defect: Option<String>,
}

/// The error that a family of methods answers when parameters cannot be decoded. SPDK's families
/// differ, and its clients see the code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DecodeStyle {
    /// Code of the error.
    pub code: i64,
    /// Beginning of the message; the reason follows after a colon.
    pub text: &'static str,
}

impl DecodeStyle {
    /// -32602, the JSON-RPC way.
    pub const INVALID_PARAMS: Self = Self::of(code::INVALID_PARAMS);
    /// -32603, what most of SPDK's `bdev_*` and `log_*` methods answer.
    pub const INTERNAL: Self = Self::of(code::INTERNAL);
    /// -32700, what a few of SPDK's families answer.
    pub const PARSE_ERROR: Self = Self::of(code::PARSE_ERROR);
    /// -32602 with the system's text for EINVAL, what SPDK's vhost-user and vfio-user virtio
    /// methods answer.
    pub const INVALID_ARGUMENT: Self = Self {
        code: code::INVALID_PARAMS,
        text: "Invalid argument",
    };

    const fn of(code: i64) -> Self {
        Self {
            code,
            text: "Invalid parameters",
        }
    }

    /// An error of this family, for a check that goes beyond decoding.
    pub fn error(self, reason: impl Display) -> RpcError {
        RpcError::new(self.code, format!("{}: {reason}", self.text))
    }
}

impl Params {
    /// No parameters.
    pub fn none() -> Self {
        Self::default()
    }

    pub(crate) fn with_defect(value: Value, defect: Option<String>) -> Self {
        Self {
            defect,
            ..Self::from(value)
        }
    }

    /// The value as it came, `None` for absent and `null`.
    pub fn value(&self) -> Option<&Value> {
        self.value.as_ref()
    }

    /// Whether there is nothing to decode: absent, `null`, `{}` or `[]`.
    pub fn is_empty(&self) -> bool {
        match &self.value {
            None | Some(Value::Null) => true,
            Some(Value::Object(entries)) => entries.is_empty(),
            Some(Value::Array(items)) => items.is_empty(),
            Some(_) => false,
        }
    }

    /// For methods without parameters. More lenient than SPDK, which refuses `{}` too.
    ///
    /// # Errors
    /// -32602 if any parameter is given.
    pub fn expect_none(self) -> Result<(), RpcError> {
        match self.value {
            _ if self.is_empty() => Ok(()),
            Some(Value::Object(entries)) => {
                let names: Vec<&str> = entries.keys().map(String::as_str).collect();
                let reason = format!("the method takes none, remove {}", names.join(", "));
                Err(RpcError::invalid_params(reason))
            }
            _ => Err(RpcError::invalid_params("the method takes none")),
        }
    }

    /// Decodes named parameters into `T`. Absent parameters are decoded as `{}`, so that a method
    /// whose parameters are all optional can be called without any. Whether unknown keys are
    /// refused is `T`'s to say (`#[serde(deny_unknown_fields)]`).
    ///
    /// # Errors
    /// The family's error, with a text that names the key.
    pub fn decode<T: DeserializeOwned>(self, style: DecodeStyle) -> Result<T, RpcError> {
        if let Some(defect) = self.defect {
            return Err(style.error(defect));
        }
        let value = match self.value {
            Some(Value::Object(entries)) => Value::Object(entries),
            // serde would take an array for the fields of a struct in their order.
            Some(Value::Array(items)) if !items.is_empty() => {
                return Err(style.error("expected an object of named parameters, not an array"));
            }
            None | Some(Value::Null | Value::Array(_)) => Value::Object(Default::default()),
            Some(_) => return Err(style.error("expected an object of named parameters")),
        };
        serde_path_to_error::deserialize(value).map_err(|error| {
            let path = error.path().to_string();
            let text = error.inner().to_string();
            let named = path == "." || text.contains(&format!("`{path}`"));
            style.error(if named {
                text
            } else {
                format!("{path}: {text}")
            })
        })
    }
}

impl From<Value> for Params {
    fn from(value: Value) -> Self {
        Self {
            value: (!value.is_null()).then_some(value),
            defect: None,
        }
    }
}

impl From<Option<Value>> for Params {
    fn from(value: Option<Value>) -> Self {
        value.map(Self::from).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests;
