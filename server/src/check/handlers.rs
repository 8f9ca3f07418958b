// SPDX-License-Identifier: Apache-2.0
//! Checks of the runtime handlers: whether pods of each can run on this host. The handlers with the settings of the
//! node need no check of their own.

use super::finding::{Finding, Verdict};
use super::kernel;
use crate::config::{Config, Handler, UserNamespaces};
use crate::oci_spec::seccomp_profile;
use crate::pod::handler::{NodeFacts, Obstacle, obstacle};
use hull_cgroup::{CgroupFs, Version};

pub(super) fn findings(config: &Config) -> Vec<Finding> {
    if config.runtime.handlers.is_empty() {
        return Vec::new();
    }
    let of_kernel = kernel::user_namespaces();
    let user_namespaces = match of_kernel.verdict {
        Verdict::Good => Ok(()),
        Verdict::Warning(_) | Verdict::Missing(_) => Err(of_kernel.found),
    };
    let version = CgroupFs::detect().map(|host| host.version());
    let facts = NodeFacts {
        user_namespaces: &user_namespaces,
        cgroup_namespaces: matches!(version, Ok(Version::V2)),
    };
    let handlers = config.runtime.handlers.iter();
    handlers.map(|(name, handler)| finding(config, (name, handler), facts)).collect()
}

fn finding(config: &Config, (name, handler): (&str, &Handler), facts: NodeFacts<'_>) -> Finding {
    let subject = format!("handler {name}");
    if let Some(Obstacle { why, hint }) = obstacle(handler, facts) {
        return Finding::warning(subject, format!("its pods are refused: {why}"), hint);
    }
    if let Some(file) = &handler.seccomp_profile
        && let Err(err) = seccomp_profile(file, &config.runtime.seccomp_root)
    {
        let hint = err.hint().unwrap_or_else(|| {
            format!(
                "correct `seccomp_profile` of the handler, or install the profile in {}",
                config.runtime.seccomp_root.display()
            )
        });
        let found = format!("its containers are refused: cannot {}", crate::error::Chain(&err));
        return Finding::warning(subject, found, hint);
    }
    Finding::good(subject, summary(handler))
}

/// The settings of a handler in a few words.
fn summary(handler: &Handler) -> String {
    let seccomp = handler.seccomp_profile.as_ref();
    let parts = [
        seccomp.map(|file| format!("seccomp profile {}", file.display())),
        (handler.user_namespaces == UserNamespaces::Always)
            .then(|| "user namespaces for all pods".to_owned()),
        handler
            .cgroup_writable
            .map(|is| format!("cgroups {}", if is { "writable" } else { "read-only" })),
        handler.network.as_ref().map(|name| format!("network {name}")),
    ];
    let parts: Vec<_> = parts.into_iter().flatten().collect();
    if parts.is_empty() {
        "Hull itself".to_owned()
    } else {
        format!("Hull itself: {}", parts.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Handler;

    #[test]
    fn each_handler_is_good_or_says_what_its_pods_lack() {
        let dir = tempfile::tempdir().unwrap();
        let mut config = Config::default();
        config.runtime.seccomp_root = dir.path().to_owned();
        let always = Handler { user_namespaces: UserNamespaces::Always, ..Handler::default() };
        let strict = Handler { seccomp_profile: Some("strict.json".into()), ..Handler::default() };
        let broken = Err("none here".to_owned());
        let of = |handler: &Handler, user_namespaces: &Result<(), String>| {
            let facts = NodeFacts { user_namespaces, cgroup_namespaces: true };
            finding(&config, ("x", handler), facts)
        };
        let lacks = of(&always, &broken);
        assert_eq!((lacks.parts().0, lacks.parts().1), ("handler x", "warning"));
        assert!(lacks.found.contains("none here"), "{lacks:?}");
        let good = of(&always, &Ok(()));
        assert_eq!(good, Finding::good("handler x", "Hull itself: user namespaces for all pods"));
        let lacks = of(&strict, &Ok(()));
        assert!(lacks.found.contains("strict.json") && lacks.parts().1 == "warning", "{lacks:?}");
        std::fs::write(dir.path().join("strict.json"), "{\"defaultAction\": \"SCMP_ACT_ALLOW\"}")
            .unwrap();
        assert_eq!(of(&strict, &Ok(())).verdict, Verdict::Good);
    }
}
