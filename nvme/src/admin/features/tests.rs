use super::*;

fn nsids() -> BTreeSet<u32> {
    BTreeSet::from([1, 5])
}

fn limits(nsids: &BTreeSet<u32>) -> Limits<'_> {
    Limits {
        vectors: 8,
        queues: 4,
        has_queues: false,
        write_cache: true,
        events: events(false),
        nsids,
        now_ms: 1_000,
    }
}

fn get(features: &Features, fid: u8, select: u8, nsid: u32, cdw11: u32) -> Result<u32, Status> {
    let nsids = nsids();
    let answer = features.get(
        FeatureId(fid),
        FeatureSelect(select),
        nsid,
        cdw11,
        &limits(&nsids),
    );
    answer.map(|answer| answer.dw0).map_err(Status::code)
}

fn set(features: &mut Features, fid: u8, cdw11: u32) -> Result<Change, Status> {
    set_for(features, fid, 0, cdw11)
}

fn set_for(features: &mut Features, fid: u8, nsid: u32, cdw11: u32) -> Result<Change, Status> {
    let nsids = nsids();
    let data = vec![0; data_len(FeatureId(fid), cdw11)];
    features
        .set(FeatureId(fid), false, nsid, cdw11, &data, &limits(&nsids))
        .map_err(Status::code)
}

#[test]
fn values_have_current_default_saved_and_capabilities() {
    let mut features = Features::default();
    set(&mut features, 0x01, 5).unwrap();
    assert_eq!(get(&features, 0x01, 0, 0, 0), Ok(5));
    assert_eq!(get(&features, 0x01, 1, 0, 0), Ok(0));
    assert_eq!(get(&features, 0x01, 2, 0, 0), Ok(0));
    assert_eq!(get(&features, 0x01, 3, 0, 0), Ok(0b100));
    assert_eq!(get(&features, 0x05, 3, 0, 0), Ok(0b110));
    assert_eq!(get(&features, 0x01, 4, 0, 0), Err(Status::INVALID_FIELD));
    features.reset(0);
    assert_eq!(features, Features::default());
}

#[test]
fn absent_features_are_invalid() {
    let mut features = Features::default();
    for fid in (0..=255).filter(|fid| !SUPPORTED.contains(&FeatureId(*fid))) {
        assert_eq!(
            get(&features, fid, 0, 0, 0),
            Err(Status::INVALID_FIELD),
            "{fid:#x}"
        );
        assert_eq!(
            set(&mut features, fid, 0),
            Err(Status::INVALID_FIELD),
            "{fid:#x}"
        );
    }
}

#[test]
fn a_cache_that_is_not_there_is_off_and_stays_off() {
    let (mut features, nsids) = (Features::default(), nsids());
    let without = Limits {
        write_cache: false,
        ..limits(&nsids)
    };
    let vwc = FeatureId::VOLATILE_WRITE_CACHE;
    let current = features.get(vwc, FeatureSelect::CURRENT, 0, 0, &without);
    assert_eq!(current.unwrap().dw0, 0);
    let status = features.set(vwc, false, 0, 1, &[], &without);
    assert_eq!(status.map_err(Status::code), Err(Status::INVALID_FIELD));
    assert_eq!(get(&features, 6, 0, 0, 0), Ok(1));
    set(&mut features, 6, 0).unwrap();
    assert_eq!(get(&features, 6, 0, 0, 0), Ok(0));
}

#[test]
fn nothing_is_saveable() {
    let (mut features, nsids) = (Features::default(), nsids());
    let status = features.set(FeatureId::ARBITRATION, true, 0, 0, &[], &limits(&nsids));
    assert_eq!(
        status.map_err(Status::code),
        Err(Status::FEATURE_NOT_SAVEABLE)
    );
}

#[test]
fn namespaces_matter_to_error_recovery_alone() {
    let mut features = Features::default();
    assert_eq!(
        set_for(&mut features, 0x01, 1, 0),
        Err(Status::FEATURE_NOT_NAMESPACE_SPECIFIC)
    );
    assert_eq!(
        set_for(&mut features, 0x01, 2, 0),
        Err(Status::INVALID_NAMESPACE_OR_FORMAT)
    );
    assert_eq!(
        set_for(&mut features, 0x01, NSID_ALL, 3),
        Ok(Change::Stored)
    );
    set_for(&mut features, 0x05, 5, 30).unwrap();
    assert_eq!(get(&features, 0x05, 0, 5, 0), Ok(30));
    assert_eq!(get(&features, 0x05, 0, 1, 0), Ok(0));
    assert_eq!(
        get(&features, 0x05, 0, 0, 0),
        Ok(0),
        "asked whether it exists"
    );
    for nsid in [2, NSID_ALL] {
        assert_eq!(
            get(&features, 0x05, 0, nsid, 0),
            Err(Status::INVALID_NAMESPACE_OR_FORMAT)
        );
    }
    assert_eq!(
        set_for(&mut features, 0x05, 2, 1),
        Err(Status::INVALID_NAMESPACE_OR_FORMAT)
    );
    set_for(&mut features, 0x05, NSID_ALL, 7).unwrap();
    assert_eq!(get(&features, 0x05, 0, 1, 0), Ok(7));
    assert_eq!(
        set_for(&mut features, 0x05, 1, 1 << 16),
        Err(Status::INVALID_FIELD),
        "DULBE"
    );
    assert_eq!(
        get(&features, 0x07, 0, 99, 0),
        Ok(0x0003_0003),
        "Get ignores the NSID"
    );
}

