//! A client that maps and unmaps, and a device that holds on to what it was using.
//!
//! Input: operations. Addresses come from a few neighbourhoods, so that regions touch, overlap and reach the end of the
//! address space.

use std::rc::Rc;
use std::sync::Arc;

use arbitrary::{Result, Unstructured};
use guest_memory::{Access, DmaMap, MapError, MapView, Mapping, Region, SharedRam};

use crate::{Seed, noise};

mod lists;
mod model;
mod windows;

use lists::List;
use model::{Files, Layout, ModelRegion, PAGE};
use windows::Ring;

const VIEWS: usize = 3;
const LEASES: usize = 6;
/// Most operations of one input: what more would find, many short inputs find sooner.
const OPERATIONS: usize = 100;
/// Three pages and a bit: no multiple of anything.
const RAM_LEN: usize = 3 * PAGE + 100;

/// A view, and what it shows.
struct View {
    view: MapView,
    layout: Rc<Layout>,
}

/// Something that holds on to a view's snapshot.
enum Lease {
    List(List),
    Ring(Ring),
}

struct Held {
    lease: Lease,
    layout: Rc<Layout>,
}

struct Subject {
    files: Files,
    map: Arc<DmaMap>,
    layout: Rc<Layout>,
    views: [Option<View>; VIEWS],
    leases: [Option<Held>; LEASES],
    /// Mappings that have left the map, by number.
    retired: Vec<(u32, Arc<Mapping>)>,
    mappings: u32,
    ram: SharedRam,
    ram_model: Vec<u8>,
}

/// Runs one input.
pub fn run(data: &[u8]) {
    let mut input = Unstructured::new(data);
    let mut subject = Subject {
        files: Files::new(),
        map: DmaMap::empty(),
        layout: Rc::default(),
        views: Default::default(),
        leases: Default::default(),
        retired: Vec::new(),
        mappings: 0,
        ram: SharedRam::new(RAM_LEN).expect("memory"),
        ram_model: vec![0; RAM_LEN],
    };
    for _ in 0..OPERATIONS {
        // An input that ends within an operation has said all it has to say.
        if input.is_empty() || subject.operate(&mut input).is_err() {
            break;
        }
        subject.check_retired();
    }
    subject.finish();
}

/// Somewhere near the regions of a layout, or where one begins or ends.
fn address(input: &mut Unstructured<'_>, layout: &Layout) -> Result<u64> {
    const BASES: [u64; 4] = [0, 0x1_0000, 0xffff_0000, u64::MAX - 0x7fff];
    let code: u16 = input.arbitrary()?;
    let base = BASES[usize::from(code >> 14)];
    let near = match code & 7 {
        7 => u64::from(code & 0x3fff),
        6 => u64::from(code & 0x3ff0),
        4 | 5 => {
            let index = usize::from(code >> 4).checked_rem(layout.regions.len());
            let Some(region) = index.and_then(|at| layout.regions.get(at)) else {
                return Ok(base);
            };
            let end = if code & 1 == 1 { region.len } else { 0 };
            let back = if code & 8 == 8 { 64 } else { 0 };
            return Ok(region.iova.wrapping_add(end).wrapping_sub(back));
        }
        _ => u64::from(code >> 3 & 0x7ff) << 6,
    };
    Ok(base.wrapping_add(near))
}

fn length(input: &mut Unstructured<'_>) -> Result<usize> {
    const USUAL: [usize; 12] = [PAGE, 2 * PAGE, 64, 512, 16, 4, 1, 0, 4095, 4097, 100, 1024];
    let code = usize::from(input.arbitrary::<u8>()?);
    match USUAL.get(code % 16) {
        Some(&len) => Ok(len),
        None => Ok(usize::from(input.arbitrary::<u16>()?) % (2 * PAGE + 1)),
    }
}

