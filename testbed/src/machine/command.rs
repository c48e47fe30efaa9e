//! Turns a machine into the emulator's command line, or refuses it with the reason.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::machine::{Boot, Device, Disk, Machine, Place};
use crate::{Emulator, MachineError};

/// Where a serial port goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Chardev {
    /// Standard input and output of the emulator.
    Stdio,
    /// A file that is written.
    File(PathBuf),
    /// A Unix socket at which the emulator listens.
    Socket(PathBuf),
}

impl Machine {
    /// The command that starts this machine on `emulator`. Scratch disks are made in
    /// `folder`, which must exist; its standard streams are the caller's to set.
    ///
    /// # Errors
    /// The machine cannot be emulated, or a file it names cannot be used.
    pub fn command(&self, emulator: &Emulator, folder: &Path) -> Result<Command, MachineError> {
        self.check(emulator)?;
        let mut line = Line(Command::new(&emulator.program));
        line.word("-nodefaults")
            .word("-no-user-config")
            .option("-display", "none");
        line.option("-machine", "q35,kernel-irqchip=split")
            .option("-accel", "tcg,thread=multi");
        line.option("-cpu", "max,+svm")
            .option("-smp", self.cpus.to_string());
        let memory = self.memory_mib / self.numa_nodes * self.numa_nodes;
        line.option("-m", memory.to_string()).word("-no-reboot");
        self.nodes(&mut line);
        line.option(
            "-device",
            format!("intel-iommu,intremap=on,aw-bits={}", self.iommu_width),
        );
        self.starts(&mut line);
        self.channels(&mut line);
        for (index, device) in self.devices.iter().enumerate() {
            plug(&mut line, index, device, folder)?;
        }
        Ok(line.0)
    }

    fn check(&self, emulator: &Emulator) -> Result<(), MachineError> {
        let range = |subject, value: u32, good: bool, accepted| {
            if good {
                Ok(())
            } else {
                Err(MachineError::Range {
                    subject,
                    value: value.into(),
                    accepted,
                })
            }
        };
        range(
            "the number of CPUs",
            self.cpus,
            (1..=64).contains(&self.cpus),
            "1 to 64",
        )?;
        let memory = (512..=1 << 20).contains(&self.memory_mib);
        range("the memory in MiB", self.memory_mib, memory, "512 to 1048576")?;
        let nodes = self.numa_nodes >= 1 && self.cpus.is_multiple_of(self.numa_nodes.max(1));
        range(
            "the number of NUMA nodes",
            self.numa_nodes,
            nodes,
            "1 or a divisor of the number of CPUs",
        )?;
        let width = [39, 48].contains(&self.iommu_width);
        range("the IOMMU's width in bits", self.iommu_width, width, "39 or 48")?;
        let mut taken = BTreeSet::from([(0, 0), (0x1f, 0)]);
        for device in &self.devices {
            let (slot, function) = device.place().on_root();
            if slot > 0x1e || function > 7 || RESERVED.contains(&slot) || !taken.insert((slot, function)) {
                return Err(MachineError::Occupied {
                    address: format!("00:{slot:02x}.{function}"),
                });
            }
            if matches!(device, Device::Igb { .. }) && !emulator.has("igb") {
                let found = emulator.version.to_string();
                return Err(MachineError::Emulator {
                    device: "igb",
                    found,
                    needed: "8.0",
                });
            }
        }
        Ok(())
    }

    fn nodes(&self, line: &mut Line) {
        if self.numa_nodes < 2 {
            return;
        }
        let (cpus, memory) = (self.cpus / self.numa_nodes, self.memory_mib / self.numa_nodes);
        for node in 0..self.numa_nodes {
            line.option(
                "-object",
                format!("memory-backend-ram,id=ram{node},size={memory}M"),
            );
            let (first, last) = (node * cpus, (node + 1) * cpus - 1);
            line.option(
                "-numa",
                format!("node,nodeid={node},cpus={first}-{last},memdev=ram{node}"),
            );
        }
    }

    fn starts(&self, line: &mut Line) {
        match &self.boot {
            Boot::Kernel {
                image,
                initrd,
                arguments,
            } => {
                line.option("-kernel", image)
                    .option("-initrd", initrd)
                    .option("-append", arguments);
            }
            Boot::Firmware { code, variables } => {
                let code = escaped(code);
                line.option(
                    "-drive",
                    format!("if=pflash,unit=0,format=raw,readonly=on,file={code}"),
                );
                let variables = escaped(variables);
                line.option("-drive", format!("if=pflash,unit=1,format=raw,file={variables}"));
            }
        }
    }