#[test]
fn power_states_and_queues_are_limited() {
    let mut features = Features::default();
    assert_eq!(set(&mut features, 0x02, 1), Err(Status::INVALID_FIELD));
    set(&mut features, 0x02, 0x40).unwrap();
    assert_eq!(get(&features, 0x02, 0, 0, 0), Ok(0x40));
    assert_eq!(
        set(&mut features, 0x07, 0x0001_0001),
        Ok(Change::Queues(0x0003_0003))
    );
    assert_eq!(
        set(&mut features, 0x07, 0xffff_0001),
        Err(Status::INVALID_FIELD)
    );
    assert_eq!(
        set(&mut features, 0x07, 0x0001_ffff),
        Err(Status::INVALID_FIELD)
    );
}

#[test]
fn temperature_thresholds_are_the_composite_ones() {
    let mut features = Features::default();
    assert_eq!(
        get(&features, 0x04, 0, 0, 0),
        Ok(u32::from(WARNING_TEMPERATURE))
    );
    assert_eq!(get(&features, 0x04, 0, 0, 1 << 20), Ok(1 << 20));
    for bad in [1 << 16, 0xf << 16, 2 << 20] {
        assert_eq!(get(&features, 0x04, 0, 0, bad), Err(Status::INVALID_FIELD));
    }
    assert_eq!(
        set(&mut features, 0x04, 1 << 16 | 300),
        Err(Status::INVALID_FIELD)
    );
    assert_eq!(
        set(&mut features, 0x04, 3 << 20 | 300),
        Err(Status::INVALID_FIELD)
    );
    assert_eq!(
        set(&mut features, 0x04, 0xf << 16 | 300),
        Ok(Change::Temperature)
    );
    assert_eq!(
        set(&mut features, 0x04, 1 << 20 | 290),
        Ok(Change::Temperature)
    );
    assert_eq!(
        (features.over_temperature, features.under_temperature),
        (300, 290)
    );
}

#[test]
fn vectors_are_checked() {
    let mut features = Features::default();
    assert_eq!(set(&mut features, 0x09, 8), Err(Status::INVALID_FIELD));
    assert_eq!(get(&features, 0x09, 0, 0, 8), Err(Status::INVALID_FIELD));
    assert_eq!(set(&mut features, 0x09, 0x1_0007), Ok(Change::Vector(7)));
    assert_eq!(get(&features, 0x09, 0, 0, 7), Ok(0x1_0007));
    set(&mut features, 0x09, 7).unwrap();
    assert_eq!(get(&features, 0x09, 0, 0, 7), Ok(7));
}

#[test]
fn only_events_that_exist_can_be_turned_on() {
    let mut features = Features::default();
    set(&mut features, 0x0b, u32::MAX).unwrap();
    assert_eq!(get(&features, 0x0b, 0, 0, 0), Ok(0x11f));
}

#[test]
fn a_timestamp_goes_on_from_what_the_host_said() {
    let (mut features, nsids) = (Features::default(), nsids());
    features.reset(1_000);
    let at = |features: &Features, now_ms| {
        let limits = Limits {
            now_ms,
            ..limits(&nsids)
        };
        let fid = FeatureId::TIMESTAMP;
        let answer = features
            .get(fid, FeatureSelect::CURRENT, 0, 0, &limits)
            .unwrap();
        FeatureTimestamp::read_from_bytes(&answer.data).unwrap()
    };
    assert_eq!(
        at(&features, 1_250),
        FeatureTimestamp::new().with_milliseconds(250)
    );
    let said = FeatureTimestamp::new().with_milliseconds(TIMESTAMP_MASK);
    let limits = limits(&nsids);
    features
        .set(FeatureId::TIMESTAMP, false, 0, 0, said.as_bytes(), &limits)
        .unwrap();
    let later = at(&features, 1_002);
    assert_eq!(
        (later.milliseconds(), later.origin()),
        (1, TimestampOrigin::SET),
        "48 bits wrap"
    );
    let short = features.set(FeatureId::TIMESTAMP, false, 0, 0, &[1], &limits);
    assert_eq!(short.map_err(Status::code), Err(Status::INVALID_FIELD));
}

#[test]
fn host_behavior_takes_zeroes_and_ones() {
    let (mut features, nsids) = (Features::default(), nsids());
    let mut data = HostBehaviorSupport::new_zeroed();
    data.acre = 1;
    data.lbafee = 1;
    let fid = FeatureId::HOST_BEHAVIOR_SUPPORT;
    features
        .set(fid, false, 0, 0, data.as_bytes(), &limits(&nsids))
        .unwrap();
    let answer = features
        .get(fid, FeatureSelect::CURRENT, 0, 0, &limits(&nsids))
        .unwrap();
    assert_eq!(answer.data, data.as_bytes());
    data.acre = 2;
    assert!(
        features
            .set(fid, false, 0, 0, data.as_bytes(), &limits(&nsids))
            .is_err()
    );
}

#[test]
fn a_host_identifier_has_two_lengths() {
    let mut features = Features::default();
    let nsids = nsids();
    let limits = limits(&nsids);
    let fid = FeatureId::HOST_IDENTIFIER;
    assert_eq!(
        (
            data_len(fid, 0),
            data_len(fid, 1),
            data_len(FeatureId::ARBITRATION, 1)
        ),
        (8, 16, 0)
    );
    features.set(fid, false, 0, 1, &[9; 16], &limits).unwrap();
    features.set(fid, false, 0, 0, &[3; 8], &limits).unwrap();
    let long = features
        .get(fid, FeatureSelect::CURRENT, 0, 1, &limits)
        .unwrap()
        .data;
    assert_eq!(
        long,
        [[3; 8], [0; 8]].concat(),
        "the shorter one replaces all of the longer"
    );
}
