// SPDX-License-Identifier: Apache-2.0
//! Whether a pod gets a user namespace of Hull's, by its request and the node's policy. Pure.

use super::Error;
use super::ids::IDS;
use crate::config::Userns;
use crate::pod::run_pods;
use hull_proto::cri::{self, NamespaceMode};
use hull_sys::text::shown;

/// CRI-O's annotation. Only its `auto` is accepted, since other modes name ids of the host.
const CRIO: &str = "io.kubernetes.cri-o.userns-mode";
/// Longest mode that a message shows, in bytes.
const SHOWN_BYTES: usize = 80;

/// The inputs of a decision.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Question<'a> {
    pub(crate) policy: Userns,
    /// The pod's handler gives each of its pods one: no pod of it is left in the host's.
    pub(crate) by_handler: bool,
    pub(crate) config: &'a cri::PodSandboxConfig,
}

/// Where the ids of a pod come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decision {
    /// The request names its maps.
    Requested,
    /// The pod stays in the host's user namespace.
    Host { why: &'static str },
    /// A free range is assigned, of which this many ids are mapped.
    Assign { length: u32 },
}

/// Decides whose ids a pod has.
pub(crate) fn decide(question: &Question<'_>) -> Result<Decision, Error> {
    let Question { policy, by_handler, config } = question;
    let requested = requested_userns(config);
    let has_maps = |of: &cri::UserNamespace| !of.uids.is_empty() || !of.gids.is_empty();
    if requested.is_some_and(has_maps) {
        return Ok(Decision::Requested);
    }
    let mode = requested.map_or(Ok(NamespaceMode::Pod), |of| NamespaceMode::try_from(of.mode));
    if !matches!(mode, Ok(NamespaceMode::Pod | NamespaceMode::Node)) {
        return Ok(Decision::Requested);
    }
    let wants_host = mode == Ok(NamespaceMode::Node);
    match (asked(*policy, config)?, shared(config)) {
        (Some((_, length)), _) if *by_handler => Ok(Decision::Assign { length }),
        (None, _) if *by_handler => Ok(Decision::Assign { length: IDS }),
        (Some((field, _)), Some(why)) => Err(Error::Shared { field, why }),
        (Some((_, length)), None) => Ok(Decision::Assign { length }),
        (None, Some(why)) => Ok(Decision::Host { why }),
        (None, None) => Ok(match policy {
            Userns::Off => Decision::Host { why: "the node assigns none" },
            Userns::Auto if wants_host => Decision::Host { why: "its client asks for the host's" },
            Userns::Auto | Userns::Always => Decision::Assign { length: IDS },
        }),
    }
}

fn requested_userns(config: &cri::PodSandboxConfig) -> Option<&cri::UserNamespace> {
    let context = config.linux.as_ref()?.security_context.as_ref()?;
    context.namespace_options.as_ref()?.userns_options.as_ref()
}

/// The annotation that asks for a user namespace, and the number of ids. That of CRI-O counts where the node's policy
/// assigns user namespaces at all.
fn asked(
    policy: Userns,
    config: &cri::PodSandboxConfig,
) -> Result<Option<(&'static str, u32)>, Error> {
    let of_run = config.annotations.get(run_pods::USERNS).filter(|_| run_pods::is_of_run(config));
    let of_crio = config.annotations.get(CRIO).filter(|_| policy != Userns::Off);
    let (field, text) = match (of_run, of_crio) {
        (Some(text), _) => (run_pods::USERNS, text),
        (None, Some(text)) if !text.is_empty() => (CRIO, text),
        (None, _) => return Ok(None),
    };
    let bad = |why| Error::Mode { field, value: shown(text, SHOWN_BYTES), why };
    size(text).map(|length| Some((field, length))).map_err(bad)
}

