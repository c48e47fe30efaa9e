//! Devices that a guest has, and those that it had and may have again.

use std::collections::BTreeMap;
use std::sync::Arc;

use pellucid_chipset::{Board, Placed, Placeholder, PortIdentity};
use pellucid_partition::{Bdf, Populated, StateDir};
use pellucid_passthrough::{
    Assigned, Bound, Endpoint, ErrorWatch, IoSpace, ReleaseError, VirtualFunctions, Watched,
};

use crate::absent::{Absent, take_again};
use crate::bay::Bay;
use crate::error::{LendError, PlugError, UnplugError};
use crate::event::ServerEvent;
use crate::policy::DevicePolicy;
use crate::server::EventSink;
use crate::spec::DeviceSpec;
use crate::taken::Taken;
use crate::tree::{Bays, Tree};

/// Functions that the guest drives. Dropping it gives them back.
pub(crate) struct Lent {
    // Teardown order: what happens to them now is told to nobody, nobody finds them, then they are stopped and given back.
    watch: Option<ErrorWatch>,
    stand_ins: Vec<Placed>,
    given: Vec<Given>,
    /// By address: functions of hot-plug slots that the host has at the moment.
    absent: BTreeMap<Bdf, Absent>,
    cards: Vec<VirtualFunctions>,
    space: Option<Arc<IoSpace>>,
    bays: Bays,
    tree: Tree,
}

/// One function that the guest has.
pub(crate) struct Given {
    // Teardown order: nobody finds it, then it is stopped and given back.
    pub(crate) placed: Placed,
    pub(crate) assigned: Assigned,
    pub(crate) spec: DeviceSpec,
}

impl Lent {
    /// Gives the guest every function that was taken for it.
    pub(crate) fn begin(
        taken: Taken,
        (populated, board): (&Populated, &Board),
        (tree, bays): (Tree, Bays),
        events: &EventSink,
    ) -> Result<Lent, LendError> {
        let mut stand_ins = Vec::new();
        for at in tree.topology.stand_ins() {
            let stand_in = Arc::new(Placeholder::new(STAND_IN, HOST_BRIDGE_CLASS));
            let placed = board.pci().place(at, stand_in);
            stand_ins.push(placed.map_err(|source| LendError::Place { device: at, source })?);
        }
        let (given, (cards, space)) = taken.give(populated, board, &tree, events)?;
        let lent = Lent {
            watch: watch(given.iter(), events)?,
            stand_ins,
            given,
            absent: BTreeMap::new(),
            cards,
            space,
            bays,
            tree,
        };
        for (bus, bay) in &lent.bays {
            bay.fill(endpoints(&lent.given, *bus));
        }
        Ok(lent)
    }

    /// The hot-plug slot of a device that the guest has.
    pub(crate) fn bay_of(&self, device: Bdf) -> Result<(u8, &Bay), UnplugError> {
        let Some(given) = self.given.iter().find(|given| given.device() == device) else {
            return Err(match self.absent.contains_key(&device) {
                true => UnplugError::Already { device },
                false => UnplugError::NotLent { device },
            });
        };
        let bus = given.at().bus();
        let bay = self.bays.get(&bus).ok_or(UnplugError::NoSlot { device })?;
        Ok((bus, bay))
    }

    /// The devices that are unplugged and can be plugged again.
    pub(crate) fn absent(&self) -> impl Iterator<Item = Bdf> {
        self.absent.keys().copied()
    }

    /// Takes one function from the guest, if it still has it, and gives it back; with it goes what is in the same hot-plug slot.
    pub(crate) fn unplug(&mut self, device: Bdf, events: &EventSink) -> Result<(), ReleaseError> {
        if let Ok((bus, _)) = self.bay_of(device) {
            return self.empty(bus, events);
        }
        let Some(index) = self.given.iter().position(|given| given.device() == device) else {
            return Ok(());
        };
        let Given { placed, assigned, .. } = self.given.remove(index);
        drop(placed);
        self.watch_again(events);
        give_back(vec![assigned.unassign()], events)
    }

    /// Takes what is in the hot-plug slot before `bus` from the guest, which is told, and gives it back.
    pub(crate) fn empty(&mut self, bus: u8, events: &EventSink) -> Result<(), ReleaseError> {
        if let Some(bay) = self.bays.get(&bus) {
            bay.pull();
        }
        let gone = self.given.extract_if(.., |given| given.at().bus() == bus);
        let mut stopped = Vec::new();
        for given in gone {
            let (device, at) = (given.device(), given.at());
            let Given {
                placed,
                assigned,
                mut spec,
            } = given;
            drop(placed);
            // What the host begins to do with it is not overridden by what was said before.
            spec.force = false;
            let ids = assigned.function().ids;
            self.absent.insert(device, Absent { at, spec, ids });
            stopped.push(assigned.unassign());
        }
        self.watch_again(events);
        give_back(stopped, events)
    }

