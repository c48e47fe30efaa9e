//! Who answers a PCI configuration access: one domain's functions, below root buses and below root ports.
//!
//! A function belongs to its port, not to a bus number: when the guest renumbers a port's buses, what is behind it
//! moves along, as on hardware. Readers take no lock; the topology is immutable and published whole.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use pellucid_partition::{Bdf, ConfigHandler};

use crate::error::PciError;
use crate::pci::root_port::RootPort;

/// One PCI domain with root bus 0, and others if it is given them. Absent functions read all ones.
#[derive(Debug)]
pub struct PciConfig {
    domain: u16,
    topology: ArcSwap<Topology>,
    writers: Mutex<()>,
}

/// A function in its place; dropping it takes the function (and for a port the bus behind it) away.
#[must_use = "dropping the guard takes the function away"]
pub struct Placed {
    config: Arc<PciConfig>,
    bdf: Bdf,
    function: Arc<dyn ConfigHandler>,
    home_of_port: Option<u8>,
}

/// Each bus by its home number: the one that it had when it was built.
#[derive(Clone, Default)]
struct Topology {
    buses: BTreeMap<u8, SecondaryBus>,
}

#[derive(Clone, Default)]
struct SecondaryBus {
    /// The port that leads here and the home number of the bus it is on; none for a root bus.
    port: Option<(u8, Arc<RootPort>)>,
    functions: BTreeMap<u8, Arc<dyn ConfigHandler>>,
}

impl PciConfig {
    /// An empty domain.
    #[must_use]
    pub fn new(domain: u16) -> Self {
        Self::with_roots(domain, &[])
    }

    /// The same with further root buses. Each has the bus numbers up to the next one, whatever ports of others are told to forward.
    #[must_use]
    pub fn with_roots(domain: u16, further: &[u8]) -> Self {
        let roots = std::iter::once(&FIRST_ROOT).chain(further);
        let topology = Topology {
            buses: roots.map(|bus| (*bus, SecondaryBus::default())).collect(),
        };
        Self {
            domain,
            topology: ArcSwap::from_pointee(topology),
            writers: Mutex::new(()),
        }
    }

    /// Places a function. Its bus is a root bus, or one that a port already placed leads to.
    pub fn place(self: &Arc<Self>, bdf: Bdf, function: Arc<dyn ConfigHandler>) -> Result<Placed, PciError> {
        self.publish(|topology| topology.add(self.domain, bdf, Arc::clone(&function)))?;
        Ok(Placed {
            config: Arc::clone(self),
            bdf,
            function,
            home_of_port: None,
        })
    }

    /// Places a root port and the bus behind it, whose home number is the port's secondary bus now.
    pub fn place_port(self: &Arc<Self>, bdf: Bdf, port: Arc<RootPort>) -> Result<Placed, PciError> {
        let home = port.buses().secondary;
        let function: Arc<dyn ConfigHandler> = Arc::clone(&port) as _;
        self.publish(|topology| {
            if topology.buses.contains_key(&home) {
                return Err(PciError::BusTaken { bdf, bus: home });
            }
            topology.add(self.domain, bdf, Arc::clone(&function))?;
            let bus = SecondaryBus {
                port: Some((bdf.bus(), port)),
                functions: BTreeMap::new(),
            };
            topology.buses.insert(home, bus);
            Ok(())
        })?;
        Ok(Placed {
            config: Arc::clone(self),
            bdf,
            function,
            home_of_port: Some(home),
        })
    }

    /// Reads configuration space as the guest sees it now; `offset` is below 4,096. Any size and alignment has a
    /// result: the access is split into aligned ones, and what lies beyond the function reads all ones.
    pub fn read(&self, bus: u8, devfn: u8, offset: u16, data: &mut [u8]) {
        let topology = self.topology.load();
        let function = topology.find(bus, devfn);
        for (at, piece) in pieces(offset, data.len()) {
            match function {
                Some((owner, function)) if at < FUNCTION_SIZE => {
                    function.read(at, &mut data[piece.clone()]);
                    owner.mark_multifunction(devfn, at, &mut data[piece]);
                }
                _ => data[piece].fill(0xff),
            }
        }
    }

    /// Writes configuration space; what lies beyond the function is dropped.
    pub fn write(&self, bus: u8, devfn: u8, offset: u16, data: &[u8]) {
        let topology = self.topology.load();
        let Some((_, function)) = topology.find(bus, devfn) else {
            return;
        };
        for (at, piece) in pieces(offset, data.len()) {
            if at < FUNCTION_SIZE {
                function.write(at, &data[piece]);
            }
        }
    }

    /// The functions in place, by the addresses they were placed at.
    #[must_use]
    pub fn functions(&self) -> Vec<Bdf> {
        let topology = self.topology.load();
        let of_bus = |(&home, bus): (&u8, &SecondaryBus)| {
            bus.functions
                .keys()
                .map(|&devfn| Bdf::of_devfn(u32::from(self.domain), home, devfn))
                .collect::<Vec<_>>()
        };
        topology.buses.iter().flat_map(of_bus).collect()
    }

