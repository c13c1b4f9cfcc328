//! DEVICE_SET_IRQS.

use std::os::fd::AsFd;
use std::sync::Arc;

use nix::errno::Errno;
use nix::sys::eventfd::{EfdFlags, EventFd};
use pci::{Function, InterruptKind};
use testkit::vfio_user::Client;
use vfio_user::wire::{Command, ERR_IRQ, INTX_IRQ, IrqSetFlags, MSI_IRQ, MSIX_IRQ, REQ_IRQ};

use crate::fake::Call;
use crate::harness::{Server, alive, invalid, refused, words};

const NONE: IrqSetFlags = IrqSetFlags::DATA_NONE;
const BOOL: IrqSetFlags = IrqSetFlags::DATA_BOOL;
const EVENTFD: IrqSetFlags = IrqSetFlags::DATA_EVENTFD;
const MASK: IrqSetFlags = IrqSetFlags::ACTION_MASK;
const UNMASK: IrqSetFlags = IrqSetFlags::ACTION_UNMASK;
const TRIGGER: IrqSetFlags = IrqSetFlags::ACTION_TRIGGER;

fn event(initial: u32) -> EventFd {
    let flags = EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC;
    EventFd::from_value_and_flags(initial, flags).unwrap()
}

/// Waits until an eventfd was written, and takes its count.
fn wait(event: &EventFd) -> u64 {
    use nix::poll::{PollFd, PollFlags, poll};
    let mut fds = [PollFd::new(event.as_fd(), PollFlags::POLLIN)];
    assert_eq!(poll(&mut fds, 20_000_u16), Ok(1), "no interrupt");
    event.read().unwrap()
}

/// Raw payload, for lengths and fields that the client's own functions do not produce.
fn raw(client: &mut Client, payload: &[u8]) -> testkit::vfio_user::Result<()> {
    client
        .request(Command::DEVICE_SET_IRQS, payload, &[])
        .map(drop)
}

fn plain(
    client: &mut Client,
    flags: IrqSetFlags,
    index: u32,
    start: u32,
    count: u32,
) -> testkit::vfio_user::Result<()> {
    client.set_irqs(flags, index, start..start.wrapping_add(count), &[], &[])
}

fn signal(server: &Server, kind: InterruptKind, vector: u32) {
    server
        .device
        .run(move |fake| fake.interrupts().vector(kind, vector).unwrap().signal());
}

#[test]
fn malformed_messages_are_refused() {
    let server = Server::start();
    let mut client = server.client();
    invalid(raw(&mut client, &[]));
    invalid(raw(&mut client, &words(&[20, 0x21])));
    invalid(raw(&mut client, &words(&[3, 0x21, 2, 0, 1])));
    invalid(plain(&mut client, TRIGGER | NONE, 5, 0, 1));
    invalid(plain(&mut client, MASK | UNMASK, MSIX_IRQ, 0, 0));
    invalid(plain(&mut client, MASK | NONE | BOOL, MSIX_IRQ, 0, 0));
    alive(&mut client);
}

#[test]
fn vectors_out_of_range_are_refused() {
    let server = Server::start();
    let mut client = server.client();
    invalid(plain(&mut client, MASK | NONE, MSIX_IRQ, 2047, 2));
    invalid(plain(&mut client, MASK | NONE, MSIX_IRQ, 2049, 1));
    invalid(raw(&mut client, &words(&[20, 0x24, 2, 284, u32::MAX])));
    // MSI has none at all.
    invalid(plain(&mut client, TRIGGER | NONE, MSI_IRQ, 0, 0));
    invalid(plain(&mut client, TRIGGER | NONE, MSI_IRQ, 0, 1));
    alive(&mut client);
}

#[test]
fn error_and_request_only_trigger_one() {
    let server = Server::start();
    let mut client = server.client();
    for index in [ERR_IRQ, REQ_IRQ] {
        invalid(plain(&mut client, MASK | NONE, index, 0, 1));
        invalid(plain(&mut client, TRIGGER | NONE, index, 0, 2));
    }
    alive(&mut client);
}

