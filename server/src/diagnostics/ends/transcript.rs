// SPDX-License-Identifier: Apache-2.0
//! The kinds of lines in an output (pure): log levels, parts of a stack trace, and lines that follow an error without
//! a cause of their own.

/// The level of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Level {
    /// Informational, or below.
    Low,
    Warning,
    Error,
    /// The line has none.
    Unknown,
}

const LOW: [&str; 7] = ["info", "inf", "information", "debug", "dbg", "notice", "verbose"];
const WARNING: [&str; 4] = ["warning", "warn", "wrn", "deprecated"];
const ERROR: [&str; 14] = [
    "error",
    "err",
    "fatal",
    "ftl",
    "panic",
    "critical",
    "crit",
    "emerg",
    "emergency",
    "alert",
    "severe",
    "fail",
    "failed",
    "dpanic",
];
/// Fields of structured logs that have the level.
const LEVEL_FIELDS: [&str; 7] = [
    "\"level\":\"",
    "\"level\": \"",
    "level=",
    "lvl=",
    "\"severity\":\"",
    "\"log.level\":\"",
    "\"s\":\"",
];
/// Words of a line in which its level is sought.
const LEVEL_WORDS_MAX: usize = 8;

/// The level that a line has.
pub(super) fn level(raw: &str) -> Level {
    let line = raw.to_ascii_lowercase();
    let of_field = LEVEL_FIELDS.iter().find_map(|field| {
        let value = line.split_once(field)?.1.trim_start_matches('"');
        value.split(|c: char| !c.is_ascii_alphanumeric()).next()
    });
    if let Some(value) = of_field {
        return match value {
            "i" | "d" | "d1" | "d2" => Level::Low,
            "w" => Level::Warning,
            "e" | "f" => Level::Error,
            _ => of_word(value),
        };
    }
    let klog = raw.split_once(|c: char| c.is_ascii_digit()).map(|(letter, _)| letter);
    let is_klog = raw.bytes().skip(1).take(4).filter(u8::is_ascii_digit).count() == 4;
    match klog.filter(|_| is_klog) {
        Some("I" | "D") => return Level::Low,
        Some("W") => return Level::Warning,
        Some("E" | "F") => return Level::Error,
        Some(_) | None => {}
    }
    let is_part = |c: char| c.is_ascii_alphanumeric() || "/._-'\\=".contains(c);
    let words = raw.split_whitespace().take(LEVEL_WORDS_MAX).flat_map(|word| {
        word.split_inclusive(|c: char| !is_part(c)).scan(None, move |before, part| {
            let word = part.trim_end_matches(|c: char| !is_part(c));
            let after = part.get(word.len()..).and_then(|rest| rest.chars().next());
            let found = (word, *before, after);
            *before = after;
            Some(found)
        })
    });
    let marked = words.filter(|(word, before, after)| {
        let is_upper = word.len() > 2 && word.bytes().all(|byte| byte.is_ascii_uppercase());
        is_upper || matches!(before, Some('[' | '<' | '|')) || matches!(after, Some(':' | ']'))
    });
    let mut levels = marked.map(|(word, ..)| of_word(&word.to_ascii_lowercase()));
    levels.find(|level| *level != Level::Unknown).unwrap_or(Level::Unknown)
}

fn of_word(word: &str) -> Level {
    if LOW.contains(&word) {
        Level::Low
    } else if WARNING.contains(&word) {
        Level::Warning
    } else if ERROR.contains(&word) {
        Level::Error
    } else {
        Level::Unknown
    }
}

/// A line without the colours of terminals, as they are escaped in kept lines.
pub(super) fn without_colours(raw: &str) -> String {
    let mut parts = raw.split("\\u{1b}[");
    let mut line = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let end = part.find(|c: char| !(c.is_ascii_digit() || c == ';'));
        let rest = end.and_then(|end| part.get(end..)).and_then(|rest| rest.strip_prefix('m'));
        line.push_str(rest.unwrap_or(part));
    }
    line
}

