use pci::{InterruptKind, Interrupts};

use super::*;

fn interrupt(coalescing: &Coalescing) -> Interrupt {
    let vector = Interrupts::new(0, 4)
        .vector(InterruptKind::Msix, 2)
        .unwrap();
    Interrupt::new(Some(VectorBinding { index: 2, vector }), coalescing)
}

#[test]
fn without_coalescing_every_pass_signals_once() {
    let mut interrupt = interrupt(&Coalescing::default());
    assert!(!interrupt.flush(0, 0));
    interrupt.note(1);
    interrupt.note(1);
    assert_eq!(interrupt.deadline(), None);
    assert!(interrupt.flush(1, 0));
    assert!(!interrupt.flush(2, 0));
}

#[test]
fn threshold_or_time_end_the_wait() {
    let mut coalescing = Coalescing::default();
    coalescing.set(3, 100);
    let mut interrupt = interrupt(&coalescing);
    interrupt.note(1000);
    interrupt.note(1010);
    assert!(!interrupt.flush(1010, 0));
    assert_eq!(interrupt.deadline(), Some(1100));
    assert!(!interrupt.flush(1099, 0));
    assert!(interrupt.flush(1100, 0));
    assert_eq!(interrupt.deadline(), None);
    for now in 2000..2003 {
        interrupt.note(now);
    }
    assert!(interrupt.flush(2003, 0));
    coalescing.exempt(2, true);
    interrupt.configure(&coalescing);
    interrupt.note(3000);
    assert!(interrupt.flush(3000, 0));
    coalescing.exempt(2, false);
    interrupt.configure(&coalescing);
    interrupt.note(4000);
    assert!(!interrupt.flush(4000, 0));
    coalescing.set(3, 0);
    interrupt.configure(&coalescing);
    assert!(interrupt.flush(4000, 0), "no time means no delay");
}

#[test]
fn a_mask_holds_and_keeps() {
    let mut interrupt = interrupt(&Coalescing::default());
    interrupt.note(1);
    assert!(!interrupt.flush(1, 0b100));
    assert!(!interrupt.flush(2, u32::MAX));
    assert!(interrupt.flush(3, !0b100));
}

#[test]
fn a_polled_queue_never_signals() {
    let mut interrupt = Interrupt::new(None, &Coalescing::default());
    interrupt.note(1);
    assert!(!interrupt.flush(1, 0));
}
