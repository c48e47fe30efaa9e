//! Whatever a host is like and whatever is asked of it: no group is lent in part, and force overrides the host's own use alone.
//! The oracle reads the inventory in its own way.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

use std::collections::BTreeSet;

use pellucid_partition::Bdf;
use pellucid_passthrough::{
    Admitted, Bridge, DriverState, Function, Group, Ids, Inventory, NodeState, Refusal, Sriov, Use,
    VfioState, Wanted,
};
use proptest::prelude::*;

/// What one function of a made-up host is, in small numbers.
#[derive(Debug, Clone)]
struct Made {
    class: usize,
    bridge: bool,
    driver: usize,
    only: usize,
    group: Option<u32>,
    /// Who it says is in its group besides those that are.
    claims: Vec<u8>,
    hidden: bool,
    above: Option<u8>,
    used: bool,
    virtuals: Vec<u8>,
    stranger: bool,
}

const CLASSES: [u32; 6] = [0x02_0000, 0x01_0802, 0x06_0400, 0x06_0000, 0x06_0100, 0x01_0400];
const DRIVERS: [Option<&str>; 7] = [
    None,
    Some("nvme"),
    Some("vmd"),
    Some("pcieport"),
    Some("pci-stub"),
    Some("vfio-pci"),
    Some("mlx5_vfio_pci"),
];

fn made() -> impl Strategy<Value = Made> {
    let kind = (
        0..CLASSES.len(),
        any::<bool>(),
        0..DRIVERS.len(),
        0..DRIVERS.len(),
    );
    let company = (
        prop::option::weighted(0.9, 0..4_u32),
        prop::collection::vec(0..14_u8, 0..2),
        prop::bool::weighted(0.1),
        prop::option::weighted(0.3, 0..12_u8),
    );
    let rest = (
        prop::bool::weighted(0.2),
        prop::collection::vec(0..14_u8, 0..2),
        prop::bool::weighted(0.05),
    );
    (kind, company, rest).prop_map(|(kind, company, rest)| Made {
        class: kind.0,
        bridge: kind.1,
        driver: kind.2,
        only: kind.3,
        group: company.0,
        claims: company.1,
        hidden: company.2,
        above: company.3,
        used: rest.0,
        virtuals: if kind.0 == 0 { rest.1 } else { Vec::new() },
        stranger: rest.2,
    })
}

fn at(number: u8) -> Bdf {
    Bdf::of_devfn(0, 1, number)
}

fn host(made: &[Made]) -> Inventory {
    let mut inventory = Inventory {
        vfio: VfioState {
            driver: true,
            container: NodeState::Usable,
        },
        ..Inventory::default()
    };
    for (number, one) in made.iter().enumerate() {
        let bdf = at(number as u8);
        let ids = Ids {
            vendor: 1,
            device: 1,
            class: CLASSES[one.class],
            revision: 0,
            subsystem: [0, 0],
        };
        let bridge = CLASSES[one.class] >> 8 == 0x0604 && one.bridge;
        let inside = |(other, made): (usize, &Made)| {
            let lists = made.group == one.group && !made.hidden;
            lists.then_some(at(other as u8))
        };
        let group = one.group.map(|id| Group {
            id,
            members: made
                .iter()
                .enumerate()
                .filter_map(inside)
                .chain(one.claims.iter().map(|other| at(*other)))
                .collect(),
            others: one
                .stranger
                .then(|| "ACPI0001:00".to_owned())
                .into_iter()
                .collect(),
            reserved: Vec::new(),
        });
        let mounted = Use::Swap {
            device: "sda".to_owned(),
        };
        let function = Function {
            driver: DriverState {
                bound: DRIVERS[one.driver].map(str::to_owned),
                only: DRIVERS[one.only].map(str::to_owned),
            },
            group,
            upstream: one.above.map(at).into_iter().collect(),
            bridge: bridge.then_some(Bridge {
                secondary: 1,
                subordinate: 1,
                express: None,
            }),
            sriov: Sriov {
                virtuals: one.virtuals.iter().map(|other| at(*other)).collect(),
                ..Sriov::default()
            },
            uses: one.used.then_some(mounted).into_iter().collect(),
            ..Function::bare(bdf, ids)
        };
        inventory.functions.insert(bdf, function);
    }
    inventory
}

/// Every address that anybody says is in the group.
fn everybody(inventory: &Inventory, group: u32) -> BTreeSet<Bdf> {
    let groups = inventory
        .functions
        .values()
        .filter_map(|f| Some((f.bdf, f.group.as_ref()?)));
    let inside = groups.filter(|(_, own)| own.id == group);
    inside
        .flat_map(|(bdf, own)| own.members.iter().copied().chain([bdf]))
        .collect()
}

fn is_bridge(function: &Function) -> bool {
    function.ids.class >> 16 == 6 || function.bridge.is_some()
}

fn parks(driver: &str) -> bool {
    ["pci-stub", "vfio-pci", "mlx5_vfio_pci"].contains(&driver)
}

