//! A captured machine that a server is to be: which devices here are its devices, where they go, and what of it cannot be had.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use pellucid_image::{Smbios, SmbiosError};
use pellucid_partition::Bdf;
use pellucid_passthrough::Bridge;
use pellucid_twin::{Class, Diff, Difference, PciFunction, Twin};
use pellucid_vcpu::Topology;

use crate::error::MachineError;
use crate::identity::{CheckWarning, SmbiosPolicy};
use crate::spec::DeviceSpec;

/// A captured machine, what of it this host has, and how much may differ. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    parts: Arc<Parts>,
    allowed: Class,
}

#[derive(Debug, PartialEq, Eq)]
struct Parts {
    captured: Twin,
    /// This host with the drivers of the captured machine.
    host: Twin,
    /// Its functions by address on this host.
    recognized: BTreeMap<Bdf, Bdf>,
    /// Those that nothing is seen of here.
    assumed: Vec<Bdf>,
}

/// What is said of a server that is to be a captured machine.
pub(crate) struct Judged {
    pub(crate) machine: Machine,
    /// None where it has no plan or no place for its devices.
    pub(crate) diff: Option<Diff>,
    pub(crate) warnings: Vec<CheckWarning>,
}

impl Machine {
    /// The machine that `captured` is of, to be made from `host`, a capture of this one. What puts a licence at risk may differ, what
    /// changes a name or breaks the boot may not.
    #[must_use]
    pub fn new(captured: Twin, host: &Twin) -> Machine {
        let recognized = captured.recognize(host);
        let (host, assumed) = host.shown_as(&captured, &recognized);
        Machine {
            parts: Arc::new(Parts {
                captured,
                host,
                recognized,
                assumed,
            }),
            allowed: Class::LicenceRisk,
        }
    }

    /// With differences up to this class.
    #[must_use]
    pub fn allowing(self, allowed: Class) -> Machine {
        Machine { allowed, ..self }
    }

    /// The capture.
    #[must_use]
    pub fn captured(&self) -> &Twin {
        &self.parts.captured
    }

    /// This host, as it would show itself with the drivers of the captured machine.
    #[must_use]
    pub fn host(&self) -> &Twin {
        &self.parts.host
    }

    /// The address on the captured machine of a function of this host, if it is one of its functions.
    #[must_use]
    pub fn address_of(&self, host: Bdf) -> Option<Bdf> {
        self.parts.recognized.get(&host).copied()
    }

    /// How many CPUs its operating system had; none if the capture does not know.
    #[must_use]
    pub fn vcpus(&self) -> Option<usize> {
        let count = self.captured().cpus.threads.len();
        (count > 0).then_some(count)
    }

    /// How many threads each of a server's cores has, if it has so many vCPUs: as many as on the captured machine where all of its cores have
    /// equally many (1, 2 or 4) and no core would be left incomplete, else one.
    #[must_use]
    pub fn threads_per_core(&self, vcpus: usize) -> u32 {
        let mut cores: BTreeMap<(i32, i32), u32> = BTreeMap::new();
        for thread in &self.captured().cpus.threads {
            *cores.entry((thread.package, thread.core)).or_default() += 1;
        }
        let count = cores.values().next().copied().unwrap_or(1);
        let fits = matches!(count, 1 | 2 | 4)
            && cores.values().all(|threads| *threads == count)
            && vcpus.is_multiple_of(count as usize);
        if fits { count } else { 1 }
    }

    /// Bytes of its RAM in whole 2 MiB, as the firmware told them, else as many as its kernel managed; none if the capture does not know.
    #[must_use]
    pub fn memory(&self) -> Option<u64> {
        let memory = &self.captured().memory;
        let ranges = memory.ram();
        let size = |[start, end]: &[u64; 2]| end.saturating_sub(*start).saturating_add(1);
        let told = ranges.iter().map(size).fold(0, u64::saturating_add);
        let all = if told > 0 { told } else { memory.total() };
        all.checked_next_multiple_of(2 << 20).filter(|all| *all > 0)
    }

    /// The same as the guest's CPUID tells it.
    pub(crate) fn topology(&self, vcpus: usize) -> Option<Topology> {
        Topology::with_threads(vcpus as u32, self.threads_per_core(vcpus)).ok()
    }