    fn channels(&self, line: &mut Line) {
        let serial = match &self.console {
            Chardev::Stdio => "stdio,id=serial,signal=off".to_owned(),
            Chardev::File(path) => format!("file,id=serial,path={}", escaped(path)),
            Chardev::Socket(path) => socket("serial", path),
        };
        line.option("-chardev", serial)
            .option("-serial", "chardev:serial");
        if let Some(path) = &self.monitor {
            line.option("-chardev", socket("monitor", path));
            line.option("-mon", "chardev=monitor,mode=control");
        }
        if !self.ports.is_empty() || self.terminal.is_some() {
            line.option(
                "-device",
                format!("virtio-serial-pci,id=channels,addr={PORTS_SLOT:#x}"),
            );
        }
        if let Some(path) = &self.terminal {
            line.option("-chardev", socket("terminal", path));
            line.option("-device", "virtconsole,bus=channels.0,chardev=terminal");
        }
        for (index, (name, path)) in self.ports.iter().enumerate() {
            line.option("-chardev", socket(&format!("port{index}"), path));
            line.option(
                "-device",
                format!("virtserialport,bus=channels.0,chardev=port{index},name={name}"),
            );
        }
        for (index, share) in self.shares.iter().enumerate() {
            let access = if share.writable { "" } else { ",readonly=on" };
            let path = escaped(&share.path);
            let fields = format!("path={path},security_model=none,multidevs=remap{access}");
            line.option("-fsdev", format!("local,id=fs{index},{fields}"));
            let slot = SHARES_SLOT + u8::try_from(index).unwrap_or(u8::MAX);
            let fields = format!("fsdev=fs{index},mount_tag={},addr={slot:#x}", share.tag);
            line.option("-device", format!("virtio-9p-pci,{fields}"));
        }
    }
}

/// A command line that grows.
struct Line(Command);

impl Line {
    fn word(&mut self, word: &str) -> &mut Self {
        self.0.arg(word);
        self
    }

    fn option(&mut self, name: &str, value: impl AsRef<std::ffi::OsStr>) -> &mut Self {
        self.0.arg(name).arg(value);
        self
    }
}

fn plug(line: &mut Line, index: usize, device: &Device, folder: &Path) -> Result<(), MachineError> {
    let place = match device.place() {
        Place::Root { slot, function } => format!("bus=pcie.0,addr={slot:#x}.{function:#x}"),
        Place::Port { slot } => {
            let fields = format!("id=port{slot},bus=pcie.0,addr={slot:#x},chassis={slot},slot={slot}");
            line.option("-device", format!("pcie-root-port,{fields}"));
            format!("bus=port{slot}")
        }
    };
    match device {
        Device::Nvme { serial, disk, .. } => {
            let (path, discard) = image(index, disk, folder)?;
            let snapshot = if discard { "on" } else { "off" };
            let path = escaped(&path);
            line.option(
                "-drive",
                format!("if=none,id=disk{index},format=raw,file={path},snapshot={snapshot},discard=unmap"),
            );
            line.option(
                "-device",
                format!("nvme,drive=disk{index},serial={serial},{place}"),
            );
        }
        Device::E1000e { .. } => network(line, index, "e1000e", &place),
        Device::Igb { .. } => network(line, index, "igb", &place),
        Device::Edu { .. } => {
            line.option("-device", format!("edu,{place}"));
        }
    }
    Ok(())
}

fn network(line: &mut Line, index: usize, model: &str, place: &str) {
    line.option("-netdev", format!("user,id=net{index}"));
    line.option(
        "-device",
        format!("{model},netdev=net{index},mac=52:54:00:70:65:{index:02x},{place}"),
    );
}

/// The image of a disk and whether what is written to it is to be discarded.
fn image(index: usize, disk: &Disk, folder: &Path) -> Result<(PathBuf, bool), MachineError> {
    let missing = |path: &Path, source| MachineError::File {
        path: path.to_owned(),
        source,
    };
    let (path, discard) = match disk {
        Disk::Scratch { mebibytes } => {
            let path = folder.join(format!("scratch{index}.img"));
            let file = std::fs::File::create(&path).map_err(|source| missing(&path, source))?;
            file.set_len(u64::from(*mebibytes) << 20)
                .map_err(|source| missing(&path, source))?;
            return Ok((path, false));
        }
        Disk::Kept(path) => (path, false),
        Disk::Discarded(path) => (path, true),
    };
    std::fs::metadata(path).map_err(|source| missing(path, source))?;
    Ok((path.clone(), discard))
}

fn socket(id: &str, path: &Path) -> String {
    format!("socket,id={id},server=on,wait=off,path={}", escaped(path))
}

/// A comma in a value of QEMU's options is written twice.
fn escaped(path: &Path) -> String {
    path.to_string_lossy().replace(',', ",,")
}

const PORTS_SLOT: u8 = 0x10;
const SHARES_SLOT: u8 = 0x11;
const RESERVED: [u8; 3] = [0x10, 0x11, 0x12];
