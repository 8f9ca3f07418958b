// SPDX-License-Identifier: Apache-2.0
//! Output that could not be logged is told to the daemon: when that begins, when it is over for now, and
//! before the container's end. A container's output is never held up for it.

use crate::monitor::Monitor;
use crate::processes::Stage;
use hull_proto::monitor::{Event, VERSION_LOG_LOST};

impl Monitor {
    /// Tells what there is news of, to a daemon that knows the word.
    pub(crate) fn tell_losses(&mut self) {
        if self.daemon.as_ref().is_none_or(|daemon| daemon.version < VERSION_LOG_LOST) {
            return;
        }
        let mut events = Vec::new();
        for (id, container) in &mut self.containers {
            let last = matches!(container.stage, Stage::Ended(..));
            if let Some(lost) = container.log.news(last) {
                let errno = lost.errno.raw_os_error();
                events.push(Event::LogLost { container: id.clone(), bytes: lost.bytes, errno });
            }
        }
        for event in events {
            self.event(event);
        }
    }

    /// A daemon has come that was told nothing yet.
    pub(crate) fn forget_told_losses(&mut self) {
        for container in self.containers.values_mut() {
            container.log.forget_told();
        }
    }
}
