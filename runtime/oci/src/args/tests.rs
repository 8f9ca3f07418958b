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
        ("checkpoint x", "`checkpoint`"),
        ("events --interval 5 x", "`5`"),
        ("events --interval 0s x", "`0s`"),
        ("events --interval 9999999999999999999h x", "is not a time"),
        ("update --cpu-idle 2 x", "--cpu-idle"),
        ("create --wrong x", "--wrong"),
        ("wrong", "`wrong`"),
        ("start", "id is missing"),
        ("start a b", "`b`"),
        ("exec web", "needs a command"),
    ] {
        let said = parsed(line).unwrap_err().to_string();
        assert!(said.contains(named), "{line}: {said}");
    }
    let Invocation { global, .. } =
        parsed("--systemd-cgroup=false --rootless=auto state x").unwrap();
    assert!(!global.systemd_cgroup);
    assert!(parsed("--systemd-cgroup create x").unwrap().global.systemd_cgroup);
}

#[test]
fn times_have_units() {
    for (line, milliseconds) in [("5s", 5000), ("100ms", 100), ("2m", 120_000)] {
        let Command::Events(args) = parsed(&format!("events --interval {line} x")).unwrap().command
        else {
            panic!()
        };
        assert_eq!(args.interval.as_millis(), milliseconds, "{line}");
    }
}

#[test]
fn limits_that_only_runc_names_are_taken() {
    let line =
        "update --cpu-rt-period 1000 --cpu-rt-runtime 900 --pids-limit 0 --kernel-memory 5 x";
    let Command::Update(args) = parsed(line).unwrap().command else { panic!() };
    assert_eq!((args.limits.pids, args.further.realtime_runtime_us), (Some(1), Some(900)));
    assert!(args.kernel_memory);
}