/// Beginnings of lines that follow an error and are about its place in the program.
const FRAMES: [&str; 13] = [
    " ",
    "\\t",
    "at ",
    "goroutine ",
    "created by ",
    "main.",
    "Node.js v",
    "exit status ",
    "}",
    "...",
    "^",
    "stack backtrace",
    "Emitted 'error' event",
];
/// Beginnings of lines, after a time and a level, that advise or explain.
const ASIDES: [&str; 21] = [
    "visit http",
    "hint:",
    "detail:",
    "context:",
    "statement:",
    "note:",
    "help:",
    "tip:",
    "usage:",
    "usage ",
    "options:",
    "try '",
    "try `",
    "for help",
    "for more information",
    "see the log",
    "run 'docker",
    "npm err!",
    "npm error",
    "(background on this error",
    "crash dump is being written",
];

/// Whether a line belongs to a stack trace.
pub(super) fn is_frame(line: &str) -> bool {
    FRAMES.iter().any(|start| line.starts_with(start))
}

/// Whether a line advises, explains or asks; what went wrong is said by another one.
pub(super) fn is_aside(raw: &str) -> bool {
    let line = raw.to_ascii_lowercase();
    // Also behind the prefix of a log.
    let is_start = |start: &str| {
        line.find(start).is_some_and(|at| {
            line.get(..at).is_some_and(|before| before.split_whitespace().all(is_of_prefix))
        })
    };
    line.trim_end().ends_with('?') || ASIDES.iter().any(|start| is_start(start))
}

/// Whether a word is a time, an id, a level, or in brackets.
fn is_of_prefix(word: &str) -> bool {
    let bare = word.trim_matches(|c: char| !c.is_ascii_alphanumeric());
    bare.len() <= 3
        || bare.bytes().any(|byte| byte.is_ascii_digit())
        || word.starts_with('[')
        || of_word(bare) != Level::Unknown
}

/// Words of lines by which a program says that it ends, or that the step failed in which the error before was.
const CLOSINGS: [&str; 32] = [
    "failed to execute script",
    "exiting",
    "exited",
    "exit code",
    "exit status",
    "shutting down",
    "shutdown",
    "shut down",
    "stopping",
    "stopped",
    "aborting",
    "aborted",
    "terminating",
    "terminated",
    "giving up",
    "gave up",
    "quitting",
    "bye",
    "cleaning up",
    "cleanup",
    "core dumped",
    "initialization failed",
    "initialisation failed",
    "startup failed",
    "failed to start",
    "failed to allocate manager object",
    "failed listening",
    "no listening sockets",
    "still could not bind",
    "unable to open logs",
    "command failed",
    "[!!!!!!]",
];

/// Whether a line says only that the program ends: nothing of it is a cause.
pub(super) fn is_closing(raw: &str) -> bool {
    let mut line = raw.to_ascii_lowercase();
    for error in
        [" due to unhandled exception", " due to fatal exception", " due to previous error"]
    {
        line = line.replace(error, "");
    }
    if ["because", "due to", "reason", "caused by"].iter().any(|word| line.contains(word)) {
        return false;
    }
    let line = line.replace(": ", "\n").replace(", ", "\n").replace(". ", "\n");
    let mut has_closing = false;
    let mut parts = line.split('\n').enumerate();
    let all = parts.all(|(index, part)| {
        let closes = CLOSINGS.iter().any(|closing| part.contains(closing));
        has_closing |= closes;
        let content = part.split_whitespace().filter(|word| !is_of_prefix(word)).count();
        // The first may be the name of the program.
        closes || content == 0 || index == 0 && content == 1
    });
    all && has_closing
}

/// Words of lines that report an error of any kind.
const ERROR_WORDS: [&str; 16] = [
    "error",
    "fatal",
    "panic",
    "exception",
    "failed",
    "failure",
    "cannot",
    "can't",
    "unable",
    "critical",
    "emerg",
    "denied",
    "invalid",
    "refused",
    "bad",
    "missing",
];

