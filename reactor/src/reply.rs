//! An answer that goes to a function.

/// Where the answer to a question put to another thread goes: to a function, which runs on the thread that answers, so it does
/// little. Unlike a channel's end it keeps nobody waiting: whoever asked goes on, and what the function holds (an
/// [`Ack`](crate::Ack), for instance) is dropped if the answer never comes because the one who was asked has gone.
pub struct Reply<T>(Box<dyn FnOnce(T) + Send + Sync>);

impl<T> Reply<T> {
    /// The answer will be given to `take`.
    #[must_use]
    pub fn new(take: impl FnOnce(T) + Send + Sync + 'static) -> Self {
        Self(Box::new(take))
    }

    /// Answers.
    pub fn send(self, answer: T) {
        (self.0)(answer);
    }
}

impl<T> std::fmt::Debug for Reply<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Reply")
    }
}
