// SPDX-License-Identifier: Apache-2.0
//! `make demo`, the first command that a newcomer types: it passes beside other pods of Hull, and one that fails
//! says what to do and leaves nothing.

use hull_tests::shell::{Ran, finish};
use hull_tests::{ExpectExt as _, Node, node, paths};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

fn demo(hull: &Path) -> Ran {
    finish(Command::new(env!("CARGO_BIN_EXE_demo")).env("HULL_BIN", hull))
}

/// One test for both: no other node may take the number that the failed one gives back, until it was looked for.
#[tokio::test]
async fn the_demo_passes_beside_other_pods_and_one_that_fails_leaves_nothing() {
    let other = Node::start().await;
    let (cri, pod, image) = other.pod("other").await;
    let main = cri.run_idle(&pod, "main", &image).await;
    let ran = demo(&paths::hull());
    assert_eq!(ran.code, 0, "{}{}", ran.stdout, ran.stderr);
    assert!(ran.stdout.contains("Nothing is left of the pod's"), "{}", ran.stdout);
    assert!(ran.stdout.contains("      <h1>It runs in a pod.</h1>"), "{}", ran.stdout);
    assert_eq!(cri.exec(&main, &["true"]).await.unwrap().code, 0, "the other pod goes on");
    a_failed_demo_leaves_nothing(&other.host_dir());
    assert_eq!(cri.exec(&main, &["true"]).await.unwrap().code, 0, "it still does");
}

/// The command line fails in the middle of the demo, when its pod runs.
fn a_failed_demo_leaves_nothing(dir: &Path) {
    let script = format!(
        "#!/bin/sh\ncase \"$*\" in *' logs '*) echo 'broken on purpose' >&2; exit 7 ;; esac\nexec {} \"$@\"\n",
        paths::hull().display()
    );
    let hull = node::write(dir, "hull", &script);
    fs::set_permissions(&hull, fs::Permissions::from_mode(0o755)).or_fail("make it executable");
    let ran = demo(&hull);
    assert_eq!(ran.code, 1, "{}{}", ran.stdout, ran.stderr);
    for part in [
        "error: exit 7: broken on purpose",
        "hint: the demo's pod is removed",
        "the daemon's log: /",
    ] {
        assert!(ran.stdout.contains(part), "`{part}` in:\n{}{}", ran.stdout, ran.stderr);
    }
    for part in ["panicked", "backtrace"] {
        assert!(!ran.stdout.contains(part) && !ran.stderr.contains(part), "`{part}` in {ran:?}");
    }
    let log = ran.stdout.lines().find_map(|line| line.strip_prefix("the daemon's log: "));
    let log = Path::new(log.or_fail("find where the log is"));
    assert!(log.is_file(), "{} is kept", log.display());
    // Its name ends in the number of the demo's node, by which all its names go.
    let name = log.file_stem().and_then(|name| name.to_str()).or_fail("read the log's name");
    let number = name.rsplit('-').next().or_fail("find the number");
    for path in [format!("/var/tmp/hlt{number}"), format!("/sys/class/net/hlt{number}")] {
        assert!(fs::symlink_metadata(&path).is_err(), "{path} is left");
    }
    fs::remove_file(log).or_fail("remove the log");
}