/// Whether a line reports an error, known or not.
pub(super) fn is_error(raw: &str) -> bool {
    let line = raw.to_ascii_lowercase();
    level(raw) == Level::Error
        || line.split(|c: char| !(c.is_ascii_alphanumeric() || c == '\'')).any(|word| {
            ERROR_WORDS.contains(&word) || word.ends_with("error") || word.ends_with("exception")
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_of_logs_are_known_by_their_place() {
        for (line, wanted) in [
            ("warn: cannot open /etc/x", Level::Warning),
            ("nginx: [warn] the \"user\" directive", Level::Warning),
            ("2024/01/01 10:00:00 [emerg] 1#1: bind() failed", Level::Error),
            ("1:M 30 Nov 2026 10:00:00.000 # Warning: Could not create server", Level::Warning),
            ("PHP Warning:  fopen(/x): Failed to open stream", Level::Warning),
            ("[WARN  tini (6)] Tini is not running as PID 1", Level::Warning),
            ("[FATAL tini (7)] exec /app failed: Permission denied", Level::Error),
            ("W1130 10:00:00.000000       1 x.go:1] failed", Level::Warning),
            ("F1130 10:00:00.000000       1 x.go:1] listen", Level::Error),
            (r#"{"level":"warn","ts":"2024","msg":"failed to reach peer"}"#, Level::Warning),
            (r#"{"t":{"$date":"x"},"s":"E","c":"CONTROL","msg":"x"}"#, Level::Error),
            ("time=2024 level=info msg=\"x\"", Level::Low),
            ("[2024][1][info][main] exiting", Level::Low),
            ("WARNING:root:cannot open", Level::Warning),
            ("cat: /proc/info: Permission denied", Level::Unknown),
            ("open /var/log/warning: permission denied", Level::Unknown),
            ("[2024-01-01 10:00:00,000] INFO [KafkaServer id=0] shutting down", Level::Low),
            ("no information", Level::Unknown),
            ("", Level::Unknown),
        ] {
            assert_eq!(level(line), wanted, "{line}");
        }
    }

    #[test]
    fn colours_are_left_out() {
        let line = without_colours("\\u{1b}[1;31merror\\u{1b}[0m: Permission denied\\u{1b}[0m");
        assert_eq!(line, "error: Permission denied");
        assert_eq!(without_colours("a\\u{1b}[2Jb"), "a2Jb");
        assert_eq!(without_colours("plain"), "plain");
    }

    #[test]
    fn lines_that_say_only_that_it_ends_are_closings() {
        for line in [
            "exiting",
            "nginx: [emerg] still could not bind()",
            "ERROR: Application startup failed. Exiting.",
            "INFO:     Application shutdown complete.",
            "1:M 30 Nov 2026 10:00:00.000 # Failed listening on port 6379 (tcp), aborting.",
            "no listening sockets available, shutting down",
            "[30-Nov-2026 10:00:00] ERROR: FPM initialization failed",
            "2024-01-01 10:00:00 UTC [1] LOG:  database system is shut down",
            "Exiting PID 1...",
            "2024-01-01T10:00:00Z 0 [ERROR] [MY-010119] [Server] Aborting",
        ] {
            assert!(is_closing(line), "{line}");
        }
        for line in [
            "fatal: bad password, exiting",
            "exiting because of a bad password",
            "bad password",
            "fatal: bad password",
            "invalid option --x: exiting",
            "",
        ] {
            assert!(!is_closing(line), "{line}");
        }
    }

    #[test]
    fn advice_and_stack_traces_say_nothing_of_the_cause() {
        for line in [
            "HINT:  Is another postmaster already running on port 5432?",
            "2024-01-01 10:00:00 UTC [1] DETAIL:  x",
            "note: run with `RUST_BACKTRACE=1`",
            "Usage: app [options]",
            "npm ERR! code EACCES",
            "Do you already have another mysqld server running on port: 3306 ?",
        ] {
            assert!(is_aside(line), "{line}");
        }
        assert!(!is_aside("fatal: wrong hint: x") && !is_aside("app: cannot open note: x"));
        assert!(is_frame("    at f (a.js:1)") && is_frame("\\tat g") && !is_frame("fatal"));
        assert!(is_error("fatal: x") && is_error("java.lang.IllegalStateException: x"));
        assert!(!is_error("Picked up JAVA_TOOL_OPTIONS: -Xmx1g") && !is_error("ready"));
    }
}
