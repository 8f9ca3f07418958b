// SPDX-License-Identifier: Apache-2.0
//! Pods of `hull run` and `hull play`: how they are recognized, and what their annotations ask of the daemon.
//! CRI has no field for these requests.
//!
//! The rule: annotations of a pod may come from its author, so they count only for a pod that the command line made.
//! Its uid is 32 hex digits, and its label [`UID_LABEL`] repeats it. The uids of pods of an API server have dashes, and
//! a kubelet labels each of its pods, also the static ones, whose uids are 32 hex digits as well.

use super::record::PodRecord;
use hull_proto::cri;
use hull_sys::text::shown;
use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

/// The label of a pod of `hull run` or `hull play`; its value is the pod's uid.
pub(crate) const UID_LABEL: &str = "hull.run/uid";
/// The restart policy of a container, an annotation of its config; see [`RestartPolicy`].
pub(crate) const RESTART: &str = "hull.run/restart";
/// How often the daemon has restarted a container, an annotation of its config. A start by a person begins at 0.
pub(crate) const RESTARTS: &str = "hull.run/restarts";
/// The network of a pod, an annotation of its config; see [`network`].
pub(crate) const NETWORK: &str = "hull.run/network";
/// A user namespace of the pod's own, an annotation of its config: `auto`, or `auto:size=NUMBER`.
pub(crate) const USERNS: &str = "hull.run/userns";
/// More lines for /etc/hosts, an annotation of a pod; see [`hosts`].
pub(crate) const HOSTS: &str = "hull.run/hosts";
/// Longest name of a host, in bytes, with all its labels (RFC 1035).
const HOST_BYTES_MAX: usize = 253;
/// Number of hex digits of a uid of `hull run`.
pub(crate) const UID_DIGITS: usize = 32;
/// A label that kubelets set on every pod and container.
pub(crate) const KUBELET_LABEL: &str = "io.kubernetes.pod.uid";

/// The wait before the first restart, and after a run of [`STABLE`].
const BACKOFF_MIN: Duration = Duration::from_millis(100);
/// The longest wait.
const BACKOFF_MAX: Duration = Duration::from_secs(60);
/// A container that ran this long begins with the shortest wait again.
const STABLE: Duration = Duration::from_secs(10);

/// Whether a uid has the form that `hull run` generates.
pub(crate) fn is_uid(uid: &str) -> bool {
    uid.len() == UID_DIGITS && uid.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// Whether `hull run` or `hull play` made the pod with this config.
pub(crate) fn is_of_run(config: &cri::PodSandboxConfig) -> bool {
    is_made_by_cli(config.metadata.as_ref(), &config.labels)
}

/// Whether `hull run` or `hull play` made the pod with this metadata and these labels.
pub(crate) fn is_made_by_cli(
    metadata: Option<&cri::PodSandboxMetadata>,
    labels: &HashMap<String, String>,
) -> bool {
    let uid = metadata.map_or("", |metadata| metadata.uid.as_str());
    is_uid(uid)
        && labels.get(UID_LABEL).is_some_and(|of| of == uid)
        && !labels.contains_key(KUBELET_LABEL)
}

/// The network that `hull run --network` asks for: `none`, or the name of a CNI configuration; `None` if the
/// configuration of the node decides.
pub(crate) fn network(config: &cri::PodSandboxConfig) -> Option<&str> {
    let name = config.annotations.get(NETWORK)?;
    is_of_run(config).then_some(name.as_str())
}

/// The lines of `hull run --add-host` for /etc/hosts: addresses, each with a name.
///
/// # Errors
/// A line is not an address and a name; the text says which.
pub(crate) fn hosts(config: &cri::PodSandboxConfig) -> Result<Vec<(IpAddr, &str)>, String> {
    let text = config.annotations.get(HOSTS).filter(|_| is_of_run(config));
    text.map_or("", String::as_str).lines().map(host).collect()
}

fn host(line: &str) -> Result<(IpAddr, &str), String> {
    let parsed = line.split_once(' ').and_then(|(ip, name)| Some((ip.parse().ok()?, name)));
    parsed.filter(|(_, name)| is_host_name(name)).ok_or_else(|| {
        format!("`{}` in annotation {HOSTS} is not an address and a name", shown(line, 80))
    })
}

/// Whether a text may be a name of a host in /etc/hosts: one word, at most [`HOST_BYTES_MAX`] long.
pub(crate) fn is_host_name(text: &str) -> bool {
    let is_host = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
    (1..=HOST_BYTES_MAX).contains(&text.len()) && text.bytes().all(is_host)
}

/// When the daemon starts an exited container again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RestartPolicy {
    No,
    /// After an exit code other than 0, at most `max` times.
    OnFailure {
        max: Option<u32>,
    },
    /// After every exit but a requested one. A requested stop is final, so this is the same as `UnlessStopped`.
    Always,
    UnlessStopped,
}

