//! A vfio-user server in a thread that says what a test tells it to: by default the truth about a small device.
#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "a test's support, and not every test uses all of it"
)]

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{IoSlice, IoSliceMut, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pellucid_passthrough::{Served, VfioUserError};
use rustix::fs::{MemfdFlags, SealFlags};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags,
};

pub(crate) const VERSION: u16 = 1;
pub(crate) const DMA_MAP: u16 = 2;
pub(crate) const DMA_UNMAP: u16 = 3;
pub(crate) const DEVICE_INFO: u16 = 4;
pub(crate) const REGION_INFO: u16 = 5;
pub(crate) const IRQ_INFO: u16 = 7;
pub(crate) const SET_IRQS: u16 = 8;
pub(crate) const REGION_READ: u16 = 9;
pub(crate) const REGION_WRITE: u16 = 10;
pub(crate) const RESET: u16 = 13;

/// A request as it came.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) id: u16,
    pub(crate) command: u16,
    pub(crate) payload: Vec<u8>,
    pub(crate) fds: Vec<OwnedFd>,
}

impl Asked {
    pub(crate) fn u32(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.payload[at..at + 4].try_into().unwrap())
    }

    pub(crate) fn u64(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.payload[at..at + 8].try_into().unwrap())
    }

    /// A good answer with this payload.
    pub(crate) fn reply(&self, payload: &[u8]) -> Reply {
        let mut bytes = Vec::new();
        bytes.extend(self.id.to_le_bytes());
        bytes.extend(self.command.to_le_bytes());
        bytes.extend((16 + payload.len() as u32).to_le_bytes());
        bytes.extend(1_u32.to_le_bytes());
        bytes.extend(0_u32.to_le_bytes());
        bytes.extend(payload);
        Reply {
            bytes,
            fds: Vec::new(),
            then: Then::GoOn,
        }
    }
}

/// What a server says.
pub(crate) struct Reply {
    pub(crate) bytes: Vec<u8>,
    pub(crate) fds: Vec<OwnedFd>,
    pub(crate) then: Then,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Then {
    GoOn,
    Close,
}

impl Reply {
    pub(crate) fn put(&mut self, at: usize, value: u32) {
        self.bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
    }

    pub(crate) fn put_u64(&mut self, at: usize, value: u64) {
        self.bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
    }

    /// Adds to the payload and corrects the size.
    pub(crate) fn append(&mut self, more: &[u8]) {
        self.bytes.extend(more);
        self.put(4, self.bytes.len() as u32);
    }
}

/// A device with registers in BAR 0, memory in BAR 2, one MSI-X table of 4 vectors in BAR 4, and every kind of event.
#[derive(Default)]
pub(crate) struct Device {
    pub(crate) config: Vec<u8>,
    pub(crate) registers: Vec<u8>,
    pub(crate) memory: Option<File>,
    pub(crate) wired: BTreeMap<(u32, u32), File>,
    pub(crate) mapped: Vec<(u64, u64, File)>,
    /// Commands with the payloads, in the order in which they came.
    pub(crate) log: Vec<(u16, Vec<u8>)>,
}

impl Device {
    pub(crate) fn new() -> Device {
        let mut config = vec![0; 4096];
        config[..4].copy_from_slice(&[0x36, 0x1b, 0xed, 0x0d]);
        config[6] = 0x10;
        config[8..12].copy_from_slice(&[1, 0, 0x80, 0x08]);
        config[0x18] = 0x0c;
        config[0x34] = 0x40;
        // MSI-X: 4 vectors, table and pending bits in BAR 4.
        config[0x40..0x4c].copy_from_slice(&[0x11, 0, 3, 0, 4, 0, 0, 0, 4, 8, 0, 0]);
        Device {
            config,
            registers: vec![0; 4096],
            memory: Some(sealed(MEMORY)),
            ..Device::default()
        }
    }

    pub(crate) fn answer(&mut self, asked: &Asked) -> Reply {
        self.log.push((asked.command, asked.payload.clone()));
        match asked.command {
            VERSION => asked.reply(&[&[0, 0, 1, 0], CAPABILITIES].concat()),
            DEVICE_INFO => asked.reply(&words(&[16, 3, 9, 5])),
            REGION_INFO => self.region(asked),
            IRQ_INFO => {
                let index = asked.u32(8);
                let count = [0, 0, 4, 1, 1][index as usize];
                asked.reply(&words(&[16, 1, index, count]))
            }
            REGION_READ => {
                let (offset, region, count) = (asked.u64(0) as usize, asked.u32(8), asked.u32(12));
                let bytes = match region {
                    7 => &self.config,
                    _ => &self.registers,
                };
                let data = &bytes[offset..offset + count as usize];
                asked.reply(&[&asked.payload[..16], data].concat())
            }
            REGION_WRITE => {
                let (offset, region) = (asked.u64(0) as usize, asked.u32(8));
                let bytes = match region {
                    7 => &mut self.config,
                    _ => &mut self.registers,
                };
                let data = &asked.payload[16..];
                bytes[offset..offset + data.len()].copy_from_slice(data);
                asked.reply(&asked.payload[..16])
            }
            SET_IRQS => {
                self.wire(asked);
                asked.reply(&[])
            }
            DMA_MAP => {
                let file = File::from(asked.fds[0].try_clone().unwrap());
                self.mapped.push((asked.u64(16), asked.u64(24), file));
                asked.reply(&[])
            }
            DMA_UNMAP => {
                let address = asked.u64(8);
                self.mapped.retain(|(start, _, _)| *start != address);
                asked.reply(&asked.payload)
            }
            _ => asked.reply(&[]),
        }
    }

