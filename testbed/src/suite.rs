//! The test suite in its tiers (see `cargo testbed test`).
