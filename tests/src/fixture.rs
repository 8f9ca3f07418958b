// SPDX-License-Identifier: Apache-2.0
//! The images that tests run, made of Debian packages, and the registry of this process that has
//! them. Each image is made and pushed when it is first asked for.
//!
//! | image | content |
//! |---|---|
//! | busybox | static; a shell and small tools; the accounts of [`PASSWD`] |
//! | coreutils | Debian's dynamically linked coreutils and dash: a loader, libraries |
//! | terminal_programs | bash, top, less, vi and tmux, which draw on a terminal |
//! | nginx | Debian's nginx with its libraries and an index page: a real server |

use crate::debian;
use crate::expect::ExpectExt;
use crate::image::Image;
use crate::layer::Layer;
use crate::registry::Registry;
use crate::shell;
use serde_json::json;
use std::collections::HashMap;
use std::sync::{Mutex, OnceLock, PoisonError};

/// The accounts in every image here.
pub const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n\
    nobody:x:65534:65534:nobody:/nonexistent:/bin/false\n\
    www-data:x:33:33:www-data:/var/www:/bin/false\n\
    app:x:1000:1001:app:/home/app:/bin/sh\n";

/// Their groups: `app` is in two more than its own.
pub const GROUP: &str = "root:x:0:\nwww-data:x:33:\nnogroup:x:65534:\napp:x:1001:\n\
    audio:x:29:app\nextra:x:2000:app,nobody\n";

/// The page that nginx serves.
pub const INDEX_PAGE: &str = "<h1>It runs in a pod.</h1>\n";

/// The registry of this process, which needs no account.
pub fn registry() -> &'static Registry {
    static REGISTRY: OnceLock<Registry> = OnceLock::new();
    REGISTRY.get_or_init(Registry::start)
}

/// The reference of `name` in [`registry`]; made by `make` and pushed the first time.
pub fn pushed(name: &str, make: impl FnOnce() -> Image) -> String {
    static PUSHED: OnceLock<Mutex<HashMap<String, String>>> = OnceLock::new();
    let pushed = PUSHED.get_or_init(Mutex::default);
    // Held while pushing: a second test that wants the same image waits for it.
    let mut pushed = pushed.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(reference) = pushed.get(name) {
        return reference.clone();
    }
    let reference = registry().push(&format!("tests/{name}"), "1", &make().pack());
    pushed.insert(name.to_owned(), reference.clone());
    reference
}

/// Reference of the busybox image.
pub fn busybox() -> String {
    pushed("busybox", busybox_image)
}

/// Reference of the coreutils image.
pub fn coreutils() -> String {
    pushed("coreutils", coreutils_image)
}

/// Reference of the nginx image.
pub fn nginx() -> String {
    pushed("nginx", nginx_image)
}

/// Reference of the image with programs that draw on a terminal.
pub fn terminal_programs() -> String {
    pushed("terminal-programs", terminal_programs_image)
}

/// A busybox image.
#[must_use]
pub fn busybox_image() -> Image {
    Image::new(vec![busybox_layer().tar()], json!({"Cmd": ["sh"], "Env": ["FROM_IMAGE=yes"]}))
}

/// The layer of the busybox image, to be added to.
#[must_use]
pub fn busybox_layer() -> Layer {
    let file = debian::unpacked("busybox-static").join("bin/busybox");
    let applets = shell::run(&file, ["--list"]).good();
    let mut layer = base().copy("bin/busybox", &file);
    for applet in applets.lines().filter(|name| *name != "busybox") {
        layer = layer.symlink(&format!("bin/{applet}"), "busybox");
    }
    layer
}

/// A dynamically linked userland.
#[must_use]
pub fn coreutils_image() -> Image {
    let programs = [
        "bin/cat",
        "bin/echo",
        "bin/ls",
        "bin/sleep",
        "bin/true",
        "usr/bin/env",
        "usr/bin/head",
        "usr/bin/id",
        "usr/bin/stat",
        "bin/dash",
    ];
    let packages = [
        "coreutils",
        "dash",
        "libc6",
        "libselinux1",
        "libpcre2-8-0",
        "libacl1",
        "libattr1",
        "libgmp10",
        "libssl3",
    ];
    let layer = dynamic(base(), &programs, &packages).symlink("bin/sh", "dash");
    Image::new(vec![layer.tar()], json!({"Cmd": ["/bin/sh"]}))
}

