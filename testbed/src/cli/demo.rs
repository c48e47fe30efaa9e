//! `demo`: the main job from end to end, with its table.

use clap::Args;
use pellucid_testbed::Progress;

use super::Acted;

/// Boots an ordinary Debian disk on the physical server, as a logical server, and on the physical server again.
#[derive(Debug, Args)]
pub(crate) struct Demo {
    /// Show both servers' serial consoles as they go
    #[arg(long)]
    show: bool,
}

impl Demo {
    pub(crate) fn act(&self, progress: Progress) -> Acted {
        // A spinner and a console on one terminal would overwrite each other.
        let progress = if self.show { Progress::Lines } else { progress };
        let report = pellucid_testbed::demo::Demo::ready(self.show, progress)?.run()?;
        print!("{report}");
        Ok(u8::from(!report.holds()))
    }
}
