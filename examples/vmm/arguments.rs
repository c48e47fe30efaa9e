//! The command line: a contract, so every option here is described in the README.

use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum, value_parser};
use pellucid::partition::{
    Bdf, Cap, CpuRequest, CpuShare, NodeRequest, PageSize, PartitionSpec, Siblings, SpecError, Weight,
};
use pellucid::passthrough::{Threshold, VfError, VfSettings};
use pellucid::{
    CpuPolicy, DeviceSource, DeviceSpec, Reaction, ServerSpec, SmbiosPolicy, Source, VirtualFunction,
};

use crate::boot_plan::BootPlanArguments;
use crate::firmware_arguments::FirmwareArguments;
use crate::twin::TwinCommand;
use crate::twin_arguments::{self, TwinArguments};

/// The reference VMM of Pellucid: runs an ordinary server disk as a logical server on lent hardware.
#[derive(Parser)]
#[command(name = "vmm", version)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Run a logical server until it powers off
    Run(RunArguments),
    /// Show the plan, every claim and every refusal with its remedy; touch nothing
    Check(RunArguments),
    /// Show what a disk would boot and why, all entries of its boot menu, and warnings
    BootPlan(BootPlanArguments),
    /// Show what this host has to give
    Inventory(Format),
    /// Show each PCI function: what it is, whether it can be lent, and if not, what to do
    Devices(Format),
    /// List the claims of running logical servers
    List(Format),
    /// Ask a logical server to power off
    Stop {
        /// The server's name
        name: String,
        /// Stop it at once
        #[arg(long)]
        force: bool,
    },
    /// Take a device from a running guest and give it back to the host: asked for by the button at its hot-plug slot
    Unplug {
        /// The server's name
        name: String,
        /// The device, as --device named it
        device: Bdf,
        /// Take it at once; the guest is told that it has gone
        #[arg(long)]
        force: bool,
        /// Seconds until a guest that has not let go keeps it
        #[arg(long, value_name = "SECONDS", default_value_t = 30, conflicts_with = "force", value_parser = value_parser!(u16).range(1..=3600))]
        within: u16,
    },
    /// Take an unplugged device again and tell the guest, which finds it where it was
    Plug {
        /// The server's name
        name: String,
        /// The device, as --device named it
        device: Bdf,
        /// Seconds that the guest has to be done with the slot
        #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = value_parser!(u16).range(1..=3600))]
        within: u16,
    },
    /// Restore what dead processes left behind
    Heal {
        /// Only say what would be restored
        #[arg(long)]
        dry_run: bool,
        /// Give this device back although it failed its health proof; repeatable
        #[arg(long, value_name = "BDF", conflicts_with = "dry_run")]
        lift: Vec<Bdf>,
    },
    /// Run a tiny embedded guest that needs only /dev/kvm, and report what this host's KVM can do
    Selftest(Format),
    /// A machine's identity: captured, and compared with another
    #[command(subcommand)]
    Twin(TwinCommand),
}

