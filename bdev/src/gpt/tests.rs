use proptest::prelude::*;

use super::*;

const DISK: Geometry = Geometry {
    block_size: 512,
    num_blocks: 10_000,
};

struct Entry {
    type_guid: Uuid,
    first: u64,
    last: u64,
}

fn ours(first: u64, last: u64) -> Entry {
    Entry {
        type_guid: TYPE,
        first,
        last,
    }
}

fn put(data: &mut [u8], at: usize, bytes: &[u8]) {
    data[at..at + bytes.len()].copy_from_slice(bytes);
}

/// Both looks at a disk with a table of these entries.
fn disk(geometry: Geometry, entries: &[Entry]) -> (Vec<u8>, Vec<u8>) {
    let size = geometry.block_size as usize;
    let mut array = vec![0; ENTRY * 128];
    for (index, entry) in entries.iter().enumerate() {
        let bytes = &mut array[index * ENTRY..];
        put(bytes, 0, &entry.type_guid.to_bytes_le());
        put(bytes, 16, &Uuid::from_u128(index as u128 + 1).to_bytes_le());
        put(bytes, 32, &entry.first.to_le_bytes());
        put(bytes, 40, &entry.last.to_le_bytes());
        put(bytes, 56, &[b'v', 0, b'm', 0]);
    }
    let blocks = (array.len() / size).max(1) as u64;
    let last = geometry.num_blocks - 1;
    let copy = |my_lba: u64, entries_lba: u64| {
        let mut header = vec![0; size];
        put(&mut header, 0, b"EFI PART");
        put(&mut header, 12, &92u32.to_le_bytes());
        put(&mut header, 24, &my_lba.to_le_bytes());
        put(&mut header, 40, &(2 + blocks).to_le_bytes());
        put(&mut header, 48, &(last - 1 - blocks).to_le_bytes());
        put(&mut header, 56, &Uuid::from_u128(77).to_bytes_le());
        put(&mut header, 72, &entries_lba.to_le_bytes());
        put(&mut header, 80, &128u32.to_le_bytes());
        put(&mut header, 84, &128u32.to_le_bytes());
        put(&mut header, 88, &crc32fast::hash(&array).to_le_bytes());
        sum(&mut header);
        header
    };
    let look = geometry.range_of(Copy::Primary).unwrap().blocks as usize * size;
    let (mut primary, mut backup) = (vec![0; look], vec![0; look]);
    put(&mut primary, 446 + 4, &[0xee]);
    put(&mut primary, 446 + 8, &1u32.to_le_bytes());
    put(&mut primary, 510, &[0x55, 0xaa]);
    put(&mut primary, size, &copy(1, 2));
    put(&mut primary, 2 * size, &array);
    put(&mut backup, look - size, &copy(last, last - blocks));
    put(&mut backup, look - size - array.len(), &array);
    (primary, backup)
}

fn sum(header: &mut [u8]) {
    header[16..20].fill(0);
    let crc = crc32fast::hash(&header[..92]);
    put(header, 16, &crc.to_le_bytes());
}

#[test]
fn both_copies_tell_of_the_partitions_for_us() {
    for block_size in [512, 4096] {
        let geometry = Geometry { block_size, ..DISK };
        let linux = Entry {
            type_guid: uuid!("0fc63daf-8483-4772-8e79-3d69d8477de4"),
            ..ours(300, 399)
        };
        let old = Entry {
            type_guid: OLD_TYPE,
            ..ours(400, 499)
        };
        let (primary, backup) = disk(geometry, &[ours(100, 199), linux, old]);
        check_mbr(&primary).unwrap();
        let table = parse(Copy::Primary, geometry, &primary).unwrap();
        assert_eq!(parse(Copy::Backup, geometry, &backup), Ok(table.clone()));
        assert_eq!(table.guid, Uuid::from_u128(77));
        let found: Vec<_> = table
            .partitions
            .iter()
            .map(|it| (it.number, it.range))
            .collect();
        let range = |lba, blocks| Range { lba, blocks };
        // The old kind is one block shorter than it says.
        assert_eq!(found, [(1, range(100, 100)), (3, range(400, 99))]);
        assert_eq!(table.partitions[0].name, "vm");
        assert_eq!(table.partitions[1].guid, Uuid::from_u128(3));
    }
}

#[test]
fn what_cannot_be_is_left_out() {
    let entries = [
        ours(100, 199),
        // Overlaps the first, at either end and around it.
        ours(199, 250),
        ours(50, 100),
        ours(60, 300),
        // Outside, upside down, too long for any number.
        ours(1, 40),
        ours(9000, 9999),
        ours(500, 499),
        ours(500, u64::MAX),
        ours(u64::MAX, u64::MAX),
        ours(0, 0),
        // Nothing is left of it.
        Entry {
            type_guid: OLD_TYPE,
            ..ours(600, 600)
        },
        ours(200, 200),
    ];
    let (primary, _) = disk(DISK, &entries);
    let table = parse(Copy::Primary, DISK, &primary).unwrap();
    let found: Vec<_> = table.partitions.iter().map(|it| it.number).collect();
    assert_eq!(found, [1, 12]);
}

