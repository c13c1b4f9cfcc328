use super::*;

#[test]
fn it_remembers_what_is_in_flight() {
    let mut map = TagMap::default();
    for tag in [0, 1, u64::MAX, 1 << 32, 2 << 32] {
        map.insert(tag, tag);
    }
    assert_eq!(map.get(1 << 32), Some(&(1 << 32)));
    assert_eq!(map.remove(u64::MAX), Some(u64::MAX));
    assert_eq!(map.remove(u64::MAX), None);
    *map.get_or_insert_with(9, || 5) += 1;
    assert_eq!(map.remove(9), Some(6));
    assert!(!map.is_empty());
}

#[test]
fn it_grows_with_the_number_in_flight_and_not_with_time() {
    let mut map = TagMap::default();
    for tag in 0..40_u64 {
        map.insert(tag, ());
    }
    let room = |map: &TagMap<()>| map.0.capacity() < 1024;
    for tag in 40..1_000_000_u64 {
        assert_eq!(map.remove(tag - 40), Some(()));
        map.insert(tag << 7, ());
        map.remove(tag << 7);
        map.insert(tag, ());
        assert!(room(&map));
    }
}
