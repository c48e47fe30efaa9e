//! What the server says about its device before anything is done with it: version, regions, interrupts. All of it is an allegation
//! until it has been checked here.

use std::time::Instant;

use serde::Deserialize;

use super::link::{Link, Question, Reply};
use super::message::{Command, Payload, u16_at, u32_at};
use super::region::{INFO, ServedRegion};
use crate::error::VfioUserError;
use crate::transport::{IrqInfo, IrqKind};

/// A device as its server describes it, checked.
#[derive(Debug)]
pub(crate) struct Survey {
    pub(crate) resettable: bool,
    /// By region number, BAR 0 to 5, ROM, configuration space.
    pub(crate) regions: Vec<ServedRegion>,
    /// By interrupt number.
    pub(crate) irqs: Vec<IrqInfo>,
}

/// What a server puts behind its version number, as JSON.
#[derive(Debug, Default, Deserialize)]
struct VersionData {
    #[serde(default)]
    capabilities: Capabilities,
}

#[derive(Debug, Deserialize)]
struct Capabilities {
    #[serde(default = "one")]
    max_msg_fds: u32,
    #[serde(default = "mebibyte")]
    max_data_xfer_size: u32,
}

impl Default for Capabilities {
    fn default() -> Capabilities {
        Capabilities {
            max_msg_fds: one(),
            max_data_xfer_size: mebibyte(),
        }
    }
}

impl Survey {
    /// Agrees on a version and asks for everything, within one limit.
    pub(crate) fn of(link: &Link) -> Result<Survey, VfioUserError> {
        let asking = Asking {
            link,
            end: Instant::now() + link.limit(),
        };
        asking.version()?;
        let info = Payload::default().u32(16).u32(0).u32(0).u32(0);
        let info = asking.ask(Command::DeviceInfo, info, 16..=64)?.payload;
        let (flags, regions, irqs) = (u32_at(&info, 4), u32_at(&info, 8), u32_at(&info, 12));
        let counts = [("regions", regions, 8), ("kinds of interrupt", irqs, 3)];
        for (what, count, least) in counts {
            if !(least..=MOST_INDICES).contains(&count) {
                let what = format!("{count} {what}, where a PCI function has {least} to {MOST_INDICES}");
                return Err(link.give_up(Command::DeviceInfo, what));
            }
        }
        if flags & IS_PCI == 0 {
            return Err(asking.unfit("its device is no PCI function"));
        }
        let regions: Vec<_> = (0..=CONFIG)
            .map(|index| asking.region(index))
            .collect::<Result<_, _>>()?;
        let config = regions.last().map_or(0, |region| region.info.size);
        if config != 256 && config != 4096 {
            return Err(asking.unfit(&format!(
                "its configuration space has {config} bytes instead of 256 or 4096"
            )));
        }
        let known = irqs.min(IrqKind::Request.number() + 1);
        let irqs = (0..known)
            .map(|index| asking.irq(index))
            .collect::<Result<_, _>>()?;
        Ok(Survey {
            resettable: flags & CAN_RESET != 0,
            regions,
            irqs,
        })
    }
}

/// A server being asked.
struct Asking<'a> {
    link: &'a Link,
    end: Instant,
}

