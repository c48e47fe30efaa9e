//! A device that another process serves, told the truth about: what it is, what reaches it, and what it gives back.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

mod served;

use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::sync::{Arc, Mutex};

use pellucid_passthrough::{BarKind, BindError, IrqKind, RegionIndex, Served, VfioUserError};
use served::{
    Device, IRQ_INFO, LONG, MEMORY, REGION_READ, REGION_WRITE, RESET, SET_IRQS, connect, honest, words,
};

fn asked(device: &Mutex<Device>, command: u16) -> Vec<Vec<u8>> {
    let log = std::mem::take(&mut device.lock().unwrap().log);
    log.into_iter()
        .filter(|(of, _)| *of == command)
        .map(|(_, payload)| payload)
        .collect()
}

#[test]
fn a_served_function_is_what_its_configuration_space_and_regions_say() {
    let (served, _) = honest();
    let function = served.function();
    assert_eq!(function.bdf.to_string(), "0000:00:03.0");
    assert_eq!((function.ids.vendor, function.ids.device), (0x1b36, 0x0ded));
    assert_eq!((function.ids.class, function.ids.revision), (0x08_8000, 1));
    let bars: Vec<_> = function
        .bars
        .iter()
        .map(|bar| (bar.index, bar.size, bar.kind))
        .collect();
    let small = BarKind::Memory32 { prefetchable: false };
    let large = BarKind::Memory64 { prefetchable: true };
    assert_eq!(bars, [(0, 4096, small), (2, MEMORY, large), (4, 4096, small)]);
    let mappable = served.transport().region(RegionIndex::Bar(2)).unwrap().mappable;
    assert_eq!(mappable, [0x1000..0x4000, 0x8000..0x10000]);
    assert_eq!(served.transport().irq(IrqKind::Msix).count, 4);
}

#[test]
fn an_access_is_one_message_and_a_long_one_is_cut_to_what_the_server_moves() {
    let (served, device) = honest();
    asked(&device, REGION_READ);
    let transport = served.transport();
    transport.write(RegionIndex::Bar(0), 0x20, &[1, 2, 3, 4]).unwrap();
    assert_eq!(asked(&device, REGION_WRITE).len(), 1);
    let mut data = [0; 150];
    transport.read(RegionIndex::Bar(0), 0, &mut data).unwrap();
    assert_eq!(data[0x20..0x24], [1, 2, 3, 4]);
    assert_eq!(asked(&device, REGION_READ).len(), 3, "64 bytes at a time");
    let outside = transport
        .read(RegionIndex::Bar(0), 4095, &mut [0; 2])
        .unwrap_err();
    assert_eq!(outside.raw_os_error(), Some(libc::ERANGE));
    assert!(transport.read(RegionIndex::Bar(1), 0, &mut [0]).is_err());
    assert!(asked(&device, REGION_READ).is_empty(), "the server is not asked");
}

#[test]
fn what_the_server_offers_to_map_is_its_own_memory() {
    let (served, device) = honest();
    let transport = served.transport();
    let mapping = transport.map(RegionIndex::Bar(2), 0x8000, 0x8000).unwrap();
    assert!(mapping.write(0x10, &[7, 7, 7, 7]));
    let mut data = [0; 4];
    let memory = device.lock().unwrap().memory.take().unwrap();
    std::os::unix::fs::FileExt::read_at(&memory, &mut data, 0x8010).unwrap();
    assert_eq!(data, [7; 4]);
    for (offset, size) in [(0, 0x1000), (0x3000, 0x2000), (0x8000, 0x9000)] {
        assert!(
            transport.map(RegionIndex::Bar(2), offset, size).is_err(),
            "{offset:#x}"
        );
    }
    assert!(transport.map(RegionIndex::Bar(0), 0, 0x1000).is_err());
}

#[test]
fn eventfds_go_in_runs_and_only_what_had_one_is_taken_off() {
    let (served, device) = honest();
    let transport = served.transport();
    let event = rustix::event::eventfd(0, rustix::event::EventfdFlags::NONBLOCK).unwrap();
    let some = Some(event.as_fd());
    transport.wire(IrqKind::Msix, 0, &[None]).unwrap();
    assert!(asked(&device, SET_IRQS).is_empty(), "there was none");
    transport
        .wire(IrqKind::Msix, 0, &[some, some, some, None])
        .unwrap();
    assert_eq!(asked(&device, SET_IRQS).len(), 2, "two descriptors at a time");
    let wired: Vec<_> = device.lock().unwrap().wired.keys().copied().collect();
    assert_eq!(wired, [(2, 0), (2, 1), (2, 2)]);
    transport.wire(IrqKind::Msix, 1, &[None]).unwrap();
    let wired: Vec<_> = device.lock().unwrap().wired.keys().copied().collect();
    assert_eq!(wired, [(2, 0), (2, 2)]);
    transport.unwire(IrqKind::Msix).unwrap();
    assert!(device.lock().unwrap().wired.is_empty());
    asked(&device, SET_IRQS);
    transport.unwire(IrqKind::Msix).unwrap();
    assert!(asked(&device, SET_IRQS).is_empty(), "nothing is left to take off");
    assert!(transport.wire(IrqKind::Msix, 3, &[some, some]).is_err());
    assert!(
        transport.wire(IrqKind::Intx, 0, &[some]).is_err(),
        "it has no line"
    );
}