/// Programs that draw on a terminal, with the descriptions of terminals that they need.
#[must_use]
pub fn terminal_programs_image() -> Image {
    let programs = [
        "bin/bash",
        "bin/cat",
        "bin/ps",
        "bin/sleep",
        "bin/stty",
        "usr/bin/env",
        "usr/bin/less",
        "usr/bin/seq",
        "usr/bin/tmux",
        "usr/bin/top",
        "usr/bin/tr",
        "usr/bin/tty",
        "usr/bin/vim.tiny",
    ];
    let packages = [
        "bash",
        "coreutils",
        "less",
        "procps",
        "tmux",
        "vim-tiny",
        "libc6",
        "libacl1",
        "libattr1",
        "libcap2",
        "libevent-core-2.1-7",
        "libgcrypt20",
        "libgmp10",
        "libgpg-error0",
        "liblz4-1",
        "liblzma5",
        "libncursesw6",
        "libpcre2-8-0",
        "libproc2-0",
        "libselinux1",
        "libssl3",
        "libsystemd0",
        "libtinfo6",
        "libutempter0",
        "libzstd1",
    ];
    let terminfo = debian::unpacked("ncurses-base").join("lib/terminfo");
    let locale = debian::unpacked("libc-bin").join("usr/lib/locale/C.utf8");
    let mut layer = dynamic(base(), &programs, &packages)
        .symlink("bin/sh", "bash")
        .symlink("bin/vi", "../usr/bin/vim.tiny")
        .dirs(&["lib/terminfo", "lib/terminfo/s", "lib/terminfo/t", "lib/terminfo/x"])
        .dirs(&["usr/lib", "usr/lib/locale", "usr/lib/locale/C.utf8"])
        .dir("usr/lib/locale/C.utf8/LC_MESSAGES", 0o755)
        .copy(
            "usr/lib/locale/C.utf8/LC_MESSAGES/SYS_LC_MESSAGES",
            &locale.join("LC_MESSAGES/SYS_LC_MESSAGES"),
        );
    for name in ["s/screen", "t/tmux", "t/tmux-256color", "x/xterm"] {
        layer = layer.copy(&format!("lib/terminfo/{name}"), &terminfo.join(name));
    }
    for name in shell::names(&locale).into_iter().filter(|name| name != "LC_MESSAGES") {
        layer = layer.copy(&format!("usr/lib/locale/C.utf8/{name}"), &locale.join(&name));
    }
    Image::new(vec![layer.tar()], json!({"Cmd": ["/bin/sh"], "Env": ["LC_ALL=C.UTF-8"]}))
}

/// A web server of three layers: libraries, program, site.
#[must_use]
pub fn nginx_image() -> Image {
    let packages = ["nginx", "libc6", "libcrypt1", "libpcre2-8-0", "libssl3", "zlib1g"];
    let types = debian::unpacked("nginx-common").join("etc/nginx/mime.types");
    let program = dynamic(base(), &["usr/sbin/nginx"], &packages)
        .dirs(&["etc/nginx", "var", "var/lib", "var/lib/nginx", "var/log", "var/log/nginx", "run"])
        .symlink("var/log/nginx/access.log", "/dev/stdout")
        .symlink("var/log/nginx/error.log", "/dev/stderr")
        .copy("etc/nginx/mime.types", &types)
        .file("etc/nginx/nginx.conf", 0o644, NGINX_CONF);
    let site = Layer::new().dirs(&["var", "var/www", "var/www/html"]).file(
        "var/www/html/index.html",
        0o644,
        INDEX_PAGE,
    );
    Image::new(
        vec![program.tar(), site.tar()],
        json!({
            "Entrypoint": ["/usr/sbin/nginx"], "Cmd": ["-g", "daemon off;"],
            "ExposedPorts": {"80/tcp": {}}, "StopSignal": "SIGQUIT",
        }),
    )
}

pub(crate) const NGINX_CONF: &str = "\
worker_processes 1;
pid /run/nginx.pid;
error_log /dev/stderr warn;
events { worker_connections 64; }
http {
    include /etc/nginx/mime.types;
    access_log /dev/stdout;
    server {
        listen 80;
        root /var/www/html;
    }
}
";

/// Directories and accounts that every image has.
pub(crate) fn base() -> Layer {
    Layer::new()
        .dirs(&[
            "bin", "dev", "etc", "home", "lib", "lib64", "proc", "root", "sys", "usr", "usr/bin",
            "usr/sbin", "var",
        ])
        .dir("tmp", 0o1777)
        .file("etc/passwd", 0o644, PASSWD)
        .file("etc/group", 0o644, GROUP)
}

/// Adds `programs` of Debian's `packages` with their loader and libraries.
pub(crate) fn dynamic(mut layer: Layer, programs: &[&str], packages: &[&str]) -> Layer {
    let closure = debian::closure(programs, packages);
    let mut made: Vec<String> =
        ["bin", "lib", "lib64", "usr", "usr/bin", "usr/sbin"].map(String::from).into();
    for (path, file) in &closure.files {
        let (dir, _) = path.rsplit_once('/').or_fail(format!("find the folder of {path}"));
        let parts: Vec<&str> = dir.split('/').collect();
        for depth in 1..=parts.len() {
            let dir = parts[..depth].join("/");
            if !made.contains(&dir) {
                layer = layer.dir(&dir, 0o755);
                made.push(dir);
            }
        }
        let real = file.canonicalize().or_fail(format!("follow {}", file.display()));
        layer = layer.copy(path, &real);
    }
    layer
}