fn rights(input: &mut Unstructured<'_>) -> Result<Access> {
    Ok(match input.arbitrary::<u8>()? % 8 {
        6 => Access::READ,
        7 => Access::WRITE,
        _ => Access::READ | Access::WRITE,
    })
}

impl Subject {
    fn operate(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        match input.arbitrary::<u8>()? % 16 {
            0 | 1 => self.map(input),
            2 => self.unmap(input),
            3 => {
                let slot = usize::from(input.arbitrary::<u8>()?) % VIEWS;
                self.views[slot] = Some(View {
                    view: MapView::new(Arc::clone(&self.map)),
                    layout: Rc::clone(&self.layout),
                });
                Ok(())
            }
            4 => self.copy(input),
            5 | 6 => self.lease_list(input),
            7 => self.lease_ring(input),
            8 => {
                let slot = usize::from(input.arbitrary::<u8>()?) % LEASES;
                self.leases[slot] = None;
                Ok(())
            }
            9 => self.rare(input),
            10 => lists::own_buffer(input, &self.ram, &mut self.ram_model),
            11 => self.ram(input),
            _ => self.use_lease(input),
        }
    }

    fn map(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        let iova = address(input, &self.layout)?;
        let len = length(input)? as u64;
        let access = rights(input)?;
        let code: u8 = input.arbitrary()?;
        let offset = match code >> 5 {
            0..=3 => 0,
            4 | 5 => PAGE as u64,
            6 => u64::from(input.arbitrary::<u8>()?) * 16,
            _ => input.arbitrary::<u16>()?.into(),
        };
        let file = usize::from(code & 1);
        let mut region = Region {
            iova,
            len,
            access,
            backing: None,
        };
        let mut backing = None;
        if code & 0x1e != 0x1e {
            let mapping = Mapping::from_fd(self.files.fd(file), offset, len, access).map(Arc::new);
            let fits = len > 0 && offset + len <= self.files.size(file);
            assert_eq!(mapping.is_ok(), fits, "{mapping:?}");
            let Ok(mapping) = mapping else {
                return Ok(());
            };
            assert_eq!(mapping.len() as u64, len);
            self.mappings += 1;
            backing = Some(model::Backing {
                file,
                offset,
                len,
                number: self.mappings,
            });
            region.backing = Some(mapping);
            if code & 0x1e == 0x1c {
                // A region that is longer than what is behind it.
                region.len += 32;
            }
        }
        let len = region.len;
        let expected = self.layout.check_add(iova, len);
        match (self.map.with(region), expected) {
            (Ok(map), Ok(())) => {
                let added = ModelRegion {
                    iova,
                    len,
                    access,
                    backing,
                };
                self.install(map, self.layout.with(added));
            }
            (Err(error), Err(expected)) => assert_eq!(error, expected),
            pair => panic!("{pair:?}"),
        }
        Ok(())
    }

    fn unmap(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        let code = usize::from(input.arbitrary::<u8>()?);
        if code == 0xff {
            let all: Vec<Region> = self.map.regions().cloned().collect();
            for (region, model) in all.into_iter().zip(&self.layout.regions) {
                self.retired.extend(
                    model
                        .backing
                        .map(|backing| backing.number)
                        .zip(region.backing),
                );
            }
            self.install(self.map.cleared(), Layout::default());
            return Ok(());
        }
        let chosen = code.checked_rem(self.layout.regions.len());
        let (mut iova, mut len) = match chosen.and_then(|at| self.layout.regions.get(at)) {
            Some(region) => (region.iova, region.len),
            None => (address(input, &self.layout)?, length(input)? as u64),
        };
        match code >> 5 {
            6 => len = len.wrapping_add(1),
            7 => iova = iova.wrapping_add(1),
            _ => {}
        }
        let expected = self.layout.find_exact(iova, len);
        assert_eq!(self.map.find_exact(iova, len).is_some(), expected.is_some());
        match (self.map.without(iova, len), expected) {
            (Ok((map, removed)), Some(at)) => {
                assert_eq!((removed.iova, removed.len), (iova, len));
                let (layout, model) = self.layout.without(at);
                self.retired.extend(
                    model
                        .backing
                        .map(|backing| backing.number)
                        .zip(removed.backing),
                );
                self.install(map, layout);
            }
            (Err(error), None) => assert_eq!(error, MapError::NotFound),
            (result, expected) => panic!("{result:?} {expected:?}"),
        }
        Ok(())
    }

