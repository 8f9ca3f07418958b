// SPDX-License-Identifier: Apache-2.0
//! Users without rights over the host, as podman's are.

use hull_tests::bundle::{Bundle, runtime};
use hull_tests::eventually;
use hull_tests::expect::ExpectExt as _;
use hull_tests::shell::{self, Ran};
use serde_json::{Value, json};
use std::fs;
use std::process::{Command, Stdio};

/// No user of this host.
const USER: u32 = 51_234;

/// Runs the runtime as that user, from `dir`, which is theirs. Where the runtime itself is out of their reach, from a
/// copy there.
fn as_user(dir: &str, before: &[&str], words: &[&str]) -> Ran {
    let runtime = runtime();
    let copy = format!("{dir}/runtime");
    if fs::metadata(&copy).is_err() {
        let _bytes = fs::copy(runtime.get_program(), &copy).or_fail("prepare the bundle");
    }
    let id = USER.to_string();
    let mut command = Command::new("setpriv");
    command.args(["--reuid", &id, "--regid", &id, "--clear-groups"]).args(before).arg(copy);
    command.args(runtime.get_args()).args(["--root", &format!("{dir}/root")]).args(words);
    // Into files: a container holds the output for longer.
    let file = |of: &str| format!("{dir}.{of}");
    let open = |of: &str| {
        fs::File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .open(file(of))
            .or_fail("make a file")
    };
    let command = command.current_dir(dir).env_remove("XDG_RUNTIME_DIR").stdin(Stdio::null());
    let status = command.stdout(open("stdout")).stderr(open("stderr")).status();
    let text = |of: &str| fs::read_to_string(file(of)).or_fail("read output");
    Ran {
        code: status.or_fail("run the runtime").code().unwrap_or(-1),
        stdout: text("stdout"),
        stderr: text("stderr"),
    }
}

/// A directory of that user, with the bundle's root and a spec for them.
fn prepared(bundle: &Bundle, before: &[&str], args: &Value) -> String {
    let dir = bundle.scratch().join("home").display().to_string();
    fs::create_dir_all(&dir).or_fail("prepare the bundle");
    let _said = shell::run("cp", ["-a", &format!("{}/rootfs", bundle.path()), &dir]).good();
    let _said = shell::run("chown", ["-R", &format!("{USER}:{USER}"), &dir]).good();
    let _said = as_user(&dir, before, &["spec", "--rootless"]).good();
    let path = format!("{dir}/config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&path).or_fail("prepare the bundle"))
        .or_fail("prepare the bundle");
    config["process"]["terminal"] = false.into();
    config["process"]["args"] = args.clone();
    fs::write(&path, config.to_string()).or_fail("prepare the bundle");
    dir
}

#[test]
fn a_user_without_rights_runs_a_container() {
    let bundle = Bundle::new();
    let script = "id -u; cat /proc/self/uid_map; echo x > /dev/null; head -c 3 /dev/zero | wc -c";
    let dir = prepared(&bundle, &[], &json!(["sh", "-c", script]));
    let ran = as_user(&dir, &[], &["run", "one"]);
    let words: Vec<_> = ran.stdout.split_whitespace().collect();
    assert_eq!(words, ["0", "0", &USER.to_string(), "1", "3"], "{ran:?}");
    let path = format!("{dir}/config.json");
    let text = fs::read_to_string(&path).unwrap();
    let mut config: Value = serde_json::from_str(&text).unwrap();
    config["process"]["args"] = json!(["sleep", "1000"]);
    fs::write(&path, config.to_string()).unwrap();
    let _said = as_user(&dir, &[], &["create", "two"]).good();
    let _said = as_user(&dir, &[], &["start", "two"]).good();
    let ran = as_user(&dir, &[], &["exec", "two", "sh", "-c", "id -u; echo $$"]);
    assert!(ran.code == 0 && ran.stdout.starts_with("0\n"), "{ran:?}");
    assert!(as_user(&dir, &[], &["list"]).good().contains("running"));
    let _said = as_user(&dir, &[], &["delete", "-f", "two"]).good();
    // Given up after its process is there. Without a cgroup only its descriptor leads to it.
    let ran = as_user(&dir, &[], &["create", "--pid-file", "/no/such/pid", "two"]);
    assert!(ran.code != 0 && ran.stderr.contains("/no/such/pid"), "{ran:?}");
    let left = eventually::blocking(eventually::deadline(), || {
        let found = shell::run("ps", ["-u", &USER.to_string(), "-o", "stat=,args="]).stdout;
        if found.lines().all(|line| line.starts_with('Z')) { Ok(()) } else { Err(found) }
    });
    assert_eq!(left, Ok(()));
    // A limit that cannot be set is an error.
    config["linux"]["resources"] = json!({"pids": {"limit": 5}});
    fs::write(&path, config.to_string()).unwrap();
    let ran = as_user(&dir, &[], &["create", "three"]);
    assert!(ran.code != 0 && ran.stderr.contains("cgroup"), "{ran:?}");
}

/// As podman starts a runtime: as the root of a user namespace that it has made.
#[test]
fn the_root_of_a_user_namespace_runs_a_container_in_it() {
    let bundle = Bundle::new();
    let before = ["unshare", "--user", "--map-root-user", "--mount"];
    let script = "id -u; cat /proc/self/uid_map; echo x > /dev/null";
    let dir = prepared(&bundle, &before, &json!(["sh", "-c", script]));
    let path = format!("{dir}/config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let linux = config["linux"].as_object_mut().unwrap();
    linux.remove("uidMappings");
    linux.remove("gidMappings");
    linux["namespaces"].as_array_mut().unwrap().retain(|of| of["type"] != "user");
    fs::write(&path, config.to_string()).unwrap();
    let ran = as_user(&dir, &before, &["run", "one"]);
    let words: Vec<_> = ran.stdout.split_whitespace().collect();
    assert_eq!(words, ["0", "0", &USER.to_string(), "1"], "{ran:?}");
}

/// As with runc, and said before the kernel refuses it by a number.
#[test]
fn a_user_without_rights_needs_a_user_namespace_and_maps_no_ids() {
    let bundle = Bundle::new();
    let dir = prepared(&bundle, &[], &json!(["true"]));
    let path = format!("{dir}/config.json");
    let original: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let refused = |config: &Value, words: &[&str]| {
        fs::write(&path, config.to_string()).unwrap();
        let ran = as_user(&dir, &[], &["create", "one"]);
        assert_ne!(ran.code, 0, "{ran:?}");
        for word in words {
            assert!(ran.stderr.contains(word), "`{word}` is not in {ran:?}");
        }
    };
    let mut config = original.clone();
    let linux = config["linux"].as_object_mut().unwrap();
    linux.remove("uidMappings");
    linux.remove("gidMappings");
    linux["namespaces"].as_array_mut().unwrap().retain(|of| of["type"] != "user");
    refused(&config, &["without a user namespace", "spec --rootless"]);
    let mut config = original;
    let mount =
        json!({"destination": "/x", "type": "bind", "source": "/", "options": ["bind", "idmap"]});
    config["mounts"].as_array_mut().unwrap().push(mount);
    refused(&config, &["mapped ids", "remove `idmap`"]);
}
