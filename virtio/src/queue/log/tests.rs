use super::*;

fn marked(log: &DirtyLog) -> Vec<u64> {
    (0..log.memory().len() as u64 * 8)
        .filter(|page| log.memory().load_u8((page / 8) as usize) & (1 << (page % 8)) != 0)
        .collect()
}

#[test]
fn every_page_that_a_write_touches_is_marked_and_no_other() {
    for from in 0..20_u64 {
        for to in from..40 {
            let log = DirtyLog::new(SharedMemory::new(c"log", 8).unwrap());
            // From the last byte of the first page to the first byte of the last one.
            let addr = if from == to {
                from * 4096
            } else {
                from * 4096 + 4095
            };
            log.mark(addr, to * 4096 + 1 - addr);
            assert_eq!(marked(&log), (from..=to).collect::<Vec<_>>());
        }
    }
}

#[test]
fn marks_outside_the_log_are_dropped() {
    let log = DirtyLog::new(SharedMemory::new(c"log", 2).unwrap());
    log.mark(0, 0);
    log.mark(16 * 4096, 1);
    log.mark(u64::MAX, 1);
    log.mark(u64::MAX - 4095, u64::MAX);
    assert!(marked(&log).is_empty());
    log.mark(15 * 4096, u64::MAX);
    assert_eq!(marked(&log), [15]);
    log.mark(0, u64::MAX);
    assert_eq!(marked(&log).len(), 16);
}