impl RestartPolicy {
    /// Parses `no`, `on-failure[:MAX]`, `always` or `unless-stopped`.
    ///
    /// # Errors
    /// It is none of these; the sentence says so.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let (name, max) = match text.split_once(':') {
            Some((name, max)) => (name, Some(max)),
            None => (text, None),
        };
        let max = max
            .map(|max| max.parse::<u32>().map_err(|_| format!("`{max}` is not a number")))
            .transpose()?;
        match (name, max) {
            ("no" | "never", None) => Ok(Self::No),
            ("always", None) => Ok(Self::Always),
            ("unless-stopped", None) => Ok(Self::UnlessStopped),
            // As docker has it, 0 leaves the number unlimited.
            ("on-failure", max) => Ok(Self::OnFailure { max: max.filter(|max| *max > 0) }),
            ("no" | "never" | "always" | "unless-stopped", Some(_)) => {
                Err("only on-failure has a number of restarts".into())
            }
            _ => Err("it is none of no, on-failure[:MAX], always, unless-stopped".into()),
        }
    }

    /// The policy of a container. Containers of pods that the command line did not make have none.
    pub(crate) fn of(pod: &PodRecord, config: &cri::ContainerConfig) -> Self {
        let text = config.annotations.get(RESTART).filter(|_| is_of_run(&pod.config));
        text.and_then(|text| Self::parse(text).ok()).unwrap_or(Self::No)
    }

    /// Whether a container that exited with `code`, after `count` restarts, starts again.
    pub(crate) fn restarts(self, code: i32, count: u32) -> bool {
        match self {
            Self::No => false,
            Self::OnFailure { max } => code != 0 && max.is_none_or(|max| count < max),
            Self::Always | Self::UnlessStopped => true,
        }
    }
}

/// Formats as [`RestartPolicy::parse`] reads it.
impl fmt::Display for RestartPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::No => f.write_str("no"),
            Self::OnFailure { max: None } => f.write_str("on-failure"),
            Self::OnFailure { max: Some(max) } => write!(f, "on-failure:{max}"),
            Self::Always => f.write_str("always"),
            Self::UnlessStopped => f.write_str("unless-stopped"),
        }
    }
}

/// How often the daemon has restarted a container since a person started it.
pub(crate) fn restart_count(config: &cri::ContainerConfig) -> u32 {
    config.annotations.get(RESTARTS).and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// The wait before a restart, as docker has it: doubled with each restart, from the beginning after a stable run.
pub(crate) fn backoff(before: Option<Duration>, ran: Duration) -> Duration {
    match before {
        Some(before) if ran < STABLE => before.saturating_mul(2).clamp(BACKOFF_MIN, BACKOFF_MAX),
        Some(_) | None => BACKOFF_MIN,
    }
}

/// Counts a start of an exited container in its config: by the daemon one more, by a person from 0.
pub(crate) fn count_restart(config: &mut cri::ContainerConfig, by_person: bool) {
    if by_person {
        config.annotations.remove(RESTARTS);
    } else {
        let count = restart_count(config).saturating_add(1);
        config.annotations.insert(RESTARTS.to_owned(), count.to_string());
    }
}

/// Whether a kubelet made the container of this config, or its pod: then it alone decides when it runs.
pub(crate) fn is_of_kubelet(pod: &PodRecord, config: &cri::ContainerConfig) -> bool {
    pod.config.labels.contains_key(KUBELET_LABEL) || config.labels.contains_key(KUBELET_LABEL)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(uid: &str, labels: &[(&str, &str)]) -> cri::PodSandboxConfig {
        let metadata = cri::PodSandboxMetadata { uid: uid.into(), ..Default::default() };
        let labels = labels.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect();
        let annotations = [(NETWORK.to_owned(), "none".to_owned())].into();
        cri::PodSandboxConfig {
            metadata: Some(metadata),
            labels,
            annotations,
            ..Default::default()
        }
    }

    #[test]
    fn annotations_count_only_for_pods_of_the_command_line() {
        let uid = "0123456789abcdef0123456789abcdef";
        assert_eq!(network(&pod(uid, &[(UID_LABEL, uid)])), Some("none"));
        let dashes = "3b0c8f6e-0000-4000-8000-1234567890ab";
        for foreign in [
            pod(uid, &[]),
            pod(uid, &[(UID_LABEL, "other")]),
            // A static pod, whose author copied the label.
            pod(uid, &[(UID_LABEL, uid), (KUBELET_LABEL, uid)]),
            pod(dashes, &[(UID_LABEL, dashes)]),
        ] {
            assert_eq!(network(&foreign), None, "{foreign:?}");
        }
    }

    #[test]
    fn policies_are_those_of_docker() {
        for text in ["no", "on-failure", "on-failure:3", "always", "unless-stopped"] {
            assert_eq!(RestartPolicy::parse(text).unwrap().to_string(), text);
        }
        for text in ["", "always:3", "on-failure:", "on-failure:-1", "sometimes", "on-failure:x"] {
            RestartPolicy::parse(text).unwrap_err();
        }
        let on_failure = RestartPolicy::parse("on-failure:2").unwrap();
        assert!(on_failure.restarts(1, 0) && on_failure.restarts(137, 1));
        assert!(!on_failure.restarts(1, 2) && !on_failure.restarts(0, 0));
        assert!(RestartPolicy::parse("on-failure:0").unwrap().restarts(1, 1000));
        assert!(RestartPolicy::Always.restarts(0, u32::MAX));
        assert!(!RestartPolicy::No.restarts(1, 0));
    }

    #[test]
    fn the_wait_doubles_until_a_run_is_stable() {
        let short = Duration::from_secs(1);
        let mut wait = None;
        let waits: Vec<u128> = (0..12)
            .map(|_| {
                wait = Some(backoff(wait, short));
                wait.unwrap().as_millis()
            })
            .collect();
        assert_eq!(waits[..4], [100, 200, 400, 800]);
        assert_eq!(waits[11], 60_000);
        assert_eq!(backoff(wait, STABLE), BACKOFF_MIN);
    }

    #[test]
    fn restarts_by_the_daemon_are_counted_since_the_last_start_by_a_person() {
        let mut config = cri::ContainerConfig::default();
        count_restart(&mut config, false);
        count_restart(&mut config, false);
        assert_eq!(restart_count(&config), 2);
        count_restart(&mut config, true);
        assert_eq!(restart_count(&config), 0);
    }
}
