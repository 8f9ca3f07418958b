// SPDX-License-Identifier: Apache-2.0
//! Recognises known error phrases in the last output of a program.
//!
//! The rule: a phrase is one of [`phrases`], shown in the words of that table. Nothing else of a line leaves this
//! module as text for a message; its words are only compared with what the spec, the kernel or the image says.

use super::phrases::{self, Phrase, missing_command};
use super::ports;
use super::statement::{self, Statement};
use super::transcript::{self, Level};
use hull_plan::LastLines;

/// A recognised error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Clue {
    pub(super) phrase: Phrase,
    /// Whether it is at the end of a stream. Earlier ones may have been overcome.
    pub(super) is_last: bool,
    /// The line in lower case; never shown.
    line: String,
    /// The line as it is; never shown.
    raw: String,
    /// The place of the phrase in the line.
    start: usize,
    end: usize,
}

/// Names of programs that are also ordinary words.
const AMBIGUOUS: [&str; 14] = [
    "ip", "route", "date", "kill", "nice", "hostname", "su", "perf", "halt", "shutdown", "mount",
    "tc", "netlink", "bpf",
];
/// Most lines of a stream in which a phrase is searched, from the last.
const LINES_MAX: usize = 40;

/// The error that most probably ended the program: the last line of standard error, else of standard output, if it
/// reports one; else an error that its output mentions before.
pub(super) fn find(lines: &LastLines) -> Option<Clue> {
    let plain = |stream: &[String]| -> Vec<String> {
        stream.iter().map(|raw| transcript::without_colours(raw)).collect()
    };
    let streams = [plain(&lines.stderr), plain(&lines.stdout)];
    let mut has_own_error = false;
    for stream in &streams {
        match at_end(stream) {
            End::Clue(clue) => return Some(clue),
            End::OtherError => {
                has_own_error = true;
                break;
            }
            End::Nothing => {}
        }
    }
    let earlier = streams.iter().flat_map(|stream| stream.iter().rev().take(LINES_MAX));
    earlier
        .filter(|raw| {
            let level = transcript::level(raw);
            // The last error is another one, so a warning before it says nothing.
            !(has_own_error && matches!(level, Level::Low | Level::Warning))
        })
        .filter_map(|raw| recognise(raw))
        .map(|(clue, _)| Clue { is_last: false, ..clue })
        .find(|clue| !clue.phrase.is_weak())
}

/// The end of a stream.
enum End {
    Clue(Clue),
    /// Its last line reports an error that is not known.
    OtherError,
    Nothing,
}

fn at_end(stream: &[String]) -> End {
    let (mut weak, mut gave_up) = (None::<Clue>, false);
    let lines = stream.iter().rev().take(LINES_MAX);
    for raw in lines.filter(|raw| !transcript::is_frame(raw) && !transcript::is_aside(raw)) {
        let counts = match transcript::level(raw) {
            Level::Low => false,
            // Redis warns that it cannot bind, and then gives up.
            Level::Warning => gave_up,
            Level::Error | Level::Unknown => true,
        };
        let found = recognise(raw);
        let is_known = found.is_some();
        let reported = found.filter(|(_, of)| counts && *of == Statement::Reported);
        let reported = reported.map(|(clue, _)| clue);
        match (reported, &weak) {
            (Some(clue), None) if clue.phrase.is_weak() => weak = Some(clue),
            // Its consequence is often that a file is missing.
            (Some(clue), Some(weak)) if !shares_path(&clue, weak) => break,
            (Some(clue), _) => return End::Clue(clue),
            (None, Some(_)) => break,
            (None, None) if transcript::is_closing(raw) => gave_up = true,
            (None, None) if !is_known && transcript::is_error(raw) => return End::OtherError,
            (None, None) => break,
        }
    }
    weak.map_or(End::Nothing, End::Clue)
}

fn shares_path(one: &Clue, other: &Clue) -> bool {
    one.paths().any(|path| other.paths().any(|of| of == path))
}

/// The first phrase that a line reports, else the first that it mentions.
fn recognise(raw: &str) -> Option<(Clue, Statement)> {
    let found = phrases::all(raw).into_iter().map(|(phrase, start, end)| {
        let clue = Clue {
            phrase,
            is_last: true,
            line: raw.to_ascii_lowercase(),
            raw: raw.to_owned(),
            start,
            end,
        };
        (clue, statement::of(raw, phrase, start, end))
    });
    let mut found: Vec<_> = found.filter(|(_, of)| *of != Statement::Absent).collect();
    found.sort_by_key(|(_, statement)| *statement != Statement::Reported);
    found.into_iter().next()
}