fn harmless(function: &Function) -> bool {
    let bound = function.driver.bound.as_deref();
    match bound {
        Some(driver) if parks(driver) => true,
        None if function.driver.only.as_deref().is_some_and(parks) => true,
        None => {
            function.ids.class >> 8 == 0x0600
                || (function.ids.class >> 8 == 0x0604 && function.bridge.is_some())
        }
        Some("pcieport") => function.ids.class >> 8 == 0x0604 && function.bridge.is_some(),
        Some(_) => false,
    }
}

/// Whether it is behind an endpoint that has its domain.
fn behind(inventory: &Inventory, function: &Function, carriers: &BTreeSet<Bdf>) -> bool {
    let first = function
        .upstream
        .iter()
        .find(|above| inventory.function(**above).is_some_and(|above| !is_bridge(above)));
    first.is_some_and(|above| carriers.contains(above))
}

fn check(inventory: &Inventory, admitted: &[Admitted], forced: &BTreeSet<Bdf>) -> Result<(), TestCaseError> {
    let lent: BTreeSet<Bdf> = admitted.iter().map(|one| one.function().bdf).collect();
    prop_assert_eq!(lent.len(), admitted.len(), "one twice");
    let all: BTreeSet<Bdf> = inventory.functions.keys().copied().collect();
    for one in admitted {
        let function = one.function();
        prop_assert!(!is_bridge(function), "a bridge is lent: {:?}", function);
        prop_assert_eq!(
            function.group.as_ref().map(|group| group.id),
            Some(one.group()),
            "without an IOMMU"
        );
        prop_assert!(
            !behind(inventory, function, &all),
            "part of another's domain is lent: {:?}",
            function
        );
        prop_assert!(
            function.uses.is_empty() || forced.contains(&function.bdf),
            "in use: {:?}",
            function
        );
        prop_assert_eq!(one.overridden(), function.uses.as_slice());
        for member in everybody(inventory, one.group()) {
            let known = inventory.function(member);
            let fine = lent.contains(&member)
                || known.is_some_and(|member| harmless(member) || behind(inventory, member, &lent));
            prop_assert!(fine, "{} is lent beside {:?}", function.bdf, known.ok_or(member));
            if lent.contains(&member)
                && member != function.bdf
                && known.is_some_and(|f| f.group.as_ref().map(|g| g.id) == Some(one.group()))
            {
                prop_assert!(
                    one.companions().contains(&member),
                    "{} does not know {}",
                    function.bdf,
                    member
                );
            }
        }
        let strangers = inventory.functions.values().filter_map(|f| f.group.as_ref());
        let strangers = strangers
            .filter(|group| group.id == one.group())
            .any(|group| !group.others.is_empty());
        prop_assert!(!strangers, "beside no function");
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2048))]

    #[test]
    fn whatever_is_admitted_its_groups_are_whole_and_force_overrides_the_hosts_use_alone(
        made in prop::collection::vec(made(), 1..12),
        asked in prop::collection::vec((0..14_u8, any::<bool>()), 1..8),
    ) {
        let inventory = host(&made);
        let wanted = |with_force: bool| -> Vec<Wanted> {
            let one = |(number, force): &(u8, bool)| match *force && with_force {
                true => Wanted::new(at(*number)).by_force(),
                false => Wanted::new(at(*number)),
            };
            asked.iter().map(one).collect()
        };
        // What is asked for twice is refused; its first mention counts.
        let first = |number: u8| asked.iter().find(|(other, _)| *other == number).is_some_and(|(_, force)| *force);
        let forced: BTreeSet<Bdf> =
            asked.iter().map(|(number, _)| *number).filter(|number| first(*number)).map(at).collect();
        let plain = inventory.admit_together(&wanted(false));
        let outcome = inventory.admit_together(&wanted(true));
        match &outcome {
            Ok(admitted) => {
                prop_assert_eq!(admitted.len(), asked.len());
                let order: Vec<Bdf> = admitted.iter().map(|one| one.function().bdf).collect();
                let asked: Vec<Bdf> = asked.iter().map(|(number, _)| at(*number)).collect();
                prop_assert_eq!(order, asked);
                check(&inventory, admitted, &forced)?;
            }
            Err(refused) => {
                prop_assert!(!refused.refusals.is_empty());
                check(&inventory, &refused.others, &forced)?;
            }
        }
        // Without force the same is against each function by itself, and the host's use of what was forced. Of whole groups `check` tells.
        let against = |outcome: &Result<Vec<Admitted>, pellucid_passthrough::SetRefused>| -> Vec<Refusal> {
            let all = outcome.as_ref().err().map(|refused| refused.refusals.clone()).unwrap_or_default();
            let alone = |refusal: &Refusal| !matches!(refusal, Refusal::SharedGroup { .. });
            all.into_iter().filter(alone).collect()
        };
        let in_use = |refusal: &Refusal| matches!(refusal, Refusal::InUse { device, .. } if forced.contains(device));
        let mut without = against(&plain);
        without.retain(|refusal| !in_use(refusal));
        prop_assert_eq!(without, against(&outcome));
        for number in 0..made.len() as u8 {
            if let Ok(admitted) = inventory.admit(at(number)) {
                check(&inventory, &[admitted], &BTreeSet::new())?;
            }
        }
    }
}
