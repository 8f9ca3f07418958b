// SPDX-License-Identifier: Apache-2.0
//! Programs: what cannot be started.

use crate::case::{After, Case, Set};
use hull_tests::fixture;
use hull_tests::image::Image;
use serde_json::json;

/// Programs that cannot be run, each in its own way.
fn programs() -> String {
    fixture::pushed("zoo-programs", || {
        let layer = fixture::busybox_layer()
            .dirs(&["opt", "opt/dir"])
            .file("opt/plain", 0o644, "#!/bin/sh\nexit 0\n")
            .file("opt/interpreter", 0o755, "#!/bin/absent\nexit 0\n")
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

pub(crate) static CASES: [Case; 6] = [
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
        cause: &["neither the container's config nor the image has one"],
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
];
