//! Advanced error reporting of a lent function (PCI Express 6.0, 6.2 and 7.8.4): made to report, cleared of what is stale, and asked
//! which errors were its own. The kernel signals every function below the port that an error came through; only one has it.

mod registers;
mod vicinity;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use pellucid_partition::Bdf;

pub(crate) use self::registers::Registers;
use self::registers::Taken;
use self::vicinity::{Found, Vicinity};
use crate::transport::Transport;

/// What is known of an uncorrectable error when the kernel signals it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErrorReport {
    /// How bad it is.
    pub severity: Severity,
    /// Whose it is.
    pub source: Blame,
    /// The errors by the kernel's names (`CmpltTO`, `MalfTLP`), with how often they occurred since the last report.
    pub kinds: BTreeMap<String, u64>,
    /// The header of the packet that the function's own error was about, if it logged one.
    pub header: Option<[u32; 4]>,
}

/// How bad an error is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// Something was lost; the link can be trusted.
    NonFatal,
    /// The link cannot be trusted; the kernel resets it, and the function loses its state.
    Fatal,
    /// The function does not answer: it has gone, or its link is down.
    Gone,
    /// The function does not tell.
    Unknown,
}

/// Whose error it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blame {
    /// The function's own: its counters rose, or its status was set.
    Own,
    /// That of a port above it or of another function below that port; which one, if that can be seen.
    Another(Option<Bdf>),
    /// That cannot be told: nobody counts this function's errors, or it does not answer.
    Unknown,
}

/// The errors of one function, as far as they can be seen from here.
pub(crate) struct Reporter {
    device: Bdf,
    transport: Arc<dyn Transport>,
    registers: Option<Registers>,
    function: Option<PathBuf>,
    seen: Vicinity,
}

impl Reporter {
    /// Remembers what was counted until now. `registers` have just begun; `function` is its folder in sysfs, if it is a function of the host.
    pub(crate) fn begin(
        device: Bdf,
        transport: &Arc<dyn Transport>,
        registers: Option<Registers>,
        function: Option<PathBuf>,
    ) -> Reporter {
        Reporter {
            device,
            transport: Arc::clone(transport),
            registers,
            seen: Vicinity::of(function.as_deref()),
            function,
        }
    }

    /// What has happened since the last report.
    pub(crate) fn report(&mut self) -> ErrorReport {
        let transport = self.transport.as_ref();
        let taken = self.registers.as_mut().map(|registers| registers.take(transport));
        let now = Vicinity::of(self.function.as_deref());
        let (source, found) = self.blame(&now, taken.as_ref());
        self.seen = now;
        let mut report = ErrorReport {
            severity: found.severity,
            source,
            kinds: found.kinds,
            header: None,
        };
        match taken {
            // While the kernel resets a link, nobody answers behind it either.
            Some(Taken::Gone) if report.severity != Severity::Fatal => report.severity = Severity::Gone,
            Some(Taken::Errors(_, header)) if source == Blame::Own => report.header = header,
            _ => {}
        }
        report
    }

    /// Counters first: a status may also be that of an error of which only a correctable one was made (6.2.3.2.4), and nobody was told. The
    /// registers tell where nobody counts. Others are blamed only beside a function that can tell of its own errors and does not.
    fn blame(&self, now: &Vicinity, taken: Option<&Taken>) -> (Blame, Found) {
        let another = |device, severity| (Blame::Another(device), Found::of(severity));
        if let Some(found) = now.counted_since(&self.seen) {
            return (Blame::Own, found);
        }
        let is_counted = now.is_counted() && self.seen.is_counted();
        let counted = now.another_counted_since(&self.seen);
        if let Some((device, severity)) = counted.filter(|_| is_counted) {
            return another(Some(device), severity);
        }
        if let Some(Taken::Errors(found, _)) = taken {
            return (Blame::Own, found.clone());
        }
        let tells = is_counted || taken == Some(&Taken::Nothing);
        let others = counted.or_else(|| now.port_since(&self.seen));
        if let Some((device, severity)) = others.filter(|_| tells) {
            return another(Some(device), severity);
        }
        match now.heard_since(&self.seen) {
            Some(source) if source == self.device => (Blame::Own, Found::of(Severity::Unknown)),
            Some(source) if tells => another(Some(source), Severity::Unknown),
            // Its server signals for nobody else.
            _ if self.function.is_none() => (Blame::Own, Found::of(Severity::Unknown)),
            // A fatal one would have been counted.
            _ if is_counted => another(None, Severity::NonFatal),
            // Whoever had it: what a fatal one does, it does to all below the port.
            _ => (
                Blame::Unknown,
                Found::of(others.map_or(Severity::Unknown, |(_, severity)| severity)),
            ),
        }
    }
}

impl fmt::Display for ErrorReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.severity {
            Severity::NonFatal => "a non-fatal error",
            Severity::Fatal => "a fatal error",
            Severity::Gone => "it does not answer after an error",
            Severity::Unknown => "an uncorrectable error",
        })?;
        match self.source {
            Blame::Own => f.write_str(" of its own")?,
            Blame::Another(Some(device)) => write!(f, " of {device}")?,
            Blame::Another(None) => f.write_str(" of a port above it or of another function below that")?,
            Blame::Unknown => f.write_str(", perhaps of another function below its port")?,
        }
        if !self.kinds.is_empty() {
            let kinds: Vec<_> = self.kinds.keys().map(String::as_str).collect();
            write!(f, " ({})", kinds.join(", "))?;
        }
        if let Some([a, b, c, d]) = self.header {
            write!(f, ", packet {a:08x} {b:08x} {c:08x} {d:08x}")?;
        }
        Ok(())
    }
}

/// Where the host's functions are.
pub(crate) const FUNCTIONS: &str = "/sys/bus/pci/devices";

#[cfg(test)]
mod tests;
