//! What is said of errors, from scripted registers and from the folders of a host.

mod hostile;

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use tempfile::TempDir;

use super::*;
use crate::script::Script;

/// Errors by their bits.
const COMPLETION_TIMEOUT: u32 = 1 << 14;
const MALFORMED: u32 = 1 << 18;
const UNSUPPORTED: u32 = 1 << 20;

/// A reporter of a scripted function in a folder of sysfs, if it has one.
fn begun(script: &Arc<Script>, function: Option<PathBuf>) -> Reporter {
    let transport = Arc::clone(script) as Arc<dyn Transport>;
    let registers = Registers::begin(script.as_ref());
    Reporter::begin("0000:03:00.0".parse().unwrap(), &transport, registers, function)
}

/// A root port at 0000:00:01.0 with two functions below it.
struct Host(TempDir);

impl Host {
    fn new() -> Host {
        let host = Host(tempfile::tempdir().unwrap());
        for device in ["0000:00:01.0", "0000:03:00.0", "0000:03:00.1"] {
            fs::create_dir_all(host.folder(device)).unwrap();
        }
        host
    }

    /// With counters.
    fn counting() -> Host {
        let host = Host::new();
        for device in ["0000:00:01.0", "0000:03:00.0", "0000:03:00.1"] {
            host.count(device, 0, 0);
        }
        host
    }

    fn folder(&self, device: &str) -> PathBuf {
        let port = self.0.path().join("pci0000:00/0000:00:01.0");
        match device {
            "0000:00:01.0" => port,
            below => port.join(below),
        }
    }

    fn count(&self, device: &str, nonfatal: u64, fatal: u64) {
        for (severity, name, count) in [
            ("correctable", "COR", 0),
            ("nonfatal", "NONFATAL", nonfatal),
            ("fatal", "FATAL", fatal),
        ] {
            let text = format!("DLP {count}\nCmpltTO 0\nTOTAL_ERR_{name} {count}\n");
            fs::write(self.folder(device).join(format!("aer_dev_{severity}")), text).unwrap();
        }
    }

    fn port_reads(&self, port: &Script) {
        fs::write(self.folder("0000:00:01.0").join("config"), port.space()).unwrap();
    }

    fn function(&self) -> Option<PathBuf> {
        Some(self.folder("0000:03:00.0"))
    }
}

fn another(device: &str) -> Blame {
    Blame::Another(Some(device.parse().unwrap()))
}

#[test]
fn a_status_that_was_set_since_is_its_own_and_is_cleared() {
    let script = Arc::new(Script::new());
    let mut reporter = begun(&script, Host::new().function());
    script.set(Script::UNCORRECTABLE, COMPLETION_TIMEOUT | UNSUPPORTED);
    script.set(Script::CONTROL, 20);
    for (index, word) in [0x0400_0001, 0x0000_200f, 0xfe00_0000, 0].into_iter().enumerate() {
        script.set(Script::HEADER_LOG + 4 * index, word);
    }
    let report = reporter.report();
    assert_eq!(
        report.to_string(),
        "a non-fatal error of its own (CmpltTO, UnsupReq), packet 04000001 0000200f fe000000 00000000"
    );
    assert_eq!(script.register(Script::UNCORRECTABLE), 0);
    assert_eq!(reporter.report().source, Blame::Unknown, "it is told once");
}

#[test]
fn a_fatal_error_outweighs_others_and_a_log_of_another_error_is_not_shown() {
    let script = Arc::new(Script::new());
    let mut reporter = begun(&script, Host::new().function());
    script.set(Script::SEVERITY, MALFORMED | 1 << 31);
    script.set(Script::UNCORRECTABLE, COMPLETION_TIMEOUT | MALFORMED | 1 << 31);
    script.set(Script::CONTROL, 20);
    script.set(Script::HEADER_LOG, 0x0400_0001);
    let report = reporter.report();
    assert_eq!(report.to_string(), "a fatal error of its own (MalfTLP, bit 31)");
}