#[derive(Args, Clone, Copy)]
pub(crate) struct Format {
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args)]
pub(crate) struct RunArguments {
    /// Name of the logical server on this host
    #[arg(long)]
    pub(crate) name: String,
    /// Number of vCPUs, or a list of host CPUs to pin them to (2-5,8; one CPU: 3,)
    #[arg(long, value_parser = parse_cpus, required_unless_present = "twin")]
    cpus: Option<Result<CpuRequest, SpecError>>,
    /// Memory, for example 512M or 4G
    #[arg(long, value_parser = parse_size, required_unless_present = "twin")]
    memory: Option<u64>,
    /// Pages that back the memory
    #[arg(long, value_enum, default_value_t = Pages::Size4k)]
    pages: Pages,
    /// NUMA nodes that CPUs and memory come from: any, one, or a list (0-1,3)
    #[arg(long = "node", value_name = "NODES", default_value = "any")]
    nodes: NodeRequest,
    #[command(flatten)]
    cpu: CpuArguments,
    #[command(flatten)]
    source: SourceArguments,
    /// PCI function to lend, at its own address or at another; repeatable. Options after commas: at=BDF, force although the host uses it,
    /// hotplug to unplug and plug it while the guest runs, on-error=REACTION to an uncorrectable error, on-request=REACTION when the host wants it back (report, pause, stop, unplug),
    /// corrected=COUNT[/SECONDS] of corrected errors that are told; vf=N lends a virtual function of it instead, with vfs=COUNT of them made if it
    /// has none, mac=ADDRESS and vlan=ID given to this one
    #[arg(long = "device", value_name = "BDF|unix:SOCKET[,OPTION]...", value_parser = parse_device)]
    devices: Vec<DeviceSpec>,
    #[command(flatten)]
    machine: MachineArguments,
    /// Where the serial console goes: stdio, pty, or a file
    #[arg(long, default_value = "stdio")]
    pub(crate) console: ConsoleTarget,
    /// Exit with status 3 when the guest asks for a reset, instead of starting it again
    #[arg(long)]
    pub(crate) no_reboot: bool,
    /// Print the plan or the final report as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args)]
struct CpuArguments {
    /// Give each vCPU a host CPU that nobody else gets
    #[arg(long)]
    dedicated: bool,
    /// Let others that say the same have the sibling threads of dedicated CPUs
    #[arg(long)]
    share_siblings: bool,
    /// SCHED_FIFO priority of the vCPU threads on dedicated CPUs, 1 to 99
    #[arg(long, requires = "dedicated", value_name = "PRIORITY")]
    realtime: Option<u8>,
    /// Service ratio against others that are busy, 1 to 10000; 100 is everybody's
    #[arg(long, conflicts_with = "dedicated")]
    weight: Option<Weight>,
    /// Most CPU time it gets, in percent of one CPU (40, 12.5, 250)
    #[arg(long, value_name = "PCT", conflicts_with = "dedicated")]
    cap: Option<Cap>,
    /// Group of logical servers that share among themselves what the group gets
    #[arg(long, conflicts_with = "dedicated")]
    group: Option<String>,
}

#[derive(Args)]
struct MachineArguments {
    /// SMBIOS tables that the guest finds: host, for its share of the machine (with --twin, of that one); host-with-text, with the maker's and owner's free text; none
    #[arg(long, value_name = "WHICH", default_value_t = SmbiosPolicy::Host)]
    smbios: SmbiosPolicy,
    /// File that keeps how far the guest has set its clock from the host's, so that the clock runs on when the server is started again
    #[arg(long, value_name = "FILE")]
    rtc_offset: Option<PathBuf>,
    #[command(flatten)]
    firmware: FirmwareArguments,
    #[command(flatten)]
    twin: TwinArguments,
}

#[derive(Args)]
#[group(required = true, multiple = true)]
struct SourceArguments {
    /// Kernel to start: a bzImage, or an ELF file with a PVH entry
    #[arg(long, conflicts_with = "boot_disk")]
    kernel: Option<PathBuf>,
    /// Initial RAM disk for --kernel
    #[arg(long, requires = "kernel", conflicts_with = "boot_disk")]
    initrd: Option<PathBuf>,
    /// Command line for --kernel
    #[arg(long, requires = "kernel", conflicts_with = "boot_disk")]
    cmdline: Option<String>,
    /// Server disk to boot as its own boot loader would: an image file or a block device, only read
    #[arg(long)]
    boot_disk: Option<PathBuf>,
    /// Entry of the disk's boot menu, by its id (`vmm boot-plan` lists them), in place of the one that it would boot by itself
    #[arg(long, value_name = "ID", requires = "boot_disk", conflicts_with_all = ["kernel", "firmware"])]
    entry: Option<String>,
    /// UEFI firmware that boots what it finds on the lent devices: an OVMF_CODE file
    #[arg(long, conflicts_with_all = ["kernel", "boot_disk"])]
    firmware: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Pages {
    #[value(name = "4k")]
    Size4k,
    #[value(name = "2m")]
    Size2m,
    #[value(name = "1g")]
    Size1g,
}

/// Where the guest's serial port goes.
#[derive(Clone)]
pub(crate) enum ConsoleTarget {
    Stdio,
    Pty,
    File(PathBuf),
}

impl std::str::FromStr for ConsoleTarget {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text {
            "stdio" => Self::Stdio,
            "pty" => Self::Pty,
            path => Self::File(path.into()),
        })
    }
}

