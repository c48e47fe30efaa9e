//! The one validator: a dry run and a real run ask the same questions, and nothing is touched by either.

use std::fmt;

use pellucid_image::{BootPlan, SmbiosTables};
use pellucid_partition::{Bdf, CgroupTree, CpuMode, Inventory, Plan, PlanError, Resource, StateDir};
use pellucid_passthrough::{Inventory as PciInventory, Quarantine, TakeError};
use pellucid_twin::Diff;
use pellucid_vcpu::VcpuPolicy;

use crate::boot::Boot;
use crate::error::CheckError;
use crate::firmware::ecam_of_older_builds;
use crate::identity::{CheckWarning, Identity};
use crate::machine::{Judged, Machine};
use crate::numa::Numa;
use crate::offer::{Offer, resource};
use crate::root_drivers;
use crate::spec::{CpuPolicy, DeviceSpec, ServerSpec, Source};
use crate::topology::Topology;

/// A server that this host can run as far as can be known without touching anything. Nothing is held yet.
#[must_use = "a checked server holds nothing until it is started"]
pub struct Checked {
    pub(crate) plan: Plan,
    pub(crate) cpu: CpuPolicy,
    pub(crate) boot: Boot,
    pub(crate) offers: Vec<Offer>,
    pub(crate) topology: Topology,
    pub(crate) smbios: Option<SmbiosTables>,
    pub(crate) numa: Option<Numa>,
    pub(crate) clock_offset: i64,
    pub(crate) vcpus: VcpuPolicy,
}

/// Everything that a check found: each part, or why there is none; and what else is refused.
pub struct Examination {
    kvm: Result<(), CheckError>,
    plan: Result<Plan, CheckError>,
    cpu: CpuPolicy,
    boot: Result<Boot, CheckError>,
    offers: Vec<Offer>,
    topology: Result<Topology, CheckError>,
    identity: Identity,
    numa: Option<Numa>,
    clock_offset: i64,
    boot_warnings: Vec<CheckWarning>,
    machine: Option<Judged>,
    /// Refusals of parts that are there.
    more: Vec<CheckError>,
}

impl ServerSpec {
    /// Examines host, disk and devices, and goes on after a refusal, so that one run tells all of them.
    pub fn examine(&self, state: &StateDir) -> Result<Examination, CheckError> {
        let inventory = Inventory::survey()?.with_claims(&state.records()?);
        let kvm = inventory.kvm.as_ref().map(|_| ());
        let kvm = kvm.map_err(|reason| CheckError::Kvm {
            reason: reason.clone(),
        });
        let pci = PciInventory::survey()?;
        let plan = self.fit(&inventory, &pci);
        let mut boot = self.source.open().map_err(CheckError::from);
        let mut more = Vec::new();
        if let Ok(plan) = &plan {
            more.extend(self.shares(plan).err());
            more.extend(
                boot.as_mut()
                    .ok()
                    .and_then(|boot| boot.check(plan.layout()).err())
                    .map(CheckError::from),
            );
        }
        let machine = self.machine.as_ref();
        let devices = machine.map_or_else(|| self.devices.clone(), |machine| machine.placed(&self.devices));
        let offers = Offer::all(&devices, &pci, &mut more);
        let topology = Topology::of(&offers, &pci, machine, self.source.roots()).map_err(CheckError::from);
        more.extend(self.held(state, plan.as_ref().ok())?);
        let parts = plan.as_ref().ok().zip(topology.as_ref().ok());
        let identity = parts.and_then(|(plan, tree)| self.smbios.tables(plan, (tree, &offers), machine));
        let numa = parts.and_then(|(plan, tree)| Numa::of(plan, &inventory, (tree, &offers)));
        let boot_warnings = boot.as_ref().map_or_else(|_| Vec::new(), Boot::warnings);
        let mut examination = Examination {
            kvm,
            plan,
            cpu: self.cpu.clone(),
            boot,
            offers,
            topology,
            identity,
            numa,
            clock_offset: self.clock_offset,
            boot_warnings,
            machine: None,
            more,
        };
        examination.judge(self);
        Ok(examination)
    }

    /// Whether shared CPUs can be weighed and capped as asked.
    fn shares(&self, plan: &Plan) -> Result<(), CheckError> {
        let asked = self.cpu.share.is_some() || self.cpu.group.is_some();
        match plan.mode() {
            CpuMode::Shared if asked => Ok(CgroupTree::of_host().controls_cpu()?),
            _ => Ok(()),
        }
    }

    /// The plan. A server that is lent devices gets a guest-physical map inside what their IOMMU translates.
    fn fit(&self, inventory: &Inventory, pci: &PciInventory) -> Result<Plan, CheckError> {
        let mut spec = self.partition.clone();
        let mut hosts = self.devices.iter().filter_map(DeviceSpec::hardware).peekable();
        // A served device is behind no IOMMU.
        if hosts.peek().is_some() {
            let mut reach = pci.reach(hosts).map_err(PlanError::from)?;
            if let Some(narrower) = spec.reach() {
                reach = reach.and(narrower);
            }
            spec = spec.within(reach);
        }
        if matches!(self.source, Source::Firmware(_)) {
            let (name, range) = ecam_of_older_builds();
            let reach = spec.reach().cloned().unwrap_or_default();
            spec = spec.within(reach.without(name, range));
        }
        Ok(Plan::fit(inventory, &spec)?)
    }