#[test]
fn what_was_set_before_or_is_masked_is_nobodys() {
    let script = Arc::new(Script::new());
    script.set(Script::UNCORRECTABLE, COMPLETION_TIMEOUT);
    script.set(Script::CORRECTABLE, 1);
    let mut reporter = begun(&script, Host::new().function());
    assert_eq!(script.register(Script::UNCORRECTABLE), 0);
    assert_eq!(script.register(Script::CORRECTABLE), 0);
    assert_eq!(reporter.report().source, Blame::Unknown);
    script.set(Script::MASK, UNSUPPORTED);
    script.set(Script::UNCORRECTABLE, UNSUPPORTED);
    let report = reporter.report();
    assert_eq!(
        (report.source, report.severity),
        (Blame::Unknown, Severity::Unknown)
    );
    script.set(Script::UNCORRECTABLE, UNSUPPORTED | MALFORMED);
    assert_eq!(
        reporter.report().to_string(),
        "a non-fatal error of its own (MalfTLP)"
    );
    assert_eq!(script.register(Script::UNCORRECTABLE), 0, "cleared all the same");
}

#[test]
fn a_status_that_does_not_clear_is_blamed_once() {
    let script = Arc::new(Script::new());
    script.stick(COMPLETION_TIMEOUT | UNSUPPORTED);
    script.set(Script::UNCORRECTABLE, COMPLETION_TIMEOUT);
    let mut reporter = begun(&script, Host::new().function());
    assert_eq!(reporter.report().source, Blame::Unknown, "from before");
    script.set(Script::UNCORRECTABLE, COMPLETION_TIMEOUT | UNSUPPORTED);
    let kinds = |report: ErrorReport| report.kinds.into_keys().collect::<Vec<_>>();
    assert_eq!(kinds(reporter.report()), ["UnsupReq"]);
    assert_eq!(reporter.report().source, Blame::Unknown);
    script.stick(0);
    reporter.report();
    assert_eq!(
        script.register(Script::UNCORRECTABLE),
        0,
        "cleared when it can be"
    );
    script.set(Script::UNCORRECTABLE, UNSUPPORTED);
    assert_eq!(kinds(reporter.report()), ["UnsupReq"], "that is a new one");
}

#[test]
fn a_function_that_reads_all_ones_is_gone_unless_its_link_is_being_reset() {
    let (script, host) = (Arc::new(Script::new()), Host::counting());
    let mut reporter = begun(&script, host.function());
    script.vanish();
    let report = reporter.report();
    assert_eq!(report.severity, Severity::Gone);
    assert!(report.kinds.is_empty() && report.header.is_none());
    assert!(report.to_string().starts_with("it does not answer"), "{report}");
    host.count("0000:03:00.0", 0, 1);
    let report = reporter.report();
    assert_eq!((report.source, report.severity), (Blame::Own, Severity::Fatal));
    let gone = Arc::new(Script::new());
    gone.vanish();
    let mut reporter = begun(&gone, host.function());
    assert_eq!(
        reporter.report().severity,
        Severity::NonFatal,
        "it had no registers to begin with"
    );
}

#[test]
fn only_a_function_whose_counters_rose_is_blamed() {
    let (script, host) = (Arc::new(Script::new()), Host::counting());
    host.count("0000:03:00.0", 3, 0);
    host.count("0000:03:00.1", 4, 4);
    let mut reporter = begun(&script, host.function());
    let mut now = || {
        let report = reporter.report();
        (report.source, report.severity)
    };
    assert_eq!(
        now(),
        (Blame::Another(None), Severity::NonFatal),
        "nobody counts that one"
    );
    host.count("0000:03:00.1", 5, 4);
    assert_eq!(now(), (another("0000:03:00.1"), Severity::NonFatal));
    host.count("0000:00:01.0", 1, 0);
    host.count("0000:03:00.1", 5, 5);
    assert_eq!(now(), (another("0000:03:00.1"), Severity::Fatal), "the worst one");
    host.count("0000:00:01.0", 1, 1);
    assert_eq!(now(), (another("0000:00:01.0"), Severity::Fatal));
    host.count("0000:03:00.0", 5, 0);
    host.count("0000:03:00.1", 5, 6);
    assert_eq!(now(), (Blame::Own, Severity::NonFatal));
    host.count("0000:03:00.0", 5, 1);
    let report = reporter.report();
    assert_eq!(report.to_string(), "a fatal error of its own (DLP)");
    assert_eq!(
        report.kinds["DLP"], 1,
        "those of earlier users are not this one's"
    );
}

