// SPDX-License-Identifier: Apache-2.0
//! Recognises known error phrases in the last output of a program.
//!
//! The rule: a phrase is one of [`PHRASES`], shown in this file's own words. Nothing else of a line leaves this module
//! as text for a message; its words are only compared with what the container's spec, the kernel or the image says.

use hull_plan::LastLines;

/// A known error, by what the kernel or a common program calls it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Phrase {
    LibraryMissing,
    SymbolMissing,
    CommandMissing,
    SetuidIneffective,
    AddressInUse,
    NoSuchAddress,
    ReadOnly,
    WatchLimit,
    NoSpace,
    QuotaExceeded,
    TooManyFiles,
    ForkRefused,
    OutOfMemory,
    HostUnknown,
    ConnectionRefused,
    Unreachable,
    TimedOut,
    Certificate,
    NoAccount,
    StaleHandle,
    NotConnected,
    WrongFormat,
    NotImplemented,
    NoDevice,
    NotPermitted,
    PermissionDenied,
    InvalidArgument,
    Missing,
}

/// A phrase, how messages show it, and its spellings in lower case. In the order of precedence within a line: what
/// says more comes first.
type Known = (Phrase, &'static str, &'static [&'static str]);

const PHRASES: [Known; 28] = [
    (
        Phrase::LibraryMissing,
        "a shared library is missing",
        &[
            "error while loading shared libraries",
            "error loading shared library",
            "library not loaded",
        ],
    ),
    (
        Phrase::SymbolMissing,
        "a version or symbol of a shared library is missing",
        &[
            "symbol not found",
            "undefined symbol",
            "symbol lookup error",
            "error relocating",
            "' not found (required by",
        ],
    ),
    (
        Phrase::CommandMissing,
        "command not found",
        &["command not found", "executable file not found", ": not found", "can't execute '"],
    ),
    (
        Phrase::SetuidIneffective,
        "a setuid program did not get its owner's rights",
        &[
            "must be suid",
            "must be setuid",
            "effective uid is not 0",
            "no new privileges",
            "must be run from a terminal or setuid",
            "not setuid root",
            "has the 'nosuid' option",
        ],
    ),
    (
        Phrase::AddressInUse,
        "address already in use",
        &[
            "address already in use",
            "address in use",
            "eaddrinuse",
            "port already in use",
            "already listening on",
        ],
    ),
    (
        Phrase::NoSuchAddress,
        "cannot assign requested address",
        &[
            "cannot assign requested address",
            "address not available",
            "eaddrnotavail",
            "can't assign requested address",
        ],
    ),
    (
        Phrase::ReadOnly,
        "read-only file system",
        &["read-only file system", "readonly filesystem", "erofs"],
    ),
    (
        Phrase::WatchLimit,
        "the limit of inotify watches is reached",
        &[
            "system limit for number of file watchers",
            "inotify watch limit",
            "inotify_init",
            "inotify_add_watch",
        ],
    ),
    (
        Phrase::NoSpace,
        "no space left on device",
        &["no space left on device", "enospc", "disk is full", "disk full"],
    ),
    (Phrase::QuotaExceeded, "disk quota exceeded", &["disk quota exceeded", "edquot"]),
    (Phrase::TooManyFiles, "too many open files", &["too many open files", "emfile", "enfile"]),
    (
        Phrase::ForkRefused,
        "a new process or thread was refused",
        &[
            "can't fork",
            "cannot fork",
            "fork: retry",
            "fork failed",
            "fork/exec",
            "failed to create new os thread",
            "unable to create native thread",
            "can't start new thread",
            "pthread_create failed",
            "resource temporarily unavailable",
        ],
    ),
    (
        Phrase::OutOfMemory,
        "an allocation of memory failed",
        &[
            "cannot allocate memory",
            "outofmemoryerror",
            "out of memory",
            "bad_alloc",
            "memoryerror",
            "enomem",
        ],
    ),
    (
        Phrase::HostUnknown,
        "a host name was not resolved",
        &[
            "could not resolve host",
            "name or service not known",
            "temporary failure in name resolution",
            "name does not resolve",
            "no such host",
            "bad address '",
            "unknown host",
            "unknownhostexception",
            "enotfound",
            "eai_again",
            "could not translate host name",
            "nodename nor servname",
            "server misbehaving",
        ],
    ),
    (Phrase::ConnectionRefused, "connection refused", &["connection refused", "econnrefused"]),
    (
        Phrase::Unreachable,
        "no route to the network or host",
        &[
            "no route to host",
            "network is unreachable",
            "host is unreachable",
            "ehostunreach",
            "enetunreach",
        ],
    ),
    (
        Phrase::TimedOut,
        "a connection timed out",
        &[
            "connection timed out",
            "i/o timeout",
            "etimedout",
            "connect timeout",
            "operation timed out",
        ],
    ),
    (
        Phrase::Certificate,
        "a TLS certificate was not accepted",
        &[
            "x509:",
            "certificate verify failed",
            "self-signed certificate",
            "self signed certificate",
            "unknown ca",
        ],
    ),
    (
        Phrase::NoAccount,
        "the user has no entry in the image's /etc/passwd",
        &[
            "cannot find name for user id",
            "no matching entries in passwd",
            "unable to look up current user",
            "uid not found",
            "getpwuid",
            "you don't exist",
            "unknown userid",
            "unknown uid",
            "no user exists for uid",
            "current user has no name",
        ],
    ),
    (
        Phrase::StaleHandle,
        "stale file handle",
        &["stale file handle", "stale nfs file handle", "estale"],
    ),
    (
        Phrase::NotConnected,
        "transport endpoint is not connected",
        &["transport endpoint is not connected", "software caused connection abort", "enotconn"],
    ),
    (
        Phrase::WrongFormat,
        "exec format error",
        &["exec format error", "cannot execute binary file", "enoexec"],
    ),
    (Phrase::NotImplemented, "function not implemented", &["function not implemented", "enosys"]),
    (Phrase::NoDevice, "no such device", &["no such device", "enodev", "enxio"]),
    (
        Phrase::NotPermitted,
        "operation not permitted",
        &[
            "operation not permitted",
            "eperm",
            "not permitted",
            "must be root",
            "you must be superuser",
            "need to be root",
        ],
    ),
    (
        Phrase::PermissionDenied,
        "permission denied",
        &["permission denied", "eacces", "accessdenied", "access denied", "access is denied"],
    ),
    (Phrase::InvalidArgument, "invalid argument", &["invalid argument", "einval"]),
    (
        Phrase::Missing,
        "no such file or directory",
        &["no such file or directory", "enoent", "filenotfound", "nosuchfileexception"],
    ),
];

impl Phrase {
    /// How messages show it.
    pub(super) fn shown(self) -> &'static str {
        PHRASES.iter().find(|(known, ..)| *known == self).map_or("", |(_, shown, _)| shown)
    }
}

/// A recognised error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Clue {
    pub(super) phrase: Phrase,
    /// The line in lower case; never shown.
    line: String,
    /// The line as it is; never shown.
    raw: String,
}