    fn publish<E>(&self, change: impl FnOnce(&mut Topology) -> Result<(), E>) -> Result<(), E> {
        let _one_writer = self.writers.lock().unwrap_or_else(PoisonError::into_inner);
        let mut topology = Topology::clone(&self.topology.load());
        change(&mut topology)?;
        self.topology.store(Arc::new(topology));
        Ok(())
    }
}

impl Drop for Placed {
    fn drop(&mut self) {
        let Ok(()) = self.config.publish(|topology| {
            topology.remove(self);
            Ok::<(), std::convert::Infallible>(())
        });
    }
}

impl Placed {
    /// Where it was placed.
    #[must_use]
    pub fn bdf(&self) -> Bdf {
        self.bdf
    }
}

impl Topology {
    fn add(&mut self, domain: u16, bdf: Bdf, function: Arc<dyn ConfigHandler>) -> Result<(), PciError> {
        if bdf.domain() != u32::from(domain) {
            return Err(PciError::OtherDomain { bdf, domain });
        }
        let bus = self.buses.get_mut(&bdf.bus()).ok_or(PciError::NoBus { bdf })?;
        if bus.functions.contains_key(&bdf.devfn()) {
            return Err(PciError::FunctionTaken { bdf });
        }
        bus.functions.insert(bdf.devfn(), function);
        Ok(())
    }

    /// Takes a function away, unless it went with its bus and another is there now.
    fn remove(&mut self, placed: &Placed) {
        let (bus, devfn) = (placed.bdf.bus(), placed.bdf.devfn());
        let functions = self.buses.get_mut(&bus).map(|bus| &mut bus.functions);
        let Some(functions) = functions else { return };
        if functions
            .get(&devfn)
            .is_some_and(|there| Arc::ptr_eq(there, &placed.function))
        {
            functions.remove(&devfn);
            placed.home_of_port.map(|home| self.buses.remove(&home));
        }
    }

    fn find(&self, bus: u8, devfn: u8) -> Option<(&SecondaryBus, &Arc<dyn ConfigHandler>)> {
        let owner = self.route(bus)?;
        owner.functions.get(&devfn).map(|function| (owner, function))
    }

    /// Follows the ports' bus numbers from the root bus that has the number, as a configuration request does.
    fn route(&self, bus: u8) -> Option<&SecondaryBus> {
        let mut up_to = self.buses.range(..=bus).rev();
        let (&root, first) = up_to.find(|(_, bus)| bus.port.is_none())?;
        if bus == root {
            return Some(first);
        }
        let mut from = root;
        // Each step goes one port down, so there are at most as many as there are buses.
        for _ in 0..self.buses.len() {
            let (&home, next) = self.buses.iter().find(|(_, next)| next.is_behind(from, bus))?;
            if next
                .port
                .as_ref()
                .is_some_and(|(_, port)| port.buses().secondary == bus)
            {
                return Some(next);
            }
            from = home;
        }
        None
    }
}

impl SecondaryBus {
    /// Whether the port to this bus is on bus `from` (home number), its link is up, and it forwards requests for `bus`.
    fn is_behind(&self, from: u8, bus: u8) -> bool {
        let Some((on, port)) = &self.port else {
            return false;
        };
        let buses = port.buses();
        *on == from
            && buses.secondary != 0
            && port.is_up()
            && (buses.secondary..=buses.subordinate).contains(&bus)
    }

    /// Sets the multi-function bit of a function 0 that has siblings, where a read covers it.
    fn mark_multifunction(&self, devfn: u8, offset: u16, data: &mut [u8]) {
        let covered = HEADER_TYPE
            .checked_sub(offset)
            .and_then(|at| data.get_mut(usize::from(at)));
        let Some(header_type) = covered else { return };
        if devfn & 7 == 0 && self.functions.range(devfn + 1..=devfn | 7).next().is_some() {
            *header_type |= MULTIFUNCTION;
        }
    }
}

impl std::fmt::Debug for Placed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Placed").field(&self.bdf).finish()
    }
}

impl std::fmt::Debug for Topology {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let functions = |bus: &SecondaryBus| bus.functions.keys().copied().collect::<Vec<_>>();
        f.debug_map()
            .entries(self.buses.iter().map(|(home, bus)| (home, functions(bus))))
            .finish()
    }
}

/// Splits an access into naturally aligned ones of 1, 2 or 4 bytes.
fn pieces(offset: u16, length: usize) -> impl Iterator<Item = (u16, Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        let (at, left) = (usize::from(offset) + done, length - done);
        let size = [4, 2, 1]
            .into_iter()
            .find(|size| at % size == 0 && left >= *size)?;
        done += size;
        // Beyond the end of the 16-bit offsets there is no function either.
        Some((u16::try_from(at).unwrap_or(u16::MAX), done - size..done))
    })
}

const FIRST_ROOT: u8 = 0;
const FUNCTION_SIZE: u16 = 4096;
const HEADER_TYPE: u16 = 0x0e;
const MULTIFUNCTION: u8 = 0x80;
