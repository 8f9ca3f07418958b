// SPDX-License-Identifier: Apache-2.0
//! Command lines as callers write them, and what is refused.

use super::*;

fn parsed(line: &str) -> Result<Invocation> {
    parse(["hull-oci"].into_iter().chain(line.split_whitespace()).map(OsString::from))
}

#[test]
fn what_the_shim_of_containerd_passes_is_understood() {
    let line = "--root /r --log /l/log.json --log-format json create --bundle /b --pid-file /b/init.pid web";
    let Invocation { global, command } = parsed(line).unwrap();
    assert!(global.log_json && global.root.as_os_str() == "/r");
    let Command::Create(args) = command else { panic!() };
    assert_eq!((args.id.as_str(), args.streams.detach), ("web", true));
}

#[test]
fn options_behind_the_id_of_an_exec_are_the_commands() {
    let Command::Exec(args) = parsed("exec -t --env A=b web ls -l --all").unwrap().command else {
        panic!()
    };
    assert!(args.tty && args.env == ["A=b"] && args.args == ["ls", "-l", "--all"]);
}

#[test]
fn what_is_not_done_or_not_known_is_refused_by_name() {
    for (line, named) in [
        ("--systemd-cgroup create x", "--systemd-cgroup"),
        ("checkpoint x", "`checkpoint`"),
        ("create --pidfd-socket /s x", "--pidfd-socket"),
        ("create --wrong x", "--wrong"),
        ("wrong", "`wrong`"),
        ("start", "id is missing"),
        ("start a b", "`b`"),
        ("exec web", "needs a command"),
    ] {
        let said = parsed(line).unwrap_err().to_string();
        assert!(said.contains(named), "{line}: {said}");
    }
    parsed("--systemd-cgroup=false --rootless=auto state x").unwrap();
}