impl Clue {
    #[cfg(test)]
    pub(super) fn of(line: &str) -> Option<Self> {
        find(&LastLines { stderr: vec![line.to_owned()], ..LastLines::default() })
    }

    /// The line in lower case, to compare it.
    pub(super) fn line(&self) -> &str {
        &self.line
    }

    /// Whether the line contains `word` as a whole word, in any case.
    pub(super) fn has_word(&self, word: &str) -> bool {
        words(&self.line).any(|found| found == word)
    }

    /// Whether the line is about `word`: the name of a program or call at the beginning of the line or of one of its
    /// parts, or after "cannot". Only at the beginning of the line for words that can mean anything else.
    pub(super) fn is_about(&self, word: &str) -> bool {
        let begins = |part: &str, index: usize| {
            let part = ["failed to ", "cannot ", "can't "]
                .iter()
                .find_map(|start| part.strip_prefix(start))
                .unwrap_or(part);
            let token = part.split(|c: char| c.is_whitespace() || "(:".contains(c)).next();
            let token = token.unwrap_or_default();
            let token =
                if index == 0 { token.rsplit('/').next().unwrap_or_default() } else { token };
            token == word
        };
        let parts = self.line.split(": ").flat_map(|part| part.split(", "));
        let parts = parts.map(|part| part.trim_end_matches(':')).enumerate();
        let mut parts = parts.take(if AMBIGUOUS.contains(&word) { 1 } else { usize::MAX });
        parts.any(|(index, part)| begins(part, index))
    }

    /// Absolute paths in the line.
    pub(super) fn paths(&self) -> impl Iterator<Item = &str> {
        paths(&self.raw)
    }

    /// The path that the phrase is about: it stands directly before it, as in `PATH: Permission denied`, or directly
    /// after it, as in `permission denied, open 'PATH'`.
    pub(super) fn subject(&self) -> Option<&str> {
        let (before, after) = (self.raw.get(..self.start)?, self.raw.get(self.end..)?);
        let is_filler = |text: &str, words: &[&str]| {
            let mut parts =
                text.split(|c: char| !c.is_ascii_alphanumeric()).map(str::to_ascii_lowercase);
            parts.all(|part| {
                part.bytes().all(|byte| byte.is_ascii_digit()) || words.contains(&part.as_str())
            })
        };
        if let Some(path) = paths(before).last() {
            let end = before.rfind(path)?.checked_add(path.len())?;
            if is_filler(before.get(end..)?, &["failed", "errno", "error", "to", "open", "stream"])
            {
                return Some(path);
            }
        }
        let path = paths(after).next()?;
        let verbs = [
            "open", "mkdir", "unlink", "rmdir", "scandir", "access", "stat", "lstat", "exec",
            "spawn",
        ];
        is_filler(after.get(..after.find(path)?)?, &verbs).then_some(path)
    }

    /// Ports that the line names as such.
    pub(super) fn ports(&self) -> Vec<u16> {
        ports::of_line(&self.raw)
    }

    /// The command that a shell, or another program, did not find. To be shown only if the spec has it too.
    pub(super) fn command(&self) -> Option<&str> {
        if let Some((_, rest)) = self.raw.split_once("can't execute '") {
            return rest.split('\'').next();
        }
        if let Some((before, _)) = self.raw.split_once("executable file not found") {
            return before.trim_end_matches([' ', ':', '"']).rsplit(['"', ' ']).next();
        }
        if let Some((command, _)) = missing_command(&self.raw) {
            return Some(command);
        }
        let end =
            ["exec format error", "cannot execute"].iter().find_map(|end| self.line.find(end))?;
        let before = self.raw.get(..end)?.trim_end_matches([' ', ':']);
        before.rsplit([':', ' ']).next().filter(|word| !word.is_empty())
    }

    /// The library that the dynamic loader did not find, if it is a common one.
    pub(super) fn library(&self) -> Option<&'static str> {
        let mut parts = self.raw.split(|c: char| c.is_whitespace() || ":'\"`()".contains(c));
        parts.find_map(|part| LIBRARIES.iter().find(|known| **known == part)).copied()
    }
}

/// Libraries that programs miss most often.
const LIBRARIES: [&str; 22] = [
    "libc.so.6",
    "libm.so.6",
    "libdl.so.2",
    "librt.so.1",
    "libpthread.so.0",
    "libgcc_s.so.1",
    "libstdc++.so.6",
    "libz.so.1",
    "libssl.so.3",
    "libssl.so.1.1",
    "libcrypto.so.3",
    "libcrypto.so.1.1",
    "libcurl.so.4",
    "libpq.so.5",
    "libffi.so.8",
    "libGL.so.1",
    "libgomp.so.1",
    "libglib-2.0.so.0",
    "libicuuc.so",
    "libcuda.so.1",
    "libnss3.so",
    "libgdiplus.so",
];

