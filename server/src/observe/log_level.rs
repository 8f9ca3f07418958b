// SPDX-License-Identifier: Apache-2.0
//! The level of the daemon's log while it runs: that of the configuration, or for a time another one.
//!
//! ```text
//! log.level ──────────────▶ configured ─┬─▶ the filter in force
//! hull log-level … --for ─▶ temporary ──┘   until its time is over, or it is reset
//! ```

use crate::config::log_filter::{Filter, Level};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::Registry;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::reload::Handle;

/// The level of the log.
#[derive(Debug)]
pub(crate) struct LogLevel {
    handle: Handle<Targets, Registry>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    configured: Filter,
    temporary: Option<Temporary>,
    /// How many temporary filters there were.
    count: u64,
}

/// A filter in place of the configured one.
#[derive(Debug, Clone)]
struct Temporary {
    filter: Filter,
    /// `None`: until the daemon ends.
    until: Option<Instant>,
    number: u64,
}

/// The filter in force, as it is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shown {
    pub(crate) filter: String,
    pub(crate) configured: String,
    /// How long a temporary filter lasts; `None` for the configured one, and for one without an end.
    pub(crate) left: Option<Duration>,
    pub(crate) is_temporary: bool,
}

impl LogLevel {
    pub(super) fn new(handle: Handle<Targets, Registry>, configured: Filter) -> Self {
        let state = State { configured, temporary: None, count: 0 };
        let level = Self { handle, state: Mutex::new(state) };
        level.apply(&level.state());
        level
    }

    /// Takes over the filter of the configuration. A temporary one stays in force until its end.
    pub(crate) fn configure(&self, filter: Filter) {
        let mut state = self.state();
        state.configured = filter;
        self.apply(&state);
    }

    /// Puts another filter into force: over the configured one, for `time`, or until the daemon ends.
    pub(crate) fn set(self: &Arc<Self>, filter: &Filter, time: Option<Duration>) {
        let mut state = self.state();
        state.count = state.count.saturating_add(1);
        let number = state.count;
        let until = time.and_then(|time| Instant::now().checked_add(time));
        state.temporary = Some(Temporary { filter: filter.over(&state.configured), until, number });
        self.apply(&state);
        drop(state);
        if let Some(until) = until {
            let level = Arc::clone(self);
            tokio::spawn(async move {
                tokio::time::sleep_until(until).await;
                level.expire(number);
            });
        }
    }

    /// Puts the filter of the configuration into force.
    pub(crate) fn reset(&self) {
        let mut state = self.state();
        state.temporary = None;
        self.apply(&state);
    }

    /// The filter in force.
    pub(crate) fn shown(&self) -> Shown {
        let state = self.state();
        let until = state.temporary.as_ref().and_then(|of| of.until);
        Shown {
            filter: state.in_force().to_string(),
            configured: state.configured.to_string(),
            left: until.map(|until| until.saturating_duration_since(Instant::now())),
            is_temporary: state.temporary.is_some(),
        }
    }

    /// The time of a temporary filter is over. A later one is not concerned.
    fn expire(&self, number: u64) {
        let mut state = self.state();
        if state.temporary.as_ref().is_some_and(|of| of.number == number) {
            state.temporary = None;
            self.apply(&state);
            let level = state.configured.to_string();
            drop(state);
            tracing::info!(level, "the time of the log level is over");
        }
    }

    fn apply(&self, state: &State) {
        let filter = state.in_force();
        // It only fails when the subscriber is gone: then nothing is logged.
        let _gone = self.handle.reload(targets(filter));
        // Libraries that use the crate `log` ask this first.
        log::set_max_level(of_log(filter.most()));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // It is changed in one go, after what may fail.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn in_force(&self) -> &Filter {
        self.temporary.as_ref().map_or(&self.configured, |of| &of.filter)
    }
}

/// The filter as the subscriber takes it. A module there is the beginning of a name: `hull` is all of Hull's crates.
pub(super) fn targets(filter: &Filter) -> Targets {
    let own = [("hull", of_tracing(filter.level()))];
    let modules = filter.modules().map(|(name, level)| (name, of_tracing(level)));
    Targets::new()
        .with_default(of_tracing(filter.level_of_libraries()))
        .with_targets(own)
        .with_targets(modules)
}

fn of_tracing(level: Level) -> LevelFilter {
    match level {
        Level::Off => LevelFilter::OFF,
        Level::Error => LevelFilter::ERROR,
        Level::Warn => LevelFilter::WARN,
        Level::Info => LevelFilter::INFO,
        Level::Debug => LevelFilter::DEBUG,
        Level::Trace => LevelFilter::TRACE,
    }
}

fn of_log(level: Level) -> log::LevelFilter {
    match level {
        Level::Off => log::LevelFilter::Off,
        Level::Error => log::LevelFilter::Error,
        Level::Warn => log::LevelFilter::Warn,
        Level::Info => log::LevelFilter::Info,
        Level::Debug => log::LevelFilter::Debug,
        Level::Trace => log::LevelFilter::Trace,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracing::Level as Of;
    use tracing_subscriber::reload;

    fn filter(text: &str) -> Filter {
        Filter::parse(text).unwrap()
    }

    #[test]
    fn libraries_are_quiet_unless_they_are_named() {
        let debug = targets(&filter("debug"));
        assert!(debug.would_enable("hull::pod::task", &Of::DEBUG));
        assert!(debug.would_enable("hull_image::store", &Of::DEBUG));
        assert!(!debug.would_enable("h2::codec", &Of::INFO));
        assert!(debug.would_enable("rustls", &Of::WARN));
        let one = targets(&filter("hull_image=debug,h2=trace"));
        assert!(one.would_enable("hull_image::store", &Of::DEBUG));
        assert!(!one.would_enable("hull::pod", &Of::DEBUG));
        assert!(one.would_enable("h2::codec", &Of::TRACE));
        assert!(!targets(&filter("error")).would_enable("rustls", &Of::WARN));
    }

    #[tokio::test]
    async fn a_temporary_level_falls_back_and_only_the_last_one_does() {
        let (_layer, handle) = reload::Layer::new(Targets::new());
        let level = Arc::new(LogLevel::new(handle, filter("info")));
        let hour = Some(Duration::from_secs(3600));
        level.set(&filter("hull_image=debug"), hour);
        let now = level.shown();
        assert_eq!((now.filter.as_str(), now.is_temporary), ("info,hull_image=debug", true));
        assert!(now.left <= hour && now.left > Some(Duration::from_secs(3000)), "{now:?}");
        level.set(&filter("trace"), hour);
        // The time of the first one is over.
        level.expire(1);
        assert_eq!(level.shown().filter, "trace");
        // The configuration meanwhile says something else.
        level.configure(filter("warn"));
        assert_eq!(level.shown().filter, "trace");
        level.expire(2);
        let now = level.shown();
        assert_eq!((now.filter.as_str(), now.is_temporary, now.left), ("warn", false, None));
        level.set(&filter("debug"), None);
        assert!(level.shown().is_temporary);
        level.reset();
        assert_eq!(level.shown().filter, "warn");
    }
}
