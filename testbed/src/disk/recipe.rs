//! What is on the demo disk, as a value: packages, identity, geometry and the installer's script.
//! Two equal recipes have equal digests, and the digest names the cached image.

use sha2::{Digest, Sha256};

use super::layout::Layout;
use super::proof::hex;

/// Everything that decides what a server disk contains, but for the versions that the package sources hold.
#[derive(Debug, Clone)]
pub struct Recipe {
    /// The Debian release.
    pub suite: String,
    /// The packages that are asked for; their dependencies follow, recommendations do not.
    pub packages: Vec<String>,
    /// The identifiers that an installer would draw at random and that are fixed here.
    pub identity: Identity,
    /// Host name, accounts and network, as the installing person chose them.
    pub choices: Choices,
    /// Where the partitions lie.
    pub layout: Layout,
    /// The installer's script, run with the new system's root as its argument.
    pub script: String,
    /// The moment that file times are clamped to, in seconds since 1970.
    pub epoch: u64,
}

/// The identifiers of a disk and of the system on it.
#[derive(Debug, Clone)]
pub struct Identity {
    /// GUID of the partition table.
    pub disk_guid: String,
    /// GUID of the EFI system partition.
    pub esp_guid: String,
    /// GUID of the root partition.
    pub root_guid: String,
    /// Volume serial number of the EFI system partition, as in `/dev/disk/by-uuid`.
    pub esp_id: String,
    /// UUID of the root file system.
    pub root_uuid: String,
    /// Seed of the root file system's directory hashes.
    pub hash_seed: String,
    /// The system's `/etc/machine-id`, also the name of its directory on the EFI system partition.
    pub machine_id: String,
}

/// What the person who installed the server typed.
#[derive(Debug, Clone)]
pub struct Choices {
    /// The host name.
    pub host_name: String,
    /// root's password.
    pub password: String,
    /// The password as `/etc/shadow` holds it.
    pub password_hash: String,
    /// The interface whose address is configured, by name.
    pub nic_name: String,
    /// The static address of that interface, with its prefix length.
    pub nic_address: String,
}

impl Recipe {
    /// The ordinary Debian 12 server of the demo: serial console, NVMe root by UUID, address by interface name.
    pub fn debian12() -> Recipe {
        Recipe {
            suite: "bookworm".into(),
            packages: PACKAGES.iter().map(|&package| package.into()).collect(),
            identity: Identity {
                disk_guid: "8F6C1E52-0B7A-4D19-9C53-6E2A41D7B901".into(),
                esp_guid: "8F6C1E52-0B7A-4D19-9C53-6E2A41D7B902".into(),
                root_guid: "8F6C1E52-0B7A-4D19-9C53-6E2A41D7B903".into(),
                esp_id: "5E1F-A7C3".into(),
                root_uuid: "b2d4f0a6-3c58-4e7b-9a11-7d60c2e8f514".into(),
                hash_seed: "1c0f9d3e-6a42-4b85-8e77-20b5d94c6a3f".into(),
                machine_id: "6f0d2b7c9e5a4184b3c1d8e7f2a69053".into(),
            },
            choices: Choices {
                host_name: "db1".into(),
                password: "debian".into(),
                password_hash: PASSWORD_HASH.into(),
                nic_name: "enp0s25".into(),
                nic_address: "192.168.10.20/24".into(),
            },
            layout: Layout::fit(127, 896),
            script: include_str!("setup.sh").into(),
            epoch: 1_700_000_000,
        }
    }

    /// The installer's script with the identity in front of it, ready to run.
    pub fn installer(&self) -> String {
        let settings = [
            ("HOST_NAME", &self.choices.host_name),
            ("PASSWORD_HASH", &self.choices.password_hash),
            ("NIC_NAME", &self.choices.nic_name),
            ("NIC_ADDRESS", &self.choices.nic_address),
            ("MACHINE_ID", &self.identity.machine_id),
            ("ROOT_UUID", &self.identity.root_uuid),
            ("ESP_ID", &self.identity.esp_id),
        ];
        let mut script = String::from("#!/bin/sh\n");
        for (name, value) in settings {
            script.push_str(&format!("{name}='{value}'\n"));
        }
        script + &self.script
    }

    /// A name for exactly this recipe: the SHA-256 of all of it, in hexadecimal.
    pub fn digest(&self) -> String {
        let mut hash = Sha256::new();
        hash.update(FORMAT);
        hash.update(format!("{self:?}"));
        hex(&hash.finalize())
    }
}

/// Changes when the way an image is put together changes although the recipe does not.
const FORMAT: &[u8] = b"server disk, 1\n";

/// `debian`, as `openssl passwd -6` writes it.
const PASSWORD_HASH: &str =
    "$6$c4Qw8RkT2nLz$.Fvh0089ZwZZtcnf78oDBBgvZoKbeNnO1p0x1dvwSENbBFbyUEjsPvCQWVNWsRUzEeOUH7OTZQNtbh5JSCV4f/";

/// An ordinary server's packages. `pciutils` and `nvme-cli` are there for a person to look around with.
const PACKAGES: [&str; 24] = [
    "apt",
    "dbus",
    "dosfstools",
    "e2fsprogs",
    "initramfs-tools",
    "iproute2",
    "iputils-ping",
    "kmod",
    "less",
    "libpam-systemd",
    "linux-image-amd64",
    "login",
    "netbase",
    "nvme-cli",
    "passwd",
    "pciutils",
    "procps",
    "systemd",
    "systemd-boot",
    "systemd-sysv",
    "tzdata",
    "udev",
    "vim-tiny",
    "zstd",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_recipes_have_one_digest_and_any_change_has_another() {
        let recipe = Recipe::debian12();
        assert_eq!(recipe.digest(), Recipe::debian12().digest());
        let mut renamed = recipe.clone();
        renamed.choices.host_name = "db2".into();
        assert_ne!(renamed.digest(), recipe.digest());
        let mut larger = recipe.clone();
        larger.layout = Layout::fit(127, 897);
        assert_ne!(larger.digest(), recipe.digest());
        let mut edited = recipe.clone();
        edited.script.push('\n');
        assert_ne!(edited.digest(), recipe.digest());
    }

    #[test]
    fn the_disk_stays_under_the_size_that_was_promised() {
        assert!(Recipe::debian12().layout.total < 12 * (1 << 30) / 10);
    }

    #[test]
    fn every_variable_of_the_script_is_set_before_it() {
        let installer = Recipe::debian12().installer();
        for name in [
            "HOST_NAME",
            "PASSWORD_HASH",
            "NIC_NAME",
            "NIC_ADDRESS",
            "MACHINE_ID",
            "ROOT_UUID",
            "ESP_ID",
        ] {
            let set = installer.find(&format!("{name}='")).expect("set");
            let used = installer.find(&format!("${name}")).expect("used");
            assert!(set < used, "{name}");
        }
    }

    #[test]
    fn nothing_on_the_disk_knows_of_this_project() {
        let recipe = Recipe::debian12();
        let text = recipe.installer() + &recipe.packages.join(" ");
        for word in ["pellucid", "testbed", "kvm", "vfio", "virt", "qemu"] {
            assert!(!text.to_lowercase().contains(word), "{word}");
        }
    }
}