/// Names of programs that are also ordinary words.
const AMBIGUOUS: [&str; 14] = [
    "ip", "route", "date", "kill", "nice", "hostname", "su", "perf", "halt", "shutdown", "mount",
    "tc", "netlink", "bpf",
];
/// Most lines of a stream in which a phrase is searched, from the last.
const LINES_MAX: usize = 40;

/// The most telling error in the last output: of standard error first, from the last line backwards.
pub(super) fn find(lines: &LastLines) -> Option<Clue> {
    let backwards = |of: &Vec<String>| {
        let lines = of.iter().rev().take(LINES_MAX).cloned();
        lines.collect::<Vec<_>>()
    };
    let all = backwards(&lines.stderr).into_iter().chain(backwards(&lines.stdout));
    let mut first: Option<Clue> = None;
    for raw in all {
        let Some(clue) = recognise(&raw) else { continue };
        // A missing file is often the consequence of the error that was printed before it.
        if !matches!(clue.phrase, Phrase::Missing | Phrase::InvalidArgument) {
            return Some(clue);
        }
        first = first.or(Some(clue));
    }
    first
}

fn recognise(raw: &str) -> Option<Clue> {
    // Of the same length, so that places in one are those in the other.
    let line = raw.to_ascii_lowercase();
    let (phrase, ..) = PHRASES
        .iter()
        .find(|(_, _, spellings)| spellings.iter().any(|text| line.contains(text)))?;
    Some(Clue { phrase: *phrase, line, raw: raw.to_owned() })
}

