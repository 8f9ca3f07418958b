// SPDX-License-Identifier: Apache-2.0
//! Tests: devices of files, added to a spec.

use super::*;
use hull_proto::cri;
use serde_json::{Value, json};
use std::path::PathBuf;

struct Dirs(tempfile::TempDir, Vec<PathBuf>);

impl Dirs {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let dirs: Vec<_> = ["etc", "run"].iter().map(|name| dir.path().join(name)).collect();
        for dir in &dirs {
            std::fs::create_dir(dir).unwrap();
        }
        Self(dir, dirs)
    }

    fn write(&self, path: &str, kind: &str, devices: &str, edits: &str) {
        let text = format!(
            r#"{{"cdiVersion":"0.7.0","kind":"{kind}","devices":[{devices}],"containerEdits":{edits}}}"#
        );
        std::fs::write(self.0.path().join(path), text).unwrap();
    }

    fn inject(&self, spec: &mut Value, names: &[&str]) -> Result<(), Error> {
        let names: Vec<_> = names.iter().map(ToString::to_string).collect();
        inject(spec, &names, &self.1)
    }
}

fn spec(uid: u32) -> Value {
    json!({
        "process": {"user": {"uid": uid, "gid": uid, "additionalGids": [7]}, "env": ["PATH=/bin", "MODE=old"]},
        "mounts": [{"destination": "/proc"}, {"destination": "/opt/a/b"}],
        "linux": {"devices": [], "resources": {"devices": [{"allow": false, "access": "rwm"}]}},
    })
}

#[test]
fn a_device_brings_nodes_rules_variables_mounts_and_groups() {
    let dirs = Dirs::new();
    dirs.write(
        "etc/a.json",
        "v.com/gpu",
        r#"{"name":"0","containerEdits":{"deviceNodes":[{"path":"/dev/gpu0","hostPath":"/dev/null","permissions":"rw"}]}},
           {"name":"1","containerEdits":{"deviceNodes":[{"path":"/dev/gpu1","type":"b","major":240,"minor":1,"uid":5}]}}"#,
        r#"{"env":["MODE=new","GPU=1"],"mounts":[{"hostPath":"/usr/a","containerPath":"/opt/a","options":["ro"]}],"additionalGids":[44,0,7]}"#,
    );
    let mut made = spec(1000);
    dirs.inject(&mut made, &["v.com/gpu=0", "v.com/gpu=1"]).unwrap();
    assert_eq!(made["process"]["env"], json!(["PATH=/bin", "MODE=new", "GPU=1"]));
    assert_eq!(made["process"]["user"]["additionalGids"], json!([7, 44]), "once for both");
    let order: Vec<_> =
        made["mounts"].as_array().unwrap().iter().map(|of| &of["destination"]).collect();
    assert_eq!(order, ["/proc", "/opt/a", "/opt/a/b"]);
    assert_eq!(made["mounts"][1]["options"], json!(["rbind", "ro"]));
    let (null, gpu) = (&made["linux"]["devices"][0], &made["linux"]["devices"][1]);
    assert_eq!((&null["path"], &null["type"]), (&json!("/dev/gpu0"), &json!("c")));
    assert_eq!((&null["major"], &null["minor"]), (&json!(1), &json!(3)));
    assert_eq!((&null["uid"], &null["fileMode"]), (&json!(1000), &json!(0o666)));
    assert_eq!((&gpu["uid"], &gpu["gid"]), (&json!(5), &json!(1000)));
    let rules = &made["linux"]["resources"]["devices"];
    assert_eq!(
        rules[1],
        json!({"allow": true, "type": "c", "major": 1, "minor": 3, "access": "rw"})
    );
    assert_eq!(rules[2]["access"], "rwm");
}

