//! Servers that lie, stall and die: each is an error that names the socket, the act and what is wrong, and nothing waits or panics.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

mod served;

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use pellucid_passthrough::{IrqKind, RegionIndex, Served, VfioUserError};
use served::{
    DEVICE_INFO, Device, IRQ_INFO, LONG, REGION_INFO, REGION_READ, REGION_WRITE, RESET, Reply, SET_IRQS,
    Then, VERSION, connect, sealed, sparse,
};

/// Connects to a server whose answer to `command` is spoiled, for a region or interrupt kind only that of `index`.
fn spoiled(
    command: u16,
    index: Option<u32>,
    spoil: impl Fn(&mut Reply) + Send + 'static,
) -> Result<Served, VfioUserError> {
    let mut device = Device::new();
    connect(LONG, move |asked| {
        let mut reply = device.answer(asked);
        if asked.command == command && index.is_none_or(|index| asked.u32(8) == index) {
            spoil(&mut reply);
        }
        Some(reply)
    })
}

/// The refusal of such a server, which says what is wrong with it.
#[track_caller]
fn refused(command: u16, index: Option<u32>, what: &str, spoil: impl Fn(&mut Reply) + Send + 'static) {
    let error = spoiled(command, index, spoil).err().unwrap();
    let text = error.to_string();
    assert!(text.starts_with("vfio-user socket /run/engine.sock: "), "{text}");
    assert!(
        text.contains(what) && text.contains("; ") && !text.contains('\n'),
        "{text}"
    );
}

/// What an access says when the server spoils its answer, and that nothing is asked after that.
#[track_caller]
fn access_fails(what: &str, spoil: impl Fn(&mut Reply) + Send + 'static) {
    let served = spoiled(REGION_READ, Some(0), spoil).unwrap();
    let read = || served.transport().read(RegionIndex::Bar(0), 0, &mut [0; 4]);
    let text = read().unwrap_err().to_string();
    assert!(text.contains("REGION_READ") && text.contains(what), "{text}");
    let text = read().unwrap_err().to_string();
    assert!(text.contains("given up"), "{text}");
    let text = served.transport().reset().unwrap_err().to_string();
    assert!(text.contains("DEVICE_RESET was not asked"), "{text}");
}

#[test]
fn a_short_header_is_the_end_of_the_connection() {
    refused(
        DEVICE_INFO,
        None,
        "ended the connection during DEVICE_GET_INFO",
        |reply| {
            reply.bytes.truncate(9);
            reply.then = Then::Close;
        },
    );
}

#[test]
fn an_answer_to_another_message_is_refused() {
    refused(VERSION, None, "answers message 7", |reply| reply.bytes[0] = 7);
    access_fails("answers message", |reply| reply.bytes[1] ^= 0x40);
}

#[test]
fn an_answer_to_another_command_is_refused() {
    refused(DEVICE_INFO, None, "answers command 13", |reply| {
        reply.bytes[2] = 13
    });
}

#[test]
fn a_command_where_a_reply_is_due_is_refused() {
    refused(DEVICE_INFO, None, "type 0", |reply| reply.put(8, 0));
}

#[test]
fn a_size_too_small_for_the_header_is_refused() {
    refused(VERSION, None, "15 bytes", |reply| reply.put(4, 15));
    refused(DEVICE_INFO, None, "0 bytes", |reply| reply.put(4, 0));
}

#[test]
fn a_size_too_small_for_the_answer_is_refused() {
    refused(DEVICE_INFO, None, "31 bytes instead of 32", |reply| {
        reply.put(4, 31)
    });
    access_fails("32 bytes instead of 36 to 36", |reply| reply.put(4, 32));
}

#[test]
fn a_size_of_4_gib_is_refused_before_a_byte_of_it_is_awaited() {
    for command in [VERSION, DEVICE_INFO, REGION_INFO, IRQ_INFO] {
        refused(command, None, "4294967295 bytes", |reply| reply.put(4, u32::MAX));
    }
    access_fails("4294967295 bytes", |reply| reply.put(4, u32::MAX));
}

#[test]
fn a_refusal_with_an_odd_number_is_a_refusal_and_the_connection_lives() {
    for (number, what) in [
        (0, "error number 0"),
        (22, "Invalid argument"),
        (u32::MAX, "error number 4294967295"),
    ] {
        let refuse = move |reply: &mut Reply| {
            reply.bytes.truncate(16);
            reply.put(4, 16);
            reply.put(8, 0x21);
            reply.put(12, number);
        };
        refused(DEVICE_INFO, None, what, refuse);
        let served = spoiled(RESET, None, refuse).unwrap();
        let text = served.transport().reset().unwrap_err().to_string();
        assert!(
            text.contains("refused DEVICE_RESET") && text.contains(what),
            "{text}"
        );
        served
            .transport()
            .read(RegionIndex::Bar(0), 0, &mut [0; 4])
            .unwrap();
    }
}

