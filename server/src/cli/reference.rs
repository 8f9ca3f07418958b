// SPDX-License-Identifier: Apache-2.0
//! The text of docs/cli.md, from the tables of commands and of fields. A test of this file writes it, with
//! HULL_BLESS=1, or compares it.

use super::absent_flags;
use super::schemas::KINDS;
use super::usage;
use super::verbs::{ABSENT, Group, VERBS};
use clap::Command;
use std::fmt::Write as _;

const INTRO: &str = "\
# The command line

Generated from the tables of `hull --help`: `HULL_BLESS=1 cargo test -p hull cli::reference` writes this page.

`hull COMMAND --help` has every option with examples. Commands are clients of the daemon, at --socket, HULL_SOCKET or
the `socket` of the configuration. They print their result to stdout and everything else to stderr. The exit code is 0
or 1, and 2 for a wrong command line; `run`, `exec` and `attach` exit with the code of the container, and with 125 if
hull itself failed or was used wrongly.

Pods and containers are named by id, prefix of the id, name, `POD/CONTAINER`, `NAMESPACE/POD` or
`NAMESPACE/POD/CONTAINER`. Groups of commands of other tools work, too: `hull image ls`, `hull container rm`,
`hull system df`, `hull kube play`.
";

const RESTARTS: &str = "
## Restarts

`hull run -d --restart always|unless-stopped|on-failure[:MAX]` has the daemon start an exited container again, and
`hull play kube` does so as `restartPolicy` says. `hull start` and `hull restart` start an exited container for a person.
Each of these keeps the container: its id, the files that it has written, its log, and its configuration as it was
created. The number of its attempt is one higher, the sources of its volumes that are missing by then are made, and NRI
plugins see another start and stop of the same container. `hull logs` prints the output of all runs, `hull logs
--previous` that of the run before the last start, and `hull inspect` shows how that run ended under `info.previousRun`.
What is not kept: processes and memory, files on a tmpfs, a connection of `hull attach` or `hull exec`.

The wait before a restart doubles from 100 ms to a minute, and is 100 ms again after a run of ten seconds. `hull ps`
shows `restarting` meanwhile, `hull ps -o wide` the number of restarts since the last start by a person, and
`hull inspect` both with the policy. A daemon that is killed in the midst of a restart loses nothing: the next one goes
on with it. CRI has no such start: StartContainer of an exited container is an error, as kubelets expect.

`hull stop` ends the container for good, and so does `hull kill` with SIGKILL or its stop signal, also across a restart
of the daemon, whatever the policy is; `hull start` begins again. Containers exit unattended while there is no daemon,
and the next one restarts them. After a reboot nothing is restarted: pods end with the node. There, use a static pod of
a kubelet, or a systemd unit with `hull run --rm` and `Restart=`. Containers of a kubelet are never restarted by Hull.
";

const OUTPUT: &str = "
## Output for programs

Commands that list objects have `-o table|wide|json|jsonl|yaml|name|go-template=TEMPLATE`, `--format TEMPLATE`,
`--filter FIELD=VALUE`, `--no-trunc`, `--no-headers` and `-q`. The JSON of a list is an array of objects with the
fields below; `hull schema COMMAND` prints its JSON schema, also for the documents of `inspect`, `info` and others.
Templates know `{{.field}}`, `{{json .field}}`, `{{index .field \"key\"}}`, `{{len .field}}`, `{{join .field \",\"}}`,
`{{upper .field}}`, `{{lower .field}}`, `{{range}}`, `{{if}}` and `table` before the template, with names of fields in
any case. Control characters of images, containers and registries are escaped in every format.
";

/// The text of docs/cli.md.
fn page() -> String {
    let mut page = String::from(INTRO);
    let command = usage::command();
    page.push_str("\n## Commands\n\n| hull | Does | You may know it as |\n|---|---|---|\n");
    for group in Group::ALL {
        for verb in VERBS.iter().filter(|verb| verb.group == group) {
            let found = command.find_subcommand(verb.name).filter(|of| !of.is_hide_set());
            let Some(about) = found.and_then(Command::get_about) else { continue };
            let own = [verb.name];
            let names = own.iter().chain(verb.aliases).map(|name| format!("`{name}`"));
            let habits = verb.habits.iter().map(|habit| format!("`{habit}`"));
            // Writing to a String cannot fail.
            let _ = writeln!(
                page,
                "| {} | {about} | {} |",
                names.collect::<Vec<_>>().join(", "),
                habits.collect::<Vec<_>>().join(", ")
            );
        }
    }
    page.push_str(
        "\n## Commands that hull does not have\n\n| Command | Because | Instead |\n|---|---|---|\n",
    );
    for absent in ABSENT {
        let names: Vec<String> = absent.names.iter().map(|name| format!("`{name}`")).collect();
        let _ = writeln!(page, "| {} | {} | {} |", names.join(", "), absent.why, absent.instead);
    }
    page.push_str(&absent_options());
    page.push_str(RESTARTS);
    page.push_str(OUTPUT);
    for kind in KINDS {
        let _ = writeln!(
            page,
            "\n### `hull {}`\n\n| Field | Type | Column | Meaning |\n|---|---|---|---|",
            kind.verb
        );
        for field in kind.fields {
            let _ = writeln!(
                page,
                "| `{}` | {} | {} | {} |",
                field.key,
                field.kind.name(),
                field.heading,
                field.doc
            );
        }
    }
    page
}

/// The table of options of other tools.
fn absent_options() -> String {
    let mut table = String::from(
        "\n## Options that hull does not have\n\n| Commands | Options | Because | Instead |\n|---|---|---|---|\n",
    );
    for of in absent_flags::all() {
        let verbs = of.verbs.iter().map(|verb| match *verb {
            "" => "before the command".to_owned(),
            verb => format!("`{verb}`"),
        });
        let flags = of.flags.iter().map(|flag| format!("`{flag}`"));
        let (verbs, flags) = (verbs.collect::<Vec<_>>(), flags.collect::<Vec<_>>());
        // A pipe would end the cell.
        let instead = of.instead.replace('|', "\\|");
        let _ = writeln!(
            table,
            "| {} | {} | {} | {instead} |",
            verbs.join(", "),
            flags.join(", "),
            of.why
        );
    }
    table
}

mod tests {
    use super::*;
    use std::path::Path;

    fn is_fresh(name: &str, text: &str) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(name);
        if std::env::var_os("HULL_BLESS").is_some() {
            std::fs::write(&path, text).unwrap();
        }
        let there = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(there == text, "docs/{name} is stale: run this test with HULL_BLESS=1");
    }

    #[test]
    fn the_page_of_the_command_line_is_fresh() {
        is_fresh("cli.md", &page());
    }
}