    fn install(&mut self, map: Arc<DmaMap>, layout: Layout) {
        assert_eq!(map.epoch(), self.map.epoch() + 1);
        assert_eq!(map.len(), layout.regions.len());
        for (region, model) in map.regions().zip(&layout.regions) {
            assert_eq!((region.iova, region.len), (model.iova, model.len));
            for at in [region.iova, region.last()] {
                let found = map.find(at).expect("a region");
                assert_eq!(found.iova, region.iova);
            }
        }
        self.map = map;
        self.layout = Rc::new(layout);
    }

    fn view(&mut self, input: &mut Unstructured<'_>) -> Result<usize> {
        let slot = usize::from(input.arbitrary::<u8>()?) % VIEWS;
        self.views[slot].get_or_insert_with(|| View {
            view: MapView::new(Arc::clone(&self.map)),
            layout: Rc::clone(&self.layout),
        });
        Ok(slot)
    }

    fn copy(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        let slot = self.view(input)?;
        let Some(View { view, layout }) = &self.views[slot] else {
            return Ok(());
        };
        let iova = address(input, layout)?;
        let len = length(input)?;
        let seed: u8 = input.arbitrary()?;
        let write = seed & 1 == 1;
        let access = if write { Access::WRITE } else { Access::READ };
        let resolved = layout.resolve(iova, len, access);
        let result = if write {
            let data = noise::bytes(seed.into(), len);
            let result = view.write_slice(iova, &data);
            self.files.write(&resolved.pieces, 0, &data);
            result
        } else {
            let mut data = vec![0; len];
            let result = view.read_slice(iova, &mut data);
            if result.is_ok() {
                self.files.assert_eq(&resolved.pieces, 0, &data);
            }
            result
        };
        assert_eq!(result.is_ok(), resolved.fault.is_none());
        if let (Err(fault), Some(Some(expected))) = (result, resolved.fault) {
            assert_eq!(fault.iova, expected);
        }
        let mut at = iova;
        for piece in &resolved.pieces {
            if self.files.is_beyond(piece) {
                let region = view.map().find(at).expect("a region");
                let mapping = region.backing.as_ref().expect("a mapping");
                assert!(mapping.is_poisoned());
                assert!(view.map().poisoned().is_some());
            }
            at = at.wrapping_add(piece.len as u64);
        }
        Ok(())
    }

    fn lease_list(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        let slot = self.view(input)?;
        let Some(View { view, layout }) = &self.views[slot] else {
            return Ok(());
        };
        let list = List::build(input, view, layout)?;
        let layout = Rc::clone(layout);
        self.hold(input, list.map(Lease::List), layout)
    }

    fn lease_ring(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        let slot = self.view(input)?;
        let Some(View { view, layout }) = &self.views[slot] else {
            return Ok(());
        };
        let ring = Ring::build(input, view, layout)?;
        let layout = Rc::clone(layout);
        self.hold(input, ring.map(Lease::Ring), layout)
    }

    fn hold(
        &mut self,
        input: &mut Unstructured<'_>,
        lease: Option<Lease>,
        layout: Rc<Layout>,
    ) -> Result<()> {
        if let Some(lease) = lease {
            let slot = usize::from(input.arbitrary::<u8>()?) % LEASES;
            self.leases[slot] = Some(Held { lease, layout });
        }
        Ok(())
    }