impl Clue {
    #[cfg(test)]
    pub(super) fn of(line: &str) -> Option<Self> {
        recognise(line)
    }

    /// The line in lower case, to compare it.
    pub(super) fn line(&self) -> &str {
        &self.line
    }

    /// Whether the line contains `word` as a whole word, in any case.
    pub(super) fn has_word(&self, word: &str) -> bool {
        words(&self.line).any(|found| found == word)
    }

    /// Whether the line is about `word`: a word of its own, or the name of the program that printed the line, for words
    /// that can mean anything else.
    pub(super) fn is_about(&self, word: &str) -> bool {
        if !AMBIGUOUS.contains(&word) {
            return self.has_word(word);
        }
        let head = self.line.split(':').next().unwrap_or_default().trim();
        head.rsplit('/').next() == Some(word)
    }

    /// Absolute paths in the line.
    pub(super) fn paths(&self) -> impl Iterator<Item = &str> {
        let parts = self.raw.split(|c: char| c.is_whitespace() || "'\"`:,()=[]<>‘’“”".contains(c));
        parts.map(|part| part.trim_end_matches(['.', ';'])).filter(|part| part.starts_with('/'))
    }

    /// Numbers in the line that can be ports.
    pub(super) fn ports(&self) -> impl Iterator<Item = u16> {
        words(&self.line).filter_map(|word| word.parse().ok()).filter(|port| *port > 0)
    }

    /// The command that a shell, or another program, did not find. To be shown only if the spec has it too.
    pub(super) fn command(&self) -> Option<&str> {
        if let Some((_, rest)) = self.raw.split_once("can't execute '") {
            return rest.split('\'').next();
        }
        if let Some((before, _)) = self.raw.split_once("executable file not found") {
            return before.trim_end_matches([' ', ':', '"']).rsplit(['"', ' ']).next();
        }
        const ENDS: [&str; 4] =
            ["command not found", "not found", "exec format error", "cannot execute"];
        let end = ENDS.iter().find_map(|end| self.line.find(end))?;
        let before = self.raw.get(..end)?.trim_end_matches([' ', ':']);
        before.rsplit([':', ' ']).next().filter(|word| !word.is_empty())
    }

    /// The library that the dynamic loader did not find: a file name such as `libc.so.6`, nothing else.
    pub(super) fn library(&self) -> Option<&str> {
        let parts = self.raw.split(|c: char| c.is_whitespace() || ":'\"`()".contains(c));
        let mut names = parts.filter(|part| is_library(part));
        names.next()
    }
}

fn is_library(name: &str) -> bool {
    const LENGTH_MAX: usize = 64;
    name.len() <= LENGTH_MAX
        && (name.starts_with("lib") || name.starts_with("ld-"))
        && name.contains(".so")
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._+-".contains(&byte))
}

