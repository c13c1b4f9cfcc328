//! MSI-X and the pin.

use super::*;

#[test]
fn the_pin_interrupts_while_msix_is_off() {
    let mut guest = Guest::simple();
    let (pin, vector) = (Line::new(), Line::new());
    pin.install(&guest, pci::InterruptKind::Intx, 0);
    guest.enable();
    guest.ok(identify(1, 0));
    assert_eq!(pin.count(), 1);
    guest.write32(0x0c, 1);
    guest.ok(identify(1, 0));
    assert_eq!(pin.count(), 0, "masked by INTMS");
    guest.submit(identify(1, 0));
    guest.poll();
    guest.write32(0x10, 1);
    assert_eq!(pin.count(), 1, "unmasked while a completion waits");
    // The guest ends its interrupt without having looked at the queue, then after having done so.
    let end = |guest: &Guest| guest.on_home(|c, cx| c.pin_unmasked(cx));
    end(&guest);
    assert_eq!(pin.count(), 1, "the line is still up");
    guest.wait();
    end(&guest);
    assert_eq!(pin.count(), 0);
    guest.submit(identify(1, 0));
    guest.poll();
    assert_eq!(pin.count(), 1);
    guest.write_region(7, 4, &0x0406u16.to_le_bytes());
    end(&guest);
    assert_eq!(pin.count(), 0, "INTx is disabled in the command register");
    guest.write_region(7, 4, &0x0006u16.to_le_bytes());
    assert_eq!(pin.count(), 1, "and enabled again while a completion waits");
    guest.wait();
    vector.install(&guest, pci::InterruptKind::Msix, 0);
    enable_msix(&guest);
    guest.ok(identify(1, 0));
    assert_eq!((pin.count(), vector.count()), (0, 1));
}

#[test]
fn switching_msix_on_rebinds_queues() {
    let mut guest = Guest::simple();
    guest.enable();
    guest.ok(create_cq(1, 64, 0));
    enable_msix(&guest);
    guest.poll_until("Vector", |guest| guest.script.has_heard("Vector { qid: 1"));
}
