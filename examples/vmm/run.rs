//! Running a logical server: its console, the signals of its owner, and how it ended.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use pellucid::partition::Bdf;
use pellucid::passthrough::ResetReport;
use pellucid::twin::Class;
use pellucid::{Console as GuestConsole, LogicalServer, ServerEvent, ServerSpec, Source, Then};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::arguments::RunArguments;
use crate::clock::Clock;
use crate::console::Console;
use crate::control::Control;
use crate::disturbances::Disturbances;
use crate::plugging::Plugging;
use crate::signals::Requests;
use crate::wake::Wake;
use crate::{Outcome, Status, progress, state};

/// Runs the server until it powers off; a reset starts it again unless it must not.
pub(crate) fn run(arguments: &RunArguments) -> Outcome {
    let mut requests = Requests::listen()?;
    let spec = arguments.spec()?;
    let mut kept = Kept {
        unplugged: BTreeSet::new(),
        clock: Clock::open(arguments.clock())?,
        warned: false,
    };
    loop {
        let end = run_once((arguments, spec.clone()), &mut requests, &mut kept)?;
        match end {
            End::Reset if !arguments.no_reboot => {
                tell!("vmm: the guest asked for a reset; starting it again\r");
                await_disk(arguments);
            }
            End::Reset => return Ok(Status::ResetAsked),
            End::Crashed => return Ok(Status::GuestCrashed),
            End::PoweredOff => return Ok(Status::Done),
            End::Stopped => return Err("stopped before the guest had powered off, as asked twice".into()),
            End::Policy => {
                return Err("stopped before the guest had powered off, by a device's policy".into());
            }
        }
    }
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    PoweredOff,
    Reset,
    Crashed,
    /// A second request to stop came before the guest had powered off.
    Stopped,
    /// What happened to a device is answered so by its policy.
    Policy,
}

/// What goes on from one run of the guest to the next.
struct Kept {
    /// What is unplugged at the end of one run is not in the next: the host may be using it.
    unplugged: BTreeSet<Bdf>,
    clock: Clock,
    /// What the host lacks was told.
    warned: bool,
}

fn run_once(
    (arguments, mut spec): (&RunArguments, ServerSpec),
    requests: &mut Requests,
    kept: &mut Kept,
) -> Result<End, Box<dyn std::error::Error>> {
    let state = state::open()?;
    spec.clock_offset = kept.clock.offset();
    spec.devices.retain(|device| {
        let at = device.host().or(device.wanted());
        let stays = at.filter(|at| kept.unplugged.contains(at));
        if let Some(at) = stays {
            tell!("vmm: device {at}: stays unplugged; start the server anew to have it again\r");
        }
        stays.is_none()
    });
    if kept.warned {
        // What was let pass at the start stays so, and what was unplugged since is known to be missing.
        spec.machine = spec.machine.map(|machine| machine.allowing(Class::BreaksBoot));
    }
    let hot_plug = spec.devices.iter().any(|device| device.hot_plug);
    let examination = spec.examine(&state)?;
    if !std::mem::replace(&mut kept.warned, true) {
        for warning in examination.warnings() {
            tell!("vmm: warning: {warning}\r");
        }
    }
    let checked = examination.accept()?;
    let (mut console, output) = Console::open(&arguments.console)?;
    let wake = Arc::new(Wake::new()?);
    let (sender, events) = channel();
    let (sink, room) = (queue(sender, Arc::clone(&wake)), Arc::clone(&wake));
    let guest_console = GuestConsole {
        output,
        wake: Box::new(move || room.ring()),
    };
    let mut server = progress::shown(|progress| checked.start(&state, guest_console, &sink, progress))?;
    let control = match hot_plug {
        true => Some(Control::listen(state.path(), &arguments.name, &wake)?),
        false => None,
    };
    let cpus = Disturbances::of(&server);
    let end = Watch {
        server: &mut server,
        console: &mut console,
        requests,
        events: &events,
        wake: &wake,
        typed: Vec::new(),
        cpus,
        clock: &mut kept.clock,
        control,
        plugging: Plugging::default(),
    }
    .run();
    kept.clock.keep(server.clock_offset());
    kept.clock.flush();
    kept.unplugged.extend(server.unplugged());
    let exits = server.finish();
    drop(console);
    let resets = resets(&events);
    let end = end?;
    if arguments.json {
        // What went wrong at the end is told too, and what the devices had to do with it.
        let counts = exits.as_ref().map(Vec::as_slice).unwrap_or_default();
        let rows: Vec<_> = counts
            .iter()
            .map(|vcpu| serde_json::json!({ "vcpu": vcpu.vcpu, "user": vcpu.user(), "total": vcpu.total() }))
            .collect();
        let error = exits.as_ref().err().map(ToString::to_string);
        tell!(
            "{}",
            serde_json::json!({ "end": format!("{end:?}"), "exits": rows, "devices": resets, "error": error })
        );
    }
    exits?;
    Ok(end)
}