    /// Claims that others hold on what this server wants, or that the dead left. The plan knows those of this state directory; a
    /// claim may also be marked on the host alone.
    fn held(&self, state: &StateDir, plan: Option<&Plan>) -> Result<Vec<CheckError>, CheckError> {
        let name = |plan: &Plan| Resource::new(Resource::PARTITION, plan.name());
        let mut wanted: Vec<_> = plan.map(name).into_iter().collect();
        wanted.extend(plan.into_iter().flat_map(Plan::dedicated));
        let mut found = Vec::new();
        for spec in &self.devices {
            let quarantined = match spec.host() {
                Some(device) => Quarantine::find(state, device)?.map(|found| (device, Box::new(found))),
                None => None,
            };
            if let Some((device, quarantine)) = quarantined {
                let refusal = TakeError::Quarantined { device, quarantine };
                found.push(CheckError::Take(refusal.into()));
            } else {
                wanted.push(resource(&spec.from));
            }
        }
        for resource in wanted {
            found.extend(state.refusal(&resource)?.map(CheckError::Claim));
        }
        Ok(found)
    }
}

impl Examination {
    /// Also looks into the initrds, so that [`Examination::warnings`] tells which lent storage controllers the kernel would find no root
    /// behind. They are unpacked for it, which takes most of a second, and at most 20: not for a start that is waited for. What firmware
    /// boots, the disk's own loader chooses, so there is nothing to look into.
    #[must_use]
    pub fn with_root_drivers(mut self) -> Self {
        if let Ok(boot) = &mut self.boot {
            self.boot_warnings
                .extend(root_drivers::warnings(boot, &self.offers));
        }
        self
    }

    /// The server to start, if nothing was refused; else the first refusal.
    pub fn accept(self) -> Result<Checked, CheckError> {
        self.kvm?;
        let plan = self.plan?;
        let vcpus = VcpuPolicy {
            topology: self
                .machine
                .as_ref()
                .and_then(|judged| judged.machine.topology(plan.vcpus())),
            ..VcpuPolicy::default()
        };
        let checked = Checked {
            plan,
            vcpus,
            cpu: self.cpu,
            boot: self.boot?,
            offers: self.offers,
            topology: self.topology?,
            smbios: self.identity.and_then(Result::ok),
            numa: self.numa,
            clock_offset: self.clock_offset,
        };
        match self.more.into_iter().next() {
            None => Ok(checked),
            Some(refusal) => Err(refusal),
        }
    }

    /// Every refusal, each naming its subject, its cause and a remedy.
    pub fn refusals(&self) -> impl Iterator<Item = &CheckError> {
        let parts = [
            self.kvm.as_ref().err(),
            self.plan.as_ref().err(),
            self.boot.as_ref().err(),
            self.topology.as_ref().err(),
        ];
        parts.into_iter().flatten().chain(&self.more)
    }

    /// What the server would start without, or have otherwise than asked or elsewhere than the host, although that was not asked for, and what may keep its operating
    /// system from its root as far as that was looked at.
    pub fn warnings(&self) -> impl Iterator<Item = &CheckWarning> {
        let identity = self.identity.iter();
        let identity = identity.filter_map(|identity| identity.as_ref().err());
        let places = self.topology().into_iter().flat_map(Topology::warnings);
        let machine = self.machine.iter().flat_map(|judged| &judged.warnings);
        identity.chain(places).chain(&self.boot_warnings).chain(machine)
    }

    /// How the guest would differ from the captured machine that it is to be; `None` where there is none, or no plan.
    #[must_use]
    pub fn differences(&self) -> Option<&Diff> {
        self.machine.as_ref()?.diff.as_ref()
    }

    /// Compares what the guest would find with the machine that it is to be.
    fn judge(&mut self, spec: &ServerSpec) {
        let Some(machine) = &spec.machine else {
            return;
        };
        let guest = self.predict_of(machine.host(), Some(machine));
        let lent: Vec<Bdf> = spec.devices.iter().filter_map(DeviceSpec::host).collect();
        let (refusals, judged) = machine.judge((guest.as_ref(), spec.smbios), &lent);
        self.more.extend(refusals.into_iter().map(CheckError::from));
        self.machine = Some(judged);
    }

    /// The machine that the guest is to be.
    pub(crate) fn machine(&self) -> Option<&Machine> {
        self.machine.as_ref().map(|judged| &judged.machine)
    }

    /// Whether firmware boots it.
    pub(crate) fn has_firmware(&self) -> bool {
        matches!(self.boot, Ok(Boot::Firmware(_)))
    }

    /// The SMBIOS tables that the guest would find, if any.
    #[must_use]
    pub fn smbios(&self) -> Option<&SmbiosTables> {
        self.identity.as_ref()?.as_ref().ok()
    }

    /// The share of the host, if it fits.
    #[must_use]
    pub fn plan(&self) -> Option<&Plan> {
        self.plan.as_ref().ok()
    }

    /// Where everything would be, if it has a place.
    pub(crate) fn topology(&self) -> Option<&Topology> {
        self.topology.as_ref().ok()
    }

    /// What the disk would boot; `None` for a kernel given as files, or if it cannot be read.
    #[must_use]
    pub fn boot_plan(&self) -> Option<&BootPlan> {
        match self.boot.as_ref().ok()? {
            Boot::Disk { plan, .. } => Some(plan),
            Boot::Kernel(_) | Boot::Firmware(_) => None,
        }
    }

    /// The devices that would be lent, with the addresses they would have in the guest; without one if not all have a place.
    pub fn devices(&self) -> impl Iterator<Item = (&Offer, Option<Bdf>)> {
        let places = self.topology.as_ref().map_or(&[][..], Topology::places);
        let places = places.iter().copied().map(Some).chain(std::iter::repeat(None));
        self.offers.iter().zip(places)
    }
}

impl fmt::Debug for Checked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Checked")
            .field("plan", &self.plan)
            .field("offers", &self.offers)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Examination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Examination")
            .field("plan", &self.plan)
            .field("refusals", &self.refusals().collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}
