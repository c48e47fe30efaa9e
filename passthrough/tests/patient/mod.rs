//! A function that is lent and comes back sick: a script of what is wrong with it, behind the transport trait.
#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "each test uses its part; a script that cannot run ends its test"
)]

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use pellucid_partition::{Bdf, Mapping};
use pellucid_passthrough::{
    Bar, BarKind, Function, Ids, IrqInfo, IrqKind, RegionIndex, RegionInfo, Transport,
};

/// What is wrong with it. Several may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sick {
    /// Its reset is refused after its time.
    ResetRefused,
    /// The kernel is changing its driver, and does not reset it before that has ended.
    Busy,
    /// Its reset does not come back.
    ResetHangs,
    /// It cannot be reset alone.
    NoReset,
    /// After the reset it answers all ones, for ever.
    GoneAfterReset,
    /// After the reset it answers all ones, for this many milliseconds.
    LateAfterReset(u64),
    /// After the reset it answers as another function.
    OtherAfterReset,
    /// After the reset it is of another class: its firmware has not come up.
    ClassAfterReset,
    /// After the reset a BAR is at 0.
    BarLost,
    /// Its bus master bit stays on.
    MasterSticks,
    /// Its memory decoding stays on.
    DecodingSticks,
    /// MSI-X stays enabled.
    MessagesStick,
    /// Its line stays asserted, and there is no turning it off.
    LineSticks,
    /// It goes on signalling after its interrupts were disconnected.
    Storms,
    /// It stays in D3hot.
    StaysAsleep,
    /// It does not go to D3hot.
    StaysAwake,
    /// It keeps its state over D3hot.
    NoSoftReset,
    /// The registers cannot be read at all.
    Unreadable,
    /// It is unplugged at its reset: nothing about it works from then on.
    Unplugged,
    /// Only a power cycle cures it: its own reset leaves its bus master on.
    NeedsPower,
    /// Only a reset of all behind its bridge cures it.
    NeedsHot,
}

pub(crate) struct Patient {
    sick: Vec<Sick>,
    space: Mutex<Vec<u8>>,
    scope: Vec<Bdf>,
    wired: Mutex<Option<File>>,
    silent_until: Mutex<Option<Instant>>,
    unplugged: AtomicBool,
    pub(crate) log: Mutex<Vec<&'static str>>,
}

pub(crate) const DEVICE: &str = "0000:01:00.0";
pub(crate) const NEIGHBOUR: &str = "0000:01:00.1";
const POWER: usize = 0x44;
const MSIX: usize = 0x72;

impl Patient {
    pub(crate) fn with(sick: &[Sick]) -> Patient {
        Patient {
            sick: sick.to_vec(),
            space: Mutex::new(fresh(sick)),
            scope: Vec::new(),
            wired: Mutex::default(),
            silent_until: Mutex::default(),
            unplugged: AtomicBool::new(false),
            log: Mutex::default(),
        }
    }

    /// The same, and a hot reset would reset these functions.
    pub(crate) fn behind_a_bridge_with(self, scope: &[&str]) -> Patient {
        let scope = scope.iter().map(|device| device.parse().unwrap()).collect();
        Patient { scope, ..self }
    }

    /// Drives it as a guest would: everything on.
    pub(crate) fn used_by_a_guest(self) -> Patient {
        {
            let mut space = self.space.lock().unwrap();
            (space[0x04], space[0x06], space[MSIX + 1]) = (0x07, 0x18, 0x80);
        }
        self
    }

    pub(crate) fn command(&self) -> u8 {
        self.space.lock().unwrap()[4]
    }

