//! What a network card does for its virtual functions: their addresses and VLANs, told to its driver over rtnetlink.
//!
//! Two messages, so they are written here; the crates that know all of rtnetlink bring an asynchronous runtime or a family of crates.

use std::io;
use std::time::Duration;

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with};

use crate::vf::MacAddress;

/// What a physical function's driver does with one virtual function.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct VfLink {
    pub(crate) mac: Option<MacAddress>,
    /// VLAN id and priority; id 0: untagged.
    pub(crate) vlan: Option<(u16, u8)>,
}

/// How the driver of network interface `interface` has set up virtual function `index`; None: it does not say.
pub(crate) fn query(interface: u32, index: u32) -> io::Result<Option<VfLink>> {
    let mut request = Message::new(GET_LINK, REQUEST, interface);
    request.attribute(EXTENDED, &WITH_VFS.to_ne_bytes());
    let reply = exchange(&request.finish())?;
    Ok(attributes(reply.get(HEADER + LINK..).unwrap_or_default())
        .filter(|(kind, _)| *kind == VF_LIST)
        .flat_map(|(_, list)| attributes(list))
        .map(|(_, info)| of_info(info))
        .find_map(|(of, link)| (of == Some(index)).then_some(link)))
}

/// Sets what `link` has for virtual function `index`, and leaves the rest.
pub(crate) fn set(interface: u32, index: u32, link: &VfLink) -> io::Result<()> {
    let mut info = Vec::new();
    if let Some(mac) = link.mac {
        let mut value = index.to_ne_bytes().to_vec();
        value.extend(mac.octets());
        value.resize(4 + MAX_ADDRESS, 0);
        attribute(&mut info, VF_MAC, &value);
    }
    if let Some((vlan, priority)) = link.vlan {
        let words = [index, vlan.into(), priority.into()];
        attribute(&mut info, VF_VLAN, &words.map(u32::to_ne_bytes).concat());
    }
    let (mut list, mut request) = (
        Vec::new(),
        Message::new(SET_LINK, REQUEST | ACKNOWLEDGE, interface),
    );
    attribute(&mut list, VF_INFO | NESTED, &info);
    request.attribute(VF_LIST | NESTED, &list);
    exchange(&request.finish()).map(|_| ())
}

/// Sends a request to the kernel; what it answers, or its errno.
fn exchange(request: &[u8]) -> io::Result<Vec<u8>> {
    let socket = socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        None,
    )?;
    rustix::net::sockopt::set_socket_timeout(&socket, rustix::net::sockopt::Timeout::Recv, Some(PATIENCE))?;
    send(&socket, request, SendFlags::empty())?;
    let mut reply = vec![0; MOST];
    let (_, length) = recv(&socket, &mut reply[..], RecvFlags::TRUNC)?;
    if length > reply.len() {
        return Err(io::ErrorKind::InvalidData.into());
    }
    reply.truncate(length);
    match word(&reply, 4).map(|kind| kind as u16) {
        Some(ERROR) => match word(&reply, HEADER).map(|errno| errno as i32) {
            Some(0) => Ok(reply),
            Some(errno) => Err(io::Error::from_raw_os_error(-errno)),
            None => Err(io::ErrorKind::InvalidData.into()),
        },
        Some(_) => Ok(reply),
        None => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// `struct nlmsghdr`, `struct ifinfomsg`, attributes (linux/netlink.h, linux/rtnetlink.h).
struct Message(Vec<u8>);

impl Message {
    fn new(kind: u16, flags: u16, interface: u32) -> Message {
        let mut bytes = vec![0; HEADER + LINK];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
        bytes[HEADER + 4..HEADER + 8].copy_from_slice(&interface.to_ne_bytes());
        Message(bytes)
    }

    fn attribute(&mut self, kind: u16, value: &[u8]) {
        attribute(&mut self.0, kind, value);
    }

    fn finish(mut self) -> Vec<u8> {
        let length = self.0.len() as u32;
        self.0[..4].copy_from_slice(&length.to_ne_bytes());
        self.0
    }
}

fn attribute(bytes: &mut Vec<u8>, kind: u16, value: &[u8]) {
    bytes.extend((value.len() as u16 + 4).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

/// The attributes in `bytes`: kinds and values. One that claims more than there is ends them.
fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let header = word(rest, 0)?;
        let (length, kind) = ((header & 0xffff) as usize, (header >> 16) as u16 & !NESTED);
        let value = rest.get(4..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

fn of_info(info: &[u8]) -> (Option<u32>, VfLink) {
    let (mut index, mut link) = (None, VfLink::default());
    for (kind, value) in attributes(info) {
        match kind {
            VF_MAC => {
                index = word(value, 0);
                let octets = value.get(4..10).and_then(|octets| octets.try_into().ok());
                link.mac = octets.map(MacAddress::new);
            }
            VF_VLAN => {
                let both = word(value, 4).zip(word(value, 8));
                link.vlan = both.map(|(vlan, priority)| (vlan as u16, priority as u8));
            }
            _ => {}
        }
    }
    (index, link)
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at + 4)?;
    Some(u32::from_ne_bytes(bytes.try_into().ok()?))
}

/// Sizes of the two headers.
const HEADER: usize = 16;
const LINK: usize = 16;
// Kinds and flags of messages.
const GET_LINK: u16 = 18;
const SET_LINK: u16 = 19;
const ERROR: u16 = 2;
const REQUEST: u16 = 1;
const ACKNOWLEDGE: u16 = 4;
// Attributes (linux/if_link.h).
const EXTENDED: u16 = 29;
const WITH_VFS: u32 = 1;
const VF_LIST: u16 = 22;
const VF_INFO: u16 = 1;
const VF_MAC: u16 = 1;
const VF_VLAN: u16 = 2;
const NESTED: u16 = 1 << 15;
const MAX_ADDRESS: usize = 32;
/// 256 virtual functions need less.
const MOST: usize = 256 << 10;
const PATIENCE: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_is_what_is_read_back() {
        let link = VfLink {
            mac: Some("52:54:00:01:02:03".parse().unwrap()),
            vlan: Some((7, 3)),
        };
        let (mut info, mac, index) = (Vec::new(), link.mac.unwrap().octets(), 4_u32);
        attribute(&mut info, 9, &[0; 12]);
        attribute(
            &mut info,
            VF_MAC,
            &[&index.to_ne_bytes()[..], &mac, &[0; 26]].concat(),
        );
        attribute(&mut info, VF_VLAN, &[4, 7, 3_u32].map(u32::to_ne_bytes).concat());
        assert_eq!(of_info(&info), (Some(4), link));
    }

    #[test]
    fn attributes_that_claim_more_than_there_is_end_the_list() {
        let mut bytes = Vec::new();
        attribute(&mut bytes, 5, &[1, 2, 3]);
        let whole = bytes.len();
        bytes.extend([0xff, 0xff, 1, 0]);
        assert_eq!(attributes(&bytes).collect::<Vec<_>>(), [(5, &[1, 2, 3][..])]);
        for short in [[0, 0, 0, 0], [3, 0, 0, 0]] {
            bytes.truncate(whole);
            bytes.extend(short);
            assert_eq!(attributes(&bytes).count(), 1, "{short:?}");
        }
    }

    #[test]
    fn an_interface_that_does_not_exist_is_refused_with_the_kernels_errno() {
        let refused = query(u32::MAX >> 1, 0).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::ENODEV), "{refused}");
    }
}
