use nvme_spec::registers::Shst;

use super::*;

fn fresh() -> (Registers, State) {
    (
        Registers::new(&ControllerConfig::default()),
        State::new(MPSMAX),
    )
}

fn read(registers: &Registers, state: &State, offset: u64, len: usize) -> Vec<u8> {
    let mut data = vec![0xaa; len];
    registers.read(state, offset, &mut data);
    data
}

fn read32(registers: &Registers, state: &State, offset: u64) -> u32 {
    u32::from_le_bytes(read(registers, state, offset, 4).try_into().unwrap())
}

#[test]
fn capabilities_say_what_is_offered() {
    let (registers, state) = fresh();
    let bytes = read(&registers, &state, 0, 8);
    let cap = Cap::from_bits(u64::from_le_bytes(bytes.try_into().unwrap()));
    assert_eq!(cap.mqes_z(), 1023);
    assert!(cap.cqr() && cap.css().nvm() && !cap.css().iocs() && cap.nssrs());
    assert_eq!(
        (cap.mpsmin(), cap.mpsmax(), cap.dstrd(), cap.to()),
        (0, 4, 0, 30)
    );
    assert!(cap.crms().crwms() && !cap.crms().crims());
    assert!(!cap.cmbs() && !cap.pmrs() && !cap.bps());
    assert_eq!(read32(&registers, &state, 8), 0x0002_0000);
    assert_eq!(read32(&registers, &state, 0x68), 30);
    let deepest = ControllerConfig {
        max_queue_depth: 1 << 20,
        nssr: false,
        ..ControllerConfig::default()
    };
    let cap = Registers::new(&deepest).cap();
    assert_eq!((cap.mqes_z(), cap.nssrs()), (0xffff, false));
}

#[test]
fn wide_and_half_accesses_agree() {
    let (mut registers, state) = fresh();
    for (at, value) in dwords(0x28, &0x1234_5678_9abc_d000u64.to_le_bytes()) {
        registers.write_dword(&state, at, value);
    }
    registers.write_dword(&state, 0x34, 1);
    registers.write_dword(&state, 0x30, 0xffff_ffff);
    assert_eq!(registers.asq, 0x1234_5678_9abc_d000);
    assert_eq!(registers.acq, 0x1_ffff_f000, "bits 11:0 are reserved");
    assert_eq!(
        read(&registers, &state, 0x28, 8),
        0x1234_5678_9abc_d000u64.to_le_bytes()
    );
    assert_eq!(read32(&registers, &state, 0x2c), 0x1234_5678);
    let both: Vec<u8> = [registers.asq.to_le_bytes(), registers.acq.to_le_bytes()].concat();
    assert_eq!(read(&registers, &state, 0x28, 16), both);
}

#[test]
fn odd_accesses_read_zeroes_and_write_nothing() {
    let (registers, state) = fresh();
    for (offset, len) in [(0, 1), (0, 2), (1, 4), (2, 4), (0, 3), (6, 8), (3, 8)] {
        assert_eq!(
            read(&registers, &state, offset, len),
            vec![0; len],
            "{offset} {len}"
        );
        assert_eq!(dwords(offset, &vec![0xff; len]).count(), 0);
    }
    assert_eq!(dwords(u64::MAX - 3, &[0; 8]).count(), 2, "no overflow");
}

#[test]
fn absent_and_read_only_registers_ignore_writes() {
    let (mut registers, state) = fresh();
    let before = registers;
    for offset in (0..0x1000).step_by(4) {
        let stored = [0x0c, 0x10, 0x14, 0x1c, 0x24, 0x28, 0x2c, 0x30, 0x34];
        if !stored.contains(&offset) {
            assert_eq!(
                registers.write_dword(&state, offset, 0xffff_ffff),
                None,
                "{offset:#x}"
            );
        }
        if offset > 0x34 && offset != 0x68 {
            assert_eq!(read32(&registers, &state, offset), 0, "{offset:#x}");
        }
    }
    assert_eq!(registers, before);
}

#[test]
fn interrupt_masks_are_set_and_cleared_by_ones() {
    let (mut registers, state) = fresh();
    assert_eq!(
        registers.write_dword(&state, 0x0c, 0b101),
        Some(Request::InterruptMask)
    );
    assert_eq!(
        registers.write_dword(&state, 0x10, 0b001),
        Some(Request::InterruptMask)
    );
    assert_eq!(read32(&registers, &state, 0x0c), 0b100);
    assert_eq!(read32(&registers, &state, 0x10), 0b100);
}

#[test]
fn admin_queue_registers_are_fixed_while_enabled() {
    let (mut registers, state) = fresh();
    registers.write_dword(&state, 0x24, 0xf01f_f03f);
    assert_eq!(
        read32(&registers, &state, 0x24),
        0x001f_003f,
        "reserved bits are not stored"
    );
    let (enabled, _) = state.step(Event::Configure(Cc::new().with_en(true)));
    registers.write_dword(&enabled, 0x24, 0);
    registers.write_dword(&enabled, 0x28, 0x5000);
    assert_eq!((registers.aqa.into_bits(), registers.asq), (0x001f_003f, 0));
    assert_eq!(read32(&registers, &enabled, 0x1c), 1, "ready");
}

#[test]
fn only_the_signature_resets_the_subsystem() {
    let (mut registers, state) = fresh();
    assert_eq!(registers.write_dword(&state, 0x20, 1), None);
    let reset = Some(Request::Step(Event::SubsystemReset));
    assert_eq!(registers.write_dword(&state, 0x20, 0x4e56_4d65), reset);
    let mut without = Registers::new(&ControllerConfig {
        nssr: false,
        ..ControllerConfig::default()
    });
    assert_eq!(without.write_dword(&state, 0x20, 0x4e56_4d65), None);
}

#[test]
fn a_controller_reset_keeps_the_admin_queue() {
    let (mut registers, state) = fresh();
    registers.write_dword(&state, 0x28, 0x5000);
    registers.write_dword(&state, 0x24, 0x3f_003f);
    registers.write_dword(&state, 0x0c, 1);
    registers.clear(Clear::Nothing);
    assert_eq!(registers.interrupt_mask, 1);
    registers.clear(Clear::KeepAdminQueue);
    assert_eq!((registers.asq, registers.interrupt_mask), (0x5000, 0));
    registers.clear(Clear::Everything);
    assert_eq!(registers, fresh().0);
    assert_eq!(state.csts().shst(), Shst::NORMAL);
}
