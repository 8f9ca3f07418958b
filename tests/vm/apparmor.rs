// SPDX-License-Identifier: Apache-2.0
//! AppArmor profiles of containers.

use super::said;
use hull_proto::cri as api;
use hull_proto::cri::security_profile::ProfileType;
use hull_tests::Node;
use hull_tests::cri::{idle, security, shell};

const CURRENT: &str = "cat /proc/self/attr/current";

pub(crate) fn profile(kind: ProfileType, name: &str) -> Option<api::SecurityProfile> {
    Some(api::SecurityProfile { profile_type: kind as i32, localhost_ref: name.into() })
}

#[tokio::test]
async fn who_names_no_profile_has_the_default_and_so_have_its_execs() {
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let said = cri.output(&pod, shell("plain", &image, CURRENT)).await;
    assert_eq!(said.stdout, "hull-default (enforce)\n");
    let made = cri.run_idle(&pod, "main", &image).await;
    let said = cri.exec(&made, &["cat", "/proc/self/attr/current"]).await.unwrap();
    assert_eq!(said.stdout, "hull-default (enforce)\n");

    for (name, privileged, wanted) in [
        ("unconfined", false, profile(ProfileType::Unconfined, "")),
        ("privileged", true, None),
        ("privileged-default", true, profile(ProfileType::RuntimeDefault, "")),
    ] {
        let mut config = shell(name, &image, CURRENT);
        security(&mut config).privileged = privileged;
        security(&mut config).apparmor = wanted;
        assert_eq!(cri.output(&pod, config).await.stdout, "unconfined\n", "{name}");
    }
}

#[tokio::test]
async fn the_default_keeps_settings_of_the_kernel_from_containers() {
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    // Both files may be read as far as masks go: one is read-only, the other shows nothing.
    let tries = "mount -t proc none /tmp 2>&1; head -c1 /proc/sysrq-trigger 2>&1; head -c1 /proc/kcore 2>&1; \
                 kill -0 1 && echo signals; echo x > /tmp/file && cat /tmp/file";
    let mut config = shell("main", &image, tries);
    let capabilities = security(&mut config).capabilities.get_or_insert_default();
    capabilities.add_capabilities = vec!["SYS_ADMIN".into()];
    let said = cri.output(&pod, config).await;
    let denied = said.stdout.matches("ermission denied").count()
        + said.stderr.matches("ermission denied").count();
    assert_eq!(denied, 3, "{said:?}");
    assert!(said.stdout.contains("signals\nx\n"), "what is its own it may: {said:?}");
}

#[tokio::test]
#[allow(deprecated, reason = "older kubelets still fill it")]
async fn a_profile_that_is_not_loaded_is_named_with_the_command() {
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    for old in [false, true] {
        let mut config = idle("main", &image);
        if old {
            security(&mut config).apparmor_profile = "localhost/no-such".into();
        } else {
            security(&mut config).apparmor = profile(ProfileType::Localhost, "no-such");
        }
        let refused = cri.create(&pod, config).await.unwrap_err();
        assert!(refused.message().contains("AppArmor profile `no-such`"), "{refused}");
        assert!(refused.message().contains("apparmor_parser --replace"), "{refused}");
    }
}

#[tokio::test]
async fn a_daemon_with_another_default_loads_it_at_start() {
    let mut node = Node::start().await;
    let noted = node.state_dir().join("apparmor/hull-default");
    let ours = std::fs::read_to_string(&noted).unwrap();
    let hash = || {
        let dir = "/sys/kernel/security/apparmor/policy/profiles";
        let names = hull_tests::shell::names(std::path::Path::new(dir));
        let name = names.into_iter().find(|name| name.starts_with("hull-default")).unwrap();
        said("sh", &["-c", &format!("cat {dir}/{name}/sha*")])
    };
    let before = hash();
    // As an older version would have left it.
    let older = ours.replace("  umount,\n", "");
    std::fs::write(&noted, &older).unwrap();
    said("apparmor_parser", &["--skip-cache", "--replace", noted.to_str().unwrap()]);
    assert_ne!(hash(), before);
    node.restart().await;
    assert_eq!(hash(), before);
    assert_eq!(std::fs::read_to_string(&noted).unwrap(), ours);
}
