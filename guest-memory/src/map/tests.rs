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
    assert_eq!((removed.iova, rest.len()), (0x1000, 0));
    assert_eq!(rest.epoch(), map.epoch() + 1);
    assert_eq!(map.cleared().epoch(), map.epoch() + 1);
}

#[test]
fn a_range_takes_all_regions_that_lie_inside() {
    let mut map = DmaMap::empty();
    for at in 1..5 {
        map = map.with(region(at * 0x1000, 0x1000)).unwrap();
    }
    for (at, len) in [
        (0, 0x1000),
        (0x1800, 0x3000),
        (0x1000, 0x1800),
        (0x2000, 0),
        (u64::MAX, 2),
    ] {
        let refused = map.without_within(at, len);
        assert_eq!(refused.unwrap_err(), MapError::NotFound, "{at:#x}");
    }
    let (rest, removed) = map.without_within(0x1800 - 0x800, 0x3000).unwrap();
    let removed: Vec<u64> = removed.iter().map(|region| region.iova).collect();
    assert_eq!(removed, [0x1000, 0x2000, 0x3000]);
    assert_eq!((rest.len(), rest.epoch()), (1, map.epoch() + 1));
    let (rest, removed) = rest.without_within(0, u64::MAX).unwrap();
    assert_eq!((rest.len(), removed.len()), (0, 1));
}

#[derive(Clone, Debug)]
enum Step {
    Add(u64, u64),
    Remove(u64, u64),
    Within(u64, u64),
}

fn step() -> impl Strategy<Value = Step> {
    let range = (0u64..64, 0u64..9);
    prop_oneof![
        range.clone().prop_map(|(at, len)| Step::Add(at, len)),
        range.prop_map(|(at, len)| Step::Remove(at, len)),
        (0u64..64, 0u64..30).prop_map(|(at, len)| Step::Within(at, len)),
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
                Step::Within(at, len) => {
                    let end = at + len;
                    let cut = ranges.iter().any(|(start, size)| {
                        let inside = *start >= at && start + size <= end;
                        !inside && *start < end && start + size > at
                    });
                    let inside: Vec<u64> = ranges.range(at..end).map(|(start, _)| *start).collect();
                    let removed = map.without_within(at, len);
                    prop_assert_eq!(removed.is_ok(), !cut && !inside.is_empty());
                    if let Ok((rest, removed)) = removed {
                        map = rest;
                        prop_assert!(removed.iter().map(|region| region.iova).eq(inside.iter().copied()));
                        ranges.retain(|start, _| !inside.contains(start));
                    }
                }
            }
            check_shape(&map);
            for address in 0..80 {
                let expected = ranges.iter().find(|(start, len)| (**start..**start + **len).contains(&address));
                prop_assert_eq!(map.find(address).map(|found| found.iova), expected.map(|(start, _)| *start));
            }
        }
    }
}

/// What the map promises about its shape.
fn check_shape(map: &DmaMap) {
    let sizes: Vec<usize> = map.chunks.iter().map(Chunk::len).collect();
    assert!(sizes.iter().all(|size| (1..=CHUNK).contains(size)));
    assert!(sizes.windows(2).all(|pair| pair[0] + pair[1] > CHUNK / 2));
    assert_eq!(map.len(), sizes.iter().sum::<usize>());
    assert_eq!(map.is_empty(), sizes.is_empty());
    for chunk in &map.chunks {
        assert_eq!(chunk.first, chunk.regions[0].iova);
    }
}

/// Many changes of the same kind, so that chunks fill, split, shrink and merge.
#[derive(Clone, Debug)]
struct Run {
    add: bool,
    first: u64,
    count: u64,
    stride: u64,
    len: u64,
    backwards: bool,
}

fn run() -> impl Strategy<Value = Run> {
    (
        prop::bool::weighted(0.6),
        0u64..4000,
        1u64..900,
        1u64..5,
        1u64..4,
        any::<bool>(),
    )
        .prop_map(|(add, first, count, stride, len, backwards)| Run {
            add,
            first,
            count,
            stride,
            len,
            backwards,
        })
}

/// One sorted list, searched from end to end.
#[derive(Clone, Default)]
struct List(BTreeMap<u64, u64>);

impl List {
    fn add(&mut self, at: u64, len: u64) -> Result<(), MapError> {
        let before = self.0.range(..at + len).next_back();
        if before.is_some_and(|(start, len)| start + len > at) {
            return Err(MapError::Overlap);
        }
        self.0.insert(at, len);
        Ok(())
    }

    fn remove(&mut self, at: u64, len: u64) -> Result<(), MapError> {
        if self.0.get(&at) != Some(&len) {
            return Err(MapError::NotFound);
        }
        self.0.remove(&at);
        Ok(())
    }