    pub(crate) fn asked(&self) -> Vec<&'static str> {
        self.log.lock().unwrap().clone()
    }

    fn has(&self, sick: Sick) -> bool {
        self.sick.contains(&sick)
    }

    fn ask(&self, what: &'static str) {
        self.log.lock().unwrap().push(what);
    }

    fn late(&self) -> bool {
        self.silent_until
            .lock()
            .unwrap()
            .is_some_and(|until| Instant::now() < until)
    }

    fn gone(&self) -> io::Result<()> {
        match self.unplugged.load(Ordering::Relaxed) {
            true => Err(io::Error::from_raw_os_error(libc::ENODEV)),
            false => Ok(()),
        }
    }

    /// What its own reset leaves.
    fn after_reset(&self) -> Vec<u8> {
        let mut space = fresh(&self.sick);
        for sick in &self.sick {
            match sick {
                Sick::GoneAfterReset => space.fill(0xff),
                Sick::OtherAfterReset => space[2] = 0x11,
                Sick::ClassAfterReset => space[0x0a] = 0,
                Sick::BarLost => space[0x10..0x18].fill(0),
                Sick::NeedsPower | Sick::NeedsHot => space[4] = 4,
                _ => {}
            }
        }
        space
    }

    /// Bits that are on whatever is written.
    fn stuck_bits(&self, space: &mut [u8]) {
        let untried = |cure: &'static str| !self.log.lock().unwrap().contains(&cure);
        for sick in &self.sick {
            match sick {
                Sick::MasterSticks => space[4] |= 4,
                Sick::DecodingSticks => space[4] |= 2,
                Sick::MessagesStick => space[MSIX + 1] |= 0x80,
                Sick::LineSticks => {
                    space[6] |= 8;
                    space[5] &= !4;
                }
                Sick::NeedsPower if untried("D0") => space[4] |= 4,
                Sick::NeedsHot if untried("hot reset") => space[4] |= 4,
                _ => {}
            }
        }
    }
}

/// As the host's firmware has set it up: ids, class, a 64-bit BAR, power management, MSI-X.
fn fresh(sick: &[Sick]) -> Vec<u8> {
    let mut space = vec![0; 256];
    let mut put = |at: usize, bytes: &[u8]| space[at..at + bytes.len()].copy_from_slice(bytes);
    put(0x00, &[0x36, 0x1b, 0x10, 0x00, 0x00, 0x00, 0x10, 0x00]);
    put(0x08, &[0x02, 0x02, 0x08, 0x01]);
    put(0x10, &[0x04, 0x00, 0x60, 0xfe, 0x02, 0x00, 0x00, 0x00]);
    put(0x34, &[0x40]);
    put(
        0x40,
        &[
            0x01,
            0x70,
            0x03,
            0x00,
            u8::from(sick.contains(&Sick::NoSoftReset)) << 3,
            0,
        ],
    );
    put(0x70, &[0x11, 0x00, 0x0f, 0x00]);
    space
}

/// The function as the host surveyed it. Its reset methods: none, so that nothing is known beforehand.
pub(crate) fn function() -> Function {
    let ids = Ids {
        vendor: 0x1b36,
        device: 0x10,
        class: 0x01_0802,
        revision: 2,
        subsystem: [0, 0],
    };
    let registers = Bar {
        index: 0,
        kind: BarKind::Memory64 { prefetchable: false },
        address: 0x2_fe60_0000,
        size: 0x4000,
    };
    Function {
        bars: vec![registers],
        ..Function::bare(DEVICE.parse().unwrap(), ids)
    }
}

impl Transport for Patient {
    fn region(&self, _: RegionIndex) -> Option<RegionInfo> {
        None
    }

