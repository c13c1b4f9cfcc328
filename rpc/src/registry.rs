//! Method names, when each may be called, and who answers.

use crate::error::RpcError;
use crate::params::{DecodeStyle, Params};
use crate::responder::{Request, Responder};
use serde::Deserialize;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};

/// What the server is ready for (SPDK's RPC states).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Before `framework_start_init`.
    Startup,
    /// After it.
    Runtime,
}

/// When a method may be called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// In [`State::Startup`] only.
    Startup,
    /// In [`State::Runtime`] only.
    Runtime,
    /// In both.
    Always,
}

impl When {
    /// Whether a method may be called in `state`.
    pub fn includes(self, state: State) -> bool {
        match self {
            When::Startup => state == State::Startup,
            When::Runtime => state == State::Runtime,
            When::Always => true,
        }
    }
}

/// A method that answers before it returns.
pub type Handler<S> = fn(&mut S, Params) -> Result<Value, RpcError>;

/// A method that may answer later.
pub type DeferredHandler<S> = fn(&mut S, Params, Responder);

enum Body<S> {
    Now(Handler<S>),
    Later(DeferredHandler<S>),
    /// `rpc_get_methods`, which only the registry can answer.
    Methods,
}

enum Entry<S> {
    Method { when: When, body: Body<S> },
    Alias { of: &'static str, used: AtomicBool },
}

/// A name was registered twice, or an alias names no method. A mistake of the program.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegistryError {
    /// The name is taken.
    #[error("RPC method {0} is registered twice")]
    Duplicate(&'static str),
    /// The alias would stand for nothing, or for another alias.
    #[error("RPC alias {0} stands for {1}, which is no method")]
    Dangling(&'static str, &'static str),
}

const GET_METHODS: &str = "rpc_get_methods";

/// The methods of a server whose state is `S`. Holds `rpc_get_methods` from the beginning.
///
/// Handlers are plain functions over `S`. A handler that needs the registry itself finds it in `S`
/// (as an `Arc`): [`dispatch`](Self::dispatch) borrows the registry and `S` separately.
pub struct Registry<S> {
    entries: BTreeMap<&'static str, Entry<S>>,
    /// `None` allows everything.
    allowed: Option<BTreeSet<String>>,
}

impl<S> Default for Registry<S> {
    fn default() -> Self {
        Self::new()
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GetMethods {
    #[serde(default)]
    current: bool,
    #[serde(default)]
    include_aliases: bool,
}

impl<S> Registry<S> {
    /// A registry with nothing but `rpc_get_methods`.
    pub fn new() -> Self {
        let methods = Entry::Method {
            when: When::Always,
            body: Body::Methods,
        };
        Self {
            entries: BTreeMap::from([(GET_METHODS, methods)]),
            allowed: None,
        }
    }

    /// Adds a method that answers before it returns.
    ///
    /// # Errors
    /// The name is taken.
    pub fn method(
        &mut self,
        name: &'static str,
        when: When,
        handler: Handler<S>,
    ) -> Result<&mut Self, RegistryError> {
        let body = Body::Now(handler);
        self.insert(name, Entry::Method { when, body })
    }

    /// Adds a method that may answer later.
    ///
    /// # Errors
    /// The name is taken.
    pub fn deferred(
        &mut self,
        name: &'static str,
        when: When,
        handler: DeferredHandler<S>,
    ) -> Result<&mut Self, RegistryError> {
        let body = Body::Later(handler);
        self.insert(name, Entry::Method { when, body })
    }

    /// Adds an old name of a method that exists already.
    ///
    /// # Errors
    /// The alias is taken, or `of` is not a method.
    pub fn alias(
        &mut self,
        alias: &'static str,
        of: &'static str,
    ) -> Result<&mut Self, RegistryError> {
        if !matches!(self.entries.get(of), Some(Entry::Method { .. })) {
            return Err(RegistryError::Dangling(alias, of));
        }
        let used = AtomicBool::new(false);
        self.insert(alias, Entry::Alias { of, used })
    }

    fn insert(&mut self, name: &'static str, entry: Entry<S>) -> Result<&mut Self, RegistryError> {
        if self.entries.contains_key(name) {
            return Err(RegistryError::Duplicate(name));
        }
        self.entries.insert(name, entry);
        Ok(self)
    }

    /// Allows these names only (`--rpcs-allowed`); all others answer as if they did not exist. An
    /// alias must be allowed by its own name. Returns the names that no method has, for a warning:
    /// most likely they are misspelt.
    pub fn allow_only(&mut self, names: impl IntoIterator<Item = String>) -> Vec<String> {
        let names: BTreeSet<String> = names.into_iter().collect();
        let unknown = names
            .iter()
            .filter(|name| !self.entries.contains_key(name.as_str()))
            .cloned()
            .collect();
        self.allowed = Some(names);
        unknown
    }

    fn is_allowed(&self, name: &str) -> bool {
        self.allowed
            .as_ref()
            .is_none_or(|allowed| allowed.contains(name))
    }

    /// The method behind a name or alias that may be called.
    fn find(&self, name: &str) -> Option<(When, &Body<S>)> {
        if !self.is_allowed(name) {
            return None;
        }
        let entry = self.entries.get(name)?;
        let entry = match entry {
            Entry::Method { .. } => entry,
            Entry::Alias { of, used } => {
                if !used.swap(true, Ordering::Relaxed) {
                    tracing::warn!(
                        alias = name,
                        method = of,
                        "deprecated RPC name, use the method's"
                    );
                }
                self.entries.get(of)?
            }
        };
        match entry {
            Entry::Method { when, body } => Some((*when, body)),
            Entry::Alias { .. } => None,
        }
    }

    /// When a method may be called; `None` for what would answer "Method not found".
    pub fn when(&self, name: &str) -> Option<When> {
        self.find(name).map(|(when, _)| when)
    }

    /// The allowed names in alphabetical order: all, or with `callable_in` only those that may be
    /// called in that state.
    pub fn names(&self, callable_in: Option<State>, include_aliases: bool) -> Vec<&'static str> {
        let when = |entry: &Entry<S>| match entry {
            Entry::Method { when, .. } => Some(*when),
            Entry::Alias { .. } if !include_aliases => None,
            Entry::Alias { of, .. } => match self.entries.get(of) {
                Some(Entry::Method { when, .. }) => Some(*when),
                _ => None,
            },
        };
        self.entries
            .iter()
            .filter(|(name, _)| self.is_allowed(name))
            .filter(|(_, entry)| {
                when(entry).is_some_and(|when| callable_in.is_none_or(|state| when.includes(state)))
            })
            .map(|(name, _)| *name)
            .collect()
    }

    /// Runs one call. Whatever happens, the request's responder answers.
    pub fn dispatch(&self, target: &mut S, state: State, request: Request) {
        let Request {
            method,
            params,
            responder,
        } = request;
        let Some((when, body)) = self.find(&method) else {
            return responder.err(RpcError::method_not_found());
        };
        if !when.includes(state) {
            return responder.err(RpcError::wrong_state(match state {
                State::Startup => format!(
                    "{method} works only once the framework is initialized, call \
                     framework_start_init first"
                ),
                State::Runtime => format!(
                    "{method} works only until the framework is initialized, start with \
                     --wait-for-rpc and call it before framework_start_init"
                ),
            }));
        }
        match body {
            Body::Now(handler) => responder.answer(handler(target, params)),
            Body::Later(handler) => handler(target, params, responder),
            Body::Methods => responder.answer(self.get_methods(state, params)),
        }
    }

    fn get_methods(&self, state: State, params: Params) -> Result<Value, RpcError> {
        let wanted: GetMethods = params.decode(DecodeStyle::INVALID_PARAMS)?;
        let callable_in = wanted.current.then_some(state);
        Ok(self.names(callable_in, wanted.include_aliases).into())
    }
}

#[cfg(test)]
mod tests;
