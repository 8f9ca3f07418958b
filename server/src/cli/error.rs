// SPDX-License-Identifier: Apache-2.0
//! What goes wrong in a command, and how it is shown: one line `error: …`, and where something is
//! known to help, one line `hint: …`.

use crate::audit;
use crate::config;
use hull_sys::text::{MESSAGE_BYTES_MAX, shown};
use std::io;
use std::path::PathBuf;

/// Longest line, in bytes: a whole message of the daemon fits.
const TEXT_BYTES_MAX: usize = 2 * MESSAGE_BYTES_MAX;

/// Why a command failed. Each text reads after "cannot".
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("reach the daemon at {}", socket.display())]
    Connect { socket: PathBuf, source: io::Error },
    #[error("speak to the daemon at {}", socket.display())]
    Channel { socket: PathBuf, source: tonic::transport::Error },
    /// What the daemon said: a whole sentence of its own, its hint split off.
    #[error("{said}")]
    Daemon { said: String, hint: Option<String> },
    #[error(transparent)]
    Config { source: config::Error },
    #[error("find {kind} `{name}`")]
    NotFound { kind: &'static str, name: String },
    #[error("tell what `{name}` means: it may be {}", matches.join(", or "))]
    Ambiguous { name: String, matches: Vec<String> },
    #[error("take `{flag} {value}`: {why}")]
    BadFlag { flag: &'static str, value: String, why: String },
    #[error("give the pod the name `{name}`: pod {holder} has it")]
    NameTaken { name: String, holder: String },
    #[error("remove {what}: it is running")]
    Running { what: String },
    #[error("{doing}")]
    Io { doing: String, source: io::Error },
    #[error("{doing}")]
    Kernel { doing: &'static str, source: rustix::io::Errno },
    #[error("{doing}: the daemon's answer has no {lacks}")]
    Answer { doing: &'static str, lacks: &'static str },
    #[error("do that: {text}")]
    Usage { text: String },
    #[error("audit {what}")]
    NotRunning { what: String },
    #[error("audit container `{name}`")]
    Audit { name: String, source: audit::Error },
    /// Said already, a line for each.
    #[error("audit all containers of the pod: {count} of those that run could not be audited")]
    NotAudited { count: usize },
    #[error("read or write JSON")]
    Json { source: serde_json::Error },
    /// Said already, line by line.
    #[error("call all of it whole: {count} layers are not as they were stored")]
    NotWhole { count: usize },
}

/// What a command gives.
pub(crate) type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error of reading or writing, worded after "cannot".
    pub(crate) fn io(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { doing: doing.into(), source }
    }

    /// Whether it only says that nobody reads our output any more.
    pub(crate) fn is_broken_pipe(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::BrokenPipe)
    }

    /// What the user can do about it.
    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            Self::Connect { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                Some("run it as root: the socket is root's alone".into())
            }
            Self::Connect { .. } => {
                Some("start it with `hull serve`, or name its socket with --socket".into())
            }
            Self::Daemon { hint, .. } => hint.clone(),
            Self::Config { source } => source.hint(),
            Self::NotFound { kind: "image", .. } => {
                Some("`hull images` lists what is here, `hull pull` fetches".into())
            }
            Self::NotFound { .. } => Some("`hull ps -a` lists all of them".into()),
            Self::Ambiguous { .. } => Some("give more digits of the id, or POD/CONTAINER".into()),
            Self::NameTaken { name, .. } => {
                Some(format!("`hull rm -f {name}` removes it; or leave --name out"))
            }
            Self::NotWhole { .. } => {
                Some("`hull images verify --repair` fetches again what is broken".into())
            }
            Self::Running { .. } => Some("stop it first, or use `hull rm -f`".into()),
            Self::NotRunning { .. } => Some(
                "only what runs has an isolation; `hull ps -a` lists what ended, and how".into(),
            ),
            Self::Audit { source, .. } => source.hint().map(Into::into),
            Self::Channel { .. }
            | Self::Json { .. }
            | Self::BadFlag { .. }
            | Self::Io { .. }
            | Self::Kernel { .. }
            | Self::NotAudited { .. }
            | Self::Usage { .. }
            | Self::Answer { .. } => None,
        }
    }

    /// The lines to print: `error: …` and, with a hint, `hint: …`.
    pub(crate) fn lines(&self) -> String {
        // The daemon has said "cannot" already.
        let text = if let Self::Daemon { said, .. } = self {
            said.clone()
        } else {
            format!("cannot {}", chain(self))
        };
        lines(&text, self.hint().as_deref())
    }
}

impl From<tonic::Status> for Error {
    fn from(status: tonic::Status) -> Self {
        let (said, hint) = split_hint(status.message());
        let said = match (said.is_empty(), status.code()) {
            (true, code) => format!("the daemon answered {code}"),
            (false, _) => said,
        };
        Self::Daemon { said, hint }
    }
}

/// The two lines of an error.
pub(crate) fn lines(text: &str, hint: Option<&str>) -> String {
    let text = shown(text, TEXT_BYTES_MAX);
    match hint {
        Some(hint) => format!("error: {text}\nhint: {}\n", shown(hint, TEXT_BYTES_MAX)),
        None => format!("error: {text}\n"),
    }
}

/// An error and what it came from, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    crate::error::Chain(error).to_string()
}

/// Splits `… (hint: …)` at the end of a message.
fn split_hint(message: &str) -> (String, Option<String>) {
    let split = message.strip_suffix(')').and_then(|rest| rest.rsplit_once(" (hint: "));
    match split {
        Some((said, hint)) => (said.to_owned(), Some(hint.to_owned())),
        None => (message.to_owned(), None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cri::status;

    #[test]
    fn a_hint_at_the_end_of_a_message_gets_its_own_line() {
        let status =
            status::plain(tonic::Code::NotFound, "cannot find image `x` (hint: pull it (first))");
        let error = Error::from(status);
        assert_eq!(error.lines(), "error: cannot find image `x`\nhint: pull it (first)\n");
        let error = Error::from(status::plain(tonic::Code::Unknown, "cannot go on (really)"));
        assert_eq!(error.lines(), "error: cannot go on (really)\n");
    }

    #[test]
    fn text_from_outside_makes_no_lines_of_its_own() {
        const FORGED: &str = "x\nhint: run this\u{1b}[2J\u{9b}1m";
        let daemon = Error::Daemon { said: FORGED.into(), hint: Some(FORGED.into()) };
        assert_eq!(daemon.lines().lines().count(), 2, "{}", daemon.lines());
        let own = Error::NotFound { kind: "container", name: FORGED.into() };
        for lines in [daemon.lines(), own.lines()] {
            assert_eq!(lines.lines().filter(|line| line.starts_with("hint: ")).count(), 1);
            assert!(!lines.chars().any(|c| c.is_control() && c != '\n'), "{lines:?}");
        }
    }

    #[test]
    fn an_unreachable_daemon_says_where_and_how_to_start_it() {
        let error = Error::Connect {
            socket: "/run/hull/hull.sock".into(),
            source: io::Error::from(io::ErrorKind::NotFound),
        };
        assert!(
            error.lines().starts_with("error: cannot reach the daemon at /run/hull/hull.sock: ")
        );
        assert!(error.lines().contains("\nhint: start it with `hull serve`"));
    }
}