impl RunArguments {
    /// What is booted.
    pub(crate) fn source(&self) -> Source {
        match &self.source.firmware {
            Some(code) => self.machine.firmware.source(code),
            None => self.source.source(),
        }
    }

    /// Where the offset of the guest's clock is kept.
    pub(crate) fn clock(&self) -> Option<&Path> {
        self.machine.rtc_offset.as_deref()
    }

    /// The captured machine that is asked for.
    pub(crate) fn twin(&self) -> &TwinArguments {
        &self.machine.twin
    }

    /// What is asked of Pellucid. Where a captured machine is, this host is captured for it.
    pub(crate) fn spec(&self) -> Result<ServerSpec, Box<dyn std::error::Error>> {
        let share = self.cpu.share();
        let machine = self.twin().machine()?;
        let cpus = match &self.cpus {
            Some(cpus) => cpus.clone()?,
            None => twin_arguments::cpus(machine.as_ref())?,
        };
        let pages = match self.pages {
            Pages::Size4k => PageSize::Size4K,
            Pages::Size2m => PageSize::Size2M,
            Pages::Size1g => PageSize::Size1G,
        };
        let memory = match self.memory {
            Some(memory) => memory,
            None => twin_arguments::memory(machine.as_ref(), pages.bytes())?,
        };
        let mut partition = PartitionSpec::on(&self.name, cpus.clone(), memory)?
            .with_pages(pages)?
            .with_nodes(self.nodes.clone());
        if self.cpu.dedicated || cpus.listed().is_some() && share.is_none() {
            partition = partition.dedicated();
        }
        if self.cpu.share_siblings {
            partition = partition.with_siblings(Siblings::Shared);
        }
        // Only hardware reaches memory by physical addresses.
        if self.devices.iter().any(|device| device.hardware().is_some()) {
            partition = partition.locked();
        }
        Ok(ServerSpec {
            partition,
            cpu: CpuPolicy {
                share,
                group: self.cpu.group.clone(),
                realtime: self.cpu.realtime,
            },
            source: self.source(),
            smbios: self.machine.smbios,
            clock_offset: 0,
            devices: self.devices.clone(),
            machine,
        })
    }
}

impl SourceArguments {
    fn source(&self) -> Source {
        match (&self.kernel, &self.boot_disk) {
            (Some(kernel), _) => Source::Kernel {
                kernel: kernel.clone(),
                initrd: self.initrd.clone(),
                command_line: self.cmdline.clone().unwrap_or_default(),
            },
            (None, disk) => Source::BootDisk {
                disk: disk.clone().unwrap_or_default(),
                entry: self.entry.clone(),
            },
        }
    }
}

impl CpuArguments {
    fn share(&self) -> Option<CpuShare> {
        (self.weight.is_some() || self.cap.is_some() || self.group.is_some()).then(|| CpuShare {
            weight: self.weight.unwrap_or_default(),
            cap: self.cap,
        })
    }
}

/// Bytes, with a suffix K, M, G or T.
fn parse_size(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is not a size; write for example 512M or 4G");
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let shift = match text[digits.len()..].to_ascii_uppercase().as_str() {
        "" | "B" => 0,
        "K" | "KIB" => 10,
        "M" | "MIB" => 20,
        "G" | "GIB" => 30,
        "T" | "TIB" => 40,
        _ => return Err(wrong()),
    };
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    number.checked_mul(1 << shift).ok_or_else(wrong)
}

/// A count that no partition can have is well written: it is refused like one that this host cannot carry.
fn parse_cpus(text: &str) -> Result<Result<CpuRequest, SpecError>, String> {
    match text.parse() {
        Ok(count) => Ok(CpuRequest::count(count)),
        Err(_) => text.parse().map(Ok),
    }
}

fn parse_device(text: &str) -> Result<DeviceSpec, String> {
    let address = |text: &str| text.parse::<Bdf>().map_err(|error| error.to_string());
    let mut device = DeviceSpec::new(DeviceSource::Served("".into()));
    let mut from = text;
    // From the end, because a path may have commas.
    while let Some((before, word)) = from.rsplit_once(',') {
        if !apply(&mut device, word)? {
            break;
        }
        from = before;
    }
    device.from = match from.strip_prefix("unix:") {
        Some("") => return Err(format!("{text:?}: name the socket, as in unix:/run/device.sock")),
        Some(_) if device.force => {
            return Err(format!(
                "{text:?}: force is for functions that the host uses, not for served ones"
            ));
        }
        Some(path) => DeviceSource::Served(path.into()),
        None => {
            let mut words = from.split(',');
            let card = address(words.next().unwrap_or_default())?;
            let mut own = Vec::new();
            for word in words {
                if !apply(&mut device, word)? {
                    own.push(word);
                }
            }
            let function = virtual_function(card, &own).map_err(|why| format!("{text:?}: {why}"))?;
            function.map_or(DeviceSource::Host(card), DeviceSource::Virtual)
        }
    };
    Ok(device)
}

