//! A guest and a VMM that do anything at all.

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Act {
    Register(u64, u32),
    Wide(u64, u64),
    Config(u64, Vec<u8>),
    Doorbell(u16, u32),
    Command([u8; 64]),
    Enable,
    Unmap,
    Map,
    Reset(bool),
    Poll,
}

fn act() -> impl Strategy<Value = Act> {
    let command =
        (any::<[u8; 64]>(), 0u8..=0x1a, any::<bool>()).prop_map(|(mut sqe, opcode, tame)| {
            if tame {
                sqe[0] = opcode;
                sqe[1] = 0;
                sqe[24..40].copy_from_slice(&[0; 16]);
                sqe[26] = 0x20;
                sqe[34] = 0x21;
            }
            Act::Command(sqe)
        });
    prop_oneof![
        (0u64..0x40, any::<u32>()).prop_map(|(at, value)| Act::Register(at * 4, value)),
        (0u64..0x1010, any::<u64>()).prop_map(|(at, value)| Act::Wide(at, value)),
        (0u64..4100, proptest::collection::vec(any::<u8>(), 0..9))
            .prop_map(|(at, data)| Act::Config(at, data)),
        (0u16..1024, any::<u32>()).prop_map(|(at, value)| Act::Doorbell(at, value)),
        command.clone(),
        command,
        Just(Act::Enable),
        Just(Act::Unmap),
        Just(Act::Map),
        any::<bool>().prop_map(Act::Reset),
        Just(Act::Poll),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Registers, doorbells, commands, maps and resets in any order: nothing panics, and a reset always leads back.
    #[test]
    fn nothing_a_guest_does_ends_the_controller(acts in proptest::collection::vec(act(), 1..60)) {
        let mut guest = Guest::simple();
        for act in acts {
            match act {
                Act::Register(at, value) => guest.write32(at, value),
                Act::Wide(at, value) => guest.write64(at, value),
                Act::Config(at, data) => {
                    guest.write_region(7, at, &data);
                }
                Act::Doorbell(at, value) => guest.page.store_u32(usize::from(at) * 4, value),
                Act::Command(bytes) => {
                    let sqe: nvme_spec::Sqe = zerocopy::transmute!(bytes);
                    guest.submit(sqe);
                }
                Act::Enable => {
                    guest.write32(0x14, 0);
                    guest.set_admin_queue(32);
                    guest.write32(0x14, Guest::cc().into_bits());
                }
                Act::Unmap => guest.unmap_all(),
                Act::Map if guest.map.is_empty() => guest.map_ram(),
                Act::Map | Act::Poll => guest.poll(),
                Act::Reset(true) => {
                    guest.on_home(|c, cx| c.reset(cx, ResetKind::Device));
                    guest.poll_until("reset", |guest| !guest.csts().rdy());
                }
                Act::Reset(false) => {
                    let at = devctl(&guest);
                    guest.write_region(7, at, &0x8000u16.to_le_bytes());
                }
            }
            guest.poll();
        }
        guest.write32(0x14, 0);
        guest.poll_until("RDY clear", |guest| !guest.csts().rdy());
        if guest.map.is_empty() {
            guest.map_ram();
        }
        guest.enable();
        guest.ok(identify(1, 0));
        guest.on_home(|c, cx| c.reset(cx, ResetKind::ClientGone));
        guest.poll_until("quiescence", |guest| guest.on_home(|c, _| c.is_quiescent()));
    }
}