#[test]
fn a_refusal_that_brings_a_gibibyte_is_refused() {
    refused(DEVICE_INFO, None, "1073741824 bytes", |reply| {
        reply.put(8, 0x21);
        reply.put(4, 1 << 30);
    });
}

#[test]
fn a_capability_list_that_loops_is_refused() {
    refused(REGION_INFO, Some(2), "leads to 32, after 32", |reply| {
        reply.bytes.truncate(48);
        reply.append(&sparse(32, &[(0x1000, 0x1000)]));
    });
}

#[test]
fn a_capability_list_that_leads_outside_is_refused() {
    for at in [8, 31, 4000, u32::MAX] {
        refused(REGION_INFO, Some(2), "capability list leads to", move |reply| {
            reply.put(28, at)
        });
    }
}

#[test]
fn a_mappable_area_outside_its_region_is_refused() {
    for area in [
        (0xf000, 0x2000),
        (u64::MAX - 0xfff, 0x1000),
        (0x20000, 0x1000),
        (0x1000, 0),
    ] {
        refused(REGION_INFO, Some(2), "is not inside", move |reply| {
            reply.bytes.truncate(48);
            reply.append(&sparse(0, &[area]));
        });
    }
}

#[test]
fn mappable_areas_that_overlap_are_refused() {
    refused(REGION_INFO, Some(2), "overlap", |reply| {
        reply.bytes.truncate(48);
        reply.append(&sparse(0, &[(0x4000, 0x2000), (0x1000, 0x4000)]));
    });
}

#[test]
fn more_mappable_areas_than_the_answer_has_room_for_are_refused() {
    refused(REGION_INFO, Some(2), "do not fit", |reply| {
        reply.put(16 + 40, u32::MAX)
    });
}

#[test]
fn too_many_regions_or_kinds_of_interrupt_are_refused() {
    for (at, what) in [(24, "regions"), (28, "kinds of interrupt")] {
        for count in [0, 2, 33, u32::MAX] {
            refused(DEVICE_INFO, None, what, move |reply| reply.put(at, count));
        }
    }
}

#[test]
fn more_interrupts_than_a_function_can_have_are_refused() {
    for (kind, count) in [(0, 2), (1, 33), (2, 2049), (3, 2), (4, u32::MAX)] {
        refused(IRQ_INFO, Some(kind), "interrupts of kind", move |reply| {
            reply.put(28, count)
        });
    }
}

#[test]
fn an_answer_about_another_region_or_interrupt_is_refused() {
    refused(REGION_INFO, Some(3), "about region 9", |reply| reply.put(24, 9));
    refused(IRQ_INFO, Some(1), "of kind 2", |reply| reply.put(24, 2));
    access_fails("of region 5", |reply| reply.put(24, 5));
    access_fails("8 bytes at", |reply| reply.put(28, 8));
}

#[test]
fn a_region_larger_than_any_address_space_is_refused() {
    refused(REGION_INFO, Some(0), "bytes are more", |reply| {
        reply.put_u64(32, u64::MAX)
    });
}

#[test]
fn a_configuration_space_of_no_known_size_is_refused() {
    for size in [0, 64, 4095, 1 << 40] {
        refused(REGION_INFO, Some(7), "configuration space", move |reply| {
            reply.put_u64(32, size)
        });
    }
}

#[test]
fn a_descriptor_that_is_missing_leaves_the_region_trapped() {
    let served = spoiled(REGION_INFO, Some(2), |reply| reply.fds.clear()).unwrap();
    let info = served.transport().region(RegionIndex::Bar(2)).unwrap();
    assert!(info.mappable.is_empty() && info.size > 0);
    assert!(
        served
            .transport()
            .map(RegionIndex::Bar(2), 0x1000, 0x1000)
            .is_err()
    );
}

#[test]
fn a_descriptor_too_many_is_refused_and_closed() {
    let more = |count: usize| {
        move |reply: &mut Reply| {
            reply.fds = (0..count).map(|_| OwnedFd::from(sealed(4096))).collect();
        }
    };
    let open = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let before = open();
    refused(DEVICE_INFO, None, "descriptors", more(1));
    refused(REGION_INFO, Some(2), "descriptors", more(2));
    refused(REGION_INFO, Some(2), "descriptors", more(40));
    let begun = Instant::now();
    // Other tests of this process open and close descriptors too.
    while open() > before + 60 && begun.elapsed() < LONG {
        std::thread::yield_now();
    }
    assert!(open() <= before + 60, "{} open, {before} before", open());
}

