//! What people call the functions of a host: from the PCI ID database that its distribution keeps, where it has one.

use std::fmt;
use std::path::Path;

use pciid_parser::Database;
use serde::{Deserialize, Serialize};

use super::attribute::list;
use super::{Ids, class};

/// The names that a host's PCI ID database has. Read on its own: who lends a device needs no names.
#[derive(Debug, Default)]
pub struct Names {
    database: Option<Database>,
}

/// What people call a function. A name is missing where the host has no database, or the database not this device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Name {
    /// What kind of thing it is; known without a database.
    pub class: String,
    /// Who made it.
    pub vendor: Option<String>,
    /// Which of theirs it is.
    pub device: Option<String>,
    /// The board that it is on.
    pub board: Option<String>,
    ids: [u16; 2],
}

impl Names {
    /// Reads this host's database.
    #[must_use]
    pub fn survey() -> Names {
        Names::survey_at(Path::new("/"))
    }

    /// Reads the database of the host whose `usr` is below `root`. Without one, or with a damaged one, there are no names.
    #[must_use]
    pub fn survey_at(root: &Path) -> Names {
        let Some(path) = PLACES
            .iter()
            .map(|place| root.join(place))
            .find(|path| path.exists())
        else {
            return Names::default();
        };
        let read = list(&path).map_err(|error| error.to_string());
        // The reader takes the end of the last line for granted.
        let whole = read.map(|text| text + "\n");
        let parsed =
            whole.and_then(|text| Database::parse_db(text.as_bytes()).map_err(|error| error.to_string()));
        let database = parsed
            .map_err(
                |error| tracing::warn!(path = %path.display(), error, "no names from the PCI ID database"),
            )
            .ok();
        Names { database }
    }

    /// Whether there is a database at all.
    #[must_use]
    pub fn known(&self) -> bool {
        self.database.is_some()
    }

    /// What people call a function of these ids.
    #[must_use]
    pub fn of(&self, ids: Ids) -> Name {
        let [maker, board] = ids.subsystem;
        let found = self
            .database
            .as_ref()
            .map(|database| database.get_device_info(ids.vendor, ids.device, maker, board))
            .unwrap_or_default();
        Name {
            class: class::word(ids.class).to_owned(),
            vendor: found.vendor_name.map(str::to_owned),
            device: found.device_name.map(str::to_owned),
            board: found.subdevice_name.map(str::to_owned),
            ids: [ids.vendor, ids.device],
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [vendor, device] = self.ids;
        write!(f, "{}: ", self.class)?;
        match (&self.vendor, &self.device) {
            (Some(maker), Some(name)) => write!(f, "{} {name}", short(maker)),
            (Some(maker), None) => write!(f, "{} {vendor:04x}:{device:04x}", short(maker)),
            (None, _) => write!(f, "{vendor:04x}:{device:04x}"),
        }
    }
}

/// A maker's name without its legal form: what is in brackets at its end is what people say.
fn short(maker: &str) -> &str {
    if let Some((_, spoken)) = maker.strip_suffix(']').and_then(|rest| rest.rsplit_once('[')) {
        return spoken;
    }
    let forms = [
        ", Inc.",
        " Inc.",
        " Corporation",
        " Corp.",
        " Co., Ltd.",
        ", Ltd.",
        " Ltd.",
        " Limited",
    ];
    forms
        .iter()
        .find_map(|form| maker.strip_suffix(form))
        .unwrap_or(maker)
}

/// Where distributions keep the database, below the root.
const PLACES: [&str; 3] = [
    "usr/share/hwdata/pci.ids",
    "usr/share/misc/pci.ids",
    "run/current-system/sw/share/pci.ids",
];
