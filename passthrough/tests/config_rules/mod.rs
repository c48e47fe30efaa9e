//! What holds for the configuration space of any device, whatever it consists of and whatever a guest writes to it.
//! One set of rules for the property test and for the fuzzer.

use pellucid_passthrough::{
    Allowed, BarKind, BarShape, CONFIG_SIZE, Capabilities, ConfigOrigin, ConfigTable, Decode, Geometry,
    Source,
};

/// Takes `input` as a device (flags, BARs, configuration space) and a guest's writes to it, and sees that the rules hold.
pub(crate) fn hold(input: &[u8]) {
    let mut input = Input(input);
    let [flags, count] = input.take();
    let bars: Vec<BarShape> = (0..count % 8).map(|_| bar(input.take())).collect();
    let space = input.space(flags & 1 != 0);
    let absent: &[(u8, &str)] = if flags & 4 == 0 { &[] } else { &[(0x11, "MSI-X")] };
    let mut table = ConfigTable::new(&ConfigOrigin {
        space: &space,
        bars: &bars,
        intx: flags & 2 != 0,
        line: flags,
        absent,
    });
    if let Ok(Some(geometry)) = Geometry::of(&space, &bars) {
        assert!(geometry.table_range().end <= bars.iter().map(|bar| bar.size).max().unwrap_or(0));
    }
    let mut hardware = space.clone();
    hardware.resize(CONFIG_SIZE, 0);
    let at_first = seen(&table, &hardware);
    while !input.0.is_empty() {
        let [low, high, size, data @ ..]: [u8; 7] = input.take();
        let length = [1, 2, 4][usize::from(size % 3)];
        let offset = u16::from_le_bytes([low, high]) % CONFIG_SIZE as u16 / length * length;
        write(&mut table, &mut hardware, offset, &data[..usize::from(length)]);
        open(&table, &bars, &hardware);
    }
    let at_last = seen(&table, &hardware);
    for place in (0..CONFIG_SIZE).filter(|place| table.source(*place as u16) == Source::Constant) {
        assert_eq!(at_first[place], at_last[place], "{place:#x} is constant");
    }
    sees_sound_lists(&at_last);
}

fn write(table: &mut ConfigTable, hardware: &mut [u8], offset: u16, data: &[u8]) {
    let at = usize::from(offset);
    // What lies around the write; what is constant elsewhere is looked at in the end.
    let around = at.saturating_sub(16)..(at + 16).min(CONFIG_SIZE);
    let before = part(table, hardware, &around);
    let current = hardware[at..at + data.len()].to_vec();
    let written = table.write(offset, data, &current);
    for (start, bytes) in &written.hardware {
        assert!(
            !bytes.is_empty() && start % 4 + bytes.len() as u16 <= 4,
            "one aligned word"
        );
        for (place, byte) in (*start..).zip(bytes) {
            assert_eq!(
                table.source(place),
                Source::Hardware,
                "{place:#x} is not the hardware's"
            );
            let kept = place < 4 || (0x10..0x28).contains(&place) || (0x30..0x34).contains(&place);
            assert!(!kept, "{place:#x} is never sent");
            assert!(
                (offset..offset + data.len() as u16).contains(&place),
                "{place:#x} was not written"
            );
            hardware[usize::from(place)] = *byte;
        }
    }
    let after = part(table, hardware, &around);
    for (index, place) in around.enumerate() {
        let touched =
            (at..at + data.len()).contains(&place) && table.source(place as u16) != Source::Constant;
        assert!(
            touched || before[index] == after[index],
            "{place:#x} changed by a write to {offset:#x}"
        );
    }
}

/// The lists that the guest finds end, and nothing that it cannot use is in them.
fn sees_sound_lists(seen: &[u8]) {
    let found = Capabilities::walk(seen);
    assert!(found.standard.len() <= 48 && found.extended.len() <= 960);
    for capability in &found.extended {
        let useless = [0x0f, 0x10, 0x11, 0x13, 0x15, 0x1b, 0x1d, 0x24];
        assert!(!useless.contains(&capability.id), "{:#x} is shown", capability.id);
    }
    if let Some(last) = found.extended.last() {
        let next = u32::from_le_bytes(
            seen[usize::from(last.offset)..][..4]
                .try_into()
                .unwrap_or_default(),
        ) >> 20;
        assert_eq!(next, 0, "the extended list ends");
    }
}

/// Whatever the registers say, what is open lies in the windows and no two of it meet.
fn open(table: &ConfigTable, bars: &[BarShape], hardware: &[u8]) {
    let allowed = Allowed {
        memory: vec![0xc000_0000..0xe000_0000, 0x40_0000_0000..0x80_0000_0000],
        io: 0x1000..0x1_0000,
    };
    let command = u16::from_le_bytes([hardware[4], hardware[5]]);
    let open = Decode::of(table, bars, command, 0).open(bars, &allowed);
    for (bar, address) in &open {
        assert!(
            bars.iter()
                .any(|shape| shape.index == *bar && allowed.holds(shape, *address))
        );
    }
}

fn seen(table: &ConfigTable, hardware: &[u8]) -> Vec<u8> {
    part(table, hardware, &(0..CONFIG_SIZE))
}

fn part(table: &ConfigTable, hardware: &[u8], range: &std::ops::Range<usize>) -> Vec<u8> {
    let mut seen = hardware[range.clone()].to_vec();
    table.overlay(range.start as u16, &mut seen);
    seen
}

fn bar([index, kind, size]: [u8; 3]) -> BarShape {
    let prefetchable = kind & 8 != 0;
    let kind = match kind % 3 {
        0 => BarKind::Io,
        1 => BarKind::Memory32 { prefetchable },
        _ => BarKind::Memory64 { prefetchable },
    };
    // A size that is a power of two, or nearly.
    let size = (1 << (size % 64)) - u64::from(size >= 192);
    BarShape {
        index: index % 8,
        kind,
        size,
        address: 0xc000_0000,
    }
}

/// What is left of the input; behind its end are zeros.
struct Input<'i>(&'i [u8]);

impl Input<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        let length = N.min(self.0.len());
        bytes[..length].copy_from_slice(&self.0[..length]);
        self.0 = &self.0[length..];
        bytes
    }

    fn space(&mut self, conventional: bool) -> Vec<u8> {
        let length = usize::from(u16::from_le_bytes(self.take())).min(self.0.len());
        let (space, rest) = self.0.split_at(length);
        self.0 = rest;
        let mut space = space.to_vec();
        space.resize(if conventional { 256 } else { CONFIG_SIZE }, 0);
        space
    }
}
