//! The host's console, on a serial port or a screen, and the connectors that show something.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::{Use, members};
use crate::error::SurveyError;
use crate::inventory::attribute::{list, names, text};

/// Where a host's consoles and pictures are.
pub(super) struct Consoles {
    /// Serial consoles and the console's frame buffer, with their places in sysfs.
    consoles: Vec<(String, PathBuf)>,
    /// The console is on the screen that the firmware set up, whichever driver draws it.
    boot_screen: Option<String>,
    /// Connectors that are on.
    lit: Vec<(String, PathBuf)>,
}

impl Consoles {
    pub(super) fn read(root: &Path) -> Result<Consoles, SurveyError> {
        let listed = list(&root.join("proc/consoles"))?;
        let serial: BTreeSet<&str> = listed
            .lines()
            .filter_map(|line| line.split_whitespace().next())
            .collect();
        let mut consoles: Vec<(String, PathBuf)> = members(&root.join("sys/class/tty"))
            .filter(|(name, _)| serial.contains(name.as_str()))
            .collect();
        let virtual_consoles = root.join("sys/class/vtconsole");
        let draws = |kind: &str| {
            names(&virtual_consoles).iter().any(|console| {
                let console = virtual_consoles.join(console);
                text(&console, "bind").as_deref() == Some("1")
                    && text(&console, "name").is_some_and(|name| name.contains(kind))
            })
        };
        let mut boot_screen = draws("VGA+").then(|| "vga".to_owned());
        if draws("frame buffer") {
            // The first frame buffer has the consoles until somebody moves them (con2fbmap).
            let first =
                members(&root.join("sys/class/graphics")).find(|(name, _)| name == FIRST_FRAME_BUFFER);
            match first {
                Some((name, place)) if on_function(&place) => consoles.push((name, place)),
                Some((name, _)) => boot_screen = Some(name),
                None => {}
            }
        }
        let lit = members(&root.join("sys/class/drm"))
            .filter(|(_, place)| text(place, "enabled").as_deref() == Some("enabled"))
            .collect();
        Ok(Consoles {
            consoles,
            boot_screen,
            lit,
        })
    }

    /// Adds what of it is below a function's directory.
    pub(super) fn of(&self, function: &Path, uses: &mut BTreeSet<Use>) {
        let below = |list: &[(String, PathBuf)]| -> Vec<String> {
            let inside = list.iter().filter(|(_, place)| place.starts_with(function));
            inside.map(|(name, _)| name.clone()).collect()
        };
        uses.extend(
            below(&self.consoles)
                .into_iter()
                .map(|device| Use::Console { device }),
        );
        uses.extend(
            below(&self.lit)
                .into_iter()
                .map(|connector| Use::Display { connector }),
        );
        if let Some(device) = &self.boot_screen
            && text(function, "boot_vga").as_deref() == Some("1")
        {
            uses.insert(Use::Console {
                device: device.clone(),
            });
        }
    }
}

fn on_function(place: &Path) -> bool {
    !crate::inventory::attribute::functions_above(place).is_empty()
}

const FIRST_FRAME_BUFFER: &str = "fb0";