/// Whether `word` is an option of a device, and then what it says.
fn apply(device: &mut DeviceSpec, word: &str) -> Result<bool, String> {
    let reaction = |text: &str| text.parse::<Reaction>().map_err(|error| error.to_string());
    match word.split_once('=') {
        None if word == "force" && !device.force => device.force = true,
        None if word == "hotplug" && !device.hot_plug => device.hot_plug = true,
        Some(("at", at)) if device.at.is_none() => {
            device.at = Some(at.parse::<Bdf>().map_err(|error| error.to_string())?)
        }
        Some(("on-error", word)) => device.policy.on_error = reaction(word)?,
        Some(("on-request", word)) => device.policy.on_request = reaction(word)?,
        Some(("corrected", text)) => device.policy.corrected = Some(parse_threshold(text)?),
        _ => return Ok(false),
    }
    Ok(true)
}

fn parse_threshold(text: &str) -> Result<Threshold, String> {
    let (count, seconds) = match text.split_once('/') {
        Some((count, seconds)) => (count, Some(seconds)),
        None => (text, None),
    };
    let number = |text: &str| text.parse::<NonZeroU64>().ok();
    match (number(count), seconds.map(number)) {
        (Some(count), seconds @ (None | Some(Some(_)))) => {
            let within = seconds
                .flatten()
                .map(|seconds| Duration::from_secs(seconds.get()));
            Ok(Threshold { count, within })
        }
        _ => Err(format!(
            "{text:?} is no count of errors, nor one within seconds, as 100 and 100/3600 are"
        )),
    }
}

/// The options of a virtual function of `card`; none of them, and it is the card itself that is meant.
fn virtual_function(card: Bdf, words: &[&str]) -> Result<Option<VirtualFunction>, String> {
    let (mut index, mut of, mut settings) = (None, None, VfSettings::default());
    for word in words {
        let number = |text: &str| text.parse().map_err(|_| format!("{text:?} is not a number"));
        match word.split_once('=') {
            Some(("vf", text)) if index.is_none() => index = Some(number(text)?),
            Some(("vfs", text)) if of.is_none() => of = Some(number(text)?),
            Some(("mac", text)) => {
                settings.mac = Some(text.parse().map_err(|error: VfError| error.to_string())?)
            }
            Some(("vlan", text)) => {
                settings.vlan = Some(text.parse().map_err(|error: VfError| error.to_string())?)
            }
            _ => return Err(OPTIONS.to_owned()),
        }
    }
    let least = |index: u16| {
        index
            .checked_add(1)
            .ok_or_else(|| format!("vf={index} is no virtual function"))
    };
    match (index, of) {
        (None, None) if settings == VfSettings::default() => Ok(None),
        (None, _) => Err("vfs, mac and vlan are of a virtual function, vf=NUMBER".to_owned()),
        (Some(index), of) if of.is_some_and(|of| of <= index) => Err(format!(
            "vf={index} is the virtual function behind the last one, they are counted from 0"
        )),
        (Some(index), of) => Ok(Some(VirtualFunction {
            card,
            index,
            of: of.map_or_else(|| least(index), Ok)?,
            settings,
        })),
    }
}