#[test]
fn damage_is_found() {
    let (good, _) = disk(DISK, &[ours(100, 199)]);
    let with = |change: &dyn Fn(&mut [u8])| {
        let mut data = good.clone();
        change(&mut data);
        parse(Copy::Primary, DISK, &data).unwrap_err()
    };
    // Behind each change of the header stands its right checksum, but for the second.
    let header = |at: usize, bytes: &'static [u8]| {
        with(&move |data: &mut [u8]| {
            put(&mut data[512..], at, bytes);
            sum(&mut data[512..1024]);
        })
    };
    assert_eq!(header(0, b"X"), GptError::NoHeader);
    assert_eq!(with(&|data| data[512 + 60] ^= 1), GptError::HeaderChecksum);
    assert_eq!(header(12, &[91, 0, 0, 0]), GptError::HeaderLength);
    assert_eq!(header(12, &[255; 4]), GptError::HeaderLength);
    assert_eq!(header(24, &[2]), GptError::Misplaced);
    assert_eq!(header(40, &[1, 0]), GptError::Usable);
    assert_eq!(header(48, &[255; 8]), GptError::Usable);
    assert_eq!(header(72, &[255; 8]), GptError::Entries);
    assert_eq!(header(72, &[63]), GptError::Entries);
    assert_eq!(header(80, &[129]), GptError::Entries);
    assert_eq!(header(84, &[0, 1]), GptError::Entries);
    assert_eq!(header(88, &[1, 2, 3, 4]), GptError::EntriesChecksum);
    assert_eq!(with(&|data| data[1024] ^= 1), GptError::EntriesChecksum);
    assert_eq!(parse(Copy::Primary, DISK, &[]), Err(GptError::NoHeader));
    assert_eq!(parse(Copy::Backup, DISK, &good), Err(GptError::NoHeader));
    assert_eq!(check_mbr(&[0; 512]), Err(GptError::NoMbr));
    assert_eq!(check_mbr(&[]), Err(GptError::NoMbr));
}

#[test]
fn short_disks_have_no_table() {
    for num_blocks in 0..2 {
        let geometry = Geometry { num_blocks, ..DISK };
        assert_eq!(geometry.range_of(Copy::Primary), None);
    }
    let geometry = Geometry {
        num_blocks: 10,
        ..DISK
    };
    let whole = Range { lba: 0, blocks: 10 };
    assert_eq!(geometry.range_of(Copy::Backup), Some(whole));
}

proptest! {
    /// Whatever a table says, with checksums that are right, what comes of it lies on the disk and apart.
    #[test]
    fn hostile_tables_give_only_possible_partitions(
        fields in prop::collection::vec(any::<u8>(), 68),
        entries in prop::collection::vec((any::<bool>(), any::<u64>(), any::<u64>(), 0u32..64, 0u32..64), 0..128),
        keep in any::<u64>(),
        num_blocks in 2u64..5000,
    ) {
        let geometry = Geometry { num_blocks: num_blocks.max(80), ..DISK };
        let entries: Vec<Entry> = entries
            .iter()
            .map(|(old, first, last, a, b)| Entry {
                type_guid: if *old { OLD_TYPE } else { TYPE },
                first: first >> a,
                last: last >> b,
            })
            .collect();
        let (mut data, _) = disk(geometry, &entries);
        for (index, byte) in fields.iter().enumerate() {
            if keep >> (index % 64) & 1 == 0 && index % 7 == 0 {
                data[512 + 24 + index] = *byte;
            }
        }
        sum(&mut data[512..1024]);
        if let Ok(table) = parse(Copy::Primary, geometry, &data) {
            let mut end = 0;
            let mut ranges: Vec<_> = table.partitions.iter().map(|it| it.range).collect();
            ranges.sort_by_key(|range| range.lba);
            for range in ranges {
                prop_assert!(range.blocks > 0 && range.lba >= end);
                end = range.lba + range.blocks;
                prop_assert!(end <= geometry.num_blocks);
            }
        }
    }

    /// Noise is no table and no end.
    #[test]
    fn noise_is_refused(data in prop::collection::vec(any::<u8>(), 0..40_000)) {
        prop_assert!(parse(Copy::Primary, DISK, &data).is_err());
        prop_assert!(parse(Copy::Backup, DISK, &data).is_err());
    }
}