#[test]
fn a_count_of_zero_only_disables() {
    let server = Server::start();
    let mut client = server.client();
    invalid(plain(&mut client, TRIGGER | NONE, MSIX_IRQ, 1, 0));
    invalid(plain(&mut client, MASK | NONE, MSIX_IRQ, 0, 0));
    invalid(plain(&mut client, TRIGGER | BOOL, MSIX_IRQ, 0, 0));
    client.disable_irqs(REQ_IRQ).unwrap();
    client.disable_irqs(MSIX_IRQ).unwrap();
}

#[test]
fn data_must_match_the_form_and_the_count() {
    let server = Server::start();
    let mut client = server.client();
    let fd = event(0);
    let fds = [fd.as_fd()];
    invalid(client.set_irqs(TRIGGER | BOOL, MSIX_IRQ, 0..1, &[1], &fds));
    invalid(client.set_irqs(TRIGGER | NONE, MSIX_IRQ, 0..1, &[], &fds));
    invalid(client.set_irqs(TRIGGER | EVENTFD, MSIX_IRQ, 0..2, &[], &fds));
    invalid(client.set_irqs(TRIGGER | BOOL, MSIX_IRQ, 0..2, &[1], &[]));
    invalid(client.set_irqs(TRIGGER | BOOL, MSIX_IRQ, 0..2, &[1, 0, 1], &[]));
    let two = [fd.as_fd(), fd.as_fd()];
    invalid(client.set_irqs(TRIGGER | BOOL, MSIX_IRQ, 0..1, &[], &two));
    alive(&mut client);
}

#[test]
fn a_descriptor_that_is_no_eventfd_is_refused() {
    let server = Server::start();
    let mut client = server.client();
    // A pipe or socket that nobody empties would block whoever raises the interrupt.
    let (_reader, writer) = std::io::pipe().unwrap();
    let (socket, _peer) = std::os::unix::net::UnixStream::pair().unwrap();
    let file = std::fs::File::open("/dev/null").unwrap();
    for fd in [writer.as_fd(), socket.as_fd(), file.as_fd()] {
        invalid(client.set_eventfds(MSIX_IRQ, 0, &[fd]));
    }
    let good = event(0);
    invalid(client.set_eventfds(MSIX_IRQ, 0, &[good.as_fd(), writer.as_fd()]));
    signal(&server, InterruptKind::Msix, 0);
    assert_eq!(good.read(), Err(Errno::EAGAIN), "half of it was installed");
    client.set_eventfds(MSIX_IRQ, 0, &[good.as_fd()]).unwrap();
}

#[test]
fn an_installed_eventfd_is_signalled() {
    let server = Server::start();
    let mut client = server.client();
    let fd = event(4);
    client.set_eventfds(MSIX_IRQ, 7, &[fd.as_fd()]).unwrap();
    signal(&server, InterruptKind::Msix, 7);
    assert_eq!(fd.read(), Ok(5));
}

#[test]
fn sixteen_eventfds_at_once_and_each_vector_its_own() {
    let server = Server::start();
    let mut client = server.client();
    let fds: Vec<EventFd> = (0..16).map(|_| event(0)).collect();
    let borrowed: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
    client.set_eventfds(MSIX_IRQ, 100, &borrowed).unwrap();
    signal(&server, InterruptKind::Msix, 103);
    for (vector, fd) in (100..).zip(&fds) {
        let expected = if vector == 103 {
            Ok(1)
        } else {
            Err(Errno::EAGAIN)
        };
        assert_eq!(fd.read(), expected, "{vector}");
    }
}

#[test]
fn an_eventfd_can_be_replaced_while_an_event_is_pending() {
    let server = Server::start();
    let mut client = server.client();
    let (first, second) = (event(0), event(0));
    client.set_eventfds(MSIX_IRQ, 0, &[first.as_fd()]).unwrap();
    signal(&server, InterruptKind::Msix, 0);
    client.set_eventfds(MSIX_IRQ, 0, &[second.as_fd()]).unwrap();
    signal(&server, InterruptKind::Msix, 0);
    assert_eq!((first.read(), second.read()), (Ok(1), Ok(1)));
}