/// Absolute paths in a text; the rest of an address (`//host/`) is none.
fn paths(text: &str) -> impl Iterator<Item = &str> {
    let parts = text.split(|c: char| c.is_whitespace() || "'\"`:,()=[]<>‘’“”".contains(c));
    parts
        .map(|part| part.trim_end_matches(['.', ';']))
        .filter(|part| part.starts_with('/') && !part.starts_with("//"))
}

/// The words of a line: letters, digits, `_` and `-`.
pub(super) fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '-'))
        .filter(|word| !word.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clue(line: &str) -> Clue {
        Clue::of(line).unwrap()
    }

    #[test]
    fn parts_of_a_line_are_found_to_compare_them() {
        let denied = clue("open(\"/data/f\") = -1 (Permission denied), see /etc/x.");
        assert_eq!(denied.paths().collect::<Vec<_>>(), ["/data/f", "/etc/x"]);
        let address = clue("get https://h/secret: permission denied");
        assert_eq!(address.paths().count(), 0);
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
        let odd = clue("error while loading shared libraries: libsecret.so: no");
        assert_eq!(odd.library(), None);
    }

    #[test]
    fn the_subject_is_the_path_beside_the_phrase() {
        for (line, wanted) in [
            ("sh: can't create /data/f: Permission denied", Some("/data/f")),
            ("cat: can't open '/srv/key': Permission denied", Some("/srv/key")),
            ("open() \"/run/x.pid\" failed (13: Permission denied)", Some("/run/x.pid")),
            ("PermissionError: [Errno 13] Permission denied: '/srv/key'", Some("/srv/key")),
            ("Error: EACCES: permission denied, open '/data/f'", Some("/data/f")),
            ("java.nio.file.AccessDeniedException: /data", Some("/data")),
            ("read /etc/app, then the peer said permission denied", None),
            ("permission denied by policy, see /etc/policy", None),
            ("permission denied", None),
        ] {
            assert_eq!(clue(line).subject(), wanted, "{line}");
        }
    }

    #[test]
    fn a_line_is_about_what_stands_first_in_one_of_its_parts() {
        for (line, word, wanted) in [
            ("chown: /tmp: Operation not permitted", "chown", true),
            ("/bin/ping: Operation not permitted", "ping", true),
            ("setgid(101) failed (1: Operation not permitted)", "setgid", true),
            ("nginx: [emerg] x: setgid(101) failed (1: Operation not permitted)", "setgid", true),
            ("error: chown /tmp: operation not permitted", "chown", true),
            ("ip: RTNETLINK answers: Operation not permitted", "rtnetlink", true),
            ("GET /ping permission denied", "ping", false),
            ("open /backup/mount: permission denied", "mount", false),
            ("the user may ping nobody: permission denied", "ping", false),
            ("app: mount: permission denied", "mount", false),
        ] {
            assert_eq!(clue(line).is_about(word), wanted, "{line}");
        }
    }

    #[test]
    fn only_the_end_of_a_stream_says_why_it_ended() {
        let lines = |stderr: &[&str], stdout: &[&str]| LastLines {
            stdout: stdout.iter().map(|line| (*line).into()).collect(),
            stderr: stderr.iter().map(|line| (*line).into()).collect(),
        };
        let refused = "dial tcp 10.0.0.1:1: connect: connection refused";
        let old = find(&lines(&[refused, "retrying", "connected", "bad config"], &[])).unwrap();
        assert!(!old.is_last && old.phrase == Phrase::ConnectionRefused);
        let last = find(&lines(&["starting", refused, "exiting"], &["ready"])).unwrap();
        assert!(last.is_last);
        let trace = [
            "Error: EACCES: permission denied, open '/x'",
            "    at f (a.js:1)",
            "\\tat g",
            "Node.js v20",
        ];
        assert!(find(&lines(&trace, &[])).unwrap().is_last);
        let both = ["touch: /a: Read-only file system", "cat: /a: No such file or directory"];
        assert_eq!(find(&lines(&both, &[])).unwrap().phrase, Phrase::ReadOnly, "its consequence");
        assert_eq!(find(&lines(&[], &["all is well"])), None);
        assert_eq!(find(&lines(&["x: No such file or directory", "a", "b"], &[])), None);
    }
}