    fn region(&self, asked: &Asked) -> Reply {
        let index = asked.u32(8);
        let (size, flags) = match index {
            0 => (4096, 3),
            2 => (MEMORY, 0xf),
            4 => (4096, 3),
            7 => (4096, 3),
            _ => (0, 0),
        };
        let mut payload = words(&[32, flags, index, 0]);
        payload.extend(size.to_le_bytes());
        payload.extend(0_u64.to_le_bytes());
        let mut reply = asked.reply(&payload);
        if index == 2 {
            reply.put(16 + 12, 32);
            reply.append(&sparse(0, &[(0x1000, 0x3000), (0x8000, 0x8000)]));
            let memory = self.memory.as_ref().map(|memory| memory.try_clone().unwrap());
            reply.fds = memory.into_iter().map(OwnedFd::from).collect();
        }
        reply
    }

    fn wire(&mut self, asked: &Asked) {
        let (flags, kind, start, count) = (asked.u32(4), asked.u32(8), asked.u32(12), asked.u32(16));
        if flags & 1 != 0 {
            self.wired.retain(|(of, _), _| *of != kind);
        }
        for (number, vector) in (start..start + count).enumerate() {
            match asked.fds.get(number) {
                Some(fd) => self
                    .wired
                    .insert((kind, vector), File::from(fd.try_clone().unwrap())),
                None => self.wired.remove(&(kind, vector)),
            };
        }
    }
}

/// A sparse mmap capability that leads to `next`.
pub(crate) fn sparse(next: u32, areas: &[(u64, u64)]) -> Vec<u8> {
    let mut bytes = vec![1, 0, 1, 0];
    bytes.extend(next.to_le_bytes());
    bytes.extend(words(&[areas.len() as u32, 0]));
    for (start, size) in areas {
        bytes.extend(start.to_le_bytes());
        bytes.extend(size.to_le_bytes());
    }
    bytes
}

pub(crate) fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// A memory file that cannot shrink.
pub(crate) fn sealed(size: u64) -> File {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let file = File::from(rustix::fs::memfd_create("served", flags).unwrap());
    file.set_len(size).unwrap();
    rustix::fs::fcntl_add_seals(&file, SealFlags::SHRINK).unwrap();
    file
}

/// Serves on one end of a socket pair, and connects to it at the other.
pub(crate) fn connect(
    limit: Duration,
    answer: impl FnMut(&Asked) -> Option<Reply> + Send + 'static,
) -> Result<Served, VfioUserError> {
    let (ours, theirs) = UnixStream::pair().unwrap();
    std::thread::spawn(move || serve(theirs, answer));
    Served::over(
        ours,
        Path::new("/run/engine.sock"),
        "0000:00:03.0".parse().unwrap(),
        limit,
    )
}

/// The same with a device that tells the truth; what it was told can be looked at.
pub(crate) fn honest() -> (Served, Arc<Mutex<Device>>) {
    let device = Arc::new(Mutex::new(Device::new()));
    let told = Arc::clone(&device);
    let served = connect(LONG, move |asked| Some(told.lock().unwrap().answer(asked)));
    (served.unwrap(), device)
}

/// Answers until the client or the script ends the connection. No answer is silence.
pub(crate) fn serve(mut stream: UnixStream, mut answer: impl FnMut(&Asked) -> Option<Reply>) {
    while let Some(asked) = receive(&mut stream) {
        let Some(reply) = answer(&asked) else { continue };
        let fds: Vec<_> = reply.fds.iter().map(AsFd::as_fd).collect();
        let rights = SendAncillaryMessage::ScmRights(&fds);
        let mut space = vec![MaybeUninit::uninit(); rights.size()];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() {
            assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
        }
        let bytes = [IoSlice::new(&reply.bytes)];
        // The client may have left already.
        let sent = rustix::net::sendmsg(&stream, &bytes, &mut control, SendFlags::NOSIGNAL);
        if sent.is_err() || reply.then == Then::Close {
            return;
        }
    }
}

fn receive(stream: &mut UnixStream) -> Option<Asked> {
    let mut header = [0; 16];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(16))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut into = [IoSliceMut::new(&mut header)];
    let received = rustix::net::recvmsg(&*stream, &mut into, &mut control, RecvFlags::CMSG_CLOEXEC).ok()?;
    if received.bytes != 16 {
        return None;
    }
    let mut fds = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    let size = u32::from_le_bytes(header[4..8].try_into().unwrap()) as usize;
    let mut payload = vec![0; size - 16];
    stream.read_exact(&mut payload).ok()?;
    Some(Asked {
        id: u16::from_le_bytes([header[0], header[1]]),
        command: u16::from_le_bytes([header[2], header[3]]),
        payload,
        fds,
    })
}

/// Bytes of BAR 2.
pub(crate) const MEMORY: u64 = 0x10000;
pub(crate) const CAPABILITIES: &[u8] = b"{\"capabilities\":{\"max_msg_fds\":2,\"max_data_xfer_size\":64}}\0";
/// Only ends a test that hangs.
pub(crate) const LONG: Duration = Duration::from_secs(60);
