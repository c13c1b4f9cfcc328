//! Who wants to hear of what happens to a device.

use std::sync::Arc;

/// Where a device tells of events that an operator may want to hear of; by default nowhere. Called on the device's reactor, so
/// what is told is to be handed on, not worked on; nothing on the way of a request that goes well tells anything.
pub struct Observer<E>(Option<Arc<dyn Fn(E) + Send + Sync>>);

impl<E> Observer<E> {
    /// Events go to `hear`.
    #[must_use]
    pub fn new(hear: impl Fn(E) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(hear)))
    }

    /// Tells of an event.
    pub fn tell(&self, event: E) {
        if let Some(hear) = &self.0 {
            hear(event);
        }
    }
}

impl<E> Default for Observer<E> {
    fn default() -> Self {
        Self(None)
    }
}

impl<E> Clone for Observer<E> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

/// The same place.
impl<E> PartialEq for Observer<E> {
    fn eq(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (None, None) => true,
            (Some(one), Some(two)) => Arc::ptr_eq(one, two),
            _ => false,
        }
    }
}

impl<E> Eq for Observer<E> {}

impl<E> std::fmt::Debug for Observer<E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.is_some() {
            "Observer"
        } else {
            "nobody"
        })
    }
}
