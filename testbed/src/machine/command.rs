//! Turns a machine into the emulator's command line, or refuses it with the reason.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::machine::plug::plug;
use crate::machine::{Boot, Device, Machine, Tree};
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
        let tree = Tree::of(&self.devices)?;
        tree.build(&mut line);
        for (index, device) in self.devices.iter().enumerate() {
            let bus = tree.bus_of(device.place());
            plug(&mut line, index, device, (&bus, folder))?;
        }
        if let Some(identity) = &self.identity {
            identity.tell(&mut line, &self.devices);
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
        Tree::of(&self.devices)?;
        for device in &self.devices {
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
        if let Some(path) = &self.management.monitor {
            line.option("-chardev", socket("monitor", path));
            line.option("-mon", "chardev=monitor,mode=control");
        }
        if let Some(path) = &self.management.debugger {
            line.option("-chardev", socket("debugger", path));
            line.option("-gdb", "chardev:debugger");
        }
        if !self.ports.is_empty() || self.terminal.is_some() || self.management.service.is_some() {
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
        if let Some(path) = &self.management.service {
            // Listener and client are the same process: what comes out of the port goes into the monitor.
            line.option("-chardev", socket("service", path));
            line.option("-mon", "chardev=service,mode=control");
            line.option("-chardev", format!("socket,id=inside,path={}", escaped(path)));
            line.option(
                "-device",
                "virtserialport,bus=channels.0,chardev=inside,name=pellucid.monitor",
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
pub(crate) struct Line(Command);

impl Line {
    fn word(&mut self, word: &str) -> &mut Self {
        self.0.arg(word);
        self
    }

    pub(crate) fn option(&mut self, name: &str, value: impl AsRef<std::ffi::OsStr>) -> &mut Self {
        self.0.arg(name).arg(value);
        self
    }
}

fn socket(id: &str, path: &Path) -> String {
    format!("socket,id={id},server=on,wait=off,path={}", escaped(path))
}

/// A comma in a value of QEMU's options is written twice.
pub(crate) fn escaped(path: &Path) -> String {
    path.to_string_lossy().replace(',', ",,")
}

const PORTS_SLOT: u8 = 0x10;
const SHARES_SLOT: u8 = 0x11;