/// Queues events and wakes who reads them. A guest that sets its clock all the time fills no queue: the last time counts, and the
/// server knows it.
fn queue(sender: Sender<ServerEvent>, wake: Arc<Wake>) -> pellucid::EventSink {
    Arc::new(move |event| {
        if !matches!(event, ServerEvent::ClockSet { .. }) {
            // A receiver that is gone has decided already.
            let _ = sender.send(event);
        }
        wake.ring();
    })
}

/// How the devices were reset when the guest had ended, told in a line each.
fn resets(events: &Receiver<ServerEvent>) -> Vec<ResetReport> {
    let report = |event| match event {
        ServerEvent::DeviceReset { report } => Some(*report),
        _ => None,
    };
    let reports: Vec<ResetReport> = events.try_iter().filter_map(report).collect();
    for report in &reports {
        tell!("vmm: {report}\r");
    }
    reports
}

/// Everything that one run waits for.
struct Watch<'r> {
    server: &'r mut LogicalServer,
    console: &'r mut Console,
    requests: &'r mut Requests,
    events: &'r Receiver<ServerEvent>,
    wake: &'r Wake,
    /// Typed, and not yet taken by the serial port.
    typed: Vec<u8>,
    cpus: Option<Disturbances>,
    clock: &'r mut Clock,
    /// How devices are asked for, if there is a slot for them.
    control: Option<Control>,
    plugging: Plugging,
}

impl Watch<'_> {
    fn run(mut self) -> io::Result<End> {
        loop {
            self.server.tick();
            self.clock.keep(self.server.clock_offset());
            while let Ok(event) = self.events.try_recv() {
                if let Some(end) = end_of(&event).or_else(|| self.react(&event)) {
                    return Ok(end);
                }
            }
            if self.requests.goes_on() {
                self.server.resume();
            }
            match self.requests.take() {
                None => {}
                Some(1) => self.power_off(),
                Some(_) => return Ok(End::Stopped),
            }
            while let Some(request) = self.control.as_ref().and_then(Control::next) {
                self.plugging.begin(request, self.server);
            }
            self.plugging.step(self.server);
            if let Some(cpus) = &mut self.cpus {
                cpus.tell();
            }
            let taken = self.server.input(&self.typed);
            self.typed.drain(..taken);
            self.wait()?;
        }
    }

    /// Does what a device's policy asks for.
    fn react(&mut self, event: &ServerEvent) -> Option<End> {
        match self.server.react(event) {
            Ok(Then::GoesOn) => None,
            Ok(Then::Stands) => {
                let pid = std::process::id();
                tell!("vmm: the guest stands still; `kill -CONT {pid}` lets it go on\r");
                None
            }
            Ok(Then::Ends) => Some(End::Policy),
            Err(error) => {
                tell!("vmm: {error}\r");
                Some(End::Policy)
            }
        }
    }

    /// Sleeps until a signal, an event, room in the serial port, or (if there is room here) a key.
    fn wait(&mut self) -> io::Result<()> {
        let mut fds = vec![
            PollFd::new(self.requests.wake(), PollFlags::IN),
            PollFd::new(self.wake, PollFlags::IN),
        ];
        let input = if self.typed.is_empty() {
            self.console.input()
        } else {
            None
        };
        fds.extend(
            input
                .as_ref()
                .map(|fd| PollFd::from_borrowed_fd(fd.as_fd(), PollFlags::IN)),
        );
        let looks = self.cpus.as_ref().map(|_| Duration::from_secs(1));
        let timeout = looks
            .into_iter()
            .chain(self.plugging.patience())
            .chain(self.server.until_due())
            .chain(self.clock.patience())
            .min();
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let ready = fds.get(2).is_some_and(|fd| !fd.revents().is_empty());
        // Drained before the state that it announces is looked at, so no news is lost.
        self.wake.hush();
        if ready {
            let mut buffer = [0; 256];
            let count = self.console.read(&mut buffer);
            self.typed.extend_from_slice(&buffer[..count]);
            if self.console.is_terminal() && self.typed.contains(&ESCAPE) {
                self.typed.retain(|byte| *byte != ESCAPE);
                self.requests.ask();
            }
        }
        Ok(())
    }

    fn power_off(&self) {
        tell!("vmm: asking the guest to power off; a second request stops it\r");
        self.server.press_power_button();
    }
}

