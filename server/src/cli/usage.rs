// SPDX-License-Identifier: Apache-2.0
//! The command line from words: clap's tree with the table of commands, and errors of usage.

use super::absent_flags::{self, AbsentFlag};
use super::args::Cli;
use super::exit_codes::OWN_FAILURE;
use super::verbs::{self, Group, VERBS};
use super::{ctr, output};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Command, CommandFactory as _, FromArgMatches as _};
use std::ffi::OsString;
use std::fmt::Write as _;
use std::process::ExitCode;

/// Exit code of usage errors of commands whose exit code is their own.
const USAGE: u8 = 2;
/// Commands whose exit code is that of a container: 2 could be its own.
const WITH_CODE_OF_CONTAINER: [&str; 4] = ["run", "exec", "attach", "wait"];
/// Options before the command that have a value.
const GLOBAL_WITH_VALUE: [&str; 2] = ["--socket", "--config"];
/// Help of hull itself: what matters first, options last.
const TEMPLATE: &str =
    "{about-with-newline}\n{usage-heading} {usage}\n{before-help}\n{options}{after-help}";

/// Commands whose `-f` is --format, as docker has it; of lists it is --filter.
const WITH_SHORT_FORMAT: [&str; 5] = ["inspect", "inspectp", "inspecti", "info", "version"];

/// The tree of commands.
pub(crate) fn command() -> Command {
    let mut command = Cli::command();
    for name in WITH_SHORT_FORMAT {
        command = command.mut_subcommand(name, |of| of.mut_arg("format", |arg| arg.short('f')));
    }
    for verb in VERBS {
        command = command.mut_subcommand(verb.name, |of| {
            let of = of.visible_aliases(verb.aliases.iter().copied());
            if verb.habits.is_empty() {
                return of;
            }
            let help = of.get_after_help().map(|help| format!("{help}\n\n")).unwrap_or_default();
            of.after_help(format!("{help}Elsewhere: {}", verb.habits.join(", ")))
        });
    }
    let groups = groups(&command);
    command.help_template(TEMPLATE).before_help(groups).override_usage("hull [OPTIONS] <COMMAND>")
}

/// The commands by group, each with its first sentence.
fn groups(command: &Command) -> String {
    let mut text = String::new();
    for group in Group::ALL {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "\n{}:", group.heading());
        for verb in VERBS.iter().filter(|verb| verb.group == group) {
            let found = command.find_subcommand(verb.name).filter(|of| !of.is_hide_set());
            let Some(about) = found.and_then(Command::get_about) else { continue };
            let _ = writeln!(text, "  {:<17} {about}", verb.name);
        }
    }
    text.trim_end().to_owned()
}

/// Parses the words of the process; the exit code if they are wrong, or ask for help.
pub(crate) fn parse(words: impl Iterator<Item = OsString>) -> Result<Cli, ExitCode> {
    let words = rewritten(ctr::called_as(words));
    understood(&words).map_err(|err| failed(&err, &words))
}

/// The command that words stand for, with those of other tools replaced before.
fn understood(words: &[OsString]) -> Result<Cli, clap::Error> {
    let matches = command().try_get_matches_from(words)?;
    Cli::from_arg_matches(&matches)
}

/// The error of a command line of the docs; `None` if Hull understands it.
#[cfg(test)]
pub(crate) fn fault(words: &[String]) -> Option<clap::Error> {
    understood(&rewritten(words.iter().map(OsString::from).collect())).err()
}

/// The position of the command.
fn verb(words: &[OsString]) -> Option<usize> {
    let mut at = 1;
    while let Some(word) = words.get(at) {
        let word = word.to_string_lossy();
        if !word.starts_with('-') {
            return Some(at);
        }
        at += if GLOBAL_WITH_VALUE.contains(&word.as_ref()) { 2 } else { 1 };
    }
    None
}

/// The words with those of other tools replaced.
fn rewritten(mut words: Vec<OsString>) -> Vec<OsString> {
    let Some(at) = verb(&words) else { return words };
    let texts: Vec<String> =
        words[at..].iter().take(3).map(|word| word.to_string_lossy().into_owned()).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    if let Some((count, to)) = verbs::rewritten(&texts) {
        let _replaced: Vec<OsString> =
            words.splice(at..at + count, to.iter().map(OsString::from)).collect();
    }
    words
}

/// The entry of an option that the command of the words does not have, and the command; the empty one if the option
/// stands before it.
fn absent_option(words: &[OsString], flag: &str) -> Option<(&'static str, &'static AbsentFlag)> {
    let at = verb(words);
    let name = flag.split('=').next().unwrap_or(flag);
    let before = words.iter().take(at.unwrap_or(words.len())).skip(1);
    if before.map(|word| word.to_string_lossy()).any(|word| word.split('=').next() == Some(name)) {
        return Some(("", absent_flags::of("", flag)?));
    }
    let verb = canonical(&words.get(at?)?.to_string_lossy())?;
    Some((verb, absent_flags::of(verb, flag)?))
}

/// The name of a command that has this name or alias.
fn canonical(name: &str) -> Option<&'static str> {
    let found = VERBS.iter().find(|verb| verb.name == name || verb.aliases.contains(&name));
    found.map(|verb| verb.name)
}

