//! The methods in the DSDT, run by ACPICA's own interpreter (`acpiexec`). Where it is missing, these tests say so and pass.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::process::Command;

use pellucid_image::{AcpiBoard, RootPort};
use pellucid_partition::Layout;

/// What evaluating `expression` on a small board's DSDT returns, as `acpiexec` writes it.
fn evaluate(expression: &str) -> Option<String> {
    evaluate_on(expression, |_| ())
}

/// The same, on a board that is changed before.
fn evaluate_on(expression: &str, change: fn(&mut AcpiBoard)) -> Option<String> {
    let mut board = AcpiBoard::new(&Layout::new(1 << 30, 39).unwrap(), vec![0, 1]);
    board.root_ports = vec![RootPort {
        address: "0000:00:01.0".parse().unwrap(),
        slot: Some(7),
        node: None,
    }];
    change(&mut board);
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("dsdt.aml");
    std::fs::write(&file, board.tables().unwrap().table(b"DSDT").unwrap()).unwrap();
    let command = format!("evaluate {expression}");
    let output = match Command::new("acpiexec")
        .args(["-b", &command])
        .arg(&file)
        .output()
    {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            eprintln!("acpiexec is not installed: no method was run (package acpica-tools)");
            return None;
        }
        output => String::from_utf8_lossy(&output.unwrap().stdout).into_owned(),
    };
    assert!(
        !output.contains("Warning") && !output.contains("Error") && !output.contains("AE_"),
        "{output}"
    );
    assert!(output.contains("returned object"), "{output}");
    let (_, value) = output.split_once("returned object").unwrap();
    Some(value.lines().skip(1).collect::<Vec<_>>().join("\n"))
}

/// Evaluates `_OSC` with query flag, support and control words.
fn os_control(uuid: &str, query: u8, control: u8) -> Option<String> {
    let words = format!("{query:02X} 00 00 00 1F 01 00 00 {control:02X} 01 00 00");
    evaluate(&format!("\\_SB.PCI0._OSC ({uuid}) 1 3 ({words})"))
}

const PCI_HOST: &str = "5B 4D DB 33 F7 1F 1C 40 96 57 74 41 C0 3D D7 66";
const PCI_DEVICE: &str = "D0 37 C9 E5 53 35 7A 4D 91 17 EA 4D 19 C3 43 4D";

#[test]
fn the_system_gets_the_express_capability_and_nothing_else() {
    let Some(all) = os_control(PCI_HOST, 0, 0xff) else {
        return;
    };
    assert!(
        all.contains("10 00 00 00 1F 01 00 00 10 00 00 00"),
        "masked: {all}"
    );
    let one = evaluate(&format!(
        "\\_SB.PCI0._OSC ({PCI_HOST}) 1 3 (01 00 00 00 1F 01 00 00 10 00 00 00)"
    ))
    .unwrap();
    assert!(
        one.contains("01 00 00 00 1F 01 00 00 10 00 00 00"),
        "granted as asked: {one}"
    );
    let foreign = os_control(PCI_DEVICE, 1, 0x10).unwrap();
    assert!(
        foreign.contains("05 00 00 00"),
        "an unknown UUID is said to be: {foreign}"
    );
}

#[test]
fn the_system_gets_hot_plug_where_there_is_a_slot_for_it() {
    let asked = format!("\\_SB.PCI0._OSC ({PCI_HOST}) 1 3 (00 00 00 00 1F 01 00 00 1F 00 00 00)");
    let Some(granted) = evaluate_on(&asked, |board| board.hot_plug = true) else {
        return;
    };
    assert!(
        granted.contains("10 00 00 00 1F 01 00 00 11 00 00 00"),
        "PCI Express native hot-plug and capability, no SHPC, PME, AER: {granted}"
    );
}

#[test]
fn the_system_is_told_to_keep_the_firmwares_assignment() {
    let function = |number| evaluate(&format!("\\_SB.PCI0._DSM ({PCI_DEVICE}) 1 {number} [0]"));
    let Some(keep) = function(5) else { return };
    assert!(keep.contains("[Integer] = 0000000000000000"), "{keep}");
    assert!(
        function(0).unwrap().contains("0000: 21"),
        "functions 0 and 5 are there"
    );
    assert!(function(6).unwrap().contains("0000: 00"), "no other is");
}

#[test]
fn slots_and_power_off_are_in_the_name_space() {
    let Some(slot) = evaluate("\\_SB.PCI0.RP08.SLOT._SUN") else {
        return;
    };
    assert!(slot.contains("[Integer] = 0000000000000007"), "{slot}");
    let off = evaluate("\\_S5").unwrap();
    assert!(
        off.contains(&format!("[Integer] = {:016X}", pellucid_image::SOFT_OFF_TYPE)),
        "{off}"
    );
}
