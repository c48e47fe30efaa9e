//! Devices that are unplugged from a running server and plugged again: asked for at one end, carried out at the other.

use std::time::{Duration, Instant};

use pellucid::{LogicalServer, PlugError, UnplugError};

use crate::control::{Act, Answer, Asked, Request, ask};
use crate::{Outcome, Status, state};

/// Requests that wait for the guest.
#[derive(Default)]
pub(crate) struct Plugging {
    waiting: Vec<Waiting>,
}

struct Waiting {
    request: Request,
    deadline: Instant,
}

impl Plugging {
    /// Begins what is asked. An answer may be there at once, or after some [`Plugging::step`].
    pub(crate) fn begin(&mut self, request: Request, server: &LogicalServer) {
        let Asked { act, device, seconds } = request.asked;
        let same = |waiting: &Waiting| waiting.request.asked.device == device;
        if act != Act::UnplugByForce && self.waiting.iter().any(same) {
            let waits = format!("device {device}: another request for it waits for the guest");
            return answer(&request, Err(waits));
        }
        if act == Act::Unplug
            && let Err(error) = server.ask_to_unplug(device)
        {
            return answer(&request, Err(error.to_string()));
        }
        self.waiting.push(Waiting {
            request,
            deadline: Instant::now() + Duration::from_secs(seconds.into()),
        });
    }

    /// Does what the guest has made possible, and gives up what it has not in time.
    pub(crate) fn step(&mut self, server: &mut LogicalServer) {
        self.waiting.retain(|waiting| {
            let late = Instant::now() >= waiting.deadline;
            let done = carry_out(&waiting.request.asked, late, server);
            let waits = done.is_none();
            if let Some(done) = done {
                answer(&waiting.request, done);
            }
            waits
        });
    }

    /// How long until something is given up.
    pub(crate) fn patience(&self) -> Option<Duration> {
        let first = self.waiting.iter().map(|waiting| waiting.deadline).min()?;
        Some(first.saturating_duration_since(Instant::now()))
    }
}

/// `None` as long as the guest is to be waited for.
fn carry_out(asked: &Asked, late: bool, server: &mut LogicalServer) -> Option<Answer> {
    let device = asked.device;
    let done = match asked.act {
        Act::Unplug => match server.unplug(device) {
            Err(UnplugError::InUse { .. }) if !late => return None,
            Err(UnplugError::InUse { .. }) => {
                server.keep(device);
                let limit = Duration::from_secs(asked.seconds.into());
                Err(UnplugError::Unanswered { device, limit }.to_string())
            }
            // Somebody else was faster: it is where it was wanted.
            Err(UnplugError::Already { .. }) => Ok(()),
            done => done.map_err(|error| error.to_string()),
        },
        Act::UnplugByForce => server.unplug_by_force(device).map_err(|error| error.to_string()),
        Act::Plug => match server.plug(device) {
            Err(PlugError::SlotInUse { .. }) if !late => return None,
            done => done.map_err(|error| error.to_string()),
        },
    };
    Some(done)
}

fn answer(request: &Request, done: Answer) {
    let device = request.asked.device;
    let what = match request.asked.act {
        Act::Plug => "plugged",
        Act::Unplug | Act::UnplugByForce => "unplugged",
    };
    if done.is_ok() {
        tell!("vmm: device {device}: {what}\r");
    }
    // Who asked may have gone.
    let _ = request.answer.send(done);
}

/// Asks a running server, and waits for what comes of it.
pub(crate) fn request(name: &str, asked: Asked) -> Outcome {
    let state = state::open()?;
    let record = state::running(&state, name)?;
    let pid = record.owner.pid;
    let done = ask(state.path(), name, pid, asked).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused => format!(
            "logical server {name:?} cannot be asked for devices: it was started without a hot-plug slot (--device BDF,hotplug), or is just \
             starting or ending"
        ),
        _ => format!("asking logical server {name:?} (pid {pid}): {error}"),
    })?;
    done?;
    Ok(Status::Done)
}
