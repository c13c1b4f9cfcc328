//! Panics on reactors' threads: a reactor survives them, findings they are nevertheless.

use std::sync::{Mutex, Once, PoisonError};

static PANIC: Mutex<Option<String>> = Mutex::new(None);

/// Takes note of panics from now on. To be called before anything runs on a reactor.
pub(crate) fn watch() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let thread = std::thread::current();
            if thread
                .name()
                .is_some_and(|name| name.starts_with("reactor_"))
            {
                let mut place = PANIC.lock().unwrap_or_else(PoisonError::into_inner);
                place.get_or_insert_with(|| info.to_string());
            }
            before(info);
        }));
    });
}

/// What a reactor's thread said when it panicked since this was last asked.
pub(crate) fn take() -> Option<String> {
    PANIC.lock().unwrap_or_else(PoisonError::into_inner).take()
}
