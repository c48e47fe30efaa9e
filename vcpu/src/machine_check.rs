//! How many banks for hardware errors the guest's processors have: as many as the host's.
//!
//! KVM's own choice is 32, and Linux visits each of them six times while it boots, an exit each time.

use std::path::Path;

use kvm_ioctls::VcpuFd;

use crate::sys::machine_check::fix_capability;

/// The host's banks; none where the host does not tell.
pub(crate) fn banks_of_host() -> Option<u8> {
    banks_at(Path::new("/sys/devices/system/machinecheck/machinecheck0"))
}

/// Gives `vcpu` that many banks. A KVM that refuses leaves it with its own number, which costs exits only.
pub(crate) fn limit_banks(vcpu: &VcpuFd, banks: u8) {
    if let Err(error) = fix_capability(vcpu, u64::from(banks)) {
        tracing::debug!(%error, banks, "KVM keeps its own number of error banks");
    }
}

/// Linux has an attribute `bankN` for each.
fn banks_at(folder: &Path) -> Option<u8> {
    let is_bank = |name: &str| {
        let number = name.strip_prefix("bank");
        number.is_some_and(|number| number.parse::<u8>().is_ok())
    };
    let entries = std::fs::read_dir(folder).ok()?.flatten();
    let banks = entries.filter(|entry| entry.file_name().to_str().is_some_and(is_bank));
    u8::try_from(banks.count()).ok().filter(|&banks| banks > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn banks_are_counted_and_other_attributes_are_not() {
        let folder = std::env::temp_dir().join(format!("pellucid-banks-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        for name in ["bank0", "bank1", "bank10", "bankrupt", "tolerant"] {
            std::fs::write(folder.join(name), "").unwrap();
        }
        let counted = banks_at(&folder);
        std::fs::remove_dir_all(&folder).unwrap();
        assert_eq!(counted, Some(3));
        assert_eq!(
            banks_at(&folder),
            None,
            "a host without machine checks does not tell"
        );
    }
}
