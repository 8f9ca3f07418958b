// SPDX-License-Identifier: Apache-2.0
//! Every image that critest 1.37 names, made of Debian packages.
//!
//! | image | what the specs want of it |
//! |---|---|
//! | busybox | small tools that are files of their own: a spec hides `/bin/ls` and expects the others to work |
//! | nginx, hostnet-nginx | answers on port 80 and 12003, `/var/run/nginx.pid`, a shell |
//! | httpd | answers on port 80 and says `httpd` in its log |
//! | nonewprivs | a set-uid program that tells its effective user id |
//! | test-image-user-… | users as number, name, and both with a group |
//! | test-image-predefined-group | a user who is in one more group in `/etc/group` |
//! | test-image-tags, test-image-1 … 3 | one image under three tags, three images |
//!
//! All registries that the suite names are this one: [`HOSTS`] are its mirrors' names.

use crate::expect::ExpectExt;
use crate::fixture::{self, base, dynamic};
use crate::image::Image;
use crate::layer::Layer;
use crate::registry::Registry;
use crate::{debian, shell};
use serde_json::{Value, json};
use std::fs;

/// The registries that the suite pulls from.
pub const HOSTS: [&str; 3] = ["registry.k8s.io", "gcr.io", "k8s.gcr.io"];

/// Names under which the suite looks for its small images.
const STAGING: &str = "k8s-staging-cri-tools";
const E2E: &str = "e2e-test-images";

/// The contents of a registry.
#[derive(Debug)]
pub struct Pushed {
    /// `sha256:…` of the manifest of `test-image-digest`.
    pub digest: String,
}

/// Makes all images and pushes them.
#[must_use]
pub fn push_all(registry: &Registry) -> Pushed {
    let tools = tools().tar();
    let of_tools = |config: Value| Image::new(vec![tools.clone()], config);
    let push = |name: &str, tag: &str, image: &Image| push(registry, name, &[tag], image);

    push(&format!("{E2E}/busybox"), "1.29-2", &of_tools(json!({"Cmd": ["sh"]})));
    push(&format!("{E2E}/nginx"), "1.14-2", &web_server(&tools, 80));
    push(
        &format!("{STAGING}/hostnet-nginx-{}", crate::image::this_arch()),
        "latest",
        &web_server(&tools, 12003),
    );
    push(&format!("{E2E}/httpd"), "2.4.39-4", &httpd(&tools));
    push(&format!("{E2E}/nonewprivs"), "1.3", &set_uid(&tools));
    push("pause", "3.9", &of_tools(json!({"Cmd": ["sleep", "infinity"]})));

    for (name, user) in [
        ("uid", "1002"),
        ("username", "www-data"),
        ("uid-group", "1003:users"),
        ("username-group", "www-data:100"),
    ] {
        let name = format!("{STAGING}/test-image-user-{name}");
        push(&name, "latest", &of_tools(json!({"User": user})));
    }
    push(&format!("{STAGING}/test-image-predefined-group"), "latest", &predefined_group(&tools));

    let small = |about: &str| {
        of_tools(json!({"Cmd": ["sleep", "infinity"]}))
            .with(Layer::new().file("about", 0o644, about).tar())
    };
    push(&format!("{STAGING}/test-image-latest"), "latest", &small("no tag"));
    push(&format!("{STAGING}/test-image-tag"), "test", &small("a tag"));
    push(&format!("{STAGING}/test-image-tag"), "all", &small("all references"));
    for number in 1..=3 {
        push(
            &format!("{STAGING}/test-image-{number}"),
            "latest",
            &small(&format!("number {number}")),
        );
        push(&format!("{STAGING}/test-image-tags"), &number.to_string(), &small("three tags"));
    }
    Pushed { digest: push(&format!("{STAGING}/test-image-digest"), "latest", &small("a digest")) }
}

