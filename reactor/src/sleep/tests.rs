//! Run with `RUSTFLAGS="--cfg loom" cargo test -p reactor --lib sleep` for all interleavings.

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
    use loom::sync::atomic::AtomicUsize;
    loom::model(|| {
        let sleeper = Arc::new(Sleeper::new());
        let inbox = Arc::new(AtomicUsize::new(0));
        let signals = Arc::new(AtomicUsize::new(0));
        let senders: Vec<_> = (0..2)
            .map(|_| {
                let (sleeper, inbox, signals) = (sleeper.clone(), inbox.clone(), signals.clone());
                loom::thread::spawn(move || {
                    inbox.fetch_add(1, Ordering::Release);
                    if sleeper.must_signal() {
                        signals.fetch_add(1, Ordering::Release);
                    }
                })
            })
            .collect();
        sleeper.announce();
        let seen = inbox.load(Ordering::Relaxed);
        for sender in senders {
            sender.join().unwrap();
        }
        // The sleeper would now be in the kernel: every message it has not seen must come with a signal.
        assert!(seen == 2 || signals.load(Ordering::Acquire) > 0);
    });
}