#[test]
fn a_line_is_unmasked_by_an_eventfd_that_the_server_is_given() {
    let device = Arc::new(Mutex::new(Device::new()));
    let told = Arc::clone(&device);
    let served = connect(LONG, move |asked| {
        let mut reply = told.lock().unwrap().answer(asked);
        if asked.command == IRQ_INFO && asked.u32(8) == 0 {
            reply.put(28, 1);
        }
        Some(reply)
    });
    let served = served.unwrap();
    let event = rustix::event::eventfd(0, rustix::event::EventfdFlags::NONBLOCK).unwrap();
    served
        .transport()
        .wire(IrqKind::Intx, 0, &[Some(event.as_fd())])
        .unwrap();
    served
        .transport()
        .unmask_by(IrqKind::Intx, event.as_fd())
        .unwrap();
    // linux/vfio.h: eventfd is 4, unmask 16, trigger 32.
    let told = [[20, 4 | 32, 0, 0, 1], [20, 4 | 16, 0, 0, 1]].map(|told| words(&told));
    assert_eq!(asked(&device, SET_IRQS), told);
}

#[test]
fn binding_resets_the_device_and_release_leaves_it_stopped() {
    let (served, device) = honest();
    device.lock().unwrap().config[4] = 7;
    let bound = served.bind().unwrap();
    assert_eq!(asked(&device, RESET).len(), 1);
    assert_eq!(device.lock().unwrap().config[4], 0, "neither decoding nor DMA");
    assert!(bound.space().is_none());
    bound.release().unwrap();
    assert_eq!(asked(&device, RESET).len(), 1);
}

#[test]
fn a_device_that_becomes_another_one_is_not_bound() {
    let (served, device) = honest();
    device.lock().unwrap().config[2] = 0;
    let refused = served.bind().err().unwrap();
    assert!(matches!(refused, BindError::NotWell { .. }), "{refused}");
}

#[test]
fn a_region_is_trapped_unless_its_file_is_there_long_enough_and_sealed() {
    let short = served::sealed(0x4000);
    let unsealed = tempfile::tempfile().unwrap();
    unsealed.set_len(MEMORY).unwrap();
    let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&unsealed));
    let read_only = std::fs::File::open(path).unwrap();
    for memory in [Some(short), Some(unsealed), Some(read_only), None] {
        let mut device = Device::new();
        device.memory = memory;
        let served = connect(LONG, move |asked| Some(device.answer(asked))).unwrap();
        let info = served.transport().region(RegionIndex::Bar(2)).unwrap();
        assert_eq!((info.size, info.mappable.len()), (MEMORY, 0));
    }
}

#[test]
fn a_server_that_accepts_nobody_is_not_waited_for_without_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("full");
    let kind = rustix::net::SocketType::STREAM;
    let socket = || rustix::net::socket(rustix::net::AddressFamily::UNIX, kind, None).unwrap();
    let (listener, address) = (socket(), rustix::net::SocketAddrUnix::new(&path).unwrap());
    rustix::net::bind(&listener, &address).unwrap();
    rustix::net::listen(&listener, 0).unwrap();
    let mut queue = Vec::new();
    loop {
        let client = socket();
        rustix::io::ioctl_fionbio(&client, true).unwrap();
        match rustix::net::connect(&client, &address) {
            Ok(()) => queue.push(client),
            Err(error) => break assert_eq!(error, rustix::io::Errno::AGAIN),
        }
    }
    let refused = Served::connect(&path, "00:03.0".parse().unwrap()).err().unwrap();
    assert!(refused.to_string().contains("accepts nobody"), "{refused}");
}

#[test]
fn a_socket_without_a_server_is_refused_with_what_helps() {
    let folder = tempfile::tempdir().unwrap();
    let at = "00:03.0".parse().unwrap();
    let refuse = |name: &str| {
        let refused = Served::connect(&folder.path().join(name), at).err().unwrap();
        assert!(matches!(refused, VfioUserError::Connect { .. }), "{refused}");
        refused.to_string()
    };
    let refused = refuse("none");
    assert!(
        refused.contains("/none") && refused.contains("start the server"),
        "{refused}"
    );
    drop(UnixListener::bind(folder.path().join("left")).unwrap());
    let refused = refuse("left");
    assert!(refused.contains("start it again"), "{refused}");
    std::fs::write(folder.path().join("file"), "").unwrap();
    refuse("file");
    refuse(&"x".repeat(200));
}