#[test]
fn hooks_of_devices_and_of_their_file_come_in_the_order_of_the_edits() {
    let dirs = Dirs::new();
    let hook = |kind: &str, path: &str| {
        format!(r#"{{"hookName":"{kind}","path":"{path}","args":["x","y"],"env":["A=b"]}}"#)
    };
    dirs.write(
        "etc/a.json",
        "v.com/c",
        &format!(
            r#"{{"name":"x","containerEdits":{{"hooks":[{}]}}}}"#,
            hook("createContainer", "/device")
        ),
        &format!(
            r#"{{"hooks":[{},{}]}}"#,
            hook("createContainer", "/file"),
            r#"{"hookName":"poststop","path":"/last","timeout":7}"#
        ),
    );
    let mut made = spec(0);
    dirs.inject(&mut made, &["v.com/c=x"]).unwrap();
    let first = json!({"path": "/file", "args": ["x", "y"], "env": ["A=b"]});
    let second = json!({"path": "/device", "args": ["x", "y"], "env": ["A=b"]});
    assert_eq!(made["hooks"]["createContainer"], json!([first, second]));
    assert_eq!(made["hooks"]["poststop"][0]["timeout"], 7);
}

#[test]
fn the_later_directory_wins_and_two_files_of_one_are_told_apart_by_nobody() {
    let dirs = Dirs::new();
    let device = r#"{"name":"x"}"#;
    dirs.write("etc/a.json", "v.com/c", device, r#"{"env":["FROM=etc"]}"#);
    dirs.write("run/b.json", "v.com/c", device, r#"{"env":["FROM=run"]}"#);
    let mut made = spec(0);
    dirs.inject(&mut made, &["v.com/c=x"]).unwrap();
    assert!(made["process"]["env"].as_array().unwrap().contains(&json!("FROM=run")), "{made}");
    // What is hidden may be there twice.
    dirs.write("etc/c.json", "v.com/c", device, "{}");
    dirs.inject(&mut spec(0), &["v.com/c=x"]).unwrap();
    dirs.write("run/d.json", "v.com/c", device, "{}");
    let twice = dirs.inject(&mut spec(0), &["v.com/c=x"]).unwrap_err().to_string();
    assert!(twice.contains("b.json") && twice.contains("d.json"), "{twice}");
}

#[test]
fn what_cannot_be_given_is_named_and_nothing_is_given() {
    let dirs = Dirs::new();
    dirs.write(
        "etc/a.json",
        "v.com/c",
        r#"{"name":"netted","containerEdits":{"netDevices":[{"hostInterfaceName":"a","name":"b"}]}},
           {"name":"gone","containerEdits":{"deviceNodes":[{"path":"/dev/gone-from-here"}]}},
           {"name":"other","containerEdits":{"deviceNodes":[{"path":"/dev/x","hostPath":"/dev/null","type":"b"}]}},
           {"name":"file","containerEdits":{"deviceNodes":[{"path":"/dev/x","hostPath":"/etc/passwd"}]}}"#,
        "{}",
    );
    std::fs::write(dirs.1[1].join("broken.yaml"), "kind: [").unwrap();
    for (name, words) in [
        ("v.com/c=netted", "network devices"),
        ("v.com/c=gone", "/dev/gone-from-here"),
        ("v.com/c=file", "/etc/passwd on this node is not a device"),
        ("v.com/c=other", "/dev/null on this node is not a device of its type"),
        ("v.com/c=none", "broken.yaml"),
        ("v.com/c", "vendor.com/class=name"),
    ] {
        let mut made = spec(0);
        let err = dirs.inject(&mut made, &[name]).unwrap_err();
        assert!(err.to_string().contains(words), "{name}: {err}");
        assert_eq!(made, spec(0));
    }
    let none = dirs.inject(&mut spec(0), &["v.com/c=none"]).unwrap_err();
    assert!(none.hint().unwrap().starts_with("correct the files"), "{none}");
    let off = inject(&mut spec(0), &["v.com/c=x".into()], &[]).unwrap_err();
    assert!(off.hint().unwrap().contains("/etc/cdi"), "{off}");
    inject(&mut spec(0), &[], &[]).unwrap();
    // A path that is not a directory is reported, and not taken for an empty one.
    let none = inject(&mut spec(0), &["v.com/c=x".into()], &[dirs.0.path().join("etc/a.json")]);
    assert!(none.unwrap_err().to_string().contains("Not a directory"));
}

#[test]
fn files_of_other_devices_make_no_difference_whatever_they_are() {
    let dirs = Dirs::new();
    dirs.write(
        "etc/a.json",
        "v.com/c",
        r#"{"name":"x","containerEdits":{"mounts":[{"hostPath":"/usr/../srv","containerPath":"/opt/../x/./y"}]}}"#,
        "{}",
    );
    let etc = dirs.0.path().join("etc");
    let hooked = r#"{"name":"y","containerEdits":{"hooks":[{"hookName":"later","path":"/x"}]}}"#;
    dirs.write("etc/hooked.json", "v.com/c", hooked, "{}");
    std::fs::write(etc.join("broken.yaml"), "kind: [").unwrap();
    std::fs::write(etc.join("bytes.json"), b"\xff\xfe").unwrap();
    std::fs::create_dir(etc.join("directory.json")).unwrap();
    std::os::unix::fs::symlink("nowhere", etc.join("link.yaml")).unwrap();
    let fifo = (rustix::fs::FileType::Fifo, rustix::fs::Mode::from_raw_mode(0o600));
    rustix::fs::mknodat(rustix::fs::CWD, etc.join("fifo.yaml"), fifo.0, fifo.1, 0).unwrap();
    let mut made = spec(0);
    dirs.inject(&mut made, &["v.com/c=x"]).unwrap();
    let mounts = made["mounts"].as_array().unwrap();
    assert!(mounts.iter().any(|of| of["destination"] == "/x/y"), "{made}");
}

#[test]
fn names_come_from_the_field_and_from_annotations_each_once() {
    let device = |name: &str| cri::CdiDevice { name: name.into() };
    let config = cri::ContainerConfig {
        cdi_devices: vec![device("a.com/b=1"), device("a.com/b=2")],
        annotations: [
            ("cdi.k8s.io/plugin".into(), "a.com/b=2, a.com/b=3".into()),
            ("other".into(), "a.com/b=4".into()),
        ]
        .into(),
        ..Default::default()
    };
    assert_eq!(requested_devices(&config), ["a.com/b=1", "a.com/b=2", "a.com/b=3"]);
}
