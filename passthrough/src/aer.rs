//! Advanced error reporting of a lent function (PCI Express 6.0, 6.2 and 7.8.4): made to report, cleared of what is stale, and asked
//! which errors were its own. The kernel signals every function below the port that an error came through; only one has it.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use pellucid_partition::Bdf;

use crate::capabilities::{Capabilities, ID_EXPRESS, dword};
use crate::inventory::{Counts, ErrorCounts};
use crate::transport::{RegionIndex, Transport};

/// What is known of an uncorrectable error when the kernel signals it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErrorReport {
    /// How bad it is.
    pub severity: Severity,
    /// Whose it is.
    pub source: Blame,
    /// The errors by the kernel's names (`CmpltTO`, `MalfTLP`), with how often they occurred since the last report.
    pub kinds: BTreeMap<String, u64>,
}

/// How bad an error is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// Something was lost; the link can be trusted.
    NonFatal,
    /// The link cannot be trusted; the kernel resets it, and the function loses its state.
    Fatal,
    /// The function does not tell.
    Unknown,
}

/// Whose error it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blame {
    /// The function's own: its counters rose.
    Own,
    /// The port's or another's below it: this function counts its errors and had none.
    Another,
    /// Nobody counts this function's errors.
    Unknown,
}

/// The errors of one function, as far as they can be seen from here.
pub(crate) struct Reporter {
    /// Its folder in sysfs, if it is a function of the host.
    function: Option<PathBuf>,
    seen: Option<ErrorCounts>,
    /// Fatal errors of all functions below the same port.
    nearby: u64,
}

impl Reporter {
    /// Clears stale status, lets the function report every kind of error, and remembers what was counted until now.
    pub(crate) fn begin(device: Option<Bdf>, transport: &dyn Transport) -> Reporter {
        if let Some(registers) = Registers::find(transport) {
            registers.clear(transport);
            registers.enable(transport);
        }
        Reporter::of(device.map(|device| PathBuf::from(format!("/sys/bus/pci/devices/{device}"))))
    }

    fn of(function: Option<PathBuf>) -> Reporter {
        let (seen, nearby) = counted(function.as_deref());
        Reporter {
            function,
            seen,
            nearby,
        }
    }

    /// What the kernel has counted since the last report.
    pub(crate) fn report(&mut self) -> ErrorReport {
        let (now, nearby) = counted(self.function.as_deref());
        let report = match (&self.seen, &now) {
            (Some(before), Some(now)) => ErrorReport::between(before, now, nearby > self.nearby),
            // Its server signals for nobody else.
            _ if self.function.is_none() => ErrorReport {
                source: Blame::Own,
                ..ErrorReport::unknown()
            },
            _ => ErrorReport::unknown(),
        };
        (self.seen, self.nearby) = (now, nearby);
        report
    }
}

/// Clears what a function's registers say of past errors, so that the next user is not blamed for them.
pub(crate) fn clear(transport: &dyn Transport) {
    if let Some(registers) = Registers::find(transport) {
        registers.clear(transport);
    }
}

impl ErrorReport {
    /// From a function's counters, and whether any function below its port had a fatal error.
    fn between(before: &ErrorCounts, now: &ErrorCounts, fatal_nearby: bool) -> ErrorReport {
        let fatal = now.fatal.total > before.fatal.total;
        let own = fatal || now.nonfatal.total > before.nonfatal.total;
        let kinds = match fatal {
            true => risen(&before.fatal, &now.fatal),
            false => risen(&before.nonfatal, &now.nonfatal),
        };
        ErrorReport {
            severity: if fatal || !own && fatal_nearby {
                Severity::Fatal
            } else {
                Severity::NonFatal
            },
            source: if own { Blame::Own } else { Blame::Another },
            kinds,
        }
    }

    pub(crate) fn unknown() -> ErrorReport {
        ErrorReport {
            severity: Severity::Unknown,
            source: Blame::Unknown,
            kinds: BTreeMap::new(),
        }
    }
}

impl fmt::Display for ErrorReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::NonFatal => "a non-fatal error",
            Severity::Fatal => "a fatal error",
            Severity::Unknown => "an uncorrectable error",
        };
        let kinds: Vec<_> = self.kinds.keys().map(String::as_str).collect();
        match (self.source, kinds.as_slice()) {
            (Blame::Own, []) => write!(f, "{severity} of its own"),
            (Blame::Own, kinds) => write!(f, "{severity} of its own ({})", kinds.join(", ")),
            (Blame::Another, _) => write!(f, "{severity} of its port or of another function below that"),
            (Blame::Unknown, _) => write!(f, "{severity}, perhaps of another function below its port"),
        }
    }
}

/// What the kernel has counted: of a function, and of fatal errors below its port.
fn counted(function: Option<&Path>) -> (Option<ErrorCounts>, u64) {
    function.map_or((None, 0), |function| {
        (ErrorCounts::read(function), fatal_nearby(function))
    })
}

/// The fatal errors of the port that `function` is below, and of every function below that.
fn fatal_nearby(function: &Path) -> u64 {
    let path = fs::canonicalize(function);
    let Some(port) = path.as_ref().ok().and_then(|path| path.parent()) else {
        return 0;
    };
    let below = fs::read_dir(port).into_iter().flatten().flatten();
    let functions = below.filter(|entry| entry.file_name().to_string_lossy().parse::<Bdf>().is_ok());
    let all = functions.map(|entry| entry.path()).chain([port.to_owned()]);
    all.filter_map(|path| ErrorCounts::read(&path))
        .fold(0, |sum, counts| sum.saturating_add(counts.fatal.total))
}