#[test]
fn a_status_of_which_the_kernel_was_not_told_is_not_blamed_for_a_neighbours_error() {
    let (script, host) = (Arc::new(Script::new()), Host::counting());
    let mut reporter = begun(&script, host.function());
    script.set(Script::UNCORRECTABLE, UNSUPPORTED);
    host.count("0000:03:00.1", 0, 1);
    let report = reporter.report();
    assert_eq!(report.source, another("0000:03:00.1"));
    assert_eq!(report.to_string(), "a fatal error of 0000:03:00.1");
    assert_eq!(script.register(Script::UNCORRECTABLE), 0);
}

#[test]
fn a_port_whose_status_was_set_since_is_blamed_where_nobody_counts() {
    let (script, port, host) = (Arc::new(Script::new()), Script::new(), Host::new());
    port.set(Script::SEVERITY, MALFORMED);
    port.set(Script::UNCORRECTABLE, COMPLETION_TIMEOUT);
    host.port_reads(&port);
    let mut reporter = begun(&script, host.function());
    assert_eq!(reporter.report().source, Blame::Unknown, "it had that before");
    port.set(Script::UNCORRECTABLE, COMPLETION_TIMEOUT | MALFORMED);
    host.port_reads(&port);
    let report = reporter.report();
    assert_eq!(
        (report.source, report.severity),
        (another("0000:00:01.0"), Severity::Fatal)
    );
    script.set(Script::UNCORRECTABLE, UNSUPPORTED);
    assert_eq!(reporter.report().source, Blame::Own);
}

#[test]
fn a_root_port_says_whom_it_has_heard_of_an_error_from() {
    let (script, port, host) = (Arc::new(Script::new()), Script::new(), Host::new());
    port.set(Script::SOURCE, 0x0301_0000);
    host.port_reads(&port);
    let mut reporter = begun(&script, host.function());
    let mut after = |status: u32, source: u32| {
        port.set(Script::ROOT_STATUS, status);
        port.set(Script::SOURCE, source);
        host.port_reads(&port);
        reporter.report().source
    };
    assert_eq!(after(0, 0x0301_0000), Blame::Unknown, "that was before");
    assert_eq!(after(1 << 2, 0x0301_0000), another("0000:03:00.1"), "and again");
    assert_eq!(after(0, 0x0300_0301), Blame::Own);
    assert_eq!(after(0, 0x0000_0301), Blame::Unknown, "a corrected error only");
    assert_eq!(after(u32::MAX, u32::MAX), Blame::Unknown, "the port is gone");
}

#[test]
fn a_function_of_which_nothing_is_known_is_not_cleared_of_the_error() {
    let script = Arc::new(Script::new());
    let host = Host::new();
    host.count("0000:00:01.0", 0, 0);
    let silent = Arc::new(Script::new());
    silent.set(0x140, 0);
    let mut reporter = begun(&silent, host.function());
    host.count("0000:00:01.0", 1, 0);
    assert_eq!(
        reporter.report().to_string(),
        "a non-fatal error, perhaps of another function below its port"
    );
    host.count("0000:00:01.0", 1, 1);
    let report = reporter.report();
    assert_eq!(
        (report.source, report.severity),
        (Blame::Unknown, Severity::Fatal),
        "it may have been both, and the link was reset"
    );
    assert_eq!(reporter.report().severity, Severity::Unknown, "told once");
    let nowhere = host.0.path().join("0000:04:00.0");
    assert_eq!(begun(&script, Some(nowhere)).report().source, Blame::Unknown);
    let served = begun(&script, None).report();
    assert_eq!((served.source, served.severity), (Blame::Own, Severity::Unknown));
}

#[test]
fn registers_that_end_past_the_configuration_space_are_not_touched() {
    let script = Script::new();
    script.set(0x100, 0x1e01_0003);
    script.set(0x1e0, 0x0001_0001);
    script.set(0x1e4, COMPLETION_TIMEOUT);
    assert!(Registers::begin(&script).is_none());
    assert_eq!(script.register(0x1e4), COMPLETION_TIMEOUT);
}