/// The number of ids that a mode asks for: `auto`, or `auto:size=NUMBER`.
///
/// # Errors
/// It is another mode, or has other options; the text says why that is refused.
pub(crate) fn size(mode: &str) -> Result<u32, &'static str> {
    let (name, options) = mode.split_once(':').unwrap_or((mode, ""));
    if name != "auto" {
        return Err("pods do not choose ids of the host; the only mode is `auto`");
    }
    match options.split_once('=') {
        None if options.is_empty() && !mode.ends_with(':') => Ok(IDS),
        Some(("size", number)) => {
            let digits = number.bytes().all(|b| b.is_ascii_digit());
            let length = number.parse::<u32>().ok().filter(|of| digits && (1..=IDS).contains(of));
            length.ok_or("a pod has 1 to 65536 ids")
        }
        _ => Err("pods do not choose ids of the host; the only option is `size=NUMBER`"),
    }
}

/// The thing that the pod shares with the host, and that it cannot use, or is not meant to use, from a user namespace.
fn shared(config: &cri::PodSandboxConfig) -> Option<&'static str> {
    let context = config.linux.as_ref()?.security_context.as_ref()?;
    if context.privileged {
        return Some("the pod is privileged");
    }
    let options = context.namespace_options.as_ref()?;
    let node = NamespaceMode::Node as i32;
    [
        (options.network, "the pod is on the host's network"),
        (options.pid, "the pod has the host's processes"),
        (options.ipc, "the pod has the host's shared memory"),
    ]
    .into_iter()
    .find_map(|(mode, why)| (mode == node).then_some(why))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(change: impl FnOnce(&mut cri::LinuxSandboxSecurityContext)) -> cri::PodSandboxConfig {
        let mut context = cri::LinuxSandboxSecurityContext {
            namespace_options: Some(cri::NamespaceOption::default()),
            ..Default::default()
        };
        change(&mut context);
        let linux =
            cri::LinuxPodSandboxConfig { security_context: Some(context), ..Default::default() };
        cri::PodSandboxConfig { linux: Some(linux), ..Default::default() }
    }

    fn with_userns(mode: NamespaceMode, is_mapped: bool) -> cri::PodSandboxConfig {
        let map = cri::IdMapping { host_id: 1, container_id: 0, length: 1 };
        let maps = if is_mapped { vec![map] } else { Vec::new() };
        let userns = cri::UserNamespace { mode: mode as i32, uids: maps.clone(), gids: maps };
        pod(|context| {
            context.namespace_options.get_or_insert_default().userns_options = Some(userns);
        })
    }

    fn annotated(
        mut config: cri::PodSandboxConfig,
        key: &str,
        mode: &str,
    ) -> cri::PodSandboxConfig {
        config.annotations.insert(key.into(), mode.into());
        config
    }

    fn decided(policy: Userns, config: &cri::PodSandboxConfig) -> Decision {
        decide(&Question { policy, by_handler: false, config }).unwrap()
    }

    const ALL: Decision = Decision::Assign { length: IDS };

    #[test]
    fn pods_that_say_nothing_are_mapped_and_others_have_what_they_ask_for() {
        let silent = pod(|_| ());
        let default = with_userns(NamespaceMode::Pod, false);
        for config in [&silent, &default, &cri::PodSandboxConfig::default()] {
            assert!(matches!(decided(Userns::Off, config), Decision::Host { .. }));
            assert_eq!(decided(Userns::Auto, config), ALL);
            assert_eq!(decided(Userns::Always, config), ALL);
        }
        // Kubelets since 1.33 ask for the host's where the pod says nothing.
        let host = with_userns(NamespaceMode::Node, false);
        assert!(matches!(decided(Userns::Auto, &host), Decision::Host { .. }));
        assert_eq!(decided(Userns::Always, &host), ALL);
        for config in [
            with_userns(NamespaceMode::Pod, true),
            with_userns(NamespaceMode::Node, true),
            with_userns(NamespaceMode::Container, false),
        ] {
            assert_eq!(decided(Userns::Always, &config), Decision::Requested);
        }
    }

    #[test]
    fn what_shares_with_the_host_stays_there_and_cannot_ask_for_more() {
        let node = NamespaceMode::Node as i32;
        let of = |change: fn(&mut cri::NamespaceOption, i32)| {
            pod(|context| change(context.namespace_options.get_or_insert_default(), node))
        };
        for config in [
            pod(|context| context.privileged = true),
            of(|options, node| options.network = node),
            of(|options, node| options.pid = node),
            of(|options, node| options.ipc = node),
        ] {
            for policy in [Userns::Auto, Userns::Always] {
                assert!(matches!(decided(policy, &config), Decision::Host { .. }), "{config:?}");
            }
            let config = annotated(config, CRIO, "auto");
            let refused =
                decide(&Question { policy: Userns::Auto, by_handler: false, config: &config });
            assert!(matches!(refused, Err(Error::Shared { .. })), "{refused:?}");
            assert!(matches!(decided(Userns::Off, &config), Decision::Host { .. }));
        }
    }

    #[test]
    fn no_pod_of_a_handler_that_maps_all_of_them_stays_in_the_hosts() {
        let node = NamespaceMode::Node as i32;
        let on_host = pod(|context| {
            context.namespace_options.get_or_insert_default().network = node;
        });
        let privileged = pod(|context| context.privileged = true);
        let of = |config: &cri::PodSandboxConfig| {
            decide(&Question { policy: Userns::Off, by_handler: true, config }).unwrap()
        };
        for config in [pod(|_| ()), with_userns(NamespaceMode::Node, false), on_host, privileged] {
            assert_eq!(of(&config), ALL, "{config:?}");
        }
        assert_eq!(of(&with_userns(NamespaceMode::Pod, true)), Decision::Requested);
    }

    #[test]
    fn an_annotation_names_a_size_and_never_ids_of_the_host() {
        for (mode, length) in [("auto", IDS), ("auto:size=1024", 1024), ("auto:size=65536", IDS)] {
            for config in [pod(|_| ()), with_userns(NamespaceMode::Node, false)] {
                let config = annotated(config, CRIO, mode);
                assert_eq!(decided(Userns::Auto, &config), Decision::Assign { length }, "{mode}");
            }
        }
        let empty = annotated(pod(|_| ()), CRIO, "");
        assert_eq!(decided(Userns::Auto, &empty), ALL);
        for mode in [
            "host",
            "private",
            "private:uidmapping=0:0:65536",
            "keep-id",
            "auto:",
            "auto:keep-id=true",
            "auto:map-to-root=true",
            "auto:uidmapping=0:0:1",
            "auto:gidmapping=0:0:1",
            "auto:size=0",
            "auto:size=65537",
            "auto:size=+5",
            "auto:size=5;uidmapping=0:0:1",
            "auto:size=",
            "AUTO",
            "auto ",
            "auto:size=18446744073709551616",
        ] {
            let config = annotated(pod(|_| ()), CRIO, mode);
            let refused =
                decide(&Question { policy: Userns::Auto, by_handler: false, config: &config });
            assert!(matches!(refused, Err(Error::Mode { field: CRIO, .. })), "{mode}: {refused:?}");
        }
    }

    #[test]
    fn the_annotation_of_hull_run_counts_only_for_its_pods() {
        let uid = "0123456789abcdef0123456789abcdef";
        let foreign = annotated(pod(|_| ()), run_pods::USERNS, "auto");
        assert!(matches!(decided(Userns::Off, &foreign), Decision::Host { .. }));
        let mut own = foreign;
        own.metadata = Some(cri::PodSandboxMetadata { uid: uid.into(), ..Default::default() });
        own.labels.insert(run_pods::UID_LABEL.into(), uid.into());
        assert_eq!(decided(Userns::Off, &own), ALL);
    }
}