#[test]
fn an_event_without_eventfd_is_not_lost() {
    let server = Server::start();
    let mut client = server.client();
    let fd = event(0);
    client.set_eventfds(MSIX_IRQ, 0, &[fd.as_fd()]).unwrap();
    // As QEMU does while it moves a vector: one vector, no descriptor.
    plain(&mut client, TRIGGER | EVENTFD, MSIX_IRQ, 0, 1).unwrap();
    signal(&server, InterruptKind::Msix, 0);
    assert_eq!(fd.read(), Err(Errno::EAGAIN));
    let next = event(0);
    client.set_eventfds(MSIX_IRQ, 0, &[next.as_fd()]).unwrap();
    assert_eq!(next.read(), Ok(1));
}

#[test]
fn error_and_request_take_and_give_back_an_eventfd() {
    let server = Server::start();
    let mut client = server.client();
    let fd = event(0);
    for index in [ERR_IRQ, REQ_IRQ] {
        client.set_eventfds(index, 0, &[fd.as_fd()]).unwrap();
        plain(&mut client, TRIGGER | EVENTFD, index, 0, 1).unwrap();
    }
    signal(&server, InterruptKind::Error, 0);
    assert_eq!(fd.read(), Err(Errno::EAGAIN));
}

#[test]
fn the_client_can_fire_its_own_vectors() {
    let server = Server::start();
    let mut client = server.client();
    let (first, second) = (event(4), event(8));
    client
        .set_eventfds(MSIX_IRQ, 0, &[first.as_fd(), second.as_fd()])
        .unwrap();
    plain(&mut client, TRIGGER | NONE, MSIX_IRQ, 1, 1).unwrap();
    assert_eq!((first.read(), second.read()), (Ok(4), Ok(9)));
    client
        .set_irqs(TRIGGER | BOOL, MSIX_IRQ, 0..2, &[0, 1], &[])
        .unwrap();
    assert_eq!((first.read(), second.read()), (Err(Errno::EAGAIN), Ok(1)));
}

#[test]
fn masked_vectors_wait_in_every_form() {
    let server = Server::start();
    let mut client = server.client();
    let fd = event(0);
    client.set_eventfds(MSIX_IRQ, 3, &[fd.as_fd()]).unwrap();
    let forms: [(IrqSetFlags, &[u8]); 2] = [(NONE, &[]), (BOOL, &[0, 0, 0, 1])];
    for (form, bools) in forms {
        client
            .set_irqs(MASK | form, MSIX_IRQ, 0..4, bools, &[])
            .unwrap();
        signal(&server, InterruptKind::Msix, 3);
        signal(&server, InterruptKind::Msix, 3);
        assert_eq!(fd.read(), Err(Errno::EAGAIN));
        client
            .set_irqs(UNMASK | form, MSIX_IRQ, 0..4, bools, &[])
            .unwrap();
        assert_eq!(fd.read(), Ok(1));
    }
    // A byte of 0 leaves its vector alone.
    client
        .set_irqs(MASK | BOOL, MSIX_IRQ, 0..4, &[1, 1, 1, 0], &[])
        .unwrap();
    signal(&server, InterruptKind::Msix, 3);
    assert_eq!(fd.read(), Ok(1));
}

#[test]
fn eventfds_can_mask_and_unmask() {
    let server = Server::start();
    let mut client = server.client();
    let (line, mask, unmask) = (event(0), event(0), event(0));
    client.set_eventfds(MSIX_IRQ, 0, &[line.as_fd()]).unwrap();
    client
        .set_irqs(MASK | EVENTFD, MSIX_IRQ, 0..1, &[], &[mask.as_fd()])
        .unwrap();
    client
        .set_irqs(UNMASK | EVENTFD, MSIX_IRQ, 0..1, &[], &[unmask.as_fd()])
        .unwrap();
    let masked = |server: &Server| {
        signal(server, InterruptKind::Msix, 0);
        line.read() == Err(Errno::EAGAIN)
    };
    for _ in 0..3 {
        mask.write(1).unwrap();
        while !masked(&server) {}
        unmask.write(1).unwrap();
        // What waited arrives.
        wait(&line);
    }
    // Removed, they have no effect any more: the second write is seen after the first was not.
    plain(&mut client, MASK | EVENTFD, MSIX_IRQ, 0, 1).unwrap();
    mask.write(1).unwrap();
    alive(&mut client);
    assert!(!masked(&server));
}

