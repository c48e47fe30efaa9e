//! A device's configuration space and a guest's writes to it, held to the rules of the property test.
#![no_main]

#[path = "../../passthrough/tests/config_rules/mod.rs"]
mod config_rules;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| config_rules::hold(bytes));
