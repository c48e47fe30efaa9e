//! The part of the command line that is about firmware.

use std::path::{Path, PathBuf};

use clap::Args;
use pellucid::{FirmwareSource, Source};
use serde_json::json;

#[derive(Args)]
pub(crate) struct FirmwareArguments {
    /// File that keeps the firmware's variables, made from the template if it is not there; without it they are forgotten at the end
    #[arg(long, requires = "firmware", conflicts_with_all = ["kernel", "boot_disk"], value_name = "FILE")]
    vars: Option<PathBuf>,
    /// OVMF_VARS file that the first variables come from, if it is not beside the code; only read
    #[arg(long, requires = "firmware", conflicts_with_all = ["kernel", "boot_disk"], value_name = "FILE")]
    vars_template: Option<PathBuf>,
    /// Program that the firmware is to start first, such as \\EFI\\debian\\shimx64.efi, on any file system that it finds
    #[arg(long, requires = "firmware", conflicts_with_all = ["kernel", "boot_disk"], value_name = "PATH")]
    boot_file: Option<String>,
}

impl FirmwareArguments {
    /// Booting by the firmware with this code.
    pub(crate) fn source(&self, code: &Path) -> Source {
        Source::Firmware(FirmwareSource {
            code: code.to_owned(),
            variables: self.vars.clone(),
            template: self.vars_template.clone(),
            boot_file: self.boot_file.clone(),
        })
    }
}

/// The firmware of a server that has one, for people.
pub(crate) fn print(source: &Source) {
    let Source::Firmware(firmware) = source else {
        return;
    };
    say!("  boots    by firmware {}", firmware.code.display());
    match &firmware.variables {
        Some(path) if path.exists() => say!("  vars     {}", path.display()),
        Some(path) => say!("  vars     {}, to be made", path.display()),
        None => say!("  vars     forgotten when the server ends"),
    }
    if let Some(file) = &firmware.boot_file {
        say!("  starts   {file} first");
    }
}

/// The same for programs.
pub(crate) fn as_json(source: &Source) -> serde_json::Value {
    match source {
        Source::Firmware(firmware) => json!({ "code": firmware.code, "vars": firmware.variables,
            "vars_template": firmware.template, "boot_file": firmware.boot_file }),
        _ => serde_json::Value::Null,
    }
}
