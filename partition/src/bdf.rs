//! The address of a PCI function: domain, bus, device, function.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A PCI function's address, ordered as `lspci` lists it.
///
/// ```
/// use pellucid_partition::Bdf;
/// let nvme: Bdf = "0000:01:00.0".parse()?;
/// assert_eq!((nvme.bus(), nvme.device(), nvme.function()), (1, 0, 0));
/// assert_eq!(nvme.to_string(), "0000:01:00.0");
/// # Ok::<(), pellucid_partition::BdfError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Bdf {
    domain: u32,
    bus: u8,
    device: u8,
    function: u8,
}

/// Text or numbers that are not a PCI address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is not a PCI address; write it as [DOMAIN:]BUS:DEVICE.FUNCTION in hexadecimal, for example 0000:01:00.0 (device up to 1f, function up to 7)"
)]
pub struct BdfError {
    /// What was given.
    pub text: String,
}

impl Bdf {
    /// An address from its parts; device up to 31, function up to 7.
    pub fn new(domain: u32, bus: u8, device: u8, function: u8) -> Result<Self, BdfError> {
        if device > 0x1f || function > 7 {
            return Err(BdfError {
                text: format!("{domain:04x}:{bus:02x}:{device:02x}.{function}"),
            });
        }
        Ok(Self {
            domain,
            bus,
            device,
            function,
        })
    }

    /// The function `devfn` (device in bits 7:3, function in bits 2:0) of a bus.
    #[must_use]
    pub const fn of_devfn(domain: u32, bus: u8, devfn: u8) -> Self {
        Self {
            domain,
            bus,
            device: devfn >> 3,
            function: devfn & 7,
        }
    }

    /// The PCI domain (segment). Those that firmware describes have 16 bits; Linux numbers the ones behind an Intel Volume Management
    /// Device from 0x10000 on (drivers/pci/controller/vmd.c).
    #[must_use]
    pub const fn domain(self) -> u32 {
        self.domain
    }

    /// The bus number.
    #[must_use]
    pub const fn bus(self) -> u8 {
        self.bus
    }

    /// The device number, 0 to 31.
    #[must_use]
    pub const fn device(self) -> u8 {
        self.device
    }

    /// The function number, 0 to 7.
    #[must_use]
    pub const fn function(self) -> u8 {
        self.function
    }

    /// Device and function in one byte, as configuration cycles carry them.
    #[must_use]
    pub const fn devfn(self) -> u8 {
        self.device << 3 | self.function
    }
}

impl fmt::Display for Bdf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:04x}:{:02x}:{:02x}.{:x}",
            self.domain, self.bus, self.device, self.function
        )
    }
}

impl FromStr for Bdf {
    type Err = BdfError;

    fn from_str(text: &str) -> Result<Self, BdfError> {
        parse(text).ok_or_else(|| BdfError {
            text: text.to_owned(),
        })
    }
}

impl From<Bdf> for String {
    fn from(bdf: Bdf) -> String {
        bdf.to_string()
    }
}

impl TryFrom<String> for Bdf {
    type Error = BdfError;

    fn try_from(text: String) -> Result<Self, BdfError> {
        text.parse()
    }
}

fn parse(text: &str) -> Option<Bdf> {
    let (rest, function) = text.rsplit_once('.')?;
    let mut parts = rest.rsplit(':');
    let device = hex(parts.next()?, 2)?;
    let bus = hex(parts.next()?, 2)?;
    let domain = parts.next().map_or(Some(0), |text| hex(text, 8))?;
    if parts.next().is_some() {
        return None;
    }
    let function = hex(function, 1)?;
    Bdf::new(
        domain,
        u8::try_from(bus).ok()?,
        u8::try_from(device).ok()?,
        u8::try_from(function).ok()?,
    )
    .ok()
}

fn hex(text: &str, digits: usize) -> Option<u32> {
    let plain = !text.is_empty() && text.len() <= digits && text.bytes().all(|b| b.is_ascii_hexdigit());
    plain.then(|| u32::from_str_radix(text, 16).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_address_without_a_domain_is_in_domain_zero() {
        assert_eq!("01:00.0".parse::<Bdf>().unwrap().to_string(), "0000:01:00.0");
    }

    #[test]
    fn a_domain_that_a_volume_management_device_makes_has_more_digits() {
        let bdf: Bdf = "10000:e1:00.0".parse().unwrap();
        assert_eq!((bdf.domain(), bdf.bus()), (0x1_0000, 0xe1));
        assert_eq!(bdf.to_string(), "10000:e1:00.0");
    }

    #[test]
    fn what_is_not_an_address_is_refused_with_an_example() {
        for text in [
            "",
            "1",
            "01:00",
            "01:00.8",
            "01:20.0",
            "+1:00.0",
            "0:0000:01:00.0",
            "x:00.0",
            "100000000:01:00.0",
            "00:00.-1",
        ] {
            let refusal = text.parse::<Bdf>().unwrap_err().to_string();
            assert!(refusal.contains("0000:01:00.0"), "{refusal}");
        }
    }

    proptest! {
        #[test]
        fn text_and_address_are_the_same_thing(domain: u32, bus: u8, devfn: u8) {
            let bdf = Bdf::of_devfn(domain, bus, devfn);
            prop_assert_eq!(bdf.to_string().parse::<Bdf>().unwrap(), bdf);
            prop_assert_eq!(bdf.devfn(), devfn);
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in ".{0,40}") {
            let _ = text.parse::<Bdf>();
        }
    }
}