    fn read(&self, _: RegionIndex, offset: u64, data: &mut [u8]) -> io::Result<()> {
        self.gone()?;
        if self.has(Sick::Unreadable) {
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
        if self.late() {
            data.fill(0xff);
            return Ok(());
        }
        let at = offset as usize;
        data.copy_from_slice(&self.space.lock().unwrap()[at..at + data.len()]);
        Ok(())
    }

    fn write(&self, _: RegionIndex, offset: u64, data: &[u8]) -> io::Result<()> {
        self.gone()?;
        if self.late() {
            return Ok(());
        }
        let at = offset as usize;
        let mut space = self.space.lock().unwrap();
        if at == POWER {
            let (before, after) = (space[POWER] & 3, data[0] & 3);
            let refused =
                after == 3 && self.has(Sick::StaysAwake) || after == 0 && self.has(Sick::StaysAsleep);
            if refused {
                return Ok(());
            }
            self.ask(if after == 0 { "D0" } else { "D3hot" });
            if before == 3 && after == 0 {
                let bars: Vec<u8> = space[0x10..0x28].to_vec();
                *space = fresh(&self.sick);
                // The host's kernel saves and restores them.
                space[0x10..0x28].copy_from_slice(&bars);
                self.stuck_bits(&mut space);
                return Ok(());
            }
        }
        if space[0] != 0xff {
            space[at..at + data.len()].copy_from_slice(data);
        }
        self.stuck_bits(&mut space);
        Ok(())
    }

    fn map(&self, _: RegionIndex, _: u64, _: usize) -> io::Result<Mapping> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn resettable(&self) -> bool {
        !self.has(Sick::NoReset)
    }

    fn reset(&self) -> io::Result<()> {
        self.gone()?;
        self.ask("reset");
        if self.has(Sick::ResetHangs) {
            thread::sleep(Duration::from_secs(5));
        }
        if self.has(Sick::Busy) {
            return Err(io::Error::from_raw_os_error(libc::EAGAIN));
        }
        if self.has(Sick::ResetRefused) {
            return Err(io::Error::from_raw_os_error(libc::ETIMEDOUT));
        }
        if self.has(Sick::Unplugged) {
            self.unplugged.store(true, Ordering::Relaxed);
            return Ok(());
        }
        for sick in &self.sick {
            if let Sick::LateAfterReset(ms) = sick {
                *self.silent_until.lock().unwrap() = Some(Instant::now() + Duration::from_millis(*ms));
            }
        }
        let mut space = self.space.lock().unwrap();
        *space = self.after_reset();
        if space[0] != 0xff {
            self.stuck_bits(&mut space);
        }
        Ok(())
    }

    fn reset_scope(&self) -> io::Result<Vec<Bdf>> {
        match self.scope.is_empty() {
            true => Err(io::ErrorKind::Unsupported.into()),
            false => Ok(self.scope.clone()),
        }
    }

    fn hot_reset(&self) -> io::Result<()> {
        self.ask("hot reset");
        *self.space.lock().unwrap() = fresh(&self.sick);
        Ok(())
    }

    fn irq(&self, kind: IrqKind) -> IrqInfo {
        let count = u32::from(kind == IrqKind::Msix);
        IrqInfo { count, fixed: true }
    }

    fn wire(&self, _: IrqKind, _: u32, eventfds: &[Option<BorrowedFd<'_>>]) -> io::Result<()> {
        let event = eventfds[0].unwrap().try_clone_to_owned().unwrap();
        *self.wired.lock().unwrap() = Some(event.into());
        Ok(())
    }

    fn unmask_by(&self, _: IrqKind, _: BorrowedFd<'_>) -> io::Result<()> {
        Ok(())
    }

    fn unwire(&self, _: IrqKind) -> io::Result<()> {
        self.ask("unwire");
        if self.has(Sick::Storms) {
            // One that was disconnected, and signals all the same.
            let mut event = self.wired.lock().unwrap();
            let signalled = event.as_mut().map(|event| event.write_all(&1_u64.to_ne_bytes()));
            return signalled.unwrap_or(Ok(()));
        }
        *self.wired.lock().unwrap() = None;
        let mut space = self.space.lock().unwrap();
        space[MSIX + 1] &= !0x80;
        self.stuck_bits(&mut space);
        Ok(())
    }
}

/// Shared, as the ladder takes it.
pub(crate) fn shared(patient: Patient) -> (Arc<Patient>, Arc<dyn Transport>) {
    let patient = Arc::new(patient);
    (Arc::clone(&patient), patient)
}