/// The hint after the help of a command in which other tools have -h for the name of the host.
fn help_hint(words: &[OsString]) -> Option<&'static str> {
    let at = verb(words)?;
    let is_run = matches!(canonical(&words[at].to_string_lossy()), Some("run" | "create"));
    let has_value =
        words.iter().rposition(|word| word == "-h").is_some_and(|of| of + 1 < words.len());
    (is_run && has_value).then_some("-h is help here; the name of the host is --hostname NAME")
}

/// Prints the error, or the help that was asked for, and returns the exit code.
fn failed(err: &clap::Error, words: &[OsString]) -> ExitCode {
    let verb = verb(words).map(|at| words[at].to_string_lossy());
    let own = |code| {
        let with_code = verb.as_ref().is_some_and(|verb| WITH_CODE_OF_CONTAINER.contains(&&**verb));
        ExitCode::from(if with_code { OWN_FAILURE } else { code })
    };
    if matches!(err.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        // A closed pipe: the reader has what it wants.
        let _closed = err.print();
        if let Some(hint) = help_hint(words) {
            output::to_stderr(&format!("hint: {hint}\n"));
            return own(USAGE);
        }
        return ExitCode::SUCCESS;
    }
    if err.kind() == ErrorKind::InvalidSubcommand
        && let Some(ContextValue::String(name)) = err.get(ContextKind::InvalidSubcommand)
        && let Some(absent) = verbs::absent_named(name)
    {
        let text = format!("hull has no command `{name}`: {}", absent.why);
        output::to_stderr(&super::error::lines(&text, Some(absent.instead)));
        return ExitCode::from(USAGE);
    }
    if err.kind() == ErrorKind::UnknownArgument
        && let Some(ContextValue::String(flag)) = err.get(ContextKind::InvalidArg)
        && let Some((verb, of)) = absent_option(words, flag)
    {
        let (of_verb, kind) = if verb.is_empty() {
            ("hull".to_owned(), "option")
        } else {
            (format!("hull {verb}"), kind(flag))
        };
        let text = format!("`{of_verb}` has no {kind} `{flag}`: {}", of.why);
        output::to_stderr(&super::error::lines(&text, Some(of.instead)));
        return own(USAGE);
    }
    output::to_stderr(&without_globals(&err.render().to_string()));
    if let Some(hint) = value_hint(err) {
        output::to_stderr(&format!("hint: {hint}\n"));
    }
    own(USAGE)
}

/// The hint for a value of other tools that an option does not take.
fn value_hint(err: &clap::Error) -> Option<&'static str> {
    let of = |kind| match err.get(kind) {
        Some(ContextValue::String(text)) => Some(text.as_str()),
        _ => None,
    };
    if err.kind() == ErrorKind::InvalidValue
        && of(ContextKind::InvalidValue)?.starts_with("container:")
    {
        return Some(
            "containers share a namespace as containers of one pod; see `hull play kube --help`",
        );
    }
    None
}

/// The kind of a word of the command line that is not known.
fn kind(word: &str) -> &'static str {
    if word.starts_with('-') { "option" } else { "command" }
}

