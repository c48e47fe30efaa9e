//! What is to happen when something happens to a lent device: decided here from what is known, carried out by the running server. Pure.

use std::fmt;
use std::str::FromStr;

use pellucid_passthrough::{Blame, ErrorReport, Severity, Threshold};

/// What is done about a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Reaction {
    /// The owner is told, and everything goes on.
    #[default]
    Report,
    /// The guest stands still until its owner lets it go on, so that nothing is done on false data.
    Pause,
    /// The guest is stopped and everything given back.
    Stop,
    /// The device is taken from the guest, which reads all ones from then on, and given back to the host. The guest goes on. If the device
    /// is in a hot-plug slot, the guest is told, and all that is in the slot goes.
    Unplug,
}

/// What is to happen when something happens to one device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DevicePolicy {
    /// It reported an error that it could not correct.
    pub on_error: Reaction,
    /// The host wants it back.
    pub on_request: Reaction,
    /// At how many corrected errors the owner is told; never if `None`.
    pub corrected: Option<Threshold>,
}

impl DevicePolicy {
    /// What is to be done about an error. One that another function had below the same port concerns this one only if it was fatal:
    /// then the link that both share was reset.
    #[must_use]
    pub fn reaction_to(&self, report: &ErrorReport) -> Reaction {
        match (report.source, report.severity) {
            (Blame::Another(_), Severity::NonFatal) => Reaction::Report,
            _ => self.on_error,
        }
    }
}

/// A word that is no reaction.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{word:?} is no reaction; there are report, pause, stop and unplug")]
pub struct ReactionError {
    /// What was given.
    pub word: String,
}

impl FromStr for Reaction {
    type Err = ReactionError;

    fn from_str(word: &str) -> Result<Self, ReactionError> {
        let all = [Self::Report, Self::Pause, Self::Stop, Self::Unplug];
        let found = all.into_iter().find(|reaction| reaction.to_string() == word);
        found.ok_or_else(|| ReactionError {
            word: word.to_owned(),
        })
    }
}

impl fmt::Display for Reaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Report => "report",
            Self::Pause => "pause",
            Self::Stop => "stop",
            Self::Unplug => "unplug",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(source: Blame, severity: Severity) -> ErrorReport {
        ErrorReport {
            severity,
            source,
            kinds: std::collections::BTreeMap::new(),
            header: None,
        }
    }

    #[test]
    fn a_device_is_not_punished_for_its_neighbour() {
        let policy = DevicePolicy {
            on_error: Reaction::Stop,
            ..DevicePolicy::default()
        };
        let about = |source, severity| policy.reaction_to(&report(source, severity));
        assert_eq!(about(Blame::Own, Severity::NonFatal), Reaction::Stop);
        assert_eq!(about(Blame::Another(None), Severity::NonFatal), Reaction::Report);
        assert_eq!(
            about(Blame::Another(None), Severity::Fatal),
            Reaction::Stop,
            "its link was reset too"
        );
        assert_eq!(
            about(Blame::Unknown, Severity::Unknown),
            Reaction::Stop,
            "nobody else can be blamed"
        );
    }

    #[test]
    fn reactions_are_read_as_they_are_written_and_others_are_refused_with_the_list() {
        for word in ["report", "pause", "stop", "unplug"] {
            assert_eq!(word.parse::<Reaction>().unwrap().to_string(), word);
        }
        let refusal = "kill".parse::<Reaction>().unwrap_err().to_string();
        assert!(
            refusal.contains("\"kill\"") && refusal.contains("unplug"),
            "{refusal}"
        );
    }
}
