//! A guest's structures from its host's: which go along, under which handles, with what in them.

use std::collections::{BTreeMap, BTreeSet};

use pellucid_partition::{Bdf, Layout};

use super::draft::Draft;
use super::error::SmbiosError;
use super::rules::{FreeText, LeftOut, Rule, WhyLeftOut, rule};
use super::share::SmbiosShare;
use super::structure::{END, HEADER, Structure};
use super::table::Smbios;
use super::tables::SmbiosTables;
use super::{memory, processor};

impl Smbios {
    /// The tables of a logical server that has `share` of this machine.
    pub fn for_guest(&self, share: &SmbiosShare, free_text: FreeText) -> Result<SmbiosTables, SmbiosError> {
        let choice = Choice::of(self, share, free_text);
        let limit = (Layout::SMBIOS.end - Layout::SMBIOS.start) as usize;
        // No more than there is room for, and so no more than there are handles for.
        let least = choice.parts.len() * (HEADER + 2);
        if least > limit {
            return Err(SmbiosError::TooLarge { size: least, limit });
        }
        let drafts = choice.drafts(share);
        SmbiosTables::of(self.entry_point(), &drafts, choice.left_out)
    }
}

/// Structures that go along, each with what it becomes, and those that do not.
struct Choice<'h> {
    parts: Vec<(Structure<'h>, Part)>,
    left_out: Vec<LeftOut>,
}

/// What a structure becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Copy,
    Baseboard,
    Processor,
    MemoryArray,
    /// Of the guest's node with this number.
    MemoryDevice(usize),
    /// The guest's range with this number.
    MappedRange(usize),
    /// At this address of the guest.
    Slot(Bdf),
    Onboard(Bdf),
}

/// How many of each kind of which a guest has its own number were chosen.
#[derive(Default)]
struct Taken<'h> {
    processor: bool,
    array: bool,
    devices: Vec<Structure<'h>>,
    ranges: Vec<Structure<'h>>,
}

impl<'h> Choice<'h> {
    fn of(host: &'h Smbios, share: &SmbiosShare, free_text: FreeText) -> Self {
        let mut choice = Self {
            parts: Vec::new(),
            left_out: Vec::new(),
        };
        let processors = || host.structures().filter(|s| s.kind() == PROCESSOR);
        let chosen = processors()
            .find(processor::is_populated)
            .or_else(|| processors().next());
        let caches: Vec<u16> = chosen
            .iter()
            .flat_map(|chosen| processor::CACHES.iter().filter_map(|offset| chosen.word(*offset)))
            .collect();
        let (nodes, ranges) = (share.nodes().len(), share.ram.len());
        let mut taken = Taken::default();
        for structure in host.structures().filter(|s| s.kind() != END) {
            let part = match rule(structure.kind(), free_text) {
                Rule::Keep => Ok(Part::Copy),
                Rule::Baseboard => Ok(Part::Baseboard),
                Rule::Cache if caches.contains(&structure.handle()) => Ok(Part::Copy),
                Rule::Processor if Some(structure) == chosen && !taken.processor => Ok(Part::Processor),
                Rule::MemoryArray if memory::is_system_memory(&structure) && !taken.array => {
                    Ok(Part::MemoryArray)
                }
                Rule::MemoryDevice if memory::is_populated(&structure) && taken.devices.len() < nodes => {
                    Ok(Part::MemoryDevice(taken.devices.len()))
                }
                Rule::MappedRange if taken.ranges.len() < ranges => Ok(Part::MappedRange(taken.ranges.len())),
                Rule::Slot => slot(&structure, share).map(Part::Slot).ok_or(WhyLeftOut::NotLent),
                Rule::Onboard => onboard(&structure, share)
                    .map(Part::Onboard)
                    .ok_or(WhyLeftOut::NotLent),
                Rule::LeaveOut(why) => Err(why),
                _ => Err(WhyLeftOut::WholeHost),
            };
            choice.take(structure, part, &mut taken);
        }
        // A guest may have more nodes or ranges than the host has devices or ranges.
        let missing = (taken.devices.len()..nodes).zip(taken.devices.first().copied().into_iter().cycle());
        choice
            .parts
            .extend(missing.map(|(node, like)| (like, Part::MemoryDevice(node))));
        let missing = (taken.ranges.len()..ranges).zip(taken.ranges.first().copied().into_iter().cycle());
        choice
            .parts
            .extend(missing.map(|(range, like)| (like, Part::MappedRange(range))));
        choice
    }

    fn take(&mut self, structure: Structure<'h>, part: Result<Part, WhyLeftOut>, taken: &mut Taken<'h>) {
        match part {
            Ok(part) => {
                match part {
                    Part::Processor => taken.processor = true,
                    Part::MemoryArray => taken.array = true,
                    Part::MemoryDevice(_) => taken.devices.push(structure),
                    Part::MappedRange(_) => taken.ranges.push(structure),
                    _ => {}
                }
                self.parts.push((structure, part));
            }
            Err(why) => self.left_out.push(LeftOut {
                kind: structure.kind(),
                handle: structure.handle(),
                why,
            }),
        }
    }

