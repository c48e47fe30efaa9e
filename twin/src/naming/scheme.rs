//! The versions of systemd's naming rules, as far as they differ for interfaces on PCI.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A version of the rules by which systemd names network interfaces (systemd.net-naming-scheme(7)). A system whose version is
/// between two schemes uses the earlier one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Scheme(u32);

/// Text that is not a naming scheme.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a naming scheme; write it as systemd does, from v238 on, for example v252")]
pub struct SchemeError {
    /// What was given.
    pub text: String,
}

impl Scheme {
    /// Debian 12's: what is assumed where nothing is known.
    pub const V252: Scheme = Scheme(252);

    /// The scheme that systemd `version` uses unless told otherwise; None: older than the first.
    #[must_use]
    pub fn of_version(version: u32) -> Option<Scheme> {
        // By mistake 254 kept to the scheme before its own.
        let version = if version == 254 { 253 } else { version };
        Scheme::numbered(version)
    }

    fn numbered(version: u32) -> Option<Scheme> {
        (FIRST..=MOST).contains(&version).then_some(Scheme(version))
    }

    /// Whether virtual functions are named after their physical one, with `v` and their number; and functions of a device with
    /// alternative routing ids by one number.
    pub(super) fn virtual_suffix(self) -> bool {
        self.0 >= 239
    }

    /// Whether InfiniBand interfaces are named, and an onboard index of 0 counts.
    pub(super) fn infiniband_and_index_zero(self) -> bool {
        self.0 >= 240
    }

    /// The highest onboard index that is believed.
    pub(super) fn highest_index(self) -> u32 {
        if self.0 >= 249 { 0xffff } else { 0x3ffd }
    }

    /// What a slot means whose device is a bridge to another bus.
    pub(super) fn slot_of_bridge(self) -> SlotOfBridge {
        match self.0 {
            ..247 => SlotOfBridge::Used,
            251..255 => SlotOfBridge::UsedByMultifunction,
            _ => SlotOfBridge::Ends,
        }
    }

    /// Whether representors of virtual functions have `r` and their number.
    pub(super) fn representors(self) -> bool {
        self.0 >= 254
    }

    /// Whether the slot user number of the function itself comes before the slots of the bus.
    pub(super) fn own_slot_number(self) -> bool {
        self.0 >= 257
    }
}

/// What a slot means for what is behind its bridge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SlotOfBridge {
    /// As any other.
    Used,
    /// Only functions of a device with several use it, since their names differ.
    UsedByMultifunction,
    /// There is no name by slot.
    Ends,
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "v{}", self.0)
    }
}

impl FromStr for Scheme {
    type Err = SchemeError;

    fn from_str(text: &str) -> Result<Self, SchemeError> {
        let digits = text
            .strip_prefix('v')
            .filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
        let version = digits.and_then(|digits| digits.parse().ok());
        version.and_then(Scheme::numbered).ok_or_else(|| SchemeError {
            text: text.to_owned(),
        })
    }
}

const FIRST: u32 = 238;
const MOST: u32 = 9999;
