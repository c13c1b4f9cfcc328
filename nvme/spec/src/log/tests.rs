use core::mem::offset_of;

use zerocopy::{FromBytes, FromZeros, IntoBytes};

use super::*;
use crate::{Le128, Status};

#[test]
fn error_information() {
    assert_eq!(offset_of!(ErrorInformation, sqid), 8);
    assert_eq!(offset_of!(ErrorInformation, cid), 10);
    assert_eq!(offset_of!(ErrorInformation, status_phase), 12);
    assert_eq!(offset_of!(ErrorInformation, parameter_error_location), 14);
    assert_eq!(offset_of!(ErrorInformation, lba), 16);
    assert_eq!(offset_of!(ErrorInformation, nsid), 24);
    assert_eq!(offset_of!(ErrorInformation, trtype), 29);
    assert_eq!(offset_of!(ErrorInformation, command_specific), 32);
    assert_eq!(offset_of!(ErrorInformation, trtype_specific), 40);
    assert_eq!(Status::INVALID_FIELD.with_phase_tag(false), 0x0004);
    assert_eq!(
        ParameterErrorLocation::new().with_bit(7).into_bits(),
        0x0700
    );
}

#[test]
fn smart_health() {
    assert_eq!(offset_of!(SmartHealth, composite_temperature), 1);
    assert_eq!(offset_of!(SmartHealth, available_spare), 3);
    assert_eq!(offset_of!(SmartHealth, endurance_group_warning), 6);
    assert_eq!(offset_of!(SmartHealth, data_units_read), 32);
    assert_eq!(offset_of!(SmartHealth, host_read_commands), 64);
    assert_eq!(offset_of!(SmartHealth, controller_busy_time), 96);
    assert_eq!(offset_of!(SmartHealth, power_on_hours), 128);
    assert_eq!(offset_of!(SmartHealth, media_errors), 160);
    assert_eq!(offset_of!(SmartHealth, error_log_entries), 176);
    assert_eq!(offset_of!(SmartHealth, warning_temperature_time), 192);
    assert_eq!(offset_of!(SmartHealth, temperature_sensors), 200);
    assert_eq!(offset_of!(SmartHealth, tmt1_transitions), 216);
    assert_eq!(offset_of!(SmartHealth, tmt2_time), 228);

    let mut log = SmartHealth::new_zeroed();
    log.set_temperature(0x0136);
    log.data_units_read = Le128::new((1 << 64) | 2);
    assert_eq!(log.as_bytes()[1..3], [0x36, 0x01]);
    assert_eq!(
        log.as_bytes()[32..48],
        [2, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]
    );
    let read = SmartHealth::read_from_bytes(log.as_bytes()).unwrap();
    assert_eq!(read.temperature(), 0x0136);
    assert_eq!(read.data_units_read.get(), (1 << 64) | 2);
}

#[test]
fn firmware_slots() {
    assert_eq!(offset_of!(FirmwareSlotInfo, frs), 8);
    assert_eq!(
        ActiveFirmware::new()
            .with_active_slot(1)
            .with_next_slot(2)
            .into_bits(),
        0x21
    );
}

#[test]
fn effects() {
    assert_eq!(offset_of!(CommandsSupportedAndEffects, iocs), 1024);
    assert_eq!(
        CommandEffects::new()
            .with_csupp(true)
            .with_lbcc(true)
            .into_bits(),
        3
    );
    assert_eq!(CommandEffects::new().with_ccc(true).into_bits(), 1 << 4);
    assert_eq!(
        CommandEffects::new()
            .with_cse(SubmissionExecution(7))
            .into_bits(),
        7 << 16
    );
    let scope = CommandScope::new().with_nvm_subsystem(true);
    assert_eq!(CommandEffects::new().with_csp(scope).into_bits(), 1 << 25);
    assert_eq!(
        FeatureEffects::new().with_uuid_selection(true).into_bits(),
        1 << 19
    );
    assert_eq!(FeatureEffects::new().with_fsp(scope).into_bits(), 1 << 25);
    assert_eq!(
        LogPageEffects::new().with_lid_specific(1).into_bits(),
        1 << 16
    );
}

#[test]
fn ana() {
    assert_eq!(offset_of!(AnaLogHeader, ngrps), 8);
    assert_eq!(offset_of!(AnaGroupDescriptor, nnsids), 4);
    assert_eq!(offset_of!(AnaGroupDescriptor, chgcnt), 8);
    assert_eq!(offset_of!(AnaGroupDescriptor, state), 16);
    assert_eq!(
        AnaStateByte::new().with_state(AnaState::CHANGE).into_bits(),
        0xF
    );
}
