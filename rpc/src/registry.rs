//! Method names, when each may be called, and who answers.

use crate::caller::{Access, Caller};
use crate::error::RpcError;
use crate::params::{DecodeStyle, Params};
use crate::responder::{Request, Responder};
use nix::errno::Errno;
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

/// Says why these parameters make a method change something that otherwise changes nothing.
pub type Guard = fn(&Params) -> Result<(), RpcError>;

enum Entry<S> {
    Method {
        when: When,
        body: Body<S>,
        /// Whether it changes nothing, if this says so of its parameters.
        read_only: Option<Guard>,
    },
    Alias {
        of: &'static str,
        used: AtomicBool,
    },
}

/// A method that may be called.
struct Found<'a, S> {
    when: When,
    body: &'a Body<S>,
    read_only: Option<Guard>,
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
    /// What should be marked does not exist.
    #[error("{0}, which is to be read-only, is no RPC method")]
    NoMethod(&'static str),
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
            read_only: Some(|_| Ok(())),
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
        self.insert(name, Entry::new(when, Body::Now(handler)))
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
        self.insert(name, Entry::new(when, Body::Later(handler)))
    }

    /// Marks methods that change nothing, which [`Access::ReadOnly`] allows. A method is not one of
    /// them until it is marked.
    ///
    /// # Errors
    /// One of the names is no method's.
    pub fn read_only(
        &mut self,
        names: impl IntoIterator<Item = &'static str>,
    ) -> Result<&mut Self, RegistryError> {
        for name in names {
            self.read_only_if(name, |_| Ok(()))?;
        }
        Ok(self)
    }

    /// Marks a method that changes nothing unless its parameters ask for it; `guard` refuses those.
    ///
    /// # Errors
    /// The name is no method's.
    pub fn read_only_if(
        &mut self,
        name: &'static str,
        guard: Guard,
    ) -> Result<&mut Self, RegistryError> {
        match self.entries.get_mut(name) {
            Some(Entry::Method { read_only, .. }) => *read_only = Some(guard),
            _ => return Err(RegistryError::NoMethod(name)),
        }
        Ok(self)
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
    fn find(&self, name: &str) -> Option<Found<'_, S>> {
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
            Entry::Method {
                when,
                body,
                read_only,
            } => Some(Found {
                when: *when,
                body,
                read_only: *read_only,
            }),
            Entry::Alias { .. } => None,
        }
    }

    /// Whether a method is marked as changing nothing, for some of its parameters at least.
    pub fn is_read_only(&self, name: &str) -> bool {
        self.find(name)
            .is_some_and(|found| found.read_only.is_some())
    }

    /// When a method may be called; `None` for what would answer "Method not found".
    pub fn when(&self, name: &str) -> Option<When> {
        self.find(name).map(|found| found.when)
    }

    /// The names that this access allows, in alphabetical order: all, or with `callable_in` only
    /// those that may be called in that state.
    pub fn names(
        &self,
        access: Access,
        callable_in: Option<State>,
        include_aliases: bool,
    ) -> Vec<&'static str> {
        let offers = |entry: &Entry<S>| {
            let method = match entry {
                Entry::Method { .. } => Some(entry),
                Entry::Alias { .. } if !include_aliases => None,
                Entry::Alias { of, .. } => self.entries.get(of),
            };
            match method {
                Some(Entry::Method {
                    when, read_only, ..
                }) => {
                    (access == Access::Full || read_only.is_some())
                        && callable_in.is_none_or(|state| when.includes(state))
                }
                _ => false,
            }
        };
        self.entries
            .iter()
            .filter(|(name, entry)| self.is_allowed(name) && offers(entry))
            .map(|(name, _)| *name)
            .collect()
    }

    /// Runs one call. Whatever happens, the request's responder answers.
    pub fn dispatch(&self, target: &mut S, state: State, request: Request) {
        let Request {
            method,
            params,
            caller,
            responder,
        } = request;
        let Some(Found {
            when,
            body,
            read_only,
        }) = self.find(&method)
        else {
            return responder.err(RpcError::method_not_found());
        };
        let changes = match read_only {
            Some(guard) => guard(&params).err(),
            None => Some(refusal(&method)),
        };
        if let Some(refusal) = changes {
            if caller.access == Access::ReadOnly {
                tracing::debug!(%method, caller = %describe(&caller), "RPC call refused, the socket is read-only");
                return responder.err(refusal);
            }
            tracing::debug!(%method, caller = %describe(&caller), "RPC call that changes something");
        }
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
            Body::Methods => {
                let answer = self.get_methods(caller.access, state, params);
                responder.answer(answer);
            }
        }
    }

    fn get_methods(&self, access: Access, state: State, params: Params) -> Result<Value, RpcError> {
        let wanted: GetMethods = params.decode(DecodeStyle::INVALID_PARAMS)?;
        let callable_in = wanted.current.then_some(state);
        Ok(self
            .names(access, callable_in, wanted.include_aliases)
            .into())
    }
}

impl<S> Entry<S> {
    fn new(when: When, body: Body<S>) -> Self {
        Self::Method {
            when,
            body,
            read_only: None,
        }
    }
}

fn refusal(method: &str) -> RpcError {
    let reason = format!(
        "{method} changes the target, and this socket is read-only: use the target's other RPC socket"
    );
    RpcError::errno(Errno::EACCES, reason)
}

fn describe(caller: &Caller) -> String {
    match caller.peer {
        Some(peer) => peer.to_string(),
        None => "this process".to_owned(),
    }
}

#[cfg(test)]
mod tests;
