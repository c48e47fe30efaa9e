//! A guest whose partition goes from shared to dedicated CPUs and back while it runs finds the same machine all the time.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod machine;

use machine::{Machine, PATIENCE, Recorder, take};
use pellucid_partition::{Cap, CpuIsolation, CpuShare, CpuTerms};

#[test]
fn switching_between_dedicated_and_shared_changes_nothing_that_the_guest_sees() {
    // mov edx, 0x500; again: leaf 1 without the APIC id's CPU-dependent part is all the same: eax, ebx, ecx, edx summed up
    let code = [
        &[0xbf, 0x00, 0x00, 0x00, 0x00][..],               // mov edi, 0
        &[0xb8, 0x01, 0x00, 0x00, 0x00, 0x31, 0xc9],       // again: mov eax, 1; xor ecx, ecx
        &[0x0f, 0xa2, 0x01, 0xd8, 0x01, 0xc8, 0x01, 0xd0], // cpuid; add eax, ebx; add eax, ecx; add eax, edx
        &[0x66, 0xba, 0x00, 0x05, 0xef],                   // mov dx, 0x500; out dx, eax
        &[0x47, 0x89, 0xf8, 0xef],                         // inc edi; mov eax, edi; out dx, eax
        &[0xeb, 0xe6],                                     // jmp again
    ]
    .concat();
    let (port, written) = Recorder::new([]);
    let machine = Machine::new(1, &code).with_port(0x500, 4, port);
    let cpus = machine.partition.reserved().cpus().clone();
    let (running, events) = machine.run();
    let first = take(&written, 2);
    let mut count = first[1];
    let mut proceeds = |rounds: usize| {
        for pair in take(&written, rounds * 2).chunks(2) {
            count += 1;
            assert_eq!(
                (pair[0], pair[1]),
                (first[0], count),
                "CPUID, and a count without a gap"
            );
        }
    };
    for _ in 0..5 {
        assert_eq!(cpus.dedicate(&[1]).unwrap().level, CpuIsolation::Isolated);
        proceeds(50);
        let share = CpuShare {
            cap: Some(Cap::percent(60).unwrap()),
            ..CpuShare::default()
        };
        cpus.share(share, Some("pool")).unwrap();
        proceeds(50);
        cpus.share(CpuShare::default(), None).unwrap();
        assert!(matches!(cpus.terms(), CpuTerms::Shared { group: None, .. }));
        proceeds(50);
    }
    assert!(events.try_recv().is_err());
    let _ = running.stop(PATIENCE).unwrap();
}