const OPTIONS: &str = "the options of a device are at=BDF, force, hotplug, on-error=REACTION, on-request=REACTION, corrected=COUNT[/SECONDS], and of a virtual function of it vf=NUMBER, vfs=COUNT, mac=ADDRESS and vlan=ID, each once";

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;
    use pellucid::partition::CpuMode;

    fn run(more: &[&str]) -> Result<Cli, clap::Error> {
        let start = ["vmm", "run", "--name", "db1", "--cpus", "2", "--memory", "1G"];
        Cli::try_parse_from(start.iter().chain(more))
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_server_needs_something_to_boot_and_only_one() {
        assert!(run(&[]).is_err());
        assert!(run(&["--initrd", "i"]).is_err());
        assert!(run(&["--kernel", "k", "--boot-disk", "d"]).is_err());
        assert!(run(&["--kernel", "k", "--initrd", "i", "--cmdline", "quiet"]).is_ok());
        assert!(run(&["--boot-disk", "d", "--cmdline", "quiet"]).is_err());
        assert!(run(&["--boot-disk", "d", "--entry", "a.conf"]).is_ok());
        assert!(run(&["--kernel", "k", "--entry", "a.conf"]).is_err());
        assert!(run(&["--firmware", "f", "--entry", "a.conf"]).is_err());
    }

    #[test]
    fn cpus_and_memory_are_said_or_a_capture_knows_them() {
        let words = |more: &[&str]| {
            let start = ["vmm", "run", "--name", "db1", "--kernel", "k"];
            Cli::try_parse_from(start.iter().chain(more))
        };
        assert!(words(&[]).is_err());
        assert!(words(&["--cpus", "2"]).is_err());
        assert!(words(&["--twin", "f.json"]).is_ok());
        assert!(words(&["--twin", "f.json", "--cpus", "2", "--twin-allow", "changes-name"]).is_ok());
        assert!(words(&["--twin", "f.json", "--twin-allow", "all"]).is_err());
        assert!(words(&["--cpus", "2", "--memory", "1G", "--twin-allow", "none"]).is_err());
    }

    #[test]
    fn a_policy_is_read_word_by_word() {
        let device = parse_device("01:00.0,on-error=unplug,on-request=stop,corrected=100").unwrap();
        let policy = device.policy;
        assert_eq!(
            (policy.on_error, policy.on_request),
            (Reaction::Unplug, Reaction::Stop)
        );
        let threshold = |count, seconds: Option<u64>| Threshold {
            count: NonZeroU64::new(count).unwrap(),
            within: seconds.map(Duration::from_secs),
        };
        assert_eq!((device.at, policy.corrected), (None, Some(threshold(100, None))));
        let within = parse_device("01:00.0,corrected=20/60").unwrap().policy.corrected;
        assert_eq!(within, Some(threshold(20, Some(60))));
        for wrong in [
            "on-error=kill",
            "on-error",
            "corrected=0",
            "corrected=-1",
            "corrected=9/0",
            "corrected=9/",
            "corrected=/60",
        ] {
            assert!(parse_device(&format!("01:00.0,{wrong}")).is_err(), "{wrong}");
        }
    }

    #[test]
    fn devices_and_sizes_are_read_as_people_write_them() {
        let device = parse_device("01:00.0,at=0000:02:00.0").unwrap();
        assert_eq!(device.at.unwrap().to_string(), "0000:02:00.0");
        assert!(!device.force);
        assert_eq!(device.policy, pellucid::DevicePolicy::default());
        for forced in ["01:00.0,force,at=02:00.0", "01:00.0,at=02:00.0,force"] {
            let device = parse_device(forced).unwrap();
            assert!(device.force && device.at == "02:00.0".parse().ok(), "{forced}");
        }
        for plain in ["01:00.0,hotplug", "01:00.0,hotplug,at=02:00.0", "unix:a,hotplug"] {
            assert!(parse_device(plain).unwrap().hot_plug, "{plain}");
        }
        assert!(!device.hot_plug);
        for wrong in [
            "hotplug,hotplug",
            "hotplug=yes",
            "on=02:00.0",
            "at=02:00.0,at=03:00.0",
            "forced",
            "force=no",
            "force,force",
            "",
        ] {
            assert!(parse_device(&format!("01:00.0,{wrong}")).is_err(), "{wrong}");
        }
        let served = parse_device("unix:/run/a,b.sock,at=00:03.0").unwrap();
        assert_eq!(served.from, DeviceSource::Served("/run/a,b.sock".into()));
        assert_eq!(served.wanted().unwrap().to_string(), "0000:00:03.0");
        assert!(parse_device("unix:a.sock").unwrap().wanted().is_none());
        assert!(
            [
                "unix:",
                "unix:a,at=",
                "unix:a,force",
                "unix:,at=00:03.0",
                "/run/a.sock"
            ]
            .iter()
            .all(|text| parse_device(text).is_err())
        );
        assert_eq!(parse_size("512M"), Ok(512 << 20));
        assert_eq!(parse_size("1GiB"), Ok(1 << 30));
        assert!(
            ["", "G", "1X", "-1G", "99999999999T", "1.5G"]
                .iter()
                .all(|text| parse_size(text).is_err())
        );
    }

    #[test]
    fn a_virtual_function_is_named_by_its_card_and_number() {
        let text = "04:00.0,vf=2,vfs=4,mac=52:54:00:00:00:07,vlan=9,at=05:00.0";
        let device = parse_device(text).unwrap();
        let DeviceSource::Virtual(function) = device.from else {
            panic!("{device:?}")
        };
        assert_eq!((function.index, function.of), (2, 4));
        assert_eq!(function.settings.mac.unwrap().to_string(), "52:54:00:00:00:07");
        assert_eq!(function.settings.vlan.unwrap().id(), 9);
        assert_eq!(device.wanted().unwrap().to_string(), "0000:05:00.0");
        let plain = parse_device("04:00.0,vf=1").unwrap();
        assert_eq!(plain.wanted(), plain.hardware(), "where the card is");
        assert!(matches!(
            plain.from,
            DeviceSource::Virtual(VirtualFunction { of: 2, .. })
        ));
        for wrong in [
            "vf=",
            "vf=x",
            "vf=65535",
            "mac=52:54:00:00:00:07",
            "vf=4,vfs=4",
            "vf=0,vf=1",
            "vf=0,mac=1",
            "vf=0,vlan=5000",
        ] {
            assert!(parse_device(&format!("04:00.0,{wrong}")).is_err(), "{wrong}");
        }
    }

    #[test]
    fn shared_cpus_have_a_weight_and_a_cap_and_dedicated_ones_have_not() {
        let shared = [
            "--kernel", "k", "--weight", "300", "--cap", "12.5", "--group", "batch",
        ];
        let Ok(Cli {
            command: Command::Run(arguments),
        }) = run(&shared)
        else {
            panic!("not a run")
        };
        let cpu = arguments.spec().unwrap().cpu;
        let share = cpu.share.unwrap();
        assert_eq!((share.weight.value(), share.cap), (300, "12.5".parse().ok()));
        assert_eq!(cpu.group.as_deref(), Some("batch"));
        for wrong in [&["--weight", "0"], &["--cap", "0.5"], &["--realtime", "1"]] {
            assert!(
                run(&[&["--kernel", "k"], &wrong[..]].concat()).is_err(),
                "{wrong:?}"
            );
        }
        for option in ["--weight", "--cap"] {
            assert!(run(&["--kernel", "k", "--dedicated", option, "50"]).is_err());
        }
    }

    #[test]
    fn a_device_is_unplugged_by_its_address_and_in_a_time() {
        let unplug =
            |more: &[&str]| Cli::try_parse_from(["vmm", "unplug", "db1", "02:00.0"].iter().chain(more));
        let asked = |more: &[&str]| match unplug(more).map(|cli| cli.command) {
            Ok(Command::Unplug { force, within, .. }) => Some((force, within)),
            _ => None,
        };
        assert_eq!(asked(&[]), Some((false, 30)));
        assert_eq!(asked(&["--within", "3600"]), Some((false, 3600)));
        assert_eq!(asked(&["--force"]), Some((true, 30)));
        for wrong in [
            &["--within", "0"][..],
            &["--within", "3601"],
            &["--force", "--within", "2"],
        ] {
            assert_eq!(asked(wrong), None, "{wrong:?}");
        }
        assert!(Cli::try_parse_from(["vmm", "plug", "db1", "nvme0"]).is_err());
    }

    #[test]
    fn a_list_of_cpus_is_dedicated() {
        let cli = Cli::try_parse_from([
            "vmm", "check", "--name", "a", "--cpus", "2-3", "--memory", "64M", "--kernel", "k",
        ]);
        let Ok(Cli {
            command: Command::Check(arguments),
        }) = cli
        else {
            panic!("not a check")
        };
        assert_eq!(arguments.spec().unwrap().partition.mode(), CpuMode::Dedicated);
    }
}