/// The words of a line: letters, digits, `_` and `-`.
pub(super) fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '-'))
        .filter(|word| !word.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn phrase(line: &str) -> Option<Phrase> {
        Some(recognise(line)?.phrase)
    }

    #[test]
    fn the_words_of_shells_and_languages_are_known() {
        for (line, wanted) in [
            ("sh: can't create /data/f: Permission denied", Phrase::PermissionDenied),
            ("PermissionError: [Errno 13] Permission denied: '/srv/key'", Phrase::PermissionDenied),
            ("Error: EACCES: permission denied, open '/data/f'", Phrase::PermissionDenied),
            ("java.nio.file.AccessDeniedException: /data", Phrase::PermissionDenied),
            ("chown: /tmp: Operation not permitted", Phrase::NotPermitted),
            ("httpd: bind: Address already in use", Phrase::AddressInUse),
            ("Error: listen EADDRINUSE: address already in use :::8080", Phrase::AddressInUse),
            ("touch: /x: Read-only file system", Phrase::ReadOnly),
            ("sh: curl: not found", Phrase::CommandMissing),
            ("bash: line 1: curl: command not found", Phrase::CommandMissing),
            ("env: can't execute 'python': No such file or directory", Phrase::CommandMissing),
            (
                "/run: error while loading shared libraries: libc.so.6: cannot open shared object file",
                Phrase::LibraryMissing,
            ),
            (
                "Error loading shared library libssl.so.3: No such file or directory (needed by /x)",
                Phrase::LibraryMissing,
            ),
            (
                "/x: /lib/libc.so.6: version `GLIBC_2.34' not found (required by /x)",
                Phrase::SymbolMissing,
            ),
            ("su: must be suid to work properly", Phrase::SetuidIneffective),
            ("dial tcp: lookup db on 10.0.0.10:53: no such host", Phrase::HostUnknown),
            ("wget: bad address 'db'", Phrase::HostUnknown),
            ("dial tcp 10.0.0.1:5432: connect: connection refused", Phrase::ConnectionRefused),
            ("fork: Resource temporarily unavailable", Phrase::ForkRefused),
            ("Error: ENOSPC: System limit for number of file watchers reached", Phrase::WatchLimit),
            ("write: No space left on device", Phrase::NoSpace),
        ] {
            assert_eq!(phrase(line), Some(wanted), "{line}");
        }
        assert_eq!(phrase("listening on port 80"), None);
        assert!(
            PHRASES.iter().all(|(phrase, shown, _)| phrase.shown() == *shown && !shown.is_empty())
        );
    }

    #[test]
    fn parts_of_a_line_are_found_to_compare_them() {
        let clue = |line: &str| recognise(line).unwrap();
        let denied = clue("open(\"/data/f\") = -1 (Permission denied), see /etc/x.");
        assert_eq!(denied.paths().collect::<Vec<_>>(), ["/data/f", "/etc/x"]);
        let bind = clue("bind() to 0.0.0.0:8080 failed (98: Address already in use)");
        assert!(bind.ports().any(|port| port == 8080) && bind.has_word("bind"));
        for (line, wanted) in [
            ("sh: curl: not found", "curl"),
            ("sh: 1: curl: not found", "curl"),
            ("/bin/bash: line 3: curl: command not found", "curl"),
            ("exec: \"curl\": executable file not found in $PATH", "curl"),
            ("env: can't execute 'python': No such file or directory", "python"),
        ] {
            assert_eq!(clue(line).command(), Some(wanted), "{line}");
        }
        let library = clue(
            "x: error while loading shared libraries: libc.so.6: cannot open shared object file",
        );
        assert_eq!(library.library(), Some("libc.so.6"));
        let odd = clue("error while loading shared libraries: lib secret/.so: no");
        assert_eq!(odd.library(), None);
    }

    #[test]
    fn the_last_error_counts_and_a_missing_file_the_least() {
        let lines = LastLines {
            stdout: vec!["bind: address already in use".into()],
            stderr: vec![
                "touch: /a: Read-only file system".into(),
                "starting".into(),
                "cat: /a: No such file or directory".into(),
            ],
        };
        assert_eq!(find(&lines).unwrap().phrase, Phrase::ReadOnly);
        let quiet = LastLines { stdout: vec!["all is well".into()], ..LastLines::default() };
        assert_eq!(find(&quiet), None);
    }
}