/// The text without the options of all commands, which clap adds to the usage if they were given or are in the
/// environment.
fn without_globals(text: &str) -> String {
    text.replace(" --socket <PATH>", "").replace(" --config <FILE>", "")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn words(line: &str) -> Vec<OsString> {
        ["hull"].into_iter().chain(line.split_whitespace()).map(OsString::from).collect()
    }

    #[test]
    fn the_tree_and_the_table_have_the_same_commands() {
        let tree = Cli::command();
        let own = tree.get_subcommands().map(Command::get_name);
        let tree: BTreeSet<&str> = own.filter(|name| !name.starts_with("__")).collect();
        let table: BTreeSet<&str> = VERBS.iter().map(|verb| verb.name).collect();
        assert_eq!(tree, table);
        command().debug_assert();
    }

    #[test]
    fn words_of_other_tools_are_replaced_after_the_global_options() {
        let texts = |line: &str| -> Vec<String> {
            rewritten(words(line)).iter().map(|word| word.to_string_lossy().into_owned()).collect()
        };
        assert_eq!(texts("--socket /x image ls -q"), ["hull", "--socket", "/x", "images", "-q"]);
        assert_eq!(texts("system prune -f"), ["hull", "prune", "-f"]);
        assert_eq!(texts("container rm web"), ["hull", "rm", "web"]);
        assert_eq!(texts("exec web image ls"), ["hull", "exec", "web", "image", "ls"]);
        assert_eq!(texts("get pods -A"), ["hull", "pods", "-A"]);
        assert_eq!(texts("describe pod web"), ["hull", "explain", "web"]);
        assert_eq!(texts("delete pod web"), ["hull", "rmp", "web"]);
        assert_eq!(texts("pod stats"), ["hull", "statsp"]);
        assert_eq!(texts("top pods"), ["hull", "statsp"]);
    }

    #[test]
    fn every_habit_names_a_command() {
        for verb in VERBS {
            for habit in verb.habits {
                let tool = habit.split(' ').next().unwrap_or_default();
                let tools = [
                    "docker",
                    "nerdctl",
                    "podman",
                    "crictl",
                    "kubectl",
                    "ctr",
                    "containerd",
                    "dockerd",
                    "crio",
                    "runc",
                    "crun",
                ];
                assert!(tools.contains(&tool), "{habit}");
            }
            for name in verb.aliases.iter().chain([&verb.name]) {
                assert!(command().find_subcommand(name).is_some(), "{name}");
            }
        }
    }

    #[test]
    fn the_usage_in_errors_has_no_options_of_all_commands() {
        let err = command().try_get_matches_from(words("--socket /x rm")).unwrap_err();
        let text = without_globals(&err.render().to_string());
        assert!(text.contains("Usage: hull rm") && !text.contains("--socket"), "{text}");
    }

    #[test]
    fn words_of_other_tools_users_are_accepted() {
        for line in [
            "ps -aq",
            "ps -l",
            "ps -f name=web",
            "images -a",
            "inspect -f {{.status}} web",
            "info -f {{.name}}",
            "rm -v web",
            "stats --no-stream",
            "stop --timeout 3 web",
            "attach -it web",
            "logs --tail all web",
            "pull --creds me:secret app:1",
            "exec -it web sh -l",
            "run -it --rm busybox sh",
            "run -dp 80:80 --name=web --restart=unless-stopped nginx",
            "events -f type=stopped",
            "ps -A",
            "pods -aA",
            "statsp -A",
            "logs --tail=-1 web",
            "restart --timeout 3 web",
            "exec -it web -- sh -c x",
            "exec -it --detach-keys ctrl-a web sh",
            "load",
            "run --entrypoint= --group-add video i sh",
        ] {
            let parsed = command().try_get_matches_from(words(line));
            assert!(parsed.is_ok(), "{line}: {}", parsed.unwrap_err());
        }
    }

    #[test]
    fn an_option_that_a_command_has_is_not_in_the_table() {
        let command = command();
        for of in absent_flags::all() {
            for verb in of.verbs {
                let found =
                    if verb.is_empty() { Some(&command) } else { command.find_subcommand(verb) };
                let found = found.unwrap_or_else(|| panic!("there is no command {verb}"));
                for arg in found.get_arguments() {
                    let long = arg.get_long_and_visible_aliases().unwrap_or_default();
                    let long = long.iter().map(|name| format!("--{name}"));
                    let short = arg.get_short_and_visible_aliases().unwrap_or_default();
                    let short = short.iter().map(|name| format!("-{name}"));
                    for name in long.chain(short) {
                        assert!(!of.flags.contains(&name.as_str()), "{verb} has {name}");
                    }
                }
            }
        }
    }

    #[test]
    fn every_option_of_the_table_is_answered_by_its_entry() {
        let mut count = 0;
        for of in absent_flags::all() {
            for (verb, flag) in
                of.verbs.iter().flat_map(|verb| of.flags.iter().map(move |flag| (verb, flag)))
            {
                let line = match *verb {
                    "" => format!("{flag} x ps"),
                    "play" => format!("play kube {flag} x"),
                    verb => format!("{verb} {flag} x"),
                };
                let words = words(&line);
                let err = command().try_get_matches_from(&words).unwrap_err();
                assert_eq!(err.kind(), ErrorKind::UnknownArgument, "{line}: {err}");
                let Some(ContextValue::String(named)) = err.get(ContextKind::InvalidArg) else {
                    panic!("{line}: {err}");
                };
                let found = absent_option(&words, named).map(|(_, of)| of.why);
                assert_eq!(found, Some(of.why), "{line}: {named}");
                count += 1;
            }
        }
        assert!(count > 300, "{count}");
    }

    #[test]
    fn a_namespace_of_another_container_is_that_of_a_pod() {
        for line in ["run --pid container:web i", "run --ipc container:web i"] {
            let err = command().try_get_matches_from(words(line)).unwrap_err();
            assert!(value_hint(&err).is_some_and(|hint| hint.contains("one pod")), "{line}: {err}");
        }
        let err = command().try_get_matches_from(words("run --pid x i")).unwrap_err();
        assert!(value_hint(&err).is_none());
    }

    #[test]
    fn an_alias_has_the_options_of_its_command() {
        let (verb, of) = absent_option(&words("save --compress x"), "--compress").unwrap();
        assert!(verb == "export" && of.why.contains("OCI"));
        assert!(absent_option(&words("save --unknown x"), "--unknown").is_none());
        assert!(help_hint(&words("run -h web nginx")).is_some());
        for line in ["run -h", "run --help", "ps -h web"] {
            assert!(help_hint(&words(line)).is_none(), "{line}");
        }
    }

    #[test]
    fn suggestions_are_close() {
        for (word, suggestion) in [("imges", "images"), ("stat", "stats"), ("unpuase", "unpause")] {
            let err = command().try_get_matches_from(words(word)).unwrap_err();
            assert!(err.to_string().contains(suggestion), "{word}: {err}");
        }
        assert!(command().try_get_matches_from(words("top web")).is_ok());
    }
}