/// Which counters rose, and by how much.
fn risen(before: &Counts, now: &Counts) -> BTreeMap<String, u64> {
    let rise = |(name, count): (&String, &u64)| {
        let rise = count.saturating_sub(before.kinds.get(name).copied().unwrap_or(0));
        (rise > 0).then(|| (name.clone(), rise))
    };
    now.kinds.iter().filter_map(rise).collect()
}

/// Where a function's error registers are.
struct Registers {
    aer: u16,
    express: Option<u16>,
}

impl Registers {
    fn find(transport: &dyn Transport) -> Option<Registers> {
        let size = transport.region(RegionIndex::Config)?.size;
        let mut space = vec![0; usize::try_from(size).ok()?.min(crate::config::SIZE)];
        for (index, word) in space.chunks_exact_mut(4).enumerate() {
            transport.read(RegionIndex::Config, index as u64 * 4, word).ok()?;
        }
        let found = Capabilities::walk(&space);
        let aer = found
            .extended
            .iter()
            .find(|capability| capability.id == AER)?
            .offset;
        // A capability that ends past the space would have its registers nowhere.
        dword(&space, aer + CORRECTABLE)?;
        Some(Registers {
            aer,
            express: found.find(ID_EXPRESS),
        })
    }

    /// Status bits are cleared by writing ones.
    fn clear(&self, transport: &dyn Transport) {
        for register in [UNCORRECTABLE, CORRECTABLE] {
            write(transport, self.aer + register, &u32::MAX.to_le_bytes());
        }
    }

    fn enable(&self, transport: &dyn Transport) {
        let Some(control) = self.express.map(|express| express + DEVICE_CONTROL) else {
            return;
        };
        let mut value = [0; 2];
        if transport
            .read(RegionIndex::Config, u64::from(control), &mut value)
            .is_ok()
        {
            let wanted = u16::from_le_bytes(value) | REPORT_ALL;
            write(transport, control, &wanted.to_le_bytes());
        }
    }
}

fn write(transport: &dyn Transport, offset: u16, data: &[u8]) {
    if let Err(error) = transport.write(RegionIndex::Config, u64::from(offset), data) {
        tracing::debug!(offset, %error, "an error register was not written");
    }
}

/// The extended capability (7.8.4) and its two status registers.
const AER: u16 = 0x01;
const UNCORRECTABLE: u16 = 0x04;
const CORRECTABLE: u16 = 0x10;
/// Device Control in the PCI Express capability (7.5.3.4), and its bits to report correctable, non-fatal, fatal errors and
/// unsupported requests.
const DEVICE_CONTROL: u16 = 0x08;
const REPORT_ALL: u16 = 0xf;

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(total: u64, kinds: &[(&str, u64)]) -> Counts {
        let kinds = kinds
            .iter()
            .map(|(name, count)| ((*name).to_owned(), *count))
            .collect();
        Counts { total, kinds }
    }

    fn errors(nonfatal: Counts, fatal: Counts) -> ErrorCounts {
        ErrorCounts {
            nonfatal,
            fatal,
            ..ErrorCounts::default()
        }
    }

    #[test]
    fn only_a_function_whose_counters_rose_is_blamed() {
        let before = errors(counts(3, &[("CmpltTO", 3)]), Counts::default());
        let after = errors(counts(5, &[("CmpltTO", 4), ("UnsupReq", 1)]), Counts::default());
        let own = ErrorReport::between(&before, &after, false);
        assert_eq!((own.severity, own.source), (Severity::NonFatal, Blame::Own));
        assert_eq!(
            own.to_string(),
            "a non-fatal error of its own (CmpltTO, UnsupReq)"
        );
        assert_eq!(
            own.kinds["CmpltTO"], 1,
            "those of earlier users are not this one's"
        );
        let other = ErrorReport::between(&after, &after, false);
        assert_eq!(
            (other.severity, other.source),
            (Severity::NonFatal, Blame::Another)
        );
        assert!(other.kinds.is_empty());
    }

    #[test]
    fn a_fatal_error_outweighs_others() {
        let after = errors(counts(1, &[("CmpltTO", 1)]), counts(1, &[("DLP", 1)]));
        let report = ErrorReport::between(&ErrorCounts::default(), &after, true);
        assert_eq!(report.to_string(), "a fatal error of its own (DLP)");
    }

    #[test]
    fn a_neighbours_fatal_error_is_told_from_its_lesser_ones() {
        let root = tempfile::tempdir().unwrap();
        let function = |name: &str, fatal: u64, nonfatal: u64| {
            let folder = root.path().join(name);
            std::fs::create_dir_all(&folder).unwrap();
            for (severity, name, count) in [
                ("correctable", "COR", 0),
                ("nonfatal", "NONFATAL", nonfatal),
                ("fatal", "FATAL", fatal),
            ] {
                let text = format!("DLP {count}\nTOTAL_ERR_{name} {count}\n");
                std::fs::write(folder.join(format!("aer_dev_{severity}")), text).unwrap();
            }
            folder
        };
        let own = function("0000:03:00.0", 0, 0);
        function("0000:03:00.1", 4, 4);
        let mut reporter = Reporter::of(Some(own));
        function("0000:03:00.1", 4, 5);
        let report = reporter.report();
        assert_eq!(
            (report.severity, report.source),
            (Severity::NonFatal, Blame::Another)
        );
        function("0000:03:00.1", 5, 5);
        let report = reporter.report();
        assert_eq!(
            (report.severity, report.source),
            (Severity::Fatal, Blame::Another)
        );
        function("0000:03:00.0", 1, 0);
        let report = reporter.report();
        assert_eq!((report.severity, report.source), (Severity::Fatal, Blame::Own));
        let nowhere = root.path().join("0000:04:00.0");
        assert_eq!(Reporter::of(Some(nowhere)).report().source, Blame::Unknown);
    }
}
