// SPDX-License-Identifier: Apache-2.0
//! Programs that cannot be started, and how they end.

use crate::case::{After, Case, Set};
use hull_tests::image::Image;
use hull_tests::layer::Layer;
use hull_tests::{ExpectExt as _, fixture};
use serde_json::json;

/// Programs that cannot be run, each in its own way.
fn programs() -> String {
    fixture::pushed("zoo-programs", || {
        let layer = fixture::busybox_layer()
            .dirs(&["opt", "opt/dir"])
            .file("opt/plain", 0o644, "#!/bin/sh\nexit 0\n")
            .file("opt/interpreter", 0o755, "#!/bin/absent\nexit 0\n")
            .file("opt/private", 0o700, "#!/bin/sh\nexit 0\n")
            .file("opt/windows", 0o755, "#!/bin/sh\r\nexit 0\r\n");
        Image::new(vec![layer.tar()], json!({"Cmd": ["sh"]}))
    })
}

/// An image without a command.
fn no_command() -> String {
    fixture::pushed("zoo-no-command", || {
        Image::new(vec![fixture::busybox_layer().tar()], json!({}))
    })
}

/// A program of Debian's with its loader, and without its libraries.
fn no_library() -> String {
    fixture::pushed("zoo-no-library", || {
        let closure = hull_tests::debian::closure(&["bin/true"], &["coreutils", "libc6"]);
        let loaders = closure.files.iter().filter(|(path, _)| path.contains("ld-linux"));
        let mut layer = Layer::new().dirs(&["opt"]);
        for (path, loader) in loaders {
            let (dir, _) = path.rsplit_once('/').or_fail("find the loader's directory");
            let loader = loader.canonicalize().or_fail("follow the loader");
            layer = layer.dirs(&[dir]).copy(path, &loader);
        }
        let program = closure.files.get("bin/true").or_fail("find the program");
        let program = program.canonicalize().or_fail("follow the program");
        Image::new(vec![layer.copy("opt/program", &program).tar()], json!({}))
    })
}

pub(crate) static CASES: [Case; 12] = [
    Case {
        name: "a command that the image does not have",
        set: Set::Configs(|setup| setup.command(&["serve-it"])),
        place: &["`serve-it`"],
        cause: &["executable file not found"],
        fix: &["install the program in the image"],
        never: &[],
    },
    Case {
        name: "a script without the x bit",
        set: Set::Configs(|setup| {
            setup.image(&programs());
            setup.command(&["/opt/plain"]);
        }),
        place: &["`/opt/plain`"],
        cause: &["permission denied", "may not be executed", "x bit"],
        fix: &["chmod"],
        never: &[],
    },
    Case {
        name: "a script whose interpreter is missing",
        set: Set::Configs(|setup| {
            setup.image(&programs());
            setup.command(&["/opt/interpreter"]);
        }),
        place: &["`/opt/interpreter`"],
        cause: &["interpreter `/bin/absent`"],
        fix: &["install the interpreter"],
        never: &["chmod"],
    },
    Case {
        name: "a script with the line ends of Windows",
        set: Set::Configs(|setup| {
            setup.image(&programs());
            setup.command(&["/opt/windows"]);
        }),
        place: &["`/opt/windows`"],
        cause: &["carriage return"],
        fix: &["dos2unix"],
        never: &["chmod"],
    },
    Case {
        name: "neither image nor pod has a command",
        set: Set::Configs(|setup| {
            setup.image(&no_command());
            setup.container().command.clear();
        }),
        place: &["choose a command"],
        cause: &["no command is specified"],
        fix: &["set `command`"],
        never: &[],
    },
    Case {
        name: "a probe whose program the image does not have",
        set: Set::Configs(|setup| {
            setup.command(&["sleep", "100"]);
            setup.after = After::Exec(&["curl", "http://localhost/"]);
        }),
        place: &["`curl`"],
        cause: &["executable file not found"],
        fix: &["install the program in the image"],
        never: &[],
    },
    Case {
        name: "a directory as the command",
        set: Set::Configs(|setup| {
            setup.image(&programs());
            setup.command(&["/opt/dir"]);
        }),
        place: &["`/opt/dir`"],
        cause: &["it is a directory"],
        fix: &["the program inside it"],
        never: &["chmod"],
    },
    Case {
        name: "a script that only root may run",
        set: Set::Configs(|setup| {
            setup.image(&programs());
            setup.command(&["/opt/private"]);
            setup.user(1000);
        }),
        place: &["`/opt/private`"],
        cause: &["mode 0700"],
        fix: &["runAsUser", "chmod"],
        never: &["install"],
    },
    Case {
        name: "a program without its shared library",
        set: Set::Configs(|setup| {
            setup.image(&no_library());
            setup.command(&["/opt/program"]);
        }),
        place: &["`/opt/program`"],
        cause: &["libc.so.6"],
        fix: &["install the library in the image"],
        never: &[],
    },
    Case {
        name: "an end that was asked for",
        set: Set::Configs(|setup| {
            setup.script("trap 'exit 143' TERM; touch /tmp/set; while :; do sleep 0.1; done");
            setup.after = After::StopOnce("/tmp/set", 10);
        }),
        place: &["the container was asked to stop"],
        cause: &["128 + SIGTERM"],
        fix: &["this is normal"],
        never: &[],
    },
    Case {
        name: "a program that ignores SIGTERM",
        set: Set::Configs(|setup| {
            setup.script("trap '' TERM; touch /tmp/set; while :; do sleep 0.1; done");
            setup.after = After::StopOnce("/tmp/set", 1);
        }),
        place: &["its process"],
        cause: &["did not end within 1 s of SIGTERM"],
        fix: &["terminationGracePeriodSeconds"],
        never: &[],
    },
    Case {
        name: "a script whose tool is missing",
        set: Set::Configs(|setup| {
            setup.script("curl -s http://localhost/");
        }),
        place: &["`curl`"],
        cause: &["command not found"],
        fix: &["install it in the image"],
        never: &[],
    },
];
