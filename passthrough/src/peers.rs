//! Peer-to-peer DMA: the open BARs of a space's devices, mapped for DMA while there are two devices or more to reach them.
//! It is a service of the IOMMU that not every machine renders, so a failure is told and the guest goes on.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pellucid_partition::{Bdf, GuestAddress, Mapping};

/// What maps a BAR for the DMA of other devices: an IOMMU's address space.
pub trait BarMapper: Send + Sync {
    /// Maps all of `bar` at the I/O address equal to its guest address.
    fn map_bar(&self, at: GuestAddress, bar: &Mapping) -> io::Result<()>;
    /// Undoes that.
    fn unmap_bar(&self, at: GuestAddress, size: u64) -> io::Result<()>;
}

/// The devices of one I/O address space and their open BARs.
pub struct Peers {
    mapper: Arc<dyn BarMapper>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    devices: usize,
    open: BTreeMap<u64, Shown>,
}

/// A part of an open BAR.
struct Shown {
    device: Bdf,
    bar: Arc<Mapping>,
    mapped: bool,
}

/// A device among its peers until dropped.
#[must_use = "dropping it takes the device from its peers"]
pub(crate) struct Peer {
    peers: Arc<Peers>,
    device: Bdf,
}

/// A part of a BAR that peers may reach until it is dropped.
#[must_use = "dropping it hides the BAR from the peers"]
pub(crate) struct PeerWindow {
    peers: Arc<Peers>,
    at: u64,
}

impl Peers {
    /// No devices yet.
    #[must_use]
    pub fn new(mapper: Arc<dyn BarMapper>) -> Arc<Peers> {
        let state = Mutex::default();
        Arc::new(Peers { mapper, state })
    }

    /// The parts of BARs that devices reach by DMA now: guest address and size.
    #[must_use]
    pub fn mapped(&self) -> Vec<(GuestAddress, u64)> {
        let state = self.lock();
        let mapped = state.open.iter().filter(|(_, shown)| shown.mapped);
        mapped
            .map(|(at, shown)| (GuestAddress(*at), shown.bar.size() as u64))
            .collect()
    }

    /// Counts a device in; the second one has all open BARs mapped.
    pub(crate) fn join(self: &Arc<Self>, device: Bdf) -> Peer {
        let mut state = self.lock();
        state.devices += 1;
        self.settle(&mut state);
        Peer {
            peers: Arc::clone(self),
            device,
        }
    }

    /// Maps or unmaps what is not as the number of devices says.
    fn settle(&self, state: &mut State) {
        let wanted = state.devices > 1;
        for (at, shown) in &mut state.open {
            if shown.mapped != wanted {
                shown.mapped = wanted && self.map(*at, shown);
                if !wanted {
                    self.unmap(*at, shown);
                }
            }
        }
    }

    fn map(&self, at: u64, shown: &Shown) -> bool {
        let mapped = self.mapper.map_bar(GuestAddress(at), &shown.bar);
        if let Err(error) = &mapped {
            let device = shown.device;
            tracing::warn!(%device, at, %error, "no peer-to-peer DMA to a BAR: other devices cannot reach it");
        }
        mapped.is_ok()
    }

    fn unmap(&self, at: u64, shown: &Shown) {
        if let Err(error) = self.mapper.unmap_bar(GuestAddress(at), shown.bar.size() as u64) {
            let device = shown.device;
            tracing::error!(%device, at, %error, "a BAR is still mapped for peer-to-peer DMA");
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Peer {
    /// Lets the others reach a part of a BAR that is open to the guest at `at`.
    pub(crate) fn show(&self, at: GuestAddress, bar: &Arc<Mapping>) -> PeerWindow {
        let mut state = self.peers.lock();
        let mut shown = Shown {
            device: self.device,
            bar: Arc::clone(bar),
            mapped: false,
        };
        shown.mapped = state.devices > 1 && self.peers.map(at.0, &shown);
        state.open.insert(at.0, shown);
        PeerWindow {
            peers: Arc::clone(&self.peers),
            at: at.0,
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let mut state = self.peers.lock();
        state.devices -= 1;
        self.peers.settle(&mut state);
    }
}

impl Drop for PeerWindow {
    fn drop(&mut self) {
        let mut state = self.peers.lock();
        if let Some(shown) = state.open.remove(&self.at).filter(|shown| shown.mapped) {
            self.peers.unmap(self.at, &shown);
        }
    }
}

impl std::fmt::Debug for Peers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Peers").field(&self.mapped()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::os::fd::AsFd;

    /// An IOMMU that remembers what is mapped, and maps nothing above its width.
    #[derive(Default)]
    struct Narrow(Mutex<BTreeSet<(u64, u64)>>);

    impl BarMapper for Narrow {
        fn map_bar(&self, at: GuestAddress, bar: &Mapping) -> io::Result<()> {
            if at.0 >= 1 << 39 {
                return Err(io::Error::from_raw_os_error(libc::EINVAL));
            }
            assert!(
                self.0.lock().unwrap().insert((at.0, bar.size() as u64)),
                "mapped twice"
            );
            Ok(())
        }

        fn unmap_bar(&self, at: GuestAddress, size: u64) -> io::Result<()> {
            assert!(self.0.lock().unwrap().remove(&(at.0, size)), "was not mapped");
            Ok(())
        }
    }

    fn bar() -> Arc<Mapping> {
        let file = tempfile::tempfile().unwrap();
        file.set_len(4096).unwrap();
        Arc::new(Mapping::shared(file.as_fd(), 0, 4096).unwrap())
    }

    fn device(number: u8) -> Bdf {
        Bdf::of_devfn(0, number, 0)
    }

    #[test]
    fn a_lone_device_has_no_peers_and_nothing_is_mapped_for_them() {
        let iommu = Arc::new(Narrow::default());
        let peers = Peers::new(Arc::clone(&iommu) as _);
        let one = peers.join(device(1));
        let _open = one.show(GuestAddress(0xc000_0000), &bar());
        assert!(iommu.0.lock().unwrap().is_empty() && peers.mapped().is_empty());
    }

    #[test]
    fn the_second_device_finds_what_is_open_and_the_last_one_leaves_nothing_mapped() {
        let iommu = Arc::new(Narrow::default());
        let peers = Peers::new(Arc::clone(&iommu) as _);
        let one = peers.join(device(1));
        let first = one.show(GuestAddress(0xc000_0000), &bar());
        let two = peers.join(device(2));
        let second = two.show(GuestAddress(0xc000_1000), &bar());
        let all = [(0xc000_0000, 4096), (0xc000_1000, 4096)];
        assert_eq!(*iommu.0.lock().unwrap(), BTreeSet::from(all));
        drop(second);
        assert_eq!(peers.mapped(), [(GuestAddress(0xc000_0000), 4096)]);
        drop(two);
        assert!(iommu.0.lock().unwrap().is_empty());
        drop((first, one));
        assert!(peers.mapped().is_empty());
    }

    #[test]
    fn a_bar_beyond_the_iommu_keeps_nobody_from_the_others() {
        let iommu = Arc::new(Narrow::default());
        let peers = Peers::new(Arc::clone(&iommu) as _);
        let (one, two) = (peers.join(device(1)), peers.join(device(2)));
        let far = one.show(GuestAddress(1 << 40), &bar());
        let near = two.show(GuestAddress(0xc000_0000), &bar());
        assert_eq!(peers.mapped(), [(GuestAddress(0xc000_0000), 4096)]);
        drop((far, near));
        assert!(iommu.0.lock().unwrap().is_empty());
    }
}
