// SPDX-License-Identifier: Apache-2.0
//! Conditions, invalid files, the order of directories, and what must be root's.

use super::*;
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

fn file(when: Value) -> Value {
    json!({
        "version": "1.0.0", "when": when, "stages": ["createRuntime", "poststop"],
        "hook": {"path": "/bin/sh", "args": ["sh", "-c", "true"], "env": ["A=b"], "timeout": 7},
    })
}

fn parse(file: &Value) -> Result<File, String> {
    File::parse(&serde_json::to_string_pretty(file).unwrap())
}

#[test]
fn all_conditions_must_hold_and_one_must_be_there() {
    let traits = Traits {
        annotations: [("run.oci.gpu", "all"), ("other", "x")].into(),
        command: "/usr/bin/python3",
        has_bind_mounts: true,
    };
    for (when, is_match) in [
        (json!({"always": true}), true),
        (json!({"always": false}), false),
        (json!({"hasBindMounts": true}), true),
        (json!({"hasBindMounts": false}), false),
        (json!({"commands": ["^/sbin/", "python3?$"]}), true),
        (json!({"commands": ["^python"]}), false),
        (json!({"annotations": {"^run\\.oci\\.": "."}}), true),
        // Key and value of one annotation.
        (json!({"annotations": {"^run\\.oci\\.": "x"}}), false),
        (json!({"annotations": {"gpu": "all", "absent": ".*"}}), false),
        (json!({"always": true, "commands": ["ruby"]}), false),
        (json!({"always": true, "annotations": {"gpu$": "^all$"}, "commands": ["python"]}), true),
    ] {
        assert_eq!(parse(&file(when.clone())).unwrap().matches(&traits), is_match, "{when}");
    }
}

#[test]
fn an_invalid_file_is_refused_with_its_line() {
    let good = file(json!({"always": true}));
    for (at, value, why) in [
        ("/version", json!("0.1.0"), "`0.1.0` is not 1.0.0"),
        ("/hook/path", json!("bin/sh"), "not an absolute path"),
        ("/hook/env", json!(["A"]), "NAME=VALUE"),
        ("/hook/env", json!(["=b"]), "NAME=VALUE"),
        ("/hook/args", json!(["a\0b"]), "NUL"),
        ("/hook/timeout", json!(0), "greater than 0"),
        ("/hook/timeout", json!(-1), "-1"),
        ("/stages", json!([]), "empty"),
        ("/stages", json!(["later"]), "later"),
        ("/when", json!({"annotation": {}}), "annotation"),
        ("/when", json!({}), "no condition"),
        ("/when", json!({"annotations": {}, "commands": []}), "no condition"),
        ("/when", json!({"commands": ["("]}), "not a regular expression: unclosed group"),
        ("/when", json!({"annotations": {"[": "x"}}), "not a regular expression"),
    ] {
        let mut bad = good.clone();
        *bad.pointer_mut(at).unwrap() = value;
        let refused = parse(&bad).unwrap_err();
        assert!(refused.contains(why) && refused.contains(" at line "), "{at}: {refused}");
        assert!(!refused.contains('\n'), "{refused}");
    }
    for field in ["version", "hook", "when", "stages"] {
        let mut bad = good.clone();
        bad.as_object_mut().unwrap().remove(field);
        assert!(parse(&bad).unwrap_err().contains(field), "{field}");
    }
}

fn write(dir: &Path, name: &str, mark: &str) {
    let mut file = file(json!({"always": true}));
    file["hook"]["args"] = json!(["sh", mark]);
    fs::write(dir.join(name), file.to_string()).unwrap();
    fs::set_permissions(dir.join(name), fs::Permissions::from_mode(0o644)).unwrap();
}

fn directory() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    dir
}

fn marks(dirs: &[PathBuf]) -> Vec<String> {
    let found = files(dirs).unwrap();
    found.iter().map(|file| file.hook().args().as_ref().unwrap()[1].clone()).collect()
}