    /// The devices at the addresses that they have on the captured machine, unless another is said.
    pub(crate) fn placed(&self, devices: &[DeviceSpec]) -> Vec<DeviceSpec> {
        let placed = |device: &DeviceSpec| DeviceSpec {
            at: device.at.or_else(|| self.address_of(device.hardware()?)),
            ..device.clone()
        };
        devices.iter().map(placed).collect()
    }

    pub(crate) fn function(&self, there: Bdf) -> Option<&PciFunction> {
        self.captured().pci.functions.get(&there)
    }

    /// What the port at this address is, if it is one.
    pub(crate) fn bridge(&self, there: Bdf) -> Option<(&PciFunction, Bridge)> {
        let function = self.function(there)?;
        Some((function, function.bridge?))
    }

    /// Its SMBIOS tables; `None` if the capture has none.
    pub(crate) fn smbios(&self) -> Option<Result<Smbios, SmbiosError>> {
        let smbios = &self.captured().smbios;
        let (entry_point, table) = smbios.entry_point.as_ref().zip(smbios.table.as_ref())?;
        Some(Smbios::parse(&entry_point.0, &table.0))
    }

    /// What must not be otherwise, and what is said of the rest.
    pub(crate) fn judge(
        &self,
        (guest, policy): (Option<&Twin>, SmbiosPolicy),
        lent: &[Bdf],
    ) -> (Vec<MachineError>, Judged) {
        let mut refusals = Vec::new();
        let hidden = self.smbios().is_none() && !self.captured().smbios.ids.is_empty();
        if hidden && policy != SmbiosPolicy::None {
            refusals.push(MachineError::NoTables);
        }
        let assumed = self.parts.assumed.iter().filter(|device| lent.contains(device));
        let mut warnings: Vec<CheckWarning> = assumed
            .map(|device| CheckWarning::Assumed { device: *device })
            .collect();
        let diff = guest.map(|guest| self.captured().diff(guest, None));
        for difference in diff.iter().flat_map(|diff| &diff.differences) {
            if difference.class > self.allowed {
                refusals.push(MachineError::Differs {
                    what: said(difference),
                    remedy: self.remedy(difference, lent),
                });
            } else if difference.class >= Class::LicenceRisk {
                warnings.push(CheckWarning::Differs {
                    what: said(difference),
                });
            }
        }
        let machine = self.clone();
        let judged = Judged {
            machine,
            diff,
            warnings,
        };
        (refusals, judged)
    }

    fn remedy(&self, difference: &Difference, lent: &[Bdf]) -> String {
        let pass = format!("let it pass with --twin-allow {}", difference.class.word());
        let missing = difference.after.is_none();
        let Some(there) = self.owner_of(difference).filter(|_| missing) else {
            return pass;
        };
        let mut pairs = self.parts.recognized.iter();
        match pairs.find(|(_, own)| **own == there).map(|(here, _)| *here) {
            Some(here) if lent.contains(&here) => pass,
            Some(here) => format!("lend it with --device {here}, or {pass}"),
            None => format!(
                "this host has no device with its serial number, its address or its ids alone; lend one in its place with --device BDF,at={there}, or {pass}"
            ),
        }
    }

    /// The captured machine's function that a difference is about.
    fn owner_of(&self, difference: &Difference) -> Option<Bdf> {
        let subject = difference.subject.as_str();
        let first = subject.split_once(": ").map_or(subject, |(first, _)| first);
        let captured = self.captured();
        match difference.part.as_str() {
            "nics" => {
                let by_address = captured.nics.values().find(|nic| nic.mac == first);
                by_address.or_else(|| captured.nics.get(first))?.pci
            }
            "disks" => captured.disks.get(first)?.pci,
            "pci" => subject.split(' ').next()?.parse().ok(),
            _ => None,
        }
    }
}

fn said(difference: &Difference) -> String {
    let Difference {
        class,
        part,
        subject,
        before,
        after,
        why,
    } = difference;
    let [before, after] = [before, after].map(|value| value.as_deref().unwrap_or("not there"));
    format!("{class}: {part} {subject}: {before} -> {after}: {why}")
}