/// Small tools, with a shell that runs them as programs of their own. (Debian's busybox-static runs its
/// own applets instead, which is why it is not taken here.)
fn tools() -> Layer {
    let packages = [
        "busybox",
        "procps",
        "libproc2-0",
        "util-linux",
        "libc6",
        "libsystemd0",
        "libcap2",
        "libgcrypt20",
        "liblz4-1",
        "liblzma5",
        "libzstd1",
        "libgpg-error0",
        "libsmartcols1",
        "libncursesw6",
        "libtinfo6",
    ];
    let programs = ["bin/busybox", "usr/bin/pgrep", "usr/bin/ipcs"];
    let mut layer = dynamic(base(), &programs, &packages)
        .dirs(&["var/run", "var/log", "var/www", "home/app", "mnt", "run"]);
    let applets = shell::run(debian::unpacked("busybox").join("bin/busybox"), ["--list"]).good();
    for applet in applets.lines().filter(|name| !["busybox", "pgrep", "ipcs"].contains(name)) {
        layer = layer.hard_link(&format!("bin/{applet}"), "bin/busybox");
    }
    layer
}

/// Nginx on top of `tools`, on a port.
pub(crate) fn web_server(tools: &[u8], port: u16) -> Image {
    let packages = ["nginx", "libc6", "libcrypt1", "libpcre2-8-0", "libssl3", "zlib1g"];
    let types = debian::unpacked("nginx-common").join("etc/nginx/mime.types");
    let config = fixture::NGINX_CONF
        .replace("listen 80;", &format!("listen {port};"))
        .replace("pid /run/nginx.pid;", "pid /var/run/nginx.pid;");
    let program = dynamic(Layer::new(), &["usr/sbin/nginx"], &packages)
        .dirs(&["etc/nginx", "var/lib", "var/lib/nginx", "var/log/nginx", "var/www/html"])
        .copy("etc/nginx/mime.types", &types)
        .file("etc/nginx/nginx.conf", 0o644, config)
        .symlink("var/log/nginx/access.log", "/dev/stdout")
        .symlink("var/log/nginx/error.log", "/dev/stderr")
        .file("var/www/html/index.html", 0o644, fixture::INDEX_PAGE);
    Image::new(
        vec![tools.to_vec(), program.tar()],
        json!({
            "Entrypoint": ["/usr/sbin/nginx"], "Cmd": ["-g", "daemon off;"],
            "ExposedPorts": {format!("{port}/tcp"): {}}, "StopSignal": "SIGQUIT",
        }),
    )
}

fn httpd(tools: &[u8]) -> Image {
    let site = Layer::new().file("var/www/index.html", 0o644, fixture::INDEX_PAGE);
    let serve = "echo httpd serves /var/www on port 80; exec httpd -f -v -p 80 -h /var/www";
    Image::new(vec![tools.to_vec(), site.tar()], json!({"Cmd": ["sh", "-c", serve]}))
}

/// Pushes one image under several tags; the digest of its manifest.
pub(crate) fn push(registry: &Registry, name: &str, tags: &[&str], image: &Image) -> String {
    let packed = image.pack();
    for tag in tags {
        let _reference = registry.push(name, tag, &packed);
    }
    packed.manifest.digest()
}

/// A set-uid program on top of `tools`, and a command that prints its effective user. The group stays the caller's, so
/// a shell keeps the effective user.
pub(crate) fn set_uid(tools: &[u8]) -> Image {
    let packages = ["coreutils", "libc6", "libselinux1", "libpcre2-8-0"];
    let id = debian::unpacked("coreutils").join("usr/bin/id");
    let bytes = fs::read(&id).or_fail(format!("read {}", id.display()));
    let layer =
        dynamic(Layer::new(), &["usr/bin/id"], &packages).file("bin/id-as-owner", 0o4755, bytes);
    let tell = r#"echo "Effective uid: $(/bin/id-as-owner -u)""#;
    Image::new(vec![tools.to_vec(), layer.tar()], json!({"Cmd": ["/bin/sh", "-c", tell]}))
}

fn predefined_group(tools: &[u8]) -> Image {
    let accounts = Layer::new()
        .file(
            "etc/passwd",
            0o644,
            "root:x:0:0:root:/root:/bin/sh\ndefault-user:x:1000:1000::/home/app:/bin/sh\n",
        )
        .file(
            "etc/group",
            0o644,
            "root:x:0:\ndefault-user:x:1000:\ngroup-defined-in-image:x:50000:default-user\n",
        );
    Image::new(vec![tools.to_vec(), accounts.tar()], json!({"User": "1000", "Cmd": ["sh"]}))
}
