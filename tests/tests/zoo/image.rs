// SPDX-License-Identifier: Apache-2.0
//! Images: registries, token servers, layers, names.

use crate::case::{Case, Set};
use crate::registry;
use hull_tests::image::Image;
use hull_tests::layer::Layer;
use hull_tests::{ExpectExt as _, fixture};
use serde_json::json;

/// An image for another machine alone, behind an index.
fn other_machine() -> String {
    let mut image = Image::new(vec![Layer::new().file("x", 0o755, "x").tar()], json!({}));
    image.arch = "s390x".into();
    fixture::registry().push_index("tests/zoo-s390x", "1", &[&image.pack()])
}

/// A port on which nobody listens.
fn closed() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").or_fail("take a port");
    listener.local_addr().or_fail("ask for the port").to_string()
}

type Words = &'static [&'static str];

/// A failure, the repository of the registry that has it, and words: place, cause, fix, and misleading ones.
type Row = (&'static str, &'static str, [Words; 4]);

const OF_REGISTRIES: [Row; 14] = [
    (
        "a registry that never answers",
        "silent",
        [
            &["silent/app:1"],
            &["it has sent no response for 2 s"],
            &["`stall_s` under `[image]`"],
            &[],
        ],
    ),
    (
        "no such tag",
        "missing",
        [&["missing/app:1"], &["404 not found"], &["check repository and tag"], &[]],
    ),
    (
        "a layer that the registry lost",
        "gone",
        [
            &["layer sha256:"],
            &["404 not found"],
            &["push the image again"],
            &["check repository and tag"],
        ],
    ),
    (
        "a layer that is cut off",
        "cut",
        [
            &["layer sha256:"],
            &["unexpected EOF", "ended after"],
            &["try again"],
            &["push the image again"],
        ],
    ),
    (
        "a layer with a wrong byte",
        "corrupt",
        [&["layer sha256:"], &["is corrupt"], &["push the image again"], &[]],
    ),
    (
        "a registry that limits requests",
        "busy",
        [&["busy/app:1"], &["HTTP 429"], &["try again later, give the pod imagePullSecrets"], &[]],
    ),
    (
        "a registry that is down behind its proxy",
        "down",
        [&["down/app:1"], &["HTTP 503"], &["try again later; if it stays, see the log"], &[]],
    ),
    (
        "a proxy's page in place of a manifest",
        "page",
        [&["page/app:1"], &["with an HTML page"], &["NO_PROXY"], &["imagePullSecrets"]],
    ),
    (
        "a firewall's page",
        "blocked",
        [
            &["blocked/app:1"],
            &["HTTP 403 with an HTML page"],
            &["a firewall"],
            &["imagePullSecrets"],
        ],
    ),
    (
        "a gateway that refuses",
        "gateway",
        [
            &["gateway/app:1"],
            &["HTTP 403"],
            &["a proxy or firewall in front of"],
            &["check username"],
        ],
    ),
    (
        "a private repository, without credentials",
        "private",
        [&["private/app:1"], &["denies access"], &["give the pod imagePullSecrets"], &[]],
    ),
    (
        "a token server that is away",
        "token",
        [
            &["127.0.0.1:1 (the token server of"],
            &["connection refused"],
            &["check that 127.0.0.1:1 runs"],
            &["imagePullSecrets"],
        ],
    ),
    (
        "plain HTTP to a server that speaks TLS",
        "tls",
        [
            &["127.0.0.1:"],
            &["it speaks HTTPS, not plain HTTP"],
            &["remove `plain_http = true`"],
            &["set `plain_http"],
        ],
    ),
    (
        "a chart in place of an image",
        "chart",
        [
            &["application/vnd.cncf.helm"],
            &["not a container image"],
            &["name a container image"],
            &[],
        ],
    ),
];

/// The cases, with a registry that misbehaves for as long as the test runs.
pub(crate) async fn cases() -> Vec<Case> {
    let bad = registry::start().await;
    let of = |(name, repository, [place, cause, fix, never]): Row| Case {
        name,
        set: Set::Pull(format!("{bad}/{repository}/app:1")),
        place,
        cause,
        fix,
        never,
    };
    let mut cases: Vec<Case> = OF_REGISTRIES.into_iter().map(of).collect();
    cases.extend(others());
    cases
}

fn others() -> [Case; 4] {
    [
        Case {
            name: "nobody listens on the registry's port",
            set: Set::Pull(format!("{}/app:1", closed())),
            place: &["127.0.0.1:"],
            cause: &["connection refused"],
            fix: &["check that 127.0.0.1"],
            never: &[],
        },
        Case {
            name: "a name that does not resolve",
            set: Set::Pull("registry.zoo.invalid/app:1".into()),
            place: &["registry.zoo.invalid"],
            cause: &["no such host", "its name cannot be resolved"],
            fix: &["/etc/resolv.conf"],
            never: &["connection refused"],
        },
        Case {
            name: "an image for another machine",
            set: Set::Pull(other_machine()),
            place: &["there is no image for linux/"],
            cause: &["only for linux/s390x"],
            fix: &["kubernetes.io/arch"],
            never: &[],
        },
        Case {
            name: "an image that is not on the node",
            set: Set::Configs(|setup| setup.image("absent.example.org/app:1")),
            place: &["find image `absent.example.org/app:1`"],
            cause: &["not present"],
            fix: &["pull it first"],
            never: &[],
        },
    ]
}
