//! The questions that are asked at the serial console, the same on both sides, and what the answers mean.

use std::time::Duration;

use crate::console::{Console, ConsoleError};

/// What the operating system on the disk says about the machine it finds itself on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Findings {
    /// `uname -r`.
    pub kernel: String,
    /// CPUs that it runs on.
    pub cpus: String,
    /// Seconds from the kernel's start to its first process, by the kernel's own clock.
    pub init: String,
    /// Seconds from the kernel's start to the end of the boot, by systemd's account.
    pub boot: String,
    /// The root file system's device.
    pub root: String,
    /// Its UUID.
    pub root_uuid: String,
    /// Whether it is mounted read-write or read-only.
    pub root_mode: String,
    /// The serial number of the NVMe controller that the root is on.
    pub serial: String,
    /// That controller's PCI address.
    pub controller: String,
    /// The root port (or bus) that the controller is behind.
    pub parent: String,
    /// Network interfaces with their addresses, as `name address`.
    pub nics: Vec<String>,
    /// Failed units.
    pub failed: Vec<String>,
}

impl Findings {
    /// Asks a system at whose shell prompt `console` is.
    ///
    /// # Errors
    /// The system does not answer.
    pub fn survey(console: &mut Console) -> Result<Findings, ConsoleError> {
        let mut ask = |question: &str| console.ask(question, PATIENCE).map(|answer| answer.text);
        // A boot that is still going on would fail units later than they are asked for.
        ask("systemctl is-system-running --wait")?;
        let device = device_of(&ask("findmnt -n -o SOURCE /")?);
        let controller = format!("/sys/class/nvme/{device}");
        Ok(Findings {
            kernel: ask("uname -r")?,
            cpus: ask("nproc")?,
            init: ask(r"dmesg | sed -n 's/^\[ *\([0-9.]*\)\] Run .* as init process$/\1/p'")
                .map(|text| rounded(&text))?,
            boot: ask("systemd-analyze time | head -n 1").map(|text| sum_of(&text))?,
            root: ask("findmnt -n -o SOURCE /")?,
            root_uuid: ask("findmnt -n -o UUID /")?,
            root_mode: ask("findmnt -n -o OPTIONS /").map(|text| first_option(&text))?,
            serial: ask(&format!("cat {controller}/serial")).map(|text| one_line(&text))?,
            controller: ask(&format!("cat {controller}/address"))?,
            parent: ask(&format!("basename $(dirname $(realpath {controller}/device))"))?,
            nics: nics_of(&ask(ADDRESSES)?),
            failed: ask("systemctl --failed --plain --no-legend --no-pager")
                .map(|text| first_words(&text))?,
        })
    }
}

/// `nvme0` of `/dev/nvme0n1p2`.
fn device_of(partition: &str) -> String {
    let name = partition.trim().trim_start_matches("/dev/");
    let digits = name
        .trim_start_matches("nvme")
        .find(|letter: char| !letter.is_ascii_digit());
    digits
        .map_or(name, |length| &name[..name.len().min("nvme".len() + length)])
        .to_owned()
}

/// The seconds of all parts of `Startup finished in 8.389s (kernel) + 1min 2.231s (userspace)` that the system
/// itself had a hand in: firmware and boot loader do not count.
fn sum_of(text: &str) -> String {
    let parts = text.split_once(" in ").map_or("", |(_, parts)| parts);
    let parts = parts.split(" = ").next().unwrap_or_default();
    let of_system = |part: &&str| !part.contains("(firmware)") && !part.contains("(loader)");
    let seconds = |part: &str| part.split_whitespace().filter_map(seconds_of).sum::<f64>();
    let total: f64 = parts.split(" + ").filter(of_system).map(seconds).sum();
    // The sum of nothing is minus zero.
    format!("{:.1}", total.abs())
}

/// Seconds with two places.
fn rounded(seconds: &str) -> String {
    seconds
        .trim()
        .parse::<f64>()
        .map_or_else(|_| seconds.to_owned(), |number| format!("{number:.2}"))
}

/// The seconds of one word of a time: `1min`, `2.231s`, `803ms`.
fn seconds_of(word: &str) -> Option<f64> {
    let units = [("min", 60.0), ("ms", 0.001), ("us", 0.000_001), ("s", 1.0)];
    let (number, unit) = units
        .iter()
        .find_map(|(name, unit)| Some((word.strip_suffix(name)?, unit)))?;
    number.parse::<f64>().ok().map(|number| number * unit)
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// `ro` or `rw`, of mount options.
fn first_option(text: &str) -> String {
    text.trim().split(',').next().unwrap_or_default().to_owned()
}

/// Interfaces but the loopback, each with its first IPv4 address.
fn nics_of(text: &str) -> Vec<String> {
    let lines = text
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>());
    let outward = lines.filter(|words| words.first().is_some_and(|&name| name != "lo"));
    let address = |words: &[&str]| {
        words
            .iter()
            .find(|word| word.contains('.'))
            .map_or("no address", |&word| word)
            .to_owned()
    };
    outward
        .map(|words| format!("{} {}", words[0], address(&words)))
        .collect()
}

fn first_words(text: &str) -> Vec<String> {
    text.lines()
        .filter_map(|line| line.split_whitespace().next())
        .map(str::to_owned)
        .collect()
}

/// Interfaces and addresses; an address may come some seconds after its interface.
const ADDRESSES: &str = "for i in 1 2 3 4 5 6 7 8 9; do \
    ip -br address | grep -v '^lo' | grep -vq '[.]' || break; sleep 1; done; ip -br address";

/// How long an answer may take; the first one waits for the end of the boot.
const PATIENCE: Duration = Duration::from_secs(240);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_controller_is_found_from_the_partition() {
        assert_eq!(device_of("/dev/nvme0n1p2"), "nvme0");
        assert_eq!(device_of("/dev/nvme12n3p1\n"), "nvme12");
        assert_eq!(device_of("/dev/sda2"), "sda2");
        assert_eq!(device_of(""), "");
    }

    #[test]
    fn boot_times_count_the_systems_own_parts() {
        let physical = "Startup finished in 9.1s (firmware) + 1.5s (loader) + 8.389s (kernel) + 10.231s (userspace) = 29.2s";
        assert_eq!(sum_of(physical), "18.6");
        assert_eq!(
            sum_of("Startup finished in 803ms (kernel) + 1min 2.2s (userspace) = 1min 3.003s"),
            "63.0"
        );
        assert_eq!(sum_of("Bootup is not yet finished"), "0.0");
    }

    #[test]
    fn kernel_times_are_rounded_and_other_answers_kept() {
        assert_eq!(rounded("11.938611"), "11.94");
        assert_eq!(rounded("no such line"), "no such line");
    }

    #[test]
    fn interfaces_are_listed_without_the_loopback() {
        let text = "lo UNKNOWN 127.0.0.1/8 \nenp0s25 UP 192.168.10.20/24 fe80::1/64 \nens2 UP fe80::2/64 ";
        assert_eq!(nics_of(text), ["enp0s25 192.168.10.20/24", "ens2 no address"]);
        assert!(nics_of("lo UNKNOWN 127.0.0.1/8").is_empty());
    }

    #[test]
    fn failed_units_are_their_first_words() {
        assert_eq!(
            first_words("a.service loaded failed failed A\nb.mount loaded failed failed B\n"),
            ["a.service", "b.mount"]
        );
        assert!(first_words("").is_empty());
    }

    #[test]
    fn the_mount_mode_is_the_first_option() {
        assert_eq!(first_option("ro,relatime,errors=remount-ro"), "ro");
        assert_eq!(first_option("rw\n"), "rw");
    }
}
