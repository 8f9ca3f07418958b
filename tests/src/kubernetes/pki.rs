// SPDX-License-Identifier: Apache-2.0
//! The keys and certificates of a cluster, made by openssl, and the kubeconfig of its administrator.

use crate::expect::ExpectExt;
use crate::shell;
use serde_json::json;
use std::fs;
use std::path::Path;

/// The administrator's token. Only root on the host reaches the API server of such a cluster.
const TOKEN: &str = "hull-cluster-administrator";

/// `openssl req` for a key on a curve, which is made in no time.
const KEY: [&str; 6] =
    ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-batch"];

/// Makes everything in `dir`: `ca`, `apiserver`, `front-proxy` (`.crt` and `.key`), `sa.key` and `sa.pub`,
/// `tokens.csv`, and `admin.conf` for the API server at `server`.
pub fn make(dir: &Path, server: &str, addresses: &[&str]) {
    fs::create_dir_all(dir).or_fail(format!("make {}", dir.display()));
    let openssl = |arguments: &[&str]| {
        let mut command = std::process::Command::new("openssl");
        let _output = shell::finish(command.args(arguments).current_dir(dir)).good();
    };
    let request = |more: &[&str]| openssl(&[&["req"], &KEY[..], more].concat());
    request(&[
        "-x509",
        "-days",
        "3650",
        "-subj",
        "/CN=hull-cluster",
        "-keyout",
        "ca.key",
        "-out",
        "ca.crt",
    ]);
    let names = [
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
    ];
    let mut subjects: Vec<String> = names.map(|name| format!("DNS:{name}")).into();
    subjects.extend(addresses.iter().map(|address| format!("IP:{address}")));
    fs::write(dir.join("names"), format!("subjectAltName={}\n", subjects.join(",")))
        .or_fail("write the names of the API server");
    for name in ["apiserver", "front-proxy"] {
        let (key, csr) = (format!("{name}.key"), format!("{name}.csr"));
        request(&["-subj", &format!("/CN={name}"), "-keyout", &key, "-out", &csr]);
        let crt = format!("{name}.crt");
        let sign =
            ["x509", "-req", "-in", &csr, "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial"];
        openssl(&[&sign[..], &["-days", "3650", "-extfile", "names", "-out", &crt]].concat());
    }
    openssl(&["ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", "sa.key"]);
    openssl(&["ec", "-in", "sa.key", "-pubout", "-out", "sa.pub"]);
    fs::write(dir.join("tokens.csv"), format!("{TOKEN},admin,admin,system:masters\n"))
        .or_fail("write the tokens");
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "hull",
        "clusters": [{"name": "hull", "cluster": {
            "server": server, "certificate-authority": dir.join("ca.crt"),
        }}],
        "users": [{"name": "admin", "user": {"token": TOKEN}}],
        "contexts": [{"name": "hull", "context": {"cluster": "hull", "user": "admin"}}],
    });
    fs::write(dir.join("admin.conf"), config.to_string()).or_fail("write the kubeconfig");
}
