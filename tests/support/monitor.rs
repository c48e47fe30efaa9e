//! The emulated server's monitor, reached from within it: errors are injected into its devices as a person would pull a cable.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

/// A connection; one at a time.
pub(crate) struct Monitor {
    port: BufReader<File>,
    asked: u64,
}

impl Monitor {
    #[track_caller]
    pub(crate) fn open() -> Self {
        let port = File::options().read(true).write(true).open(port()).unwrap();
        let mut monitor = Self {
            port: BufReader::new(port),
            // What an earlier connection left unread has other numbers.
            asked: u64::from(std::process::id()) << 32,
        };
        // Refused to all but the first who connects, which does not matter.
        let _negotiated_already = monitor.ask("qmp_capabilities", json!({}));
        monitor
    }

    /// Injects an error into the function at `address`, by the emulator's name for it.
    #[track_caller]
    pub(crate) fn injects(&mut self, address: &str, error: &str) {
        let buses = self.ask("query-pci", json!({}));
        let name = device(&buses["return"], address).unwrap_or_else(|| panic!("{address} is not in {buses}"));
        let line = format!("pcie_aer_inject_error {name} {error}");
        let said = self.ask("human-monitor-command", json!({ "command-line": line }));
        let said = said["return"].as_str().unwrap_or_default();
        assert!(said.starts_with("OK"), "{line}: {said}");
    }

    fn ask(&mut self, command: &str, arguments: Value) -> Value {
        self.asked += 1;
        let request = json!({ "execute": command, "arguments": arguments, "id": self.asked });
        self.port
            .get_mut()
            .write_all(format!("{request}\n").as_bytes())
            .unwrap();
        loop {
            let mut line = String::new();
            assert!(self.port.read_line(&mut line).unwrap() > 0, "the monitor is gone");
            let answer: Value = serde_json::from_str(&line).unwrap();
            if answer["id"] == self.asked {
                return answer;
            }
        }
    }
}

fn port() -> PathBuf {
    let ports = std::fs::read_dir("/sys/class/virtio-ports").unwrap();
    let is = |path: &Path| {
        std::fs::read_to_string(path.join("name")).is_ok_and(|name| name.trim() == "pellucid.monitor")
    };
    let port = ports
        .flatten()
        .map(|entry| entry.path())
        .find(|path| is(path))
        .unwrap();
    Path::new("/dev").join(port.file_name().unwrap())
}

/// The emulator's name for the function at `address`, below any of `buses`.
fn device(buses: &Value, address: &str) -> Option<String> {
    let devices = buses
        .as_array()?
        .iter()
        .flat_map(|bus| bus["devices"].as_array().into_iter().flatten());
    let mut found = None;
    for entry in devices {
        let number = |name: &str| entry[name].as_u64().unwrap_or_default();
        let own = format!(
            "0000:{:02x}:{:02x}.{:x}",
            number("bus"),
            number("slot"),
            number("function")
        );
        if own == address {
            found = Some(entry["qdev_id"].as_str()?.to_owned());
        }
        let below = Value::Array(vec![entry["pci_bridge"].clone()]);
        found = found.or_else(|| device(&below, address));
    }
    found
}
