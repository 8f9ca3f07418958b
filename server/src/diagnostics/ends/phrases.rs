// SPDX-License-Identifier: Apache-2.0
//! The error phrases that are recognised in a line (pure): texts of libc, shells and language runtimes, and names of
//! errors. Each counts only as whole words.

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

/// A phrase, how messages show it, its spellings in lower case, and names of errors.
type Known = (Phrase, &'static str, &'static [&'static str], &'static [&'static str]);

/// In the order of precedence within a line: what says more comes first.
const PHRASES: [Known; 28] = [
    (
        Phrase::LibraryMissing,
        "a shared library is missing",
        &[
            "error while loading shared libraries",
            "error loading shared library",
            "library not loaded",
        ],
        &[],
    ),
    (
        Phrase::SymbolMissing,
        "a version or symbol of a shared library is missing",
        &[
            "undefined symbol",
            "symbol lookup error",
            "error relocating",
            "' not found (required by",
        ],
        &[],
    ),
    (
        Phrase::CommandMissing,
        "command not found",
        &["executable file not found in $path", "can't execute '"],
        &[],
    ),
    (
        Phrase::SetuidIneffective,
        "a setuid program did not get its owner's rights",
        &[
            "must be suid",
            "must be setuid",
            "effective uid is not 0",
            "must be run from a terminal or setuid",
            "not setuid root",
            "has the 'nosuid' option",
        ],
        &[],
    ),
    (
        Phrase::AddressInUse,
        "address already in use",
        &["address already in use", "address in use"],
        &["EADDRINUSE"],
    ),
    (
        Phrase::NoSuchAddress,
        "cannot assign requested address",
        &[
            "cannot assign requested address",
            "address not available",
            "can't assign requested address",
        ],
        &["EADDRNOTAVAIL"],
    ),
    (Phrase::ReadOnly, "read-only file system", &["read-only file system"], &["EROFS"]),
    (
        Phrase::WatchLimit,
        "the limit of inotify watches is reached",
        &["system limit for number of file watchers", "inotify watch limit"],
        &[],
    ),
    (Phrase::NoSpace, "no space left on device", &["no space left on device"], &["ENOSPC"]),
    (Phrase::QuotaExceeded, "disk quota exceeded", &["disk quota exceeded"], &["EDQUOT"]),
    (
        Phrase::TooManyFiles,
        "too many open files",
        &["too many open files in system", "too many open files"],
        &["EMFILE", "ENFILE"],
    ),
    (
        Phrase::ForkRefused,
        "a new process or thread was refused",
        &[
            "can't fork",
            "cannot fork",
            "fork: retry",
            "fork: resource temporarily unavailable",
            "fork: operation not permitted",
            "can't vfork",
            "clone: operation not permitted",
            "pthread_create: operation not permitted",
            "pthread_create: resource temporarily unavailable",
            "failed to create new os thread",
            "unable to create native thread",
            "can't start new thread",
            "pthread_create failed",
        ],
        &[],
    ),
    (
        Phrase::OutOfMemory,
        "an allocation of memory failed",
        &["cannot allocate memory", "java.lang.outofmemoryerror", "std::bad_alloc", "memoryerror"],
        &["ENOMEM"],
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
            "java.net.unknownhostexception",
            "could not translate host name",
            "nodename nor servname provided",
        ],
        &["ENOTFOUND", "EAI_AGAIN"],
    ),
    (Phrase::ConnectionRefused, "connection refused", &["connection refused"], &["ECONNREFUSED"]),
    (
        Phrase::Unreachable,
        "no route to the network or host",
        &["no route to host", "network is unreachable", "host is unreachable"],
        &["EHOSTUNREACH", "ENETUNREACH"],
    ),
    (
        Phrase::TimedOut,
        "a connection timed out",
        &["connection timed out", "i/o timeout"],
        &["ETIMEDOUT"],
    ),
    (
        Phrase::Certificate,
        "a TLS certificate was not accepted",
        &["x509: certificate", "certificate verify failed"],
        &[],
    ),
    (
        Phrase::NoAccount,
        "the user has no entry in the image's /etc/passwd",
        &[
            "cannot find name for user id",
            "no matching entries in passwd",
            "you don't exist, go away",
            "no user exists for uid",
        ],
        &[],
    ),
    (
        Phrase::StaleHandle,
        "stale file handle",
        &["stale file handle", "stale nfs file handle"],
        &["ESTALE"],
    ),
    (
        Phrase::NotConnected,
        "transport endpoint is not connected",
        &["transport endpoint is not connected"],
        &[],
    ),
    (
        Phrase::WrongFormat,
        "exec format error",
        &["exec format error", "cannot execute binary file"],
        &["ENOEXEC"],
    ),
    (
        Phrase::NotImplemented,
        "function not implemented",
        &["function not implemented"],
        &["ENOSYS"],
    ),
    (
        Phrase::NoDevice,
        "no such device",
        &["no such device or address", "no such device"],
        &["ENODEV", "ENXIO"],
    ),
    (Phrase::NotPermitted, "operation not permitted", &["operation not permitted"], &["EPERM"]),
    (
        Phrase::PermissionDenied,
        "permission denied",
        &["permission denied", "java.nio.file.accessdeniedexception"],
        &["EACCES"],
    ),
    (Phrase::InvalidArgument, "invalid argument", &["invalid argument"], &["EINVAL"]),
    (
        Phrase::Missing,
        "no such file or directory",
        &["no such file or directory", "java.nio.file.nosuchfileexception"],
        &["ENOENT"],
    ),
];

impl Phrase {
    /// All of them.
    #[cfg(test)]
    pub(super) fn all() -> impl Iterator<Item = Self> {
        PHRASES.iter().map(|(phrase, ..)| *phrase)
    }

    /// How messages show it.
    pub(super) fn shown(self) -> &'static str {
        PHRASES.iter().find(|(known, ..)| *known == self).map_or("", |(_, shown, ..)| shown)
    }

    /// Whether it is often the consequence of another error.
    pub(super) fn is_weak(self) -> bool {
        matches!(self, Self::Missing | Self::InvalidArgument)
    }
}

/// Words of errors that a server of an application reports in the same phrases.
const OF_SERVERS: [&str; 22] = [
    "for user",
    "for table",
    "for relation",
    "for schema",
    "for database",
    "for sequence",
    "for function",
    "for view",
    "for column",
    "for language",
    "for type",
    "for role",
    "publickey",
    "http",
    "sql",
    "rpc error",
    "grpc",
    "forbidden",
    "bucket",
    "denied to create",
    "denied to set",
    "requested access to the resource",
];
/// Words of errors about the memory of a graphics processor.
const OF_DEVICES: [&str; 6] = ["cuda", "gpu", "hip", "vulkan", "vram", "opencl"];
/// Names of shells.
pub(super) const SHELLS: [&str; 7] = ["sh", "bash", "ash", "dash", "zsh", "ksh", "busybox"];

/// The phrases in a line in the order of precedence, with the places of their words: start and end in bytes.
pub(super) fn all(raw: &str) -> Vec<(Phrase, usize, usize)> {
    // Of the same length, so that places in one are those in the other.
    let line = raw.to_ascii_lowercase();
    let command = missing_command(raw).map(|(_, start)| (Phrase::CommandMissing, start, raw.len()));
    let known = PHRASES.iter().filter(|(phrase, ..)| !is_of_something_else(*phrase, &line));
    let places = known.flat_map(|(phrase, _, spellings, errors)| {
        let of = |text: &str, words: &[&str]| -> Vec<(Phrase, usize, usize)> {
            let places = words.iter().flat_map(|word| {
                places(text, word).map(|start| (*phrase, start, start.saturating_add(word.len())))
            });
            places.collect()
        };
        of(&line, spellings).into_iter().chain(of(raw, errors))
    });
    command.into_iter().chain(places).collect()
}

/// Whether the phrase in a line of lower case has another meaning than libc gives it.
fn is_of_something_else(phrase: Phrase, line: &str) -> bool {
    let has = |words: &[&str]| words.iter().any(|word| place(line, word).is_some());
    match phrase {
        Phrase::PermissionDenied | Phrase::NotPermitted => has(&OF_SERVERS),
        Phrase::OutOfMemory => has(&OF_DEVICES) || line.contains("in static tls block"),
        // The command is there.
        Phrase::CommandMissing => line.contains("permission denied"),
        Phrase::LibraryMissing
        | Phrase::SymbolMissing
        | Phrase::SetuidIneffective
        | Phrase::AddressInUse
        | Phrase::NoSuchAddress
        | Phrase::ReadOnly
        | Phrase::WatchLimit
        | Phrase::NoSpace
        | Phrase::QuotaExceeded
        | Phrase::TooManyFiles
        | Phrase::ForkRefused
        | Phrase::HostUnknown
        | Phrase::ConnectionRefused
        | Phrase::Unreachable
        | Phrase::TimedOut
        | Phrase::Certificate
        | Phrase::NoAccount
        | Phrase::StaleHandle
        | Phrase::NotConnected
        | Phrase::WrongFormat
        | Phrase::NotImplemented
        | Phrase::NoDevice
        | Phrase::InvalidArgument
        | Phrase::Missing => false,
    }
}

/// The start of `words` in `text`, where they are not part of longer words.
fn place(text: &str, words: &str) -> Option<usize> {
    places(text, words).next()
}

/// All places of `words` in `text`, where they are not part of longer words.
fn places<'t>(text: &'t str, words: &'t str) -> impl Iterator<Item = usize> {
    let is_word =
        |byte: Option<&u8>| byte.is_some_and(|of| of.is_ascii_alphanumeric() || *of == b'_');
    let bytes = text.as_bytes();
    let (first, last) = (words.as_bytes().first(), words.as_bytes().last());
    text.match_indices(words).map(|(start, _)| start).filter(move |start| {
        let before = start.checked_sub(1).and_then(|at| bytes.get(at));
        let after = bytes.get(start.saturating_add(words.len()));
        let is_part_of_word = is_word(first) && is_word(before) || is_word(last) && is_word(after);
        !is_part_of_word
    })
}

