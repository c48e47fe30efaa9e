//! Words of SR-IOV: what a virtual function is given, and by what it is told from another's.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What a virtual function of a network card is given by its physical function, out of the guest's reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct VfSettings {
    /// Its address; None: as it is.
    pub mac: Option<MacAddress>,
    /// Its VLAN, which the card adds and takes off; None: as it is.
    pub vlan: Option<Vlan>,
}

/// A MAC address that an interface can have: not zero, not a group's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MacAddress([u8; 6]);

/// A VLAN: 1 to 4094, or 0 for none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u16", into = "u16")]
pub struct Vlan(u16);

/// The secret by which the users of a physical function and of its virtual ones know each other, where vfio-pci drives the former
/// (`vf_token` of linux/vfio.h). Written as a UUID.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct VfToken([u8; 16]);

/// A text that is none of these.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VfError {
    /// Not an address of an interface.
    #[error(
        "{text:?} is not the MAC address of an interface; write six pairs of digits such as 52:54:00:12:34:56, not a group's address"
    )]
    Mac {
        /// What was written.
        text: String,
    },
    /// Not a VLAN.
    #[error("{text:?} is not a VLAN; 1 to 4094, or 0 for none")]
    Vlan {
        /// What was written.
        text: String,
    },
    /// Not a UUID.
    #[error("the VF token is not a UUID such as 14d63f20-8445-11ea-8900-1f9ce7d5650d")]
    Token,
}

impl MacAddress {
    pub(crate) fn new(octets: [u8; 6]) -> MacAddress {
        MacAddress(octets)
    }

    /// Its six bytes.
    #[must_use]
    pub fn octets(self) -> [u8; 6] {
        self.0
    }

    fn is_an_interfaces(self) -> bool {
        self.0[0] & 1 == 0 && self.0 != [0; 6]
    }
}

impl FromStr for MacAddress {
    type Err = VfError;

    fn from_str(text: &str) -> Result<MacAddress, VfError> {
        let pair = |pair: &str| match pair.len() {
            2 => u8::from_str_radix(pair, 16)
                .ok()
                .filter(|_| !pair.starts_with('+')),
            _ => None,
        };
        let octets: Option<Vec<u8>> = text.split([':', '-']).map(pair).collect();
        let octets: Option<[u8; 6]> = octets.and_then(|octets| octets.try_into().ok());
        let mac = octets.map(MacAddress).filter(|mac| mac.is_an_interfaces());
        mac.ok_or_else(|| VfError::Mac {
            text: text.to_owned(),
        })
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl TryFrom<String> for MacAddress {
    type Error = VfError;

    fn try_from(text: String) -> Result<MacAddress, VfError> {
        text.parse()
    }
}

impl From<MacAddress> for String {
    fn from(mac: MacAddress) -> String {
        mac.to_string()
    }
}

impl Vlan {
    /// Its number.
    #[must_use]
    pub fn id(self) -> u16 {
        self.0
    }
}

impl TryFrom<u16> for Vlan {
    type Error = VfError;

    fn try_from(id: u16) -> Result<Vlan, VfError> {
        match id {
            0..=4094 => Ok(Vlan(id)),
            _ => Err(VfError::Vlan { text: id.to_string() }),
        }
    }
}

impl From<Vlan> for u16 {
    fn from(vlan: Vlan) -> u16 {
        vlan.0
    }
}

impl FromStr for Vlan {
    type Err = VfError;

    fn from_str(text: &str) -> Result<Vlan, VfError> {
        let id: Option<u16> = text.parse().ok();
        let wrong = || VfError::Vlan {
            text: text.to_owned(),
        };
        id.ok_or_else(wrong)?.try_into()
    }
}

impl VfToken {
    /// One that nobody can guess.
    pub fn random() -> std::io::Result<VfToken> {
        let mut bytes = [0; 16];
        let mut filled = 0;
        while filled < bytes.len() {
            filled += rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty())?;
        }
        Ok(VfToken(bytes))
    }

    /// Its bytes, in the order of the text.
    #[must_use]
    pub fn bytes(self) -> [u8; 16] {
        self.0
    }
}

impl FromStr for VfToken {
    type Err = VfError;

    fn from_str(text: &str) -> Result<VfToken, VfError> {
        let lengths: Vec<usize> = text.split('-').map(str::len).collect();
        let digits = text.replace('-', "");
        if lengths != [8, 4, 4, 4, 12] || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(VfError::Token);
        }
        let number = u128::from_str_radix(&digits, 16).map_err(|_| VfError::Token)?;
        Ok(VfToken(number.to_be_bytes()))
    }
}

impl fmt::Display for VfToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = format!("{:032x}", u128::from_be_bytes(self.0));
        let (a, b, c, d, e) = (
            &text[..8],
            &text[8..12],
            &text[12..16],
            &text[16..20],
            &text[20..],
        );
        write!(f, "{a}-{b}-{c}-{d}-{e}")
    }
}

/// A secret: not in logs.
impl fmt::Debug for VfToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VfToken(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_read_as_people_write_them_and_printed_so() {
        let mac: MacAddress = "52:54:00:AB:cd:0f".parse().unwrap();
        assert_eq!(mac.to_string(), "52:54:00:ab:cd:0f");
        let token = "14d63f20-8445-11ea-8900-1f9ce7d5650d";
        assert_eq!(token.parse::<VfToken>().unwrap().to_string(), token);
        assert_eq!("4094".parse::<Vlan>().unwrap().id(), 4094);
        assert_eq!(format!("{:?}", VfToken::random().unwrap()), "VfToken(..)");
    }

    #[test]
    fn what_no_interface_can_have_is_refused_with_an_example() {
        for text in [
            "",
            "52:54:00:12:34",
            "01:00:5e:00:00:01",
            "00:00:00:00:00:00",
            "ff:ff:ff:ff:ff:ff",
            "52:54:00:12:34:5g",
            "+2:54:00:12:34:56",
            "52:54:00:12:34:56:78",
        ] {
            let refusal = text.parse::<MacAddress>().unwrap_err().to_string();
            assert!(refusal.contains("52:54:00:12:34:56"), "{refusal}");
        }
        for text in ["4095", "-1", "", "70000", "x"] {
            assert!(text.parse::<Vlan>().is_err(), "{text}");
        }
        for text in [
            "",
            "14d63f20844511ea89001f9ce7d5650d",
            "14d63f20-8445-11ea-8900-1f9ce7d5650",
            "+4d63f20-8445-11ea-8900-1f9ce7d5650d",
        ] {
            assert!(text.parse::<VfToken>().is_err(), "{text}");
        }
    }
}
