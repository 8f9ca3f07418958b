// SPDX-License-Identifier: Apache-2.0
//! Errors of commands, and their form: one line `error: …`, and one line `hint: …` if there is advice.

use crate::audit;
use crate::config;
use hull_sys::text::{MESSAGE_BYTES_MAX, shown};
use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// Longest line, in bytes: the longest message of the daemon fits.
const TEXT_BYTES_MAX: usize = 2 * MESSAGE_BYTES_MAX;

/// The namespaces of the pods that a name may mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Namespaces {
    One,
    Several,
}

/// Why a command failed. Each text reads after "cannot".
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("reach the daemon at {}", socket.display())]
    Connect { socket: PathBuf, source: io::Error },
    #[error("open a gRPC channel to the daemon at {}", socket.display())]
    Channel { socket: PathBuf, source: tonic::transport::Error },
    /// An error of the daemon: a whole sentence, and its hint.
    #[error("{message}")]
    Daemon { message: String, hint: Option<String> },
    #[error(transparent)]
    Config { source: config::Error },
    #[error("find {kind} `{name}`")]
    NotFound { kind: &'static str, name: String },
    #[error("identify `{name}`: it may be {}", matches.join(", or "))]
    Ambiguous { name: String, matches: Vec<String>, namespaces: Namespaces },
    #[error("parse `{flag} {value}`: {why}")]
    BadFlag { flag: &'static str, value: String, why: String },
    /// `instead` is another way than to remove that pod.
    #[error("name the pod `{name}`: pod {holder} has this name")]
    NameTaken { name: String, holder: String, instead: &'static str },
    #[error("remove {what}: it is running")]
    Running { what: String },
    #[error("{operation}")]
    Io { operation: String, source: io::Error },
    #[error("{operation}")]
    Kernel { operation: &'static str, source: rustix::io::Errno },
    #[error("{operation}: the response of the daemon has no {missing}")]
    Response { operation: &'static str, missing: &'static str },
    #[error("pass on stdin as a terminal's: stdin is not a terminal")]
    NotATerminal,
    #[error("speak to the daemon's streaming server")]
    Session { source: hull_streaming::websocket::client::ClientError },
    #[error("wait for the end of the command: the daemon ended the session without a status")]
    SessionCut,
    #[error("leave the command running: the daemon does not say that it does")]
    NotDetached,
    #[error("follow container {container}: the daemon ended the session without a status")]
    AttachCut { container: String },
    #[error("pass on all of stdin to the container, which is stopped")]
    InputCut { source: Box<Error> },
    #[error("remove the pod of this command: a signal interrupted it")]
    Interrupted,
    #[error("run the pods of the manifest: a signal interrupted it")]
    PlayInterrupted,
    /// A whole sentence.
    #[error("{text}")]
    Usage { text: String },
    #[error("finish within {limit:?}, as {flag} demands")]
    TimedOut { flag: &'static str, limit: Duration },
    #[error("read {} as a message of CRI: {why}", path.display())]
    BadFile { path: PathBuf, why: String },
    #[error("read {what} of {} as a pod manifest: {why}", path.display())]
    BadManifest { path: PathBuf, what: String, why: String, hint: Option<String> },
    /// A file of another program.
    #[error("read {what}: {why}")]
    Peer { what: String, why: String, hint: Option<String> },
    #[error("{operation} container `{name}`: it does not run")]
    Stopped { operation: &'static str, name: String },
    /// It ran, and has exited.
    #[error("{operation} container `{name}`: it has exited with code {code}, at {at}")]
    Ended { operation: &'static str, name: String, code: i32, at: String },
    #[error("start container `{name}`: a kubelet manages its pod")]
    OfKubelet { name: String },
    #[error("write {}: a file is there already", path.display())]
    FileTaken { path: PathBuf },
    #[error("read an archive from {what}: it is a directory")]
    ArchiveDirectory { what: String },
    #[error("copy {what}: {why}")]
    Copy { what: String, why: String },
    #[error("use {} as docker's configuration: {why}", path.display())]
    DockerConfig { path: PathBuf, why: String },
    #[error("{operation} {what}")]
    NotRunning { operation: &'static str, what: String },
    #[error("audit container `{name}`")]
    Audit { name: String, source: audit::Error },
    /// Each of them was printed already.
    #[error("audit all running containers of the pod: {count} failed")]
    NotAudited { count: usize },
    #[error("parse or write JSON")]
    Json { source: serde_json::Error },
    /// Each finding was printed already.
    #[error("verify the images: {count} layers differ from what was stored")]
    NotWhole { count: usize },
    /// Each of them was printed in its place.
    #[error("print all of the log: output was rotated away before it was read, {count} times")]
    LogGaps { count: usize },
}

/// How the whole of a log is printed.
const GAPS_HINT: &str =
    "raise `logs.rotate_size` or `logs.rotate_files`, or read the output faster";

/// The result of a command.
pub(crate) type Result<T, E = Error> = std::result::Result<T, E>;

/// For a socket that cannot be connected to.
fn connect_hint(kind: io::ErrorKind) -> &'static str {
    if kind == io::ErrorKind::PermissionDenied {
        "run it as root: only root can use the socket"
    } else if kind == io::ErrorKind::ConnectionRefused {
        "the daemon has ended, or is just starting: see `journalctl -u hull`, or start it with `hull serve`"
    } else {
        "start it with `hull serve`, or name its socket with --socket"
    }
}

/// For a name that several objects have.
fn ambiguous_hint(namespaces: Namespaces) -> &'static str {
    match namespaces {
        Namespaces::One => "give more digits of the id, or POD/CONTAINER",
        Namespaces::Several => {
            "give the namespace, by -n NAMESPACE or as NAMESPACE/POD or NAMESPACE/POD/CONTAINER; or more digits of the id"
        }
    }
}

/// For an object that is not there.
fn not_found_hint(kind: &str, name: &str) -> String {
    if let Some(name) = name.strip_prefix("pod/") {
        return format!("give the name alone, `{name}`");
    }
    if kind == "a pod in namespace" && name.bytes().all(|b| b.is_ascii_digit()) {
        return format!("-n is the namespace here; for the newest {name} use --last {name}");
    }
    match kind {
        "image" => "`hull images` lists the images of this node, `hull pull` pulls others".into(),
        "published port" => {
            "`hull port NAME` lists the published ports, `hull run -p` publishes others".into()
        }
        "a schema for command" => "`hull schema` prints those of all commands".into(),
        _ => "`hull ps -a` lists all pods and containers".into(),
    }
}

impl Error {
    /// Converts an I/O error; `operation` reads after "cannot".
    pub(crate) fn io(operation: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { operation: operation.into(), source }
    }

    /// Whether the reader of our output closed the pipe.
    pub(crate) fn is_broken_pipe(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::BrokenPipe)
    }

    /// Advice for the user.
    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            Self::Connect { source, .. } => Some(connect_hint(source.kind()).into()),
            Self::Channel { .. } => Some("if the daemon is just stopping, try again when it has started".into()),
            Self::Daemon { hint, .. } => hint.clone(),
            Self::Config { source } => source.hint(),
            Self::NotFound { kind, name } => Some(not_found_hint(kind, name)),
            Self::Ambiguous { namespaces, .. } => Some(ambiguous_hint(*namespaces).into()),
            Self::NameTaken { name, instead, .. } => {
                Some(format!("remove that pod with `hull rm -f {name}`, or {instead}"))
            }
            Self::LogGaps { .. } => Some(GAPS_HINT.into()),
            Self::NotWhole { .. } => {
                Some("`hull images verify --repair` pulls broken layers again".into())
            }
            Self::Running { .. } => Some("stop it first, or use `hull rm -f`".into()),
            Self::OfKubelet { .. } => {
                Some("the kubelet starts it again by itself; stop it to have it restarted".into())
            }
            Self::ArchiveDirectory { .. } => {
                Some("an image layout is packed first: `tar -C DIRECTORY -c . | hull load`".into())
            }
            Self::FileTaken { path } => Some(format!(
                "name another file, or remove it if nothing needs it any more: rm {}",
                path.display()
            )),
            Self::BadManifest { hint, .. } | Self::Peer { hint, .. } => hint.clone(),
            Self::Stopped { .. } | Self::NotRunning { .. } => {
                Some("`hull ps -a` lists exited containers with their exit codes".into())
            }
            Self::NotATerminal => Some("omit -t to pass on a file or a pipe".into()),
            Self::NotDetached => Some(
                "a daemon of an earlier release kills the command with its session: restart the daemon".into(),
            ),
            Self::SessionCut => Some(
                "if the daemon was restarted, run the command again: it is killed with its session"
                    .into(),
            ),
            Self::AttachCut { container } => {
                Some(format!("if the container still runs, `hull attach {container}` attaches again"))
            }
            Self::InputCut { .. } => Some(
                "the container got only a part of stdin, or nothing: its result is not to be used; run it again"
                    .into(),
            ),
            Self::Interrupted => {
                Some("`hull ps -a` lists the pod, `hull rm -f` removes it".into())
            }
            Self::TimedOut { .. } => {
                Some("allow more time; `hull info` shows whether the daemon answers".into())
            }
            Self::Ended { name, .. } => Some(format!(
                "`hull logs {name}` prints its output, `hull explain {name}` why it ended, `hull start {name}` starts it again"
            )),
            Self::Audit { source, .. } => source.hint().map(Into::into),
            Self::Json { .. }
            | Self::BadFlag { .. }
            | Self::Io { .. }
            | Self::Kernel { .. }
            | Self::NotAudited { .. }
            | Self::BadFile { .. }
            | Self::Copy { .. }
            | Self::DockerConfig { .. }
            | Self::Session { .. }
            | Self::Usage { .. }
            | Self::PlayInterrupted
            | Self::Response { .. } => None,
        }
    }

    /// The lines to print, see [`lines`].
    pub(crate) fn lines(&self) -> String {
        // The daemon's message has its "cannot" already.
        let text = if let Self::Daemon { message, .. } | Self::Usage { text: message } = self {
            message.clone()
        } else {
            format!("cannot {}", chain(self))
        };
        lines(&text, self.hint().as_deref())
    }
}

impl Error {
    /// An error of the daemon from its sentence, which may end in a hint.
    pub(crate) fn daemon(sentence: &str) -> Self {
        let (message, hint) = split_hint(sentence);
        Self::Daemon { message, hint }
    }
}

/// Advice after a connection was lost during a call.
const LOST_HINT: &str = "see whether the daemon runs (`systemctl status hull`) and what was done already (`hull ps -a`), \
                         then repeat the command";

impl From<tonic::Status> for Error {
    fn from(status: tonic::Status) -> Self {
        // The client makes such a status itself, from an error of the connection.
        if std::error::Error::source(&status).is_some() {
            let why = status.message();
            return Self::Daemon {
                message: format!(
                    "cannot get the daemon's whole answer: the connection was lost ({why})"
                ),
                hint: Some(LOST_HINT.into()),
            };
        }
        let (message, hint) = split_hint(status.message());
        let message = match (message.is_empty(), status.code()) {
            (true, code) => format!("the daemon returned {code}"),
            (false, _) => message,
        };
        Self::Daemon { message, hint }
    }
}

/// The lines of an error: `error: …` and, with a hint, `hint: …`.
pub(crate) fn lines(text: &str, hint: Option<&str>) -> String {
    let text = shown(text, TEXT_BYTES_MAX);
    match hint {
        Some(hint) => format!("error: {text}\nhint: {}\n", shown(hint, TEXT_BYTES_MAX)),
        None => format!("error: {text}\n"),
    }
}

/// The end of a sentence about known commands: the words that are none, if there are any.
pub(crate) fn but_not(words: &[&str]) -> String {
    if words.is_empty() { String::new() } else { format!(", not `{}`", words.join(" ")) }
}

/// An error with its sources, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    crate::error::Chain(error).to_string()
}

/// Splits the hint from a message that ends in `(hint: …)`.
fn split_hint(message: &str) -> (String, Option<String>) {
    let split = message.strip_suffix(')').and_then(|rest| rest.rsplit_once(" (hint: "));
    match split {
        Some((message, hint)) => (message.to_owned(), Some(hint.to_owned())),
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
    fn a_lost_connection_says_what_to_look_at() {
        let source = io::Error::from(io::ErrorKind::BrokenPipe);
        let lines = Error::from(tonic::Status::from_error(Box::new(source))).lines();
        assert!(
            lines.contains("the connection was lost") && lines.contains("hint: see whether"),
            "{lines}"
        );
        let answer = Error::from(status::plain(tonic::Code::Unavailable, "cannot pull"));
        assert!(!answer.lines().contains("connection"), "{}", answer.lines());
    }

    #[test]
    fn text_from_outside_makes_no_lines_of_its_own() {
        const FORGED: &str = "x\nhint: run this\u{1b}[2J\u{9b}1m";
        let daemon = Error::Daemon { message: FORGED.into(), hint: Some(FORGED.into()) };
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