impl Asking<'_> {
    fn ask(
        &self,
        command: Command,
        payload: Payload,
        answer: std::ops::RangeInclusive<usize>,
    ) -> Result<Reply, VfioUserError> {
        let question = Question {
            command,
            payload,
            fds: &[],
            answer,
        };
        self.link.ask_until(&question, Some(self.end))
    }

    fn version(&self) -> Result<(), VfioUserError> {
        let payload = Payload::default().u16(0).u16(MINOR).bytes(OUR_CAPABILITIES);
        let reply = self.ask(Command::Version, payload, 4..=VERSION_ROOM)?.payload;
        let broken = |what: String| self.link.give_up(Command::Version, what);
        let (major, minor) = (u16_at(&reply, 0), u16_at(&reply, 2));
        if major != 0 || minor > MINOR {
            let what = format!("it speaks version {major}.{minor}, and 0.0 or 0.{MINOR} is spoken here");
            return Err(broken(what));
        }
        let text = reply.get(4..).unwrap_or_default();
        let text = text.split(|byte| *byte == 0).next().unwrap_or_default();
        let data: VersionData = match text {
            [] => VersionData::default(),
            text => serde_json::from_slice(text)
                .map_err(|error| broken(format!("its capabilities are not readable: {error}")))?,
        };
        let Capabilities {
            max_msg_fds,
            max_data_xfer_size,
        } = data.capabilities;
        if max_data_xfer_size < LEAST_DATA {
            let what =
                format!("max_data_xfer_size is {max_data_xfer_size}, and {LEAST_DATA} bytes are the least");
            return Err(broken(what));
        }
        if max_msg_fds == 0 {
            let what = "max_msg_fds is 0: it takes neither memory nor eventfds".to_owned();
            return Err(broken(what));
        }
        self.link.agree(max_msg_fds, max_data_xfer_size.min(mebibyte()));
        Ok(())
    }

    fn region(&self, index: u32) -> Result<ServedRegion, VfioUserError> {
        let room = (INFO + MOST_CAPABILITIES) as u32;
        let payload = Payload::default()
            .u32(room)
            .u32(0)
            .u32(index)
            .u32(0)
            .u64(0)
            .u64(0);
        let answer = INFO..=INFO + MOST_CAPABILITIES;
        let reply = match self.ask(Command::RegionInfo, payload, answer) {
            // A region that the device does not have may be refused.
            Err(VfioUserError::Refused { .. }) if index != CONFIG => return Ok(ServedRegion::default()),
            other => other?,
        };
        let region = ServedRegion::of(index, &reply.payload, reply.fd);
        region.map_err(|what| {
            self.link
                .give_up(Command::RegionInfo, format!("region {index}: {what}"))
        })
    }

    fn irq(&self, index: u32) -> Result<IrqInfo, VfioUserError> {
        let payload = Payload::default().u32(16).u32(0).u32(index).u32(0);
        let reply = match self.ask(Command::IrqInfo, payload, 16..=16) {
            Err(VfioUserError::Refused { .. }) => return Ok(IrqInfo::default()),
            other => other?.payload,
        };
        let (flags, its, count) = (u32_at(&reply, 4), u32_at(&reply, 8), u32_at(&reply, 12));
        let most = MOST_VECTORS[index as usize];
        if its != index || count > most {
            let what = format!("{count} interrupts of kind {its}, where kind {index} has at most {most}");
            return Err(self.link.give_up(Command::IrqInfo, what));
        }
        Ok(IrqInfo {
            // What cannot signal an eventfd cannot reach a guest.
            count: if flags & IRQ_EVENTFD != 0 { count } else { 0 },
            fixed: flags & IRQ_NORESIZE != 0,
        })
    }

    fn unfit(&self, what: &str) -> VfioUserError {
        VfioUserError::Unfit {
            socket: self.link.socket().to_owned(),
            what: what.to_owned(),
        }
    }
}

fn one() -> u32 {
    1
}

fn mebibyte() -> u32 {
    1 << 20
}

/// We speak 0.1, and 0.0 differs from it in nothing that we use.
const MINOR: u16 = 1;
const OUR_CAPABILITIES: &[u8] = b"{\"capabilities\":{\"max_msg_fds\":1,\"max_data_xfer_size\":1048576}}\0";
/// No server's capabilities come near this.
const VERSION_ROOM: usize = 4096;
/// Registers have up to 8 bytes.
const LEAST_DATA: u32 = 8;
/// A PCI function has 9 regions and 5 kinds of interrupt; later versions may add some.
const MOST_INDICES: u32 = 32;
/// Room for some 250 mappable areas.
const MOST_CAPABILITIES: usize = 4096;
const CONFIG: u32 = 7;
/// By kind: the line, MSI, MSI-X, error, request.
const MOST_VECTORS: [u32; 5] = [1, 32, 2048, 1, 1];

const CAN_RESET: u32 = vfio_bindings::bindings::vfio::VFIO_DEVICE_FLAGS_RESET;
const IS_PCI: u32 = vfio_bindings::bindings::vfio::VFIO_DEVICE_FLAGS_PCI;
const IRQ_EVENTFD: u32 = vfio_bindings::bindings::vfio::VFIO_IRQ_INFO_EVENTFD;
const IRQ_NORESIZE: u32 = vfio_bindings::bindings::vfio::VFIO_IRQ_INFO_NORESIZE;
