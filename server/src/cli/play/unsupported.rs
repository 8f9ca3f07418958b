// SPDX-License-Identifier: Apache-2.0
//! The parts of manifests that `hull play kube` does not have: why, and what to do instead. Without a table, the error
//! would only list the fields that it has.

use super::data::IN_ANOTHER;

/// Fields or kinds that are not there.
struct Unsupported {
    names: &'static [&'static str],
    /// The reason, a sentence.
    why: &'static str,
    /// The way around it, a sentence.
    instead: &'static str,
}

const fn unsupported(
    names: &'static [&'static str],
    why: &'static str,
    instead: &'static str,
) -> Unsupported {
    Unsupported { names, why, instead }
}

/// The hint for everything that has none of its own.
const GENERAL: &str = "`hull play kube` runs pods with containers, environment, ports, limits, volumes of the host, and \
                       ConfigMaps and Secrets of the same file; everything else needs a kubelet";

const FIELDS: &[Unsupported] = &[
    unsupported(
        &["livenessProbe", "readinessProbe", "startupProbe"],
        "probes are the work of a kubelet",
        "remove it, or give the manifest to a kubelet as a static pod",
    ),
    unsupported(
        &["lifecycle"],
        "hooks are the work of a kubelet",
        "remove it, and put the work into the command of the container",
    ),
    unsupported(
        &[
            "persistentVolumeClaim",
            "ephemeral",
            "csi",
            "nfs",
            "iscsi",
            "fc",
            "rbd",
            "cephfs",
            "glusterfs",
            "flexVolume",
            "local",
            "volumeDevices",
        ],
        "a node without a cluster has no such volumes",
        "mount it on this machine, and use hostPath; or use emptyDir",
    ),
    unsupported(
        &["image"],
        "only `hull run` mounts images",
        "use `hull run --mount type=image,src=IMAGE,dst=PATH`",
    ),
    unsupported(
        &["gitRepo"],
        "Kubernetes has removed it as well",
        "clone the repository on this machine, and use hostPath",
    ),
    unsupported(
        &["imagePullSecrets"],
        "credentials for registries are those of this user",
        "remove it, and use `hull login REGISTRY`",
    ),
    unsupported(
        &[
            "serviceAccountName",
            "serviceAccount",
            "automountServiceAccountToken",
            "serviceAccountToken",
            "clusterTrustBundle",
            "podCertificate",
            "enableServiceLinks",
            "readinessGates",
        ],
        "there is no API server",
        "remove it",
    ),
    unsupported(
        &[
            "nodeName",
            "nodeSelector",
            "affinity",
            "tolerations",
            "schedulerName",
            "schedulingGates",
            "topologySpreadConstraints",
            "priority",
            "priorityClassName",
            "preemptionPolicy",
            "overhead",
            "resourceClaims",
            "claims",
        ],
        "nothing is scheduled: the pod runs on this node",
        "remove it",
    ),
    unsupported(
        &["activeDeadlineSeconds"],
        "deadlines are the work of a kubelet",
        "remove it, and run the command of the container by `timeout SECONDS`",
    ),
    unsupported(
        &["ephemeralContainers"],
        "containers for debugging are added to pods that run",
        "remove it, and use `hull exec`",
    ),
    unsupported(
        &["fsGroup", "fsGroupChangePolicy", "supplementalGroupsPolicy"],
        "owners of volumes are changed by a kubelet",
        "remove it, and use runAsGroup and supplementalGroups",
    ),
    unsupported(
        &["runAsNonRoot"],
        "the user of the image is not compared",
        "remove it, and set runAsUser",
    ),
    unsupported(
        &["seccompProfile", "appArmorProfile", "seLinuxOptions", "procMount"],
        "containers have the default profiles",
        "remove it, or use `hull run --security-opt` for that container",
    ),
    unsupported(
        &["subPathExpr"],
        "paths in volumes have no variables",
        "use subPath, or another volume",
    ),
    unsupported(
        &[
            "terminationMessagePath",
            "terminationMessagePolicy",
            "resizePolicy",
            "recursiveReadOnly",
        ],
        "it is read by a kubelet alone",
        "remove it",
    ),
    unsupported(
        &[
            "uid",
            "resourceVersion",
            "generation",
            "generateName",
            "managedFields",
            "ownerReferences",
            "finalizers",
            "selfLink",
            "deletionTimestamp",
            "deletionGracePeriodSeconds",
        ],
        "an API server writes it",
        "remove it; `kubectl run NAME --image IMAGE --dry-run=client -o yaml` writes manifests without it",
    ),
    unsupported(
        &["fileKeyRef"],
        "variables from files are read by a kubelet",
        "use `hull run --env-file`",
    ),
    unsupported(
        &["hostUsers", "subdomain", "setHostnameAsFQDN", "os", "windowsOptions", "resources"],
        "it is not done for pods without a kubelet",
        "remove it",
    ),
];

