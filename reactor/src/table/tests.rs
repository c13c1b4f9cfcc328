use super::*;

const OWNER: PollerKey = PollerKey {
    index: 1,
    generation: 1,
};

fn entry(tag: u64) -> Entry {
    let (reader, _writer) = nix::unistd::pipe().unwrap();
    Entry::Watch {
        owner: OWNER,
        tag,
        fd: Arc::new(reader),
        events: 0,
        cancelled: false,
    }
}

#[test]
fn a_late_completion_of_a_former_user_is_recognised() {
    let mut table = Table::new(1);
    let first = table.insert(entry(1)).unwrap();
    assert!(table.is_full());
    assert!(table.remove(first).is_some());
    let second = table.insert(entry(2)).unwrap();
    assert_ne!(first, second);
    assert!(table.get_mut(first).is_none());
    assert!(table.remove(first).is_none());
    assert_eq!(table.used(), 1);
    assert_eq!(table.watches_of(OWNER), [second]);
    assert!(table.remove(second).is_some());
    assert!(table.remove(second).is_none());
}

#[test]
fn a_full_table_takes_nothing() {
    let mut table = Table::new(2);
    let keys: Vec<_> = (0..2)
        .map(|tag| table.insert(entry(tag)).unwrap())
        .collect();
    assert!(table.insert(entry(9)).is_none());
    for key in keys {
        assert!(table.remove(key).is_some());
    }
    assert_eq!(table.used(), 0);
    assert!(Table::new(0).is_full());
}
