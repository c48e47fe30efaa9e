//! Which machine a guest's operating system is told that it runs on: the host's SMBIOS tables, made the server's.

use std::fmt;
use std::str::FromStr;

use pellucid_image::{FreeText, Smbios, SmbiosError, SmbiosShare, SmbiosTables, StorageController};
use pellucid_partition::{Bdf, Plan};

use crate::machine::Machine;
use crate::offer::Offer;
use crate::topology::Topology;

/// Which SMBIOS tables a guest has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SmbiosPolicy {
    /// The host's, for the server's share, without free text of its maker or owner; none where the host has none to be read.
    #[default]
    Host,
    /// The same with that text.
    HostWithText,
    /// None.
    None,
}

/// A word that is no policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no choice of SMBIOS tables; write host, host-with-text or none")]
pub struct SmbiosPolicyError {
    /// The word.
    pub text: String,
}

/// Something to know of a server that starts all the same: what it has to do without, or has otherwise than asked or elsewhere than the host, although that was not
/// asked for, and what may keep its operating system from its root.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckWarning {
    /// The guest has no SMBIOS tables.
    #[error(
        "the guest will have no SMBIOS tables, so no name, serial number or onboard devices of the machine: {0}"
    )]
    Smbios(#[source] SmbiosError),
    /// A port of the host is at another address in the guest, whose firmware knows one root bus.
    #[error(
        "the port {host} will be at {guest} in the guest, whose firmware finds no root bus but 00; what is behind it keeps its address, so names by \
         address and slot stay"
    )]
    Port {
        /// Where it is on the host.
        host: Bdf,
        /// Where it will be.
        guest: Bdf,
    },
    /// Something on the boot disk was not read, or is not applied.
    #[error("the boot disk: {0}")]
    BootMenu(String),
    /// The kernel will not find a root file system behind this controller.
    #[error(
        "{controller} {device}: the initrd has no driver for it, nor has the kernel ({missing}); if the root file system is on it, the boot will end in the initrd's shell: rebuild the initrd with these modules"
    )]
    NoRootDriver {
        /// Its address on the host.
        device: Bdf,
        /// What it is.
        controller: StorageController,
        /// The modules.
        missing: String,
    },
    /// Whether the initrd has the drivers is not known.
    #[error("whether the initrd has the drivers of the lent storage controllers is not known: {0}")]
    InitrdUnread(String),
    /// It differs from the captured machine in something that may.
    #[error("{what}")]
    Differs {
        /// The class of the difference, its subject, both values, and what it does.
        what: String,
    },
    /// Whether it is the captured machine's device cannot be seen.
    #[error(
        "device {device}: no driver shows its serial number or hardware address, so it is taken for the captured machine's device by its ids"
    )]
    Assumed {
        /// Its address on the host.
        device: Bdf,
    },
}

/// The tables of a server as planned, if it is to have any; or why it has none.
pub(crate) type Identity = Option<Result<SmbiosTables, CheckWarning>>;

impl SmbiosPolicy {
    /// The tables of a server with this plan and these devices: this host's, or those of the machine that it is to be.
    pub(crate) fn tables(
        self,
        plan: &Plan,
        (topology, offers): (&Topology, &[Offer]),
        machine: Option<&Machine>,
    ) -> Identity {
        let free_text = match self {
            Self::None => return None,
            Self::Host => FreeText::LeftOut,
            Self::HostWithText => FreeText::Kept,
        };
        let vcpus = plan.vcpus();
        let mut share = SmbiosShare::new(plan.layout(), vcpus as u32);
        if let Some(machine) = machine {
            share.threads_per_core = machine.threads_per_core(vcpus);
            share.cores /= share.threads_per_core;
        }
        for (offer, guest) in offers.iter().zip(topology.places()) {
            let host = offer.spec().hardware();
            let known = match machine {
                None => host,
                // Its addresses are those that the tables have, in the one domain that they know.
                Some(machine) => host
                    .and_then(|host| machine.address_of(host))
                    .filter(|at| at.domain() == 0),
            };
            if let Some(known) = known {
                share.devices.entry(known).or_insert(*guest);
            }
        }
        let tables = match machine {
            None => Smbios::survey(),
            Some(machine) => machine.smbios()?,
        };
        let tables = tables.and_then(|host| host.for_guest(&share, free_text));
        Some(tables.map_err(CheckWarning::Smbios))
    }
}

impl FromStr for SmbiosPolicy {
    type Err = SmbiosPolicyError;

    fn from_str(text: &str) -> Result<Self, SmbiosPolicyError> {
        match text {
            "host" => Ok(Self::Host),
            "host-with-text" => Ok(Self::HostWithText),
            "none" => Ok(Self::None),
            _ => Err(SmbiosPolicyError {
                text: text.to_owned(),
            }),
        }
    }
}

impl fmt::Display for SmbiosPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Host => "host",
            Self::HostWithText => "host-with-text",
            Self::None => "none",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_is_said_as_it_is_shown() {
        for policy in [SmbiosPolicy::Host, SmbiosPolicy::HostWithText, SmbiosPolicy::None] {
            assert_eq!(policy.to_string().parse(), Ok(policy));
        }
        let refusal = "all".parse::<SmbiosPolicy>().unwrap_err().to_string();
        assert!(
            refusal.contains("\"all\"") && refusal.contains("host-with-text"),
            "{refusal}"
        );
    }

    #[test]
    fn a_warning_says_what_is_missing_and_why() {
        let none = Smbios::survey_at(std::path::Path::new("/nowhere")).unwrap_err();
        let warning = CheckWarning::Smbios(none).to_string();
        assert!(
            warning.contains("onboard devices") && warning.contains("/nowhere/sys/firmware"),
            "{warning}"
        );
    }
}
