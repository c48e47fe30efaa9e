//! What is looked at to say that a function is well. All of it is looked at, also after a fault.

use std::io;
use std::thread;
use std::time::{Duration, Instant};

use super::registers::{
    COMMAND, DECODING_AND_MASTER, FIRST_BAR, LINE_ASSERTED, LINE_OFF, REVISION_AND_CLASS, Registers, STATUS,
};
use super::report::{Check, Finding};
use crate::capabilities::{Capabilities, ID_MSI, ID_MSIX};
use crate::inventory::{Bar, BarKind, Function};
use crate::transport::RegionIndex;

/// Every check, in order. One that does not answer within `answer` is not asked more.
pub(super) fn look(registers: &Registers, function: &Function, answer: Duration) -> Vec<Finding> {
    let checks: [(Check, Looked); 6] = [
        (Check::Answers, &|| answers(registers, answer)),
        (Check::Identity, &|| identity(registers, function)),
        (Check::Bars, &|| bars(registers, function)),
        (Check::Messages, &|| messages(registers)),
        (Check::Line, &|| line(registers)),
        (Check::Stops, &|| stops(registers)),
    ];
    let mut findings = Vec::new();
    for (check, looked) in checks {
        let fault = looked().err();
        let silent = check == Check::Answers && fault.is_some();
        findings.push(Finding { check, fault });
        if silent {
            break;
        }
    }
    findings
}

type Looked<'l> = &'l dyn Fn() -> Result<(), String>;

/// Not all ones, which is what is read where nothing answers. A function that was reset may take its time.
fn answers(registers: &Registers, limit: Duration) -> Result<(), String> {
    let begun = Instant::now();
    loop {
        let read = registers.dword(REVISION_AND_CLASS);
        match read {
            Ok(word) if word != u32::MAX => return Ok(()),
            _ if begun.elapsed() < limit => thread::sleep(Duration::from_millis(5)),
            Ok(_) => return Err(format!("it answers all ones for {} ms", limit.as_millis())),
            Err(error) => return Err(unread(error)),
        }
    }
}

fn identity(registers: &Registers, function: &Function) -> Result<(), String> {
    let wanted = u32::from(function.ids.device) << 16 | u32::from(function.ids.vendor);
    // A virtual function has none of its own: VFIO answers for it.
    let found = match registers.is_virtual() {
        true => {
            let mut ids = [0; 4];
            let read = registers.transport().read(RegionIndex::Config, 0, &mut ids);
            read.map(|()| u32::from_le_bytes(ids))
        }
        false => registers.dword(0),
    };
    let found = found.map_err(unread)?;
    if found != wanted {
        return Err(format!("it answers {found:08x} instead of {wanted:08x}"));
    }
    let class = registers.dword(REVISION_AND_CLASS).map_err(unread)? >> 8;
    match class == function.ids.class {
        true => Ok(()),
        false => Err(format!(
            "it is of class {class:06x} instead of {:06x}",
            function.ids.class
        )),
    }
}

fn bars(registers: &Registers, function: &Function) -> Result<(), String> {
    for bar in function.bars.iter().filter(|_| !registers.is_virtual()) {
        let found = address(registers, bar).map_err(unread)?;
        if found != bar.address {
            let (index, wanted) = (bar.index, bar.address);
            return Err(format!("BAR {index} is at {found:#x} instead of {wanted:#x}"));
        }
    }
    Ok(())
}

fn address(registers: &Registers, bar: &Bar) -> io::Result<u64> {
    let at = FIRST_BAR + u16::from(bar.index) * 4;
    let low = u64::from(registers.dword(at)?);
    Ok(match bar.kind {
        BarKind::Io => low & !0x3,
        BarKind::Memory32 { .. } => low & !0xf,
        BarKind::Memory64 { .. } => low & !0xf | u64::from(registers.dword(at + 4)?) << 32,
    })
}

fn messages(registers: &Registers) -> Result<(), String> {
    let capabilities = Capabilities::walk(&registers.header().map_err(unread)?);
    for (id, bit, name) in [(ID_MSIX, 0x8000, "MSI-X"), (ID_MSI, 1, "MSI")] {
        if let Some(at) = capabilities.find(id)
            && registers.word(at + 2).map_err(unread)? & bit != 0
        {
            return Err(format!("{name} is still enabled"));
        }
    }
    Ok(())
}

fn line(registers: &Registers) -> Result<(), String> {
    let (command, status) = (registers.word(COMMAND), registers.word(STATUS));
    let asserted = status.map_err(unread)? & LINE_ASSERTED != 0;
    match asserted && command.map_err(unread)? & LINE_OFF == 0 {
        true => Err("its interrupt line is asserted and cannot be turned off".to_owned()),
        false => Ok(()),
    }
}

fn stops(registers: &Registers) -> Result<(), String> {
    let command = registers.word(COMMAND).map_err(unread)?;
    match command & DECODING_AND_MASTER {
        0 => Ok(()),
        on if on & 4 != 0 => Err("its bus master bit does not go off".to_owned()),
        _ => Err("it does not stop decoding its BARs".to_owned()),
    }
}

fn unread(error: io::Error) -> String {
    format!("its configuration space cannot be read: {error}")
}
