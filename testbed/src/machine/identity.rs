//! What a machine is called, as options of the emulator's command line.

use crate::machine::command::{Line, escaped};
use crate::machine::{Device, Identity};

impl Identity {
    /// Has the emulator's SMBIOS say it. A card that is not there is not onboard.
    pub(crate) fn tell(&self, line: &mut Line, devices: &[Device]) {
        let (serial, text) = (escaped(self.serial.as_ref()), escaped(self.free_text.as_ref()));
        for fields in [
            "type=0,vendor=Pellucid firmware,version=1.0,date=11/26/2026".to_owned(),
            format!(
                "type=1,manufacturer=Pellucid,product=Emulated server,version=1,serial={serial},uuid={UUID},sku=L1,family=Testbed"
            ),
            format!("type=2,manufacturer=Pellucid,product=Board,version=1,serial=B{serial},asset=rack 7"),
            format!("type=3,manufacturer=Pellucid,version=1,serial=C{serial},asset=rack 7"),
            format!("type=11,value={text}"),
        ] {
            line.option("-smbios", fields);
        }
        for (number, place) in (1..).zip(&self.onboard) {
            if let Some(index) = devices.iter().position(|device| device.place() == *place) {
                let fields = format!("kind=ethernet,instance={number},designation=Onboard NIC {number}");
                line.option("-smbios", format!("type=41,{fields},pcidev=device{index}"));
            }
        }
    }
}

const UUID: &str = "5e11c1d0-0000-4000-8000-00000000001a";