    fn use_lease(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        let slot = usize::from(input.arbitrary::<u8>()?) % LEASES;
        match self.leases[slot].as_mut().map(|held| &mut held.lease) {
            None => Ok(()),
            Some(Lease::List(list)) => {
                list.operate(input, &mut self.files, &self.ram, &mut self.ram_model)
            }
            Some(Lease::Ring(ring)) => ring.operate(input, &mut self.files),
        }
    }

    /// What a client does to hurt, and what ends a view.
    fn rare(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        let code: u8 = input.arbitrary()?;
        if code < 0xe0 {
            self.views[usize::from(code) % VIEWS] = None;
        } else {
            self.files
                .truncate(usize::from(code & 1), usize::from(code >> 1 & 1));
        }
        Ok(())
    }

    /// Operations on a RAM disk that need no list.
    fn ram(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        let offset = lists::ram_offset(input)?;
        let len = length(input)? as u64;
        let range = usize::try_from(offset)
            .ok()
            .and_then(|from| Some(from..from.checked_add(len as usize)?))
            .filter(|range| range.end <= RAM_LEN);
        let done = match input.arbitrary()? {
            true => self.ram.clear(offset, len),
            false => self.ram.zero(offset, len),
        };
        self.ram.prefetch(offset, 4);
        self.ram.prefetch_for_write(offset, 4);
        assert_eq!(done, range.is_some());
        if let Some(range) = range {
            self.ram_model[range].fill(0);
        }
        Ok(())
    }

    /// A mapping is let go of exactly when nothing shows it any more.
    fn check_retired(&mut self) {
        let views = self.views.iter().flatten().map(|view| &view.layout);
        let leases = self.leases.iter().flatten().map(|held| &held.layout);
        let layouts: Vec<&Rc<Layout>> = views.chain(leases).chain([&self.layout]).collect();
        self.retired.retain(|(number, mapping)| {
            let shown = layouts.iter().any(|layout| layout.shows(*number));
            assert_eq!(mapping.is_sole_owner(), !shown, "mapping {number}");
            shown
        });
        for view in self.views.iter().flatten() {
            // A layout is shared by the views and leases of one snapshot; leases belong to one view. Without any lease
            // on the snapshot the view is alone.
            let held = self.leases.iter().flatten();
            let leased = held
                .clone()
                .any(|held| Rc::ptr_eq(&held.layout, &view.layout));
            assert!(view.view.is_unleased() || leased);
            assert_eq!(view.view.epoch(), view.view.map().epoch());
        }
    }

    fn finish(mut self) {
        let mut contents = vec![0; RAM_LEN];
        lists::read_ram(&self.ram, &mut contents);
        assert!(contents == self.ram_model, "the RAM disk differs");
        self.files.check();
        let all: Vec<Region> = self.map.regions().cloned().collect();
        for (region, model) in all.into_iter().zip(&self.layout.regions) {
            self.retired.extend(
                model
                    .backing
                    .map(|backing| backing.number)
                    .zip(region.backing),
            );
        }
        self.map = DmaMap::empty();
        self.layout = Rc::default();
        self.views = Default::default();
        self.leases = Default::default();
        self.check_retired();
        assert!(self.retired.is_empty());
    }
}

/// Maps that touch, lists over them, and noise.
pub fn seeds() -> Vec<Seed> {
    let mut seeds = noise::seeds(64);
    // Two regions side by side, a list and a ring across both, then both unmapped while held.
    let region = |page: u16, file: u8| {
        let address = (page << 9).to_le_bytes();
        vec![0, address[0], address[1], 0, 0, file]
    };
    let script = [
        region(0, 0),
        region(1, 1),
        vec![3, 0],
        vec![5, 0, 1, 0, 0, 0, 1, 0, 0, 0],
        vec![7, 0, 0, 0, 1, 0, 1],
        vec![2, 0],
        vec![2, 0],
        vec![12, 0, 2, 0, 0, 7],
        vec![12, 1, 0, 0, 0, 0],
        vec![8, 0],
        vec![8, 1],
    ];
    seeds.push(("side-by-side".into(), script.concat()));
    seeds
}