    fn is(&self, map: &DmaMap) -> bool {
        let regions = map.regions().map(|region| (region.iova, region.len));
        regions.eq(self.0.iter().map(|(at, len)| (*at, *len)))
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Large maps against a list; snapshots stay what they were.
    #[test]
    fn agrees_with_a_list_of_regions(runs in proptest::collection::vec(run(), 1..12)) {
        let mut map = DmaMap::empty();
        let mut list = List::default();
        let mut snapshots = Vec::new();
        for run in runs {
            snapshots.push((Arc::clone(&map), list.clone()));
            for n in 0..run.count {
                let n = if run.backwards { run.count - 1 - n } else { n };
                let at = run.first + n * run.stride;
                let (changed, expected) = if run.add {
                    (map.with(region(at, run.len)), list.add(at, run.len))
                } else {
                    let without = map.without(at, run.len);
                    if let Ok((_, removed)) = &without {
                        prop_assert_eq!((removed.iova, removed.len), (at, run.len));
                    }
                    (without.map(|(map, _)| map), list.remove(at, run.len))
                };
                prop_assert_eq!(changed.as_ref().err(), expected.as_ref().err());
                if let Ok(changed) = changed {
                    prop_assert_eq!(changed.epoch(), map.epoch() + 1);
                    map = changed;
                }
            }
            if run.backwards && !run.add {
                // What is left of the first half of the run's place, at once.
                let (from, len) = (run.first, run.count * run.stride / 2 + 1);
                if let Ok((rest, removed)) = map.without_within(from, len) {
                    map = rest;
                    for region in removed {
                        prop_assert!(region.iova >= from && region.iova + region.len <= from + len);
                        prop_assert_eq!(list.remove(region.iova, region.len), Ok(()));
                    }
                    let left = list.0.range(from..from + len).next();
                    prop_assert!(left.is_none(), "{:?}", left);
                }
            }
            check_shape(&map);
            prop_assert!(list.is(&map));
            for at in (0..run.first + run.count * run.stride + 8).step_by(3) {
                let found = list.0.range(..=at).next_back().filter(|(start, len)| at < *start + *len);
                prop_assert_eq!(map.find(at).map(|region| region.iova), found.map(|(start, _)| *start));
            }
        }
        for (map, list) in snapshots {
            check_shape(&map);
            prop_assert!(list.is(&map));
        }
    }
}

/// Regions and references to chunks that a change copied. Every copy of a region counts its memory up once.
fn copied(memory: &Arc<Mapping>, change: impl FnOnce() -> Arc<DmaMap>) -> (Arc<DmaMap>, usize) {
    let before = Arc::strong_count(memory);
    let map = change();
    let regions = Arc::strong_count(memory) - before;
    let chunks = map.chunks.len();
    (map, regions + chunks)
}

#[test]
fn a_change_copies_the_root_of_the_map_whatever_the_order() {
    const REGIONS: u64 = 65_535;
    // A quarter of them are in chunks' references, the rest regions of the chunk that changes.
    const MOST: usize = 5 * CHUNK + 2;
    let memory = crate::SharedMemory::new(c"map test", 4096).unwrap();
    let memory = memory.mapping();
    let backed = |n: u64| Region {
        backing: Some(Arc::clone(memory)),
        ..region(n * 0x1000, 0x1000)
    };
    // Ascending, and in an order that jumps about (the multiplier has no factor in common with the count).
    for multiplier in [1, 40_507] {
        let order = |n: u64| n * multiplier % REGIONS;
        let mut map = DmaMap::empty();
        let mut dearest = 0;
        for n in 0..REGIONS {
            let (next, copies) = copied(memory, || map.with(backed(order(n))).unwrap());
            dearest = dearest.max(copies);
            map = next;
        }
        check_shape(&map);
        assert_eq!(map.len(), 65_535);
        for n in 0..REGIONS {
            let at = order(n) * 0x1000;
            let (next, copies) = copied(memory, || map.without(at, 0x1000).unwrap().0);
            dearest = dearest.max(copies);
            map = next;
        }
        assert!(map.is_empty());
        assert!(dearest <= MOST, "{dearest}");
    }
}

#[test]
fn a_removed_region_is_let_go_of_with_the_last_snapshot_that_has_it() {
    let memory = crate::SharedMemory::new(c"map test", 4096).unwrap();
    let gone = Arc::clone(memory.mapping());
    drop(memory);
    let mut map = DmaMap::empty();
    for n in 0..600 {
        map = map.with(region(n * 2, 1)).unwrap();
    }
    let backed = Region {
        backing: Some(Arc::clone(&gone)),
        ..region(601, 1)
    };
    let with = map.with(backed).unwrap();
    let (mut map, removed) = with.without(601, 1).unwrap();
    drop(removed);
    for n in 0..300 {
        map = map.without(n * 4, 1).unwrap().0;
    }
    assert!(!gone.is_sole_owner(), "an older snapshot still has it");
    drop(with);
    assert!(gone.is_sole_owner(), "no newer one has");
    drop(map);
}