/// The command that a shell did not find, and the place after it: `sh: curl: not found`,
/// `/run.sh: line 3: curl: command not found`, and no other line that ends in these words.
pub(super) fn missing_command(raw: &str) -> Option<(&str, usize)> {
    let line = raw.trim_end();
    let before =
        line.strip_suffix(": command not found").or_else(|| line.strip_suffix(": not found"))?;
    let parts: Vec<&str> = before.split(": ").collect();
    let is_number = |part: &str| {
        let number = part.strip_prefix("line ").unwrap_or(part);
        !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
    };
    let is_script = |head: &str| is_shell(head) || head.starts_with('/') || head.starts_with("./");
    let (head, command) = match parts.as_slice() {
        [head, command] if is_shell(head) => (head, command),
        [head, number, command] if is_number(number) && is_script(head) => (head, command),
        _ => return None,
    };
    let is_name = |text: &str| !text.is_empty() && !text.contains(char::is_whitespace);
    (is_name(head) && is_name(command)).then_some((*command, before.len()))
}

/// Whether a program is a shell, or a script by its name.
pub(super) fn is_shell(program: &str) -> bool {
    let name = program.rsplit('/').next().unwrap_or_default().trim_start_matches('-');
    SHELLS.contains(&name) || name.strip_suffix(".sh").is_some_and(|stem| !stem.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn phrase(line: &str) -> Option<Phrase> {
        Some(all(line).first()?.0)
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
            ("/bin/sh: 1: curl: not found", Phrase::CommandMissing),
            ("bash: line 1: curl: command not found", Phrase::CommandMissing),
            ("/entrypoint.sh: line 12: curl: not found", Phrase::CommandMissing),
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
            ("bash: fork: Operation not permitted", Phrase::ForkRefused),
            ("sh: can't vfork: Operation not permitted", Phrase::ForkRefused),
            ("Error: ENOSPC: System limit for number of file watchers reached", Phrase::WatchLimit),
            ("write: No space left on device", Phrase::NoSpace),
            ("fork/exec /x: no such file or directory", Phrase::Missing),
            ("fork/exec /x: permission denied", Phrase::PermissionDenied),
            ("java.lang.OutOfMemoryError: Java heap space", Phrase::OutOfMemory),
        ] {
            assert_eq!(phrase(line), Some(wanted), "{line}");
        }
        assert!(
            PHRASES.iter().all(|(phrase, shown, ..)| phrase.shown() == *shown && !shown.is_empty())
        );
    }

    #[test]
    fn lines_that_only_look_like_an_error_are_none() {
        for line in [
            "listening on port 80",
            "urllib.error.HTTPError: HTTP Error 404: Not Found",
            "GET /favicon.ico: not found",
            "error: user bob: not found",
            "server: config: key: not found",
            "server: 5: key: not found",
            "at OpenFile (main.go:3)",
            "SystemFile: bad header",
            "numberOfShards must be positive",
            "FilePermission check failed",
            "eperm is a word here",
            "recv: Resource temporarily unavailable",
            "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB",
            "MemoryErrors: 0",
            "RuntimeError: CUDA error: cannot allocate memory",
            "ERROR: permission denied for table users",
            "ERROR:  permission denied for relation users",
            "ERROR 1045 (28000): Access denied for user 'app'@'%' (using password: YES)",
            "git@example.com: Permission denied (publickey).",
            "An error occurred (AccessDenied) when calling the PutObject operation",
            "ERROR: must be superuser to create this",
            "HTTP 403: permission denied",
            "fork failed over to the replica",
            "libx.so: cannot allocate memory in static TLS block",
            "rpc error: code = Unknown desc = permission denied",
            "ERROR:  permission denied to create database",
            "",
        ] {
            assert_eq!(phrase(line), None, "{line}");
        }
    }
}
