// SPDX-License-Identifier: Apache-2.0
//! Users, capabilities, seccomp and AppArmor profiles.

use crate::case::{Case, Set, Setup};
use hull_proto::cri as api;

fn profile(setup: &mut Setup, name: &str) {
    let profile = api::SecurityProfile {
        profile_type: api::security_profile::ProfileType::Localhost.into(),
        localhost_ref: setup.seccomp.join(name).display().to_string(),
    };
    setup.security().seccomp = Some(profile);
}

pub(crate) static CASES: [Case; 3] = [
    Case {
        name: "a capability that is misspelt",
        set: Set::Configs(|setup| {
            let capabilities = setup.security().capabilities.get_or_insert_default();
            capabilities.add_capabilities.push("NET_ADMON".into());
        }),
        place: &["`NET_ADMON`"],
        cause: &["no capability with this name"],
        fix: &["capabilities(7)"],
        never: &[],
    },
    Case {
        name: "a seccomp profile that is not on the node",
        set: Set::Configs(|setup| profile(setup, "absent.json")),
        place: &["absent.json"],
        cause: &["no such file or directory"],
        fix: &["put the profile on the node"],
        never: &[],
    },
    Case {
        name: "a seccomp profile that is not JSON",
        set: Set::Configs(|setup| {
            let text = "{\"defaultAction\": \"SCMP_ACT_ALLOW\"\n \"syscalls\": []}";
            let written = std::fs::write(setup.seccomp.join("odd.json"), text);
            assert!(written.is_ok(), "write a profile: {written:?}");
            profile(setup, "odd.json");
        }),
        place: &["odd.json"],
        cause: &["line 2 column 2"],
        fix: &["correct the profile"],
        never: &[],
    },
];
