use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn region(iova: u64, len: u64) -> Region {
    Region {
        iova,
        len,
        access: Access::READ | Access::WRITE,
        backing: None,
    }
}

#[test]
fn ranges_that_wrap_or_overlap_are_refused() {
    let map = DmaMap::empty().with(region(0x1000, 0x1000)).unwrap();
    assert_eq!(
        map.with(region(0x0, 0x1001)).unwrap_err(),
        MapError::Overlap
    );
    assert_eq!(map.with(region(0x1fff, 1)).unwrap_err(), MapError::Overlap);
    assert_eq!(map.with(region(0x1400, 1)).unwrap_err(), MapError::Overlap);
    assert_eq!(
        map.with(region(u64::MAX, 2)).unwrap_err(),
        MapError::BadRange
    );
    assert_eq!(map.with(region(0x5000, 0)).unwrap_err(), MapError::BadRange);
    let top = map.with(region(u64::MAX, 1)).unwrap();
    assert!(top.find(u64::MAX).is_some());
}

#[test]
fn removal_needs_the_exact_range() {
    let map = DmaMap::empty().with(region(0x1000, 0x1000)).unwrap();
    assert_eq!(map.without(0x1000, 0x800).unwrap_err(), MapError::NotFound);
    assert_eq!(map.without(0x1800, 0x800).unwrap_err(), MapError::NotFound);
    let (rest, removed) = map.without(0x1000, 0x1000).unwrap();
    assert_eq!((removed.iova, rest.regions().len()), (0x1000, 0));
    assert_eq!(rest.epoch(), map.epoch() + 1);
    assert_eq!(map.cleared().epoch(), map.epoch() + 1);
}

#[derive(Clone, Debug)]
enum Step {
    Add(u64, u64),
    Remove(u64, u64),
}

fn step() -> impl Strategy<Value = Step> {
    let range = (0u64..64, 0u64..9);
    prop_oneof![
        range.clone().prop_map(|(at, len)| Step::Add(at, len)),
        range.prop_map(|(at, len)| Step::Remove(at, len)),
    ]
}

proptest! {
    /// The map against an oracle of one entry per address.
    #[test]
    fn agrees_with_a_table_of_addresses(steps in proptest::collection::vec(step(), 0..60)) {
        let mut map = DmaMap::empty();
        let mut ranges: BTreeMap<u64, u64> = BTreeMap::new();
        for step in steps {
            match step {
                Step::Add(at, len) => {
                    let free = len > 0
                        && ranges.iter().all(|(start, size)| at + len <= *start || start + size <= at);
                    let added = map.with(region(at, len));
                    prop_assert_eq!(added.is_ok(), free);
                    if let Ok(added) = added {
                        map = added;
                        ranges.insert(at, len);
                    }
                }
                Step::Remove(at, len) => {
                    let known = ranges.get(&at) == Some(&len);
                    let removed = map.without(at, len);
                    prop_assert_eq!(removed.is_ok(), known);
                    if let Ok((rest, _)) = removed {
                        map = rest;
                        ranges.remove(&at);
                    }
                }
            }
            for address in 0..80 {
                let expected = ranges.iter().find(|(start, len)| (**start..**start + **len).contains(&address));
                prop_assert_eq!(map.find(address).map(|found| found.iova), expected.map(|(start, _)| *start));
            }
        }
    }
}
