// SPDX-License-Identifier: Apache-2.0
//! `hull oci` with cgroups that are scopes of systemd, on cgroup v2.

use crate::{cgroup_of, said};
use hull_tests::bundle::Bundle;
use serde_json::json;
use std::fs;

#[test]
fn a_container_is_a_scope_that_systemd_knows_with_its_limits() {
    let bundle = Bundle::new();
    let name = bundle.cgroup().trim_start_matches('/').to_owned();
    let unit = format!("oci-{name}.scope");
    bundle.change(|config| {
        config["linux"]["cgroupsPath"] = format!("hull-test.slice:oci:{name}").into();
        config["linux"]["resources"]["pids"] = json!({"limit": 33});
        config["linux"]["resources"]["memory"] = json!({"limit": 64 << 20});
    });
    for id in ["one", "again"] {
        let _said = bundle.oci(&["--systemd-cgroup", "create", "-b", &bundle.path(), id]).good();
        let _said = bundle.oci(&["start", id]).good();
        let pid = bundle.state(id)["pid"].as_i64().unwrap();
        let place = cgroup_of(i32::try_from(pid).unwrap());
        assert_eq!(place, format!("/hull.slice/hull-test.slice/{unit}"));
        assert_eq!(said("systemctl", &["show", "-P", "TasksMax", &unit]), "33");
        assert_eq!(said("systemctl", &["show", "-P", "Delegate", &unit]), "yes");
        let _said = bundle.oci(&["update", "--pids-limit", "44", id]).good();
        // systemd writes what it knows into the files then.
        let _said = said("systemctl", &["daemon-reload"]);
        let file = |of: &str| fs::read_to_string(format!("/sys/fs/cgroup{place}/{of}")).unwrap();
        assert_eq!((file("pids.max").trim(), file("memory.max").trim()), ("44", "67108864"));
        assert_eq!(bundle.oci(&["exec", id, "true"]).code, 0);
        // With it goes the scope, so the name is free.
        let _said = bundle.oci(&["delete", "-f", id]).good();
        assert_eq!(said("systemctl", &["list-units", "--all", "--no-legend", &unit]), "");
    }
    bundle.change(|config| config["linux"]["cgroupsPath"] = "/not/a/unit".into());
    let ran = bundle.oci(&["--systemd-cgroup", "create", "-b", &bundle.path(), "wrong"]);
    assert!(ran.code != 0 && ran.stderr.contains("slice:prefix:name"), "{ran:?}");
}
