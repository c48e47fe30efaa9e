//! A device that another process serves on a vfio-user socket: the first stage of its way into a guest, in place of a claim.

mod device;
mod link;
mod memory;
mod message;
mod region;
mod stream;
mod survey;

use std::io;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use pellucid_partition::{Bdf, Claim, Resource, StateDir};

use crate::bound::Bound;
use crate::error::{BindError, TakeError, VfioUserError};
use crate::held::Held;
use crate::inventory::{Bar, BarKind, Function, Ids};
use crate::transport::{RegionIndex, RegionInfo, Transport};
use device::ServedDevice;
use link::Link;
use memory::ServedMemory;
use survey::Survey;

/// Connected to the server of a device, which has told what the device is. It has no memory of a guest, so it cannot do DMA.
///
/// Everything that the server says is checked, and every answer has a limit: a server that stalls, lies or dies is an error that
/// names its socket, and is asked nothing more. Dropping it ends the connection.
#[must_use = "dropping it ends the connection"]
pub struct Served {
    device: ServedDevice,
    serving: Serving,
}

/// What is left of a server when its device is in other hands: whom to tell of memory, and what the device was.
pub(crate) struct Serving {
    link: Arc<Link>,
    function: Function,
    claim: Option<Claim>,
}

impl Served {
    /// Whether a server could listen at `socket`. It is not connected to: many a server takes one client, and only the first.
    pub fn check(socket: &Path) -> Result<(), VfioUserError> {
        let found = std::fs::metadata(socket).and_then(|found| match found.file_type().is_socket() {
            true => Ok(()),
            false => Err(io::Error::from_raw_os_error(libc::ENOTSOCK)),
        });
        found.map_err(|source| VfioUserError::Connect {
            socket: socket.to_owned(),
            source,
        })
    }

    /// The socket as something that one partition holds. A slash cannot stand in the name, so U+2215 stands there, which looks like one.
    #[must_use]
    pub fn resource(socket: &Path) -> Resource {
        let path = std::fs::canonicalize(socket).unwrap_or_else(|_| socket.to_owned());
        Resource::new(SOCKET_KIND, &path.to_string_lossy().replace('/', "\u{2215}"))
    }

    /// Holds the socket for `partition` and connects to the server that listens there, for the device that a guest will find at `at`.
    pub fn claim(socket: &Path, at: Bdf, state: &StateDir, partition: &str) -> Result<Served, TakeError> {
        let claim = state.claim(Served::resource(socket), partition)?;
        let mut served = Served::connect(socket, at)?;
        served.serving.claim = Some(claim);
        Ok(served)
    }

    /// Connects to the server that listens at `socket`, for the device that a guest will find at `at`.
    pub fn connect(socket: &Path, at: Bdf) -> Result<Served, VfioUserError> {
        Served::survey(Link::connect(socket, ANSWER_LIMIT)?, at)
    }

    /// Uses a connection that is there already, called `name` in errors, and gives each answer `limit`.
    pub fn over(stream: UnixStream, name: &Path, at: Bdf, limit: Duration) -> Result<Served, VfioUserError> {
        Served::survey(Link::over(stream, name, limit)?, at)
    }

    /// What it is, at the address in the guest.
    #[must_use]
    pub fn function(&self) -> &Function {
        &self.serving.function
    }

    /// Its regions and interrupts.
    #[must_use]
    pub fn transport(&self) -> &dyn Transport {
        &self.device
    }

    /// Resets the device, and sees that it answers as itself with DMA off.
    pub fn bind(self) -> Result<Bound, BindError> {
        Bound::open(Box::new(self.device), Held::Served(Box::new(self.serving)))
    }

    fn survey(link: Link, at: Bdf) -> Result<Served, VfioUserError> {
        let survey = Survey::of(&link)?;
        let link = Arc::new(link);
        let device = ServedDevice::new(Arc::clone(&link), survey);
        let function = describe(&device, at).map_err(|error| served(error, link.socket()))?;
        let serving = Serving {
            link,
            function,
            claim: None,
        };
        Ok(Served { device, serving })
    }
}

impl Serving {
    pub(crate) fn function(&self) -> &Function {
        &self.function
    }

    pub(crate) fn socket(&self) -> &Path {
        self.link.socket()
    }

    /// Whether the server has gone or was given up, which was told then.
    pub(crate) fn is_lost(&self) -> bool {
        self.link.is_over()
    }

    /// Ends the claim, if there is one.
    pub(crate) fn give_back(&mut self) -> Result<(), TakeError> {
        self.claim.take().map_or(Ok(()), |claim| Ok(claim.release()?))
    }

    /// Whom guest memory tells of itself, when the device becomes a guest's.
    pub(crate) fn memory(&self) -> ServedMemory {
        self.link.lend();
        ServedMemory {
            link: Arc::clone(&self.link),
        }
    }
}

/// An error of a served transport in its own words.
fn served(error: io::Error, socket: &Path) -> VfioUserError {
    error.downcast().unwrap_or_else(|error| VfioUserError::Unfit {
        socket: socket.to_owned(),
        what: error.to_string(),
    })
}

/// The function as its configuration space and its regions describe it.
fn describe(device: &dyn Transport, at: Bdf) -> io::Result<Function> {
    let mut header = [0; 64];
    device.read(RegionIndex::Config, 0, &mut header)?;
    let word = |at: usize| u16::from_le_bytes([header[at], header[at + 1]]);
    let ids = Ids {
        vendor: word(0),
        device: word(2),
        class: u32::from(word(0x0a)) << 8 | u32::from(header[9]),
        revision: header[8],
        subsystem: [word(0x2c), word(0x2e)],
    };
    let (has_reset, bars) = (device.resettable(), bars(&header, &|index| device.region(index)));
    Ok(Function {
        bars,
        reset_methods: if has_reset {
            vec!["vfio-user".to_owned()]
        } else {
            Vec::new()
        },
        ..Function::bare(at, ids)
    })
}

/// BARs by the size of their region and the kind in their register (PCI 3.0, 6.2.5.1).
fn bars(header: &[u8; 64], region: &dyn Fn(RegionIndex) -> Option<RegionInfo>) -> Vec<Bar> {
    let mut bars = Vec::new();
    let mut index = 0;
    while index < 6 {
        let register = header[0x10 + usize::from(index) * 4];
        let prefetchable = register & 8 != 0;
        let kind = match register & 7 {
            io if io & 1 != 0 => BarKind::Io,
            // The last register has no other half.
            4 if index < 5 => BarKind::Memory64 { prefetchable },
            _ => BarKind::Memory32 { prefetchable },
        };
        if let Some(info) = region(RegionIndex::Bar(index)) {
            let least = if kind == BarKind::Io { 4 } else { 16 };
            bars.push(Bar {
                index,
                kind,
                address: 0,
                size: info.size.max(least).next_power_of_two(),
            });
        }
        index += if matches!(kind, BarKind::Memory64 { .. }) {
            2
        } else {
            1
        };
    }
    bars
}

/// The kind of resource under which sockets are claimed.
const SOCKET_KIND: &str = "socket";
/// Far beyond what an answer takes, and short enough that a vCPU which waits for one can still be stopped.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
