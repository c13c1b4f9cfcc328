use super::{CpuMask, mask_of};

fn cpus(text: &str) -> Option<Vec<u32>> {
    CpuMask::parse(text).ok().map(|mask| mask.cpus().to_vec())
}

#[test]
fn masks_and_lists_mean_processors() {
    assert_eq!(cpus("0x1"), Some(vec![0]));
    assert_eq!(cpus("6"), Some(vec![1, 2]));
    assert_eq!(cpus("0XF0"), Some(vec![4, 5, 6, 7]));
    assert_eq!(cpus("0x10000000000000001"), Some(vec![0, 64]));
    assert_eq!(cpus("[0,2]"), Some(vec![0, 2]));
    assert_eq!(cpus("[3,1-2,2]"), Some(vec![1, 2, 3]));
    assert_eq!(cpus("0-1"), Some(vec![0, 1]));
    assert_eq!(cpus(" [0] "), Some(vec![0]));
}

#[test]
fn nonsense_is_refused() {
    for bad in [
        "", "0x", "0", "0x0", "[]", "[1", "g", "[3-1]", "[-1]", "[0,]", "[99999]", "0x1g",
    ] {
        assert!(CpuMask::parse(bad).is_err(), "{bad}");
    }
    let huge = format!("0x1{}", "0".repeat(5000));
    assert!(CpuMask::parse(&huge).is_err());
}

#[test]
fn the_main_processor_comes_first() {
    let mask = CpuMask::parse("0x7").and_then(|mask| mask.with_first(2));
    assert_eq!(mask.map(|mask| mask.cpus().to_vec()), Ok(vec![2, 0, 1]));
    assert!(CpuMask::single(0).with_first(1).is_err());
}

#[test]
fn processors_print_as_a_mask() {
    assert_eq!(mask_of(&[0]), "1");
    assert_eq!(mask_of(&[3]), "8");
    assert_eq!(mask_of(&[4]), "10");
    assert_eq!(mask_of(&[65]), "20000000000000000");
    assert_eq!(mask_of(&[9, 0, 2, 2, 3]), "20d");
}