    /// Takes a device of a hot-plug slot again, with what else was in that slot, and tells the guest. On an error nothing is held of it.
    pub(crate) fn plug(
        &mut self,
        device: Bdf,
        state: &StateDir,
        (populated, board): (&Populated, &Board),
        events: &EventSink,
    ) -> Result<(), PlugError> {
        let bus = self.absent.get(&device).map(|absent| absent.at.bus());
        let Some((bus, bay)) = bus.and_then(|bus| Some((bus, self.bays.get(&bus)?))) else {
            return Err(match self.given.iter().any(|given| given.device() == device) {
                true => PlugError::InGuest { device },
                false => PlugError::NotLent { device },
            });
        };
        if !bay.is_off() {
            bay.awaits(device);
            return Err(PlugError::SlotInUse { device });
        }
        let coming: Vec<&Absent> = self
            .absent
            .values()
            .filter(|absent| absent.at.bus() == bus)
            .collect();
        let name = populated.plan().name();
        let taken = take_again(&coming, (state, name), self.space.clone())?;
        for function in taken.seen(&self.tree.topology) {
            let before = coming.iter().find(|absent| absent.at == function.bdf);
            if !before.is_some_and(|before| before.is(&function, &self.tree)) {
                return Err(PlugError::Another { device });
            }
        }
        let (given, (_, space)) = taken.give(populated, board, &self.tree, events)?;
        let watch = watch(self.given.iter().chain(&given), events)?;
        // Nothing fails from here on.
        self.watch = watch;
        self.space = space;
        self.absent.retain(|_, absent| absent.at.bus() != bus);
        bay.fill(endpoints(&given, bus));
        bay.insert();
        self.given.extend(given);
        Ok(())
    }

    /// Gives every function back; a failure does not keep the others, and the first one is returned.
    pub(crate) fn release(self, events: &EventSink) -> Result<(), ReleaseError> {
        drop((self.watch, self.stand_ins));
        for bay in self.bays.values() {
            bay.fill(Vec::new());
        }
        let (placed, assigned): (Vec<Placed>, Vec<Assigned>) = self
            .given
            .into_iter()
            .map(|given| (given.placed, given.assigned))
            .unzip();
        drop(placed);
        let stopped = assigned.into_iter().map(Assigned::unassign).collect();
        let mut outcome = give_back(stopped, events);
        for card in self.cards {
            outcome = outcome.and(card.release().map(|_| ()).map_err(ReleaseError::from));
        }
        outcome
    }

    /// Watches those that are there now.
    fn watch_again(&mut self, events: &EventSink) {
        self.watch = None;
        match watch(self.given.iter(), events) {
            Ok(watch) => self.watch = watch,
            Err(error) => tracing::error!(%error, "errors of the other devices are told no longer"),
        }
    }
}

impl Given {
    /// Its address on the host; in the guest, if another process serves it.
    fn device(&self) -> Bdf {
        self.assigned.bdf()
    }

    /// Its address in the guest.
    fn at(&self) -> Bdf {
        self.placed.bdf()
    }
}

/// What is behind a bus, as its slot's power reaches it.
fn endpoints(given: &[Given], bus: u8) -> Vec<Arc<Endpoint>> {
    let inside = given.iter().filter(|given| given.at().bus() == bus);
    inside
        .map(|given| Arc::clone(given.assigned.endpoint()))
        .collect()
}

/// Watches for what no device of its own tells.
fn watch<'g>(
    given: impl Iterator<Item = &'g Given>,
    events: &EventSink,
) -> Result<Option<ErrorWatch>, LendError> {
    let watched = |given: &Given| given.assigned.watched(given.spec.policy.corrected);
    let watched: Vec<Watched> = given.map(watched).collect();
    if watched.is_empty() {
        return Ok(None);
    }
    let told = Arc::clone(events);
    let sink = move |event| told(ServerEvent::of_device(event, &DevicePolicy::default()));
    ErrorWatch::start(&watched, Arc::new(sink))
        .map(Some)
        .map_err(|source| LendError::Watch { source })
}

/// Resets and gives back, tells how, and returns the first failure.
fn give_back(stopped: Vec<Bound>, events: &EventSink) -> Result<(), ReleaseError> {
    let mut outcome = Ok(());
    for released in Bound::release_all(stopped) {
        let report = match &released {
            Ok(released) => Some(&released.reset),
            Err(error) => error.report(),
        };
        if let Some(report) = report {
            events(ServerEvent::DeviceReset {
                report: Box::new(report.clone()),
            });
        }
        outcome = outcome.and(released.map(|_| ()));
    }
    outcome
}

/// Who stands at a function 0 that is not lent: a host bridge of QEMU's, which no driver takes.
const STAND_IN: PortIdentity = PortIdentity {
    vendor: 0x1b36,
    device: 0x0008,
    revision: 0,
    subsystem: None,
};
const HOST_BRIDGE_CLASS: u32 = 0x06_0000;
