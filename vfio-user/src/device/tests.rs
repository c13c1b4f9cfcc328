use guest_memory::SharedMemory;
use pci::SharedArea;

use super::*;

fn area(file_offset: u64, offset: u64) -> Option<Mappable> {
    let memory = SharedMemory::new_at(c"area", file_offset, 4096).unwrap();
    mappable(&SharedArea { offset, memory })
}

#[test]
fn an_area_is_found_at_the_regions_offset_plus_its_own() {
    for (file_offset, offset, region_offset) in
        [(0x1000, 0x1000, 0), (0x9000, 0x1000, 0x8000), (0, 0, 0)]
    {
        let mappable = area(file_offset, offset).unwrap();
        assert_eq!(mappable.file_offset, region_offset);
        assert_eq!((mappable.area.offset, mappable.area.size), (offset, 4096));
    }
}

#[test]
fn an_area_that_cannot_be_found_is_not_offered() {
    assert_eq!(area(0, 0x1000), None);
}