/// A controller that was just given back takes a moment until its disk has a node again. If none comes, the check says so.
fn await_disk(arguments: &RunArguments) {
    let Source::BootDisk { disk: path, .. } = arguments.source() else {
        return;
    };
    let begun = Instant::now();
    while !path.exists() && begun.elapsed() < DISK_RETURNS {
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn end_of(event: &ServerEvent) -> Option<End> {
    match event {
        ServerEvent::PowerOff => Some(End::PoweredOff),
        ServerEvent::Reset => Some(End::Reset),
        ServerEvent::Crashed { cause } => {
            tell!("vmm: the guest crashed: {cause}\r");
            Some(End::Crashed)
        }
        ServerEvent::DeviceError {
            device,
            report,
            reaction,
        } => {
            tell!("vmm: device {device}: {report}; policy: {reaction}\r");
            None
        }
        ServerEvent::DeviceCorrected {
            device,
            corrected,
            recent,
        } => {
            let kinds: Vec<_> = recent.kinds.keys().map(String::as_str).collect();
            let (count, kinds) = (recent.total, kinds.join(", "));
            tell!("vmm: device {device}: corrected errors: {count} ({kinds}), {corrected} in all\r");
            None
        }
        ServerEvent::DeviceReset { report } => {
            tell!("vmm: {report}\r");
            None
        }
        ServerEvent::DeviceBlocked { fault } => {
            tell!("vmm: {fault}\r");
            None
        }
        ServerEvent::DeviceWanted { device, reaction } => {
            tell!("vmm: the host asks for device {device} back; policy: {reaction}\r");
            None
        }
        ServerEvent::PlacedElsewhere {
            device,
            what,
            host,
            guest,
        } => {
            tell!("vmm: {device}: the firmware put {what} at {guest:#x}; on the host it is at {host:#x}\r");
            None
        }
        ServerEvent::VariablesLost { path, cause } => {
            tell!(
                "vmm: {}: what the guest wrote to its variables is not kept: {cause}\r",
                path.display()
            );
            None
        }
        // Whoever asked for it is answered.
        ServerEvent::SlotOff { .. } => None,
        ServerEvent::DeviceLost { device, reaction } => {
            tell!("vmm: the process that serves device {device} is lost; policy: {reaction}\r");
            None
        }
        other => {
            tell!("vmm: {other:?}\r");
            None
        }
    }
}

/// How long a host driver may take to find its disk.
const DISK_RETURNS: Duration = Duration::from_secs(10);
/// Ctrl-], as telnet and virsh have it.
const ESCAPE: u8 = 0x1d;