const KINDS: &[Unsupported] = &[
    unsupported(
        &["Deployment", "DaemonSet", "StatefulSet", "ReplicaSet", "Job", "CronJob", "PodTemplate"],
        "controllers need a cluster",
        "write its template as a document with `apiVersion: v1` and `kind: Pod`",
    ),
    unsupported(
        &["Service", "Ingress", "Endpoints", "NetworkPolicy", "Gateway", "HTTPRoute"],
        "services need a cluster",
        "remove it, and publish ports with hostPort",
    ),
    unsupported(
        &["PersistentVolumeClaim", "PersistentVolume", "StorageClass"],
        "a node without a cluster has no such volumes",
        "remove it, and use hostPath or emptyDir",
    ),
    unsupported(
        &[
            "Namespace",
            "ServiceAccount",
            "Role",
            "RoleBinding",
            "ClusterRole",
            "ClusterRoleBinding",
        ],
        "there is no API server that would need it",
        "remove it",
    ),
    unsupported(
        &["List", "PodList", "ConfigMapList", "SecretList"],
        "each object is a document of its own",
        "write the items one after the other, with `---` between",
    ),
];

fn find(all: &'static [Unsupported], name: &str) -> Option<&'static Unsupported> {
    all.iter().find(|of| of.names.contains(&name))
}

/// The sentence about a kind of documents that is neither a pod nor values for one.
pub(super) fn kind(api_version: &str, kind: &str) -> String {
    let why = find(KINDS, kind).map_or("only Pod, ConfigMap and Secret of v1 are", |of| of.why);
    format!("kind `{kind}` of {api_version} is not supported: {why}")
}

/// The sentence about a field, in place of one that lists all fields that are known.
pub(super) fn field(why: String) -> String {
    let found = why.split_once("unknown field `").and_then(|(_, rest)| rest.split_once('`'));
    let known = found.and_then(|(name, rest)| Some((name, rest, find(FIELDS, name)?)));
    let Some((name, rest, of)) = known else { return why };
    let place = rest.find(" at line").and_then(|at| rest.get(at..)).unwrap_or_default();
    let place = place.split(';').next().unwrap_or_default();
    format!("field `{name}`{place} is not supported: {}", of.why)
}

/// The hint for a sentence.
pub(super) fn hint(why: &str) -> Option<String> {
    if let Some((_, namespace)) = why.split_once(IN_ANOTHER) {
        let namespace = namespace.split('`').next().unwrap_or_default();
        return Some(format!(
            "a pod uses those of its own namespace: give both the same, as in `namespace: {namespace}`"
        ));
    }
    fixed_hint(why).map(Into::into)
}

fn fixed_hint(why: &str) -> Option<&'static str> {
    if why.contains("the file has no ConfigMap") || why.contains("the file has no Secret") {
        return Some("add it to the file as a document of its own, or set `optional: true`");
    }
    if why.starts_with("the file ") {
        return Some("add a document with `apiVersion: v1` and `kind: Pod`");
    }
    if why.contains(" has no key `") {
        return Some("add the key, or set `optional: true`");
    }
    if why.starts_with("init container `") {
        return Some(
            "see its output with `hull run` of the same image and command; nothing of the pod is left",
        );
    }
    let quoted = |start: &str| why.split_once(start)?.1.split('`').next();
    let of_kind = quoted("kind `").and_then(|name| find(KINDS, name));
    let of_field = || quoted("field `").and_then(|name| find(FIELDS, name));
    let is_unsupported = why.contains("unknown field `") || why.contains("is not supported");
    let known = of_kind.or_else(of_field).map(|of| of.instead);
    known.or_else(|| is_unsupported.then_some(GENERAL))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn a_field_has_its_place_and_what_to_do() {
        let why =
            "unknown field `livenessProbe`, expected one of `name`, `image` at line 9, column 5";
        let said = field(why.to_owned());
        let wanted = "field `livenessProbe` at line 9, column 5 is not supported: probes are";
        assert!(said.starts_with(wanted), "{said}");
        assert!(hint(&said).unwrap().contains("static pod"));
        let other = "unknown field `colour`, expected `name`";
        assert_eq!(field(other.to_owned()), other);
        assert_eq!(hint(other).as_deref(), Some(GENERAL));
        assert_eq!(hint(&kind("v1", "Colour")).as_deref(), Some(GENERAL));
        assert_eq!(hint("it has no containers"), None);
        assert!(hint(&kind("apps/v1", "Deployment")).unwrap().contains("template"));
        assert!(kind("v1", "Colour").contains("only Pod, ConfigMap and Secret"));
    }

    #[test]
    fn every_name_is_there_once() {
        for table in [FIELDS, KINDS] {
            let mut seen = BTreeSet::new();
            for name in table.iter().flat_map(|of| of.names) {
                assert!(seen.insert(name), "`{name}` is there twice");
            }
        }
    }
}