    /// The structures as the guest has them, under handles that are unique.
    fn drafts(&self, share: &SmbiosShare) -> Vec<Draft> {
        let mut handles = Handles::default();
        let given: Vec<u16> = self
            .parts
            .iter()
            .map(|(structure, _)| handles.give(structure))
            .collect();
        let nodes = share.nodes();
        let total = nodes.iter().sum();
        let arrays = self
            .parts
            .iter()
            .zip(&given)
            .find(|((_, part), _)| *part == Part::MemoryArray);
        let array = arrays.map_or(NO_HANDLE, |(_, handle)| *handle);
        let draft = |((structure, part), &handle): (&(Structure<'h>, Part), &u16)| match *part {
            Part::Copy => Some(Draft::copy(structure, handle)),
            Part::Baseboard => Some(baseboard(structure, handle, &handles)),
            Part::Processor => {
                let cache = |host| handles.of(CACHE, host);
                Some(processor::processor(structure, handle, share, cache))
            }
            Part::MemoryArray => Some(memory::array(structure, handle, (total, nodes.len()))),
            Part::MemoryDevice(node) => {
                let bytes = nodes.get(node)?;
                Some(memory::device(structure, handle, (array, *bytes)))
            }
            Part::MappedRange(range) => {
                let ram = share.ram.get(range)?;
                Some(memory::mapped_range(structure, handle, (array, ram)))
            }
            Part::Slot(at) => Some(in_slot(structure, handle, at)),
            Part::Onboard(at) => {
                let mut draft = Draft::copy(structure, handle);
                draft.put(ONBOARD_SEGMENT, &[0, 0, at.bus(), at.devfn()]);
                Some(draft)
            }
        };
        self.parts.iter().zip(&given).filter_map(draft).collect()
    }
}

/// Which handles the guest has.
#[derive(Default)]
struct Handles {
    used: BTreeSet<u16>,
    /// Below it, none is free.
    next: u16,
    /// From the host's, with their types; the first of several that are the same counts.
    by_host: BTreeMap<(u16, u8), u16>,
    /// The same for any type.
    first: BTreeMap<u16, u16>,
}

impl Handles {
    /// The host's handle, or the first free one if another structure has it.
    fn give(&mut self, structure: &Structure<'_>) -> u16 {
        let wanted = structure.handle();
        let mut handle = wanted;
        if handle >= RESERVED_HANDLES || self.used.contains(&handle) {
            while self.used.contains(&self.next) {
                self.next = self.next.saturating_add(1);
            }
            handle = self.next;
        }
        self.used.insert(handle);
        self.by_host.entry((wanted, structure.kind())).or_insert(handle);
        self.first.entry(wanted).or_insert(handle);
        handle
    }

    /// The guest's handle of the structure of type `kind` that is `host` on the host.
    fn of(&self, kind: u8, host: u16) -> Option<u16> {
        self.by_host.get(&(host, kind)).copied()
    }

    /// The same, of any type.
    fn any(&self, host: u16) -> Option<u16> {
        self.first.get(&host).copied()
    }
}

/// The guest's address of what is in a slot.
fn slot(structure: &Structure<'_>, share: &SmbiosShare) -> Option<Bdf> {
    let segment = structure.word(SLOT_SEGMENT)?;
    let (bus, devfn) = (
        structure.byte(SLOT_SEGMENT + 2)?,
        structure.byte(SLOT_SEGMENT + 3)?,
    );
    share.device(Bdf::of_devfn(u32::from(segment), bus, devfn))
}

fn onboard(structure: &Structure<'_>, share: &SmbiosShare) -> Option<Bdf> {
    let segment = structure.word(ONBOARD_SEGMENT)?;
    let (bus, devfn) = (
        structure.byte(ONBOARD_SEGMENT + 2)?,
        structure.byte(ONBOARD_SEGMENT + 3)?,
    );
    share.function(Bdf::of_devfn(u32::from(segment), bus, devfn))
}

/// A slot with what is in it at `at`; its other addresses, peers of the host, are left out.
fn in_slot(host: &Structure<'_>, handle: u16, at: Bdf) -> Draft {
    let mut draft = Draft::copy(host, handle);
    draft.put(SLOT_SEGMENT, &[0, 0, at.bus(), at.devfn()]);
    if let Some(peers) = host.byte(SLOT_PEERS) {
        draft.put(SLOT_PEERS, &[0]);
        draft.cut(SLOT_PEERS + 1, usize::from(peers) * SLOT_PEER);
    }
    draft
}

/// A board with the guest's handles of its chassis and of what is on it.
fn baseboard(host: &Structure<'_>, handle: u16, handles: &Handles) -> Draft {
    let mut draft = Draft::copy(host, handle);
    if let Some(chassis) = host.word(BOARD_CHASSIS) {
        let guest = handles.of(CHASSIS, chassis).unwrap_or(NO_HANDLE);
        draft.put(BOARD_CHASSIS, &guest.to_le_bytes());
    }
    if let Some(count) = host.byte(BOARD_CONTAINED) {
        let offset = |index: usize| BOARD_CONTAINED + 1 + 2 * index;
        let held = (0..usize::from(count)).filter_map(|index| handles.any(host.word(offset(index))?));
        let mut kept = 0;
        for guest in held {
            draft.put(offset(kept), &guest.to_le_bytes());
            kept += 1;
        }
        draft.put(BOARD_CONTAINED, &[kept as u8]);
        draft.cut(offset(kept), 2 * (usize::from(count) - kept));
    }
    draft
}

const CHASSIS: u8 = 3;
const PROCESSOR: u8 = 4;
const CACHE: u8 = 7;
const BOARD_CHASSIS: usize = 0x0b;
/// How many handles follow.
const BOARD_CONTAINED: usize = 0x0e;
/// Segment, bus, device and function.
const SLOT_SEGMENT: usize = 0x0d;
/// How many peers follow.
const SLOT_PEERS: usize = 0x12;
const SLOT_PEER: usize = 5;
const ONBOARD_SEGMENT: usize = 0x07;
/// Handles from here on are not for structures (DSP0134 section 6.1.2).
const RESERVED_HANDLES: u16 = 0xff00;
const NO_HANDLE: u16 = 0xffff;
