use core::mem::offset_of;

use zerocopy::{FromZeros, IntoBytes};

use super::*;

#[test]
fn dword_11_bits() {
    assert_eq!(
        NumberOfQueues::new()
            .with_nsq_z(3)
            .with_ncq_z(4)
            .into_bits(),
        0x0004_0003
    );
    assert_eq!(
        InterruptCoalescing::new()
            .with_thr_z(9)
            .with_time(1)
            .into_bits(),
        0x0109
    );
    assert_eq!(
        InterruptVectorConfig::new()
            .with_iv(2)
            .with_cd(true)
            .into_bits(),
        0x0001_0002
    );
    let threshold = TemperatureThreshold::new()
        .with_tmpth(0x0157)
        .with_tmpsel(TemperatureSensor::ALL)
        .with_thsel(ThresholdType::UNDER);
    assert_eq!(threshold.into_bits(), 0x001F_0157);
    assert_eq!(ErrorRecovery::new().with_dulbe(true).into_bits(), 1 << 16);
    assert_eq!(PowerManagement::new().with_ps(31).into_bits(), 0x1F);
    assert_eq!(PowerManagement::new().with_wh(7).into_bits(), 0xE0);
    assert_eq!(
        Arbitration::new().with_ab(7).with_hpw_z(1).into_bits(),
        0x0100_0007
    );
    assert_eq!(
        ReservationNotificationMask::new()
            .with_respre(true)
            .into_bits(),
        8
    );
    assert_eq!(
        SupportedCapabilities::new()
            .with_changeable(true)
            .into_bits(),
        4
    );
}

#[test]
fn async_event_config_bits() {
    assert_eq!(
        AsyncEventConfig::new()
            .with_critical_warnings(0x1F)
            .into_bits(),
        0x1F
    );
    assert_eq!(
        AsyncEventConfig::new()
            .with_namespace_attribute(true)
            .into_bits(),
        1 << 8
    );
    assert_eq!(
        AsyncEventConfig::new().with_ana_change(true).into_bits(),
        1 << 11
    );
    assert_eq!(
        AsyncEventConfig::new()
            .with_normal_subsystem_shutdown(true)
            .into_bits(),
        1 << 15
    );
    assert_eq!(
        AsyncEventConfig::new()
            .with_zone_descriptor_changed(true)
            .into_bits(),
        1 << 27
    );
    assert_eq!(
        AsyncEventConfig::new()
            .with_discovery_log_change(true)
            .into_bits(),
        1 << 31
    );
}

#[test]
fn data_structures() {
    let timestamp = FeatureTimestamp::new()
        .with_milliseconds(0x0605_0403_0201)
        .with_synch(true)
        .with_origin(TimestampOrigin::SET);
    assert_eq!(timestamp.as_bytes(), [1, 2, 3, 4, 5, 6, 0b011, 0]);
    assert_eq!(offset_of!(HostBehaviorSupport, lbafee), 2);
    assert_eq!(HostBehaviorSupport::new_zeroed().acre, 0);
    assert_eq!(
        ApstEntry::new().with_itps(1).with_itpt(1).into_bits(),
        0x0108
    );
}
