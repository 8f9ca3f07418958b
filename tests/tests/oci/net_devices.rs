// SPDX-License-Identifier: Apache-2.0
//! Network devices of the host that containers get. The host is a network namespace of the test's own.

use crate::refused;
use hull_tests::bundle::Bundle;
use hull_tests::shell::{self, Ran};
use serde_json::{Value, json};

/// Runs a container in a new network namespace: `before` and `after` are commands there.
fn run(bundle: &Bundle, before: &str, after: &str) -> Ran {
    let command = bundle.command(&["run", "-b", &bundle.path(), "one"]);
    let script = format!("{before}\n\"$@\"\ncode=$?\n{after}\nexit $code");
    let mut words = vec!["--net".into(), "sh".into(), "-c".into(), script.into(), "sh".into()];
    words.push(command.get_program().to_owned());
    words.extend(command.get_args().map(std::ffi::OsStr::to_owned));
    shell::run("unshare", words)
}

fn wants(bundle: &Bundle, devices: &Value) {
    bundle.change(|config| config["linux"]["netDevices"] = devices.clone());
}

const DEVICES: &str = "ip link add dev hd0 type veth peer name hp0; ip link set dev hd0 mtu 1400 address 02:00:00:00:00:0a up
ip addr add 192.0.2.7/24 dev hd0; ip addr add 192.0.2.9/24 dev hd0; ip addr add 2001:db8::7/64 dev hd0 nodad
ip link add dev hd1 type veth peer name hp1; ip link add dev hz0 type bridge";

#[test]
fn a_device_moves_with_its_addresses_and_is_up() {
    let bundle = Bundle::shell("ip -o link; ip -o addr");
    wants(&bundle, &json!({"hd0": {"name": "net0"}, "hd1": {}}));
    let ran = run(&bundle, DEVICES, "echo left:; ip -o link");
    let said = ran.good();
    let (inside, left) = said.split_once("left:").unwrap();
    let net0 = inside.lines().find(|line| line.contains("net0@")).unwrap();
    assert!(net0.contains("mtu 1400") && net0.contains("UP"), "{said}");
    assert!(net0.contains("02:00:00:00:00:0a"), "{said}");
    for part in ["192.0.2.7/24", "192.0.2.9/24", "2001:db8::7/64", " hd1@"] {
        assert!(inside.contains(part), "no `{part}` in {said}");
    }
    assert!(!left.contains(" hd") && left.contains(" hz0:"), "{said}");
}

#[test]
fn all_devices_move_or_none() {
    let bundle = Bundle::shell("true");
    let after = "ip -o addr show dev hd0; ip -o link show dev hd1";
    let stays = |devices: Value, words: &[&str]| {
        wants(&bundle, &devices);
        let ran = run(&bundle, DEVICES, after);
        refused(&ran, words);
        for part in ["192.0.2.7/24", "2001:db8::7/64", "hd1@"] {
            assert!(ran.stdout.contains(part), "no `{part}` in {ran:?}");
        }
    };
    stays(json!({"hd0": {}, "nosuch": {}}), &["`nosuch`", "no such device", "hint:"]);
    stays(json!({"hd0": {}, "lo": {"name": "x"}}), &["`lo`", "loopback"]);
    stays(json!({"hd0": {"name": "lo"}}), &["`lo`", "has that name"]);
    stays(json!({"hd0": {"name": "x"}, "hd1": {"name": "x"}}), &["`x`", "has that name"]);
    stays(json!({"hd0": {"name": "a/b"}}), &["`a/b`", "hint:"]);
    // The first has moved when the kernel refuses the second, a bridge.
    stays(json!({"hd0": {"name": "net0"}, "hz0": {}}), &["`hz0`", "hint:"]);
    bundle.change(|config| {
        let spaces = config["linux"]["namespaces"].as_array_mut().unwrap();
        spaces.retain(|one| one["type"] != "network");
    });
    stays(json!({"hd0": {}}), &["linux.netDevices", "host's network namespace", "hint:"]);
}