#[test]
fn a_version_that_is_not_spoken_here_is_refused() {
    refused(VERSION, None, "version 1.0", |reply| reply.put(16, 1));
    refused(VERSION, None, "version 0.9", |reply| reply.put(16, 9 << 16));
}

#[test]
fn capabilities_that_no_device_can_live_with_are_refused() {
    let say = |text: &'static str| {
        move |reply: &mut Reply| {
            reply.bytes.truncate(20);
            reply.append(text.as_bytes());
        }
    };
    let refuse = |what: &str, text| refused(VERSION, None, what, say(text));
    refuse(
        "max_data_xfer_size is 0",
        "{\"capabilities\":{\"max_data_xfer_size\":0}}\0",
    );
    refuse("max_msg_fds is 0", "{\"capabilities\":{\"max_msg_fds\":0}}\0");
    refuse("not readable", "{\"capabilities\":{\"max_msg_fds\":-1}}\0");
    refuse(
        "not readable",
        "{\"capabilities\":{\"max_msg_fds\":99999999999}}\0",
    );
    refuse("not readable", "nonsense");
    for silent in ["", "\0", "{}\0", "{\"capabilities\":{\"more\":[1]}}"] {
        drop(spoiled(VERSION, None, say(silent)).unwrap());
    }
}

#[test]
fn silence_is_bounded_and_the_device_is_not_asked_again() {
    let limit = Duration::from_millis(200);
    let begun = Instant::now();
    let error = connect(limit, |_| None).err().unwrap().to_string();
    assert!(error.contains("VERSION within 200 ms"), "{error}");
    let mut device = Device::new();
    let served = connect(limit, move |asked| match asked.command {
        REGION_READ if asked.u32(8) == 0 => None,
        _ => Some(device.answer(asked)),
    })
    .unwrap();
    let read = || {
        served
            .transport()
            .read(RegionIndex::Bar(0), 0, &mut [0; 4])
            .unwrap_err()
    };
    assert_eq!(read().kind(), std::io::ErrorKind::TimedOut);
    let asked_again = Instant::now();
    for _ in 0..1000 {
        assert!(read().to_string().contains("given up"));
    }
    assert!(asked_again.elapsed() < LONG && begun.elapsed() < LONG);
}

#[test]
fn an_answer_that_drips_is_bounded_too() {
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    std::thread::spawn(move || {
        use std::io::Write;
        // A header, and then one byte of a long payload after another.
        let mut theirs = theirs;
        let header = served::Asked {
            id: 0,
            command: VERSION,
            payload: Vec::new(),
            fds: Vec::new(),
        };
        let mut reply = header.reply(&[]);
        reply.put(4, 4096);
        let mut rest = reply.bytes.into_iter().chain(std::iter::repeat(0));
        while theirs.write_all(&[rest.next().unwrap()]).is_ok() {
            std::thread::sleep(Duration::from_millis(5));
        }
    });
    let name = std::path::Path::new("/run/engine.sock");
    let begun = Instant::now();
    let limit = Duration::from_millis(300);
    let error = Served::over(ours, name, "00:03.0".parse().unwrap(), limit)
        .err()
        .unwrap();
    assert!(matches!(error, VfioUserError::Silent { .. }), "{error}");
    assert!(begun.elapsed() < LONG);
}

#[test]
fn a_server_that_leaves_in_the_middle_is_told_apart_from_one_that_stalls() {
    access_fails("ended the connection", |reply| {
        reply.bytes.truncate(20);
        reply.then = Then::Close;
    });
    refused(REGION_INFO, Some(5), "ended the connection", |reply| {
        reply.bytes.clear();
        reply.then = Then::Close;
    });
}

#[test]
fn a_write_or_an_interrupt_that_is_answered_wrongly_is_an_error_too() {
    let served = spoiled(REGION_WRITE, Some(0), |reply| reply.put(28, 0)).unwrap();
    assert!(served.transport().write(RegionIndex::Bar(0), 0, &[1]).is_err());
    let served = spoiled(SET_IRQS, None, |reply| reply.append(&[0; 64])).unwrap();
    let event = rustix::event::eventfd(0, rustix::event::EventfdFlags::NONBLOCK).unwrap();
    let some = Some(std::os::fd::AsFd::as_fd(&event));
    let text = served
        .transport()
        .wire(IrqKind::Msix, 0, &[some])
        .unwrap_err()
        .to_string();
    assert!(text.contains("DEVICE_SET_IRQS"), "{text}");
}
