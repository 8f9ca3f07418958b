// SPDX-License-Identifier: Apache-2.0
//! Completion of names of containers, pods and images, which the daemon knows: `hull __complete WHAT`, which the
//! scripts of `hull completion` call.
//!
//! The rule: whatever goes wrong, nothing is printed, and it takes no longer than a key press may take.

use super::client::Client;
use super::error::Result;
use super::names::{Objects, container_name, namespace, pod_name};
use super::usage;
use super::verbs::VERBS;
use super::{images, output};
use clap_complete::Shell;
use std::collections::BTreeSet;
use std::time::Duration;

/// Time for the answer of the daemon.
const ANSWER_MAX: Duration = Duration::from_secs(2);

/// The kind of the names that a command takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Containers,
    Pods,
    Images,
    /// Containers and pods.
    Both,
}

/// The commands that take names, and of what.
const NAMED: &[(&[&str], What)] = &[
    (
        &[
            "logs",
            "exec",
            "attach",
            "start",
            "restart",
            "kill",
            "pause",
            "unpause",
            "wait",
            "cp",
            "top",
            "update",
            "checkpoint",
        ],
        What::Containers,
    ),
    (&["stop", "rm", "inspect", "stats", "port", "audit", "explain", "trace"], What::Both),
    (&["stopp", "rmp", "inspectp", "statsp", "port-forward", "create-container"], What::Pods),
    (
        &["run", "create", "rmi", "tag", "export", "save", "history", "inspecti", "images", "pull"],
        What::Images,
    ),
];

/// Prints the names that the words so far may continue with. `words` begins with the command.
pub(crate) async fn names(
    connected: impl AsyncFnOnce() -> Result<Client>,
    words: &[String],
) -> Result<()> {
    let verb = words.iter().find(|word| VERBS.iter().any(|verb| is_named(verb, word)));
    let what = verb.and_then(|word| {
        NAMED.iter().find(|(names, _)| names.contains(&word.as_str())).map(|(_, what)| *what)
    });
    let Some(what) = what else { return Ok(()) };
    let found = tokio::time::timeout(ANSWER_MAX, async {
        let client = connected().await?;
        live(client, what).await
    });
    // Without a daemon there is nothing to complete.
    let names = found.await.ok().and_then(Result::ok).unwrap_or_default();
    // A shell may expand others.
    let is_plain =
        |name: &&String| name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._/:@-".contains(&b));
    let names = names.iter().filter(is_plain);
    output::print(&names.map(|name| format!("{name}\n")).collect::<String>())
}

fn is_named(verb: &super::verbs::Verb, word: &str) -> bool {
    verb.name == word || verb.aliases.contains(&word)
}

async fn live(mut client: Client, what: What) -> Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    if what == What::Images {
        for image in images::all(&mut client).await? {
            names.extend(image.repo_tags);
        }
        return Ok(names);
    }
    let objects = Objects::fetch(&mut client).await?;
    if what != What::Containers {
        names.extend(objects.pods.iter().map(|pod| pod_name(pod).to_owned()));
    }
    if what != What::Pods {
        for container in &objects.containers {
            let name = container_name(container);
            // Of several with one name, each has its long name.
            let several =
                objects.containers.iter().filter(|of| container_name(of) == name).count() > 1;
            names.insert(match objects.pod_of(container) {
                Some(pod) if several => format!("{}/{}/{name}", namespace(pod), pod_name(pod)),
                _ => name.to_owned(),
            });
        }
    }
    Ok(names)
}

/// The completion script of a shell: clap's, and names of the daemon where the shell is bash, zsh or fish.
pub(crate) fn script(shell: Shell) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut usage::command(), "hull", &mut script);
    let mut script = String::from_utf8_lossy(&script).into_owned();
    for (of, live) in [(Shell::Bash, BASH), (Shell::Zsh, ZSH), (Shell::Fish, FISH)] {
        if shell == of {
            script.push_str(live);
        }
    }
    script
}

/// Names after options and files: clap's function first, then the daemon's names. Only a word that is not an option.
const BASH: &str = r#"
_hull_live() {
    _hull "$@"
    local cur="${COMP_WORDS[COMP_CWORD]}"
    [[ $cur == -* || $COMP_CWORD -lt 2 ]] && return
    local names
    names=$("${COMP_WORDS[0]}" __complete -- "${COMP_WORDS[@]:1:COMP_CWORD-1}" 2>/dev/null)
    [[ -n $names ]] && COMPREPLY=($(compgen -W "$names" -- "$cur"))
    # A reference has colons, at which bash begins a new word.
    if [[ $cur == *:* && $COMP_WORDBREAKS == *:* ]]; then
        local prefix="${cur%"${cur##*:}"}" i=${#COMPREPLY[*]}
        while ((i-- > 0)); do COMPREPLY[i]=${COMPREPLY[i]#"$prefix"}; done
    fi
}
complete -F _hull_live -o nosort -o bashdefault -o default hull
"#;

const ZSH: &str = r#"
_hull_live() {
    local -a names
    if [[ ${words[CURRENT]} != -* && $CURRENT -gt 2 ]]; then
        names=(${(f)"$(${words[1]} __complete -- ${words[2,CURRENT-1]} 2>/dev/null)"})
        (( ${#names} )) && compadd -- $names && return
    fi
    _hull "$@"
}
compdef _hull_live hull
"#;

const FISH: &str = r#"
complete -c hull -n 'test (count (commandline -opc)) -ge 2' -f -a '(hull __complete -- (commandline -opc)[2..-1] 2>/dev/null)'
"#;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_with_names_exists() {
        for name in NAMED.iter().flat_map(|(names, _)| *names) {
            assert!(VERBS.iter().any(|verb| is_named(verb, name)), "{name}");
        }
    }

    #[test]
    fn scripts_ask_for_live_names() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            assert!(script(shell).contains("__complete"), "{shell}");
        }
    }
}
