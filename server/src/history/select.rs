// SPDX-License-Identifier: Apache-2.0
//! Finds the timeline that a name stands for. Pure.
//!
//! Names are an id or its beginning, `POD`, `NAMESPACE/POD`, `CONTAINER`, `POD/CONTAINER`, `NAMESPACE/POD/CONTAINER`, or
//! an image. What is there takes precedence over what is gone, and the newest over older ones of the same name.

use super::timeline::{Kind, Timeline};
use std::collections::BTreeSet;

/// The result of a search.
#[derive(Debug, PartialEq)]
pub(crate) enum Selected<'t> {
    One(&'t Timeline),
    /// The full names of several objects that it may stand for.
    Several(Vec<String>),
    Nothing,
}

/// Finds the timeline that `name` stands for.
pub(crate) fn select<'t>(all: &'t [Timeline], name: &str) -> Selected<'t> {
    type Matches<'n> = Box<dyn Fn(&Timeline) -> bool + 'n>;
    let tiers: [Matches<'_>; 6] = [
        Box::new(|of| of.id == name),
        Box::new(|of| of.full_name() == name),
        Box::new(|of| of.kind == Kind::Pod && of.pod_name == name),
        Box::new(|of| {
            of.kind == Kind::Container
                && (of.name == name || name.split_once('/') == Some((&of.pod_name, &of.name)))
        }),
        Box::new(|of| of.kind != Kind::Image && is_hex(name) && of.id.starts_with(name)),
        Box::new(|of| of.kind == Kind::Image && is_image(&of.image, name)),
    ];
    for matches in tiers.iter().filter(|_| !name.is_empty()) {
        let found: Vec<&Timeline> = all.iter().filter(|of| matches(of)).collect();
        let present: Vec<_> = found.iter().copied().filter(|of| of.gone_ns.is_none()).collect();
        let found = if present.is_empty() { found } else { present };
        let names: BTreeSet<String> = found.iter().map(|of| of.full_name()).collect();
        if names.len() > 1 {
            return Selected::Several(names.into_iter().collect());
        }
        if let Some(newest) = found.into_iter().max_by_key(|of| (of.attempt, of.began_ns)) {
            return Selected::One(newest);
        }
    }
    Selected::Nothing
}

/// The timelines that belong to `of`, itself first: to a pod its containers and the pulls for it; to a container its
/// pod and its pull. Others in the order in which they began.
pub(crate) fn related(all: &[Timeline], of: &Timeline) -> Vec<Timeline> {
    let of_pod = |other: &Timeline| match other.kind {
        Kind::Pod => other.id == of.pod,
        Kind::Container => other.pod == of.pod,
        Kind::Image => {
            let is_same = other.namespace == of.namespace && other.pod_name == of.pod_name;
            is_same && !other.pod_name.is_empty()
        }
    };
    let mut related: Vec<Timeline> = all
        .iter()
        .filter(|other| other.id != of.id)
        .filter(|other| match of.kind {
            Kind::Pod => of_pod(other),
            Kind::Container if other.kind == Kind::Image => {
                of_pod(other) && other.image == of.image
            }
            Kind::Container => of_pod(other) && (other.kind == Kind::Pod || other.name == of.name),
            Kind::Image => false,
        })
        .cloned()
        .collect();
    related.sort_by_key(|other| other.began_ns);
    related.insert(0, of.clone());
    related
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Whether `image` may be written as `name`: without its registry, or without the tag `latest`.
fn is_image(image: &str, name: &str) -> bool {
    let tagged = format!("{name}:latest");
    [name, tagged.as_str()].iter().any(|name| {
        image.strip_suffix(name).is_some_and(|rest| rest.is_empty() || rest.ends_with('/'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(id: &str, namespace: &str, name: &str, began_ns: i64) -> Timeline {
        Timeline {
            id: id.into(),
            pod: id.into(),
            namespace: namespace.into(),
            pod_name: name.into(),
            began_ns,
            ..Timeline::default()
        }
    }

    fn container(id: &str, of: &Timeline, name: &str, attempt: u32) -> Timeline {
        Timeline { kind: Kind::Container, id: id.into(), name: name.into(), attempt, ..of.clone() }
    }

    fn pull(image: &str, of: &Timeline) -> Timeline {
        Timeline {
            kind: Kind::Image,
            id: "pull-1".into(),
            image: image.into(),
            pod: String::new(),
            ..of.clone()
        }
    }

    fn id<'t>(all: &'t [Timeline], name: &str) -> &'t str {
        let Selected::One(of) = select(all, name) else { panic!("{name} is not found") };
        &of.id
    }

    #[test]
    fn every_form_of_a_name_is_found() {
        let (web, other) = (pod("ab1", "default", "web", 1), pod("cd2", "kube", "dns", 2));
        let all = [
            container("e1", &web, "app", 0),
            container("e2", &web, "app", 1),
            container("f1", &other, "coredns", 0),
            pull("docker.io/library/busybox:latest", &other),
            web,
            other,
        ];
        for (name, wanted) in [
            ("ab1", "ab1"),
            ("ab", "ab1"),
            ("web", "ab1"),
            ("default/web", "ab1"),
            ("app", "e2"),
            ("web/app", "e2"),
            ("default/web/app", "e2"),
            ("e1", "e1"),
            ("kube/dns/coredns", "f1"),
            ("busybox", "pull-1"),
            ("library/busybox:latest", "pull-1"),
        ] {
            assert_eq!(id(&all, name), wanted, "{name}");
        }
        for name in ["", "nothing", "usybox", "web/", "/", "zz"] {
            assert_eq!(select(&all, name), Selected::Nothing, "{name}");
        }
    }

    #[test]
    fn what_is_there_comes_before_what_is_gone_and_new_before_old() {
        let gone = |id: &str, began| Timeline { gone_ns: Some(9), ..pod(id, "ns", "web", began) };
        let all = [gone("a", 1), gone("b", 3), pod("c", "ns", "web", 2)];
        assert_eq!(id(&all, "web"), "c");
        assert_eq!(id(&all[..2], "web"), "b");
    }

    #[test]
    fn a_name_of_several_lists_them() {
        let all = [pod("a", "one", "web", 1), pod("b", "two", "web", 1)];
        assert_eq!(
            select(&all, "web"),
            Selected::Several(vec!["one/web".into(), "two/web".into()])
        );
    }

    #[test]
    fn a_pod_has_its_containers_and_pulls() {
        let web = pod("a", "ns", "web", 5);
        let next = Timeline { began_ns: 7, ..container("c", &web, "app", 0) };
        let early = Timeline { began_ns: 1, ..pull("app:1", &web) };
        let all = [next.clone(), pod("b", "ns", "other", 0), early, web.clone()];
        let ids = |of: &Timeline| {
            related(&all, of).iter().map(|of| of.id.clone()).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(ids(&web), "a pull-1 c");
        assert_eq!(ids(&next), "c a");
    }
}