#[test]
fn eventfds_that_mask_are_few() {
    let server = Server::start();
    let mut client = server.client();
    let fd = event(0);
    let many = [fd.as_fd(); 16];
    refused(
        client.set_irqs(MASK | EVENTFD, MSIX_IRQ, 0..16, &[], &many),
        Errno::ENOSPC,
    );
    alive(&mut client);
    // Room again once they are gone.
    client.disable_irqs(MSIX_IRQ).unwrap();
    client
        .set_irqs(UNMASK | EVENTFD, INTX_IRQ, 0..1, &[], &[fd.as_fd()])
        .unwrap();
}

fn pin_unmasked(server: &Server) -> usize {
    let calls = server.device.calls();
    calls
        .iter()
        .filter(|call| **call == Call::PinUnmasked)
        .count()
}

#[test]
fn the_pin_as_qemu_uses_it_with_kvm() {
    let server = Server::start();
    let mut client = server.client();
    let (line, resample) = (event(0), event(0));
    client.set_eventfds(INTX_IRQ, 0, &[line.as_fd()]).unwrap();
    plain(&mut client, MASK | NONE, INTX_IRQ, 0, 1).unwrap();
    signal(&server, InterruptKind::Intx, 0);
    assert_eq!(line.read(), Err(Errno::EAGAIN));
    client
        .set_irqs(UNMASK | EVENTFD, INTX_IRQ, 0..1, &[], &[resample.as_fd()])
        .unwrap();
    server.device.calls();
    plain(&mut client, UNMASK | NONE, INTX_IRQ, 0, 1).unwrap();
    assert_eq!(line.read(), Ok(1));
    assert_eq!(pin_unmasked(&server), 1);
    // Ends of interrupt come without a message; nobody reads the descriptor.
    for _ in 0..3 {
        resample.write(1).unwrap();
        server.device.wait_for(|call| *call == Call::PinUnmasked);
    }
    // On the way to MSI-X.
    plain(&mut client, MASK | NONE, INTX_IRQ, 0, 1).unwrap();
    plain(&mut client, UNMASK | NONE, INTX_IRQ, 0, 1).unwrap();
    client.disable_irqs(INTX_IRQ).unwrap();
    server.device.calls();
    resample.write(1).unwrap();
    alive(&mut client);
    alive(&mut client);
    assert_eq!(pin_unmasked(&server), 0, "disabled");
    // And back.
    client.set_eventfds(INTX_IRQ, 0, &[line.as_fd()]).unwrap();
    assert_eq!(pin_unmasked(&server), 1);
}

#[test]
fn cloud_hypervisors_batches_over_all_vectors() {
    let server = Server::start();
    let mut client = server.client();
    let fd = event(0);
    let batch = [fd.as_fd(); 16];
    for start in (0..2048).step_by(16) {
        client.set_eventfds(MSIX_IRQ, start, &batch).unwrap();
    }
    signal(&server, InterruptKind::Msix, 2047);
    assert_eq!(fd.read(), Ok(1));
    client.disable_irqs(MSIX_IRQ).unwrap();
    signal(&server, InterruptKind::Msix, 2047);
    assert_eq!(fd.read(), Err(Errno::EAGAIN));
}

#[test]
fn interrupts_stay_with_their_client() {
    let server = Server::start();
    let mut client = server.client();
    let fd = event(0);
    client.set_eventfds(MSIX_IRQ, 0, &[fd.as_fd()]).unwrap();
    // A vector handed to another thread outlives the client.
    let vector = server
        .device
        .run(|fake| fake.interrupts().vector(InterruptKind::Msix, 0).unwrap());
    let vector = Arc::new(vector);
    vector.signal();
    assert_eq!(fd.read(), Ok(1));
    drop(client);
    alive(&mut server.client());
    vector.signal();
    assert_eq!(fd.read(), Err(Errno::EAGAIN));
}
