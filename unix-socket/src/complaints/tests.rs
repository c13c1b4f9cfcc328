use super::*;

#[test]
fn one_line_per_interval() {
    let complaints = Complaints::default();
    let start = Instant::now();
    let allowed: Vec<bool> = [0, 1, 999, 1000, 1001, 1999, 2000, 9000]
        .map(|millis| complaints.allow_at(start + Duration::from_millis(millis)))
        .to_vec();
    assert_eq!(
        allowed,
        [true, false, false, true, false, false, true, true]
    );
}
