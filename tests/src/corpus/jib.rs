// SPDX-License-Identifier: Apache-2.0
//! Images by Jib: layers of dependencies, classes and arguments of the JVM.

use super::archive::Tar;
use super::shape::{DOCKER_GZIP, Draft, Made, Shape};
use flate2::Compression as Level;
use serde_json::json;

/// Jib: all files are of one second after the epoch, empty maps are written.
pub(super) fn jib() -> Shape {
    let layer = |parents: &[&str], path: &str, text: &str| {
        let dirs = parents.iter().fold(Tar::ustar().at(1), |tar, of| tar.dir(of, 0o755));
        Made::gzip(DOCKER_GZIP, dirs.file(path, 0o644, text).end(), Level::default())
    };
    let layers = vec![
        Made::base(DOCKER_GZIP),
        layer(&["app/", "app/libs/"], "app/libs/dependency.jar", "jar\n"),
        layer(&["app/", "app/classes/"], "app/classes/Main.class", "class\n"),
        layer(&["app/"], "app/jib-classpath-file", "/app/classes:/app/libs/*"),
    ];
    let config = json!({"created": "1970-01-01T00:00:00Z", "history": [{"created_by": "jib-maven-plugin:3.4.0",
        "author": "Jib", "comment": "classes"}], "config": {"Env": ["PATH=/bin"],
        "Entrypoint": ["java", "-cp", "@/app/jib-classpath-file"], "ExposedPorts": {}, "Labels": {}, "Volumes": {}}});
    let (shape, _) = Draft::docker("jib", layers, config).pack();
    let script =
        "cat /app/libs/dependency.jar /app/classes/Main.class; stat -c %Y /app/jib-classpath-file";
    shape.says(script, "jar\nclass\n1")
}
