//! All interleavings: `RUSTFLAGS="--cfg loom" cargo test -p reactor --lib sleep::tests::no`.

use super::*;

#[cfg(not(loom))]
#[test]
fn only_a_sleeper_is_signalled_and_only_once() {
    let sleeper = Sleeper::new();
    assert!(!sleeper.must_signal());
    sleeper.announce();
    assert!(sleeper.must_signal());
    assert!(!sleeper.must_signal());
    sleeper.announce();
    sleeper.awake();
    assert!(!sleeper.must_signal());
}

/// Either the sleeper's second look sees the message or the sender signals: in every interleaving.
#[cfg(loom)]
#[test]
fn no_message_is_slept_through() {
    use loom::sync::Arc;
    use loom::sync::atomic::AtomicBool;
    loom::model(|| {
        let sleeper = Arc::new(Sleeper::new());
        let message = Arc::new(AtomicBool::new(false));
        let sender = {
            let (sleeper, message) = (sleeper.clone(), message.clone());
            loom::thread::spawn(move || {
                message.store(true, Ordering::Relaxed);
                sleeper.must_signal()
            })
        };
        sleeper.announce();
        let seen = message.load(Ordering::Relaxed);
        let signalled = sender.join().unwrap();
        // The sleeper would now be in the kernel: a message it has not seen must come with a signal.
        assert!(seen || signalled);
    });
}