#[test]
fn a_later_directory_replaces_files_and_names_give_the_order() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let (first, second) = (directory(), directory());
    write(first.path(), "B.json", "first-b");
    write(first.path(), "a.json", "first-a");
    write(second.path(), "a.json", "second-a");
    write(second.path(), "c.json", "second-c");
    write(second.path(), "d.conf", "not json");
    // Replaced, so that it is not read.
    fs::write(first.path().join("c.json"), "{").unwrap();
    let dirs = [first.path().to_owned(), second.path().to_owned()];
    assert_eq!(marks(&dirs), ["second-a", "first-b", "second-c"]);

    let mut spec = Spec::default();
    let (config, pod) = (cri::ContainerConfig::default(), cri::PodSandboxConfig::default());
    let added = inject(&mut spec, &config, &pod, &dirs).unwrap();
    let of = |dir: &tempfile::TempDir, name: &str| dir.path().join(name).display().to_string();
    assert_eq!(added.len(), 6, "{added:?}");
    assert_eq!(added[0], (HookKind::CreateRuntime, of(&second, "a.json")));
    assert_eq!(added[3], (HookKind::Poststop, of(&first, "B.json")));
    let hooks = serde_json::to_value(spec.hooks()).unwrap();
    assert_eq!(hooks["createRuntime"].as_array().map(Vec::len), Some(3), "{hooks}");
    assert_eq!(hooks["poststop"][1]["args"], json!(["sh", "first-b"]));
    assert_eq!((&hooks["poststop"][0]["timeout"], &hooks["poststart"]), (&json!(7), &Value::Null));

    // What confines containers may have been there.
    drop(second);
    let said = inject(&mut spec, &config, &pod, &dirs).unwrap_err();
    assert!(
        said.to_string().contains("use hook directory") && said.to_string().contains("No such"),
        "{said}"
    );
    assert!(said.hint().contains("runtime.hooks_dir"), "{}", said.hint());
}

#[test]
fn what_others_than_root_can_change_is_refused() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let dir = directory();
    let dirs = [dir.path().to_owned()];
    let refused = |why: &str| {
        let error = files(&dirs).unwrap_err();
        assert!(error.to_string().contains(why), "{error}");
        assert!(!error.hint().is_empty());
    };
    write(dir.path(), "a.json", "a");
    assert_eq!(marks(&dirs), ["a"]);
    let mode = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    mode(dir.path(), 0o775);
    refused("its mode 775 lets others");
    mode(dir.path(), 0o755);
    let file = dir.path().join("a.json");
    mode(&file, 0o666);
    refused("a.json: its mode 666 lets others");
    mode(&file, 0o644);
    std::os::unix::fs::chown(&file, Some(1000), None).unwrap();
    refused("it belongs to user 1000");
    std::os::unix::fs::chown(&file, Some(0), None).unwrap();

    let program = dir.path().join("program");
    fs::write(&program, "#!/bin/sh\n").unwrap();
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replace("/bin/sh", &program.display().to_string())).unwrap();
    mode(&program, 0o644);
    refused("not an executable file");
    mode(&program, 0o777);
    refused("program: its mode 777");
    mode(&program, 0o755);
    assert_eq!(marks(&dirs).len(), 1);
    fs::remove_file(&program).unwrap();
    refused("No such file");

    // A good program in a directory in which others can replace it.
    let place = dir.path().join("place");
    fs::create_dir(&place).unwrap();
    let text = fs::read_to_string(&file).unwrap();
    let moved = place.join("program");
    fs::write(&file, text.replace(&program.display().to_string(), &moved.display().to_string()))
        .unwrap();
    fs::write(&moved, "#!/bin/sh\n").unwrap();
    mode(&moved, 0o755);
    assert_eq!(marks(&dirs).len(), 1);
    mode(&place, 0o777);
    refused("place` on its path lets others than root replace it");
    mode(&place, 0o755);
    // The directory itself below one of others.
    std::os::unix::fs::chown(&place, Some(1000), None).unwrap();
    refused("place` on its path belongs to user 1000");
    let below = [place.join("hooks")];
    fs::create_dir(&below[0]).unwrap();
    let error = files(&below).unwrap_err().to_string();
    assert!(error.contains("place` on its path belongs to user 1000"), "{error}");
}
