// SPDX-License-Identifier: Apache-2.0
//! The hub of a cluster: a machine with the registry, etcd, the API server, the controllers and the scheduler, and
//! the bridge that connects the nodes.

use super::cgroups::SYSTEM;
use super::layout::{self, Layout, Network};
use super::machine::Machine;
use super::pki;
use super::service::Service;
use crate::eventually::{blocking, with_long_timeout};
use crate::expect::ExpectExt;
use crate::shell;
use std::fs;
use std::path::Path;
use std::time::Duration;

/// Longest that the API server may take; it takes some seconds of processor time.
const START_MAX: Duration = Duration::from_secs(180);

/// Connects the machines, and starts the registry.
pub fn prepare(hub: &Machine, layout: &Layout, images: &Path) {
    let network = &layout.network;
    let script = format!(
        "ip link add br0 type bridge && ip addr add {}/24 dev br0 && ip -6 addr add {}/64 dev br0 nodad && \
         ip link set br0 up && sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1",
        network.hub, network.hub6
    );
    let mut command = hub.command(SYSTEM, "sh");
    let _output = shell::finish(command.args(["-c", &script])).good();
    let config = hub.dir().join("registry.yml");
    let text = format!(
        "version: 0.1\nlog: {{level: warn}}\nstorage:\n  filesystem: {{rootdirectory: {}/data}}\n\
         http: {{addr: \"{}\"}}\n",
        images.display(),
        network.registry()
    );
    fs::write(&config, text).or_fail("write the registry's config");
    let mut command = hub.command(SYSTEM, "docker-registry");
    command.arg("serve").arg(config).env("OTEL_TRACES_EXPORTER", "none");
    let _registry = Service::start(hub, "registry", command);
    let addresses = [network.hub, "127.0.0.1", network.api_service];
    pki::make(&layout.pki(), &format!("https://{}:6443", network.hub), &addresses);
}

/// Starts etcd, the API server and its controllers, and waits until it answers.
pub fn start(hub: &Machine, layout: &Layout) {
    let start = |name: &str, arguments: &[String]| {
        let mut command = hub.command(SYSTEM, hub.dir().join("programs").join(name));
        command.args(arguments);
        Service::start(hub, name, command)
    };
    let mut etcd = start("etcd", &etcd(hub));
    let mut api = start("kube-apiserver", &api_server(layout));
    let began = blocking(with_long_timeout(START_MAX), || {
        etcd.assert_running();
        api.assert_running();
        let ready = layout::kubectl(hub, layout, &["get", "--raw", "/readyz"]);
        if ready.code == 0 { Ok(()) } else { Err(ready.stderr) }
    });
    if let Err(last) = began {
        panic!("the API server is not ready: {last}; {}", api.last_lines());
    }
    let _controllers = start("kube-controller-manager", &controllers(layout));
    let mut scheduler = vec![format!("--kubeconfig={}", layout.kubeconfig().display())];
    scheduler.extend(["--leader-elect=false".into(), gates(layout)]);
    let _scheduler = start("kube-scheduler", &scheduler);
}

fn gates(layout: &Layout) -> String {
    format!("--feature-gates={}", layout.options.gates)
}

fn etcd(hub: &Machine) -> Vec<String> {
    let client = "http://127.0.0.1:2379";
    vec![
        format!("--data-dir={}", hub.dir().join("etcd").display()),
        format!("--listen-client-urls={client}"),
        format!("--advertise-client-urls={client}"),
        "--listen-peer-urls=http://127.0.0.1:2380".into(),
        // The cluster does not outlive the machine.
        "--unsafe-no-fsync".into(),
        "--log-level=warn".into(),
    ]
}

fn api_server(layout: &Layout) -> Vec<String> {
    let pki = |name: &str| layout.pki().join(name).display().to_string();
    let Network { hub, .. } = layout.network;
    vec![
        "--etcd-servers=http://127.0.0.1:2379".into(),
        format!("--service-cluster-ip-range={}", layout.services()),
        format!("--tls-cert-file={}", pki("apiserver.crt")),
        format!("--tls-private-key-file={}", pki("apiserver.key")),
        format!("--client-ca-file={}", pki("ca.crt")),
        format!("--token-auth-file={}", pki("tokens.csv")),
        "--authorization-mode=RBAC".into(),
        format!("--service-account-key-file={}", pki("sa.pub")),
        format!("--service-account-signing-key-file={}", pki("sa.key")),
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local".into(),
        format!("--requestheader-client-ca-file={}", pki("ca.crt")),
        "--requestheader-allowed-names=front-proxy".into(),
        "--requestheader-username-headers=X-Remote-User".into(),
        "--requestheader-group-headers=X-Remote-Group".into(),
        "--requestheader-extra-headers-prefix=X-Remote-Extra-".into(),
        format!("--proxy-client-cert-file={}", pki("front-proxy.crt")),
        format!("--proxy-client-key-file={}", pki("front-proxy.key")),
        "--enable-aggregator-routing=true".into(),
        "--allow-privileged=true".into(),
        format!("--advertise-address={hub}"),
        "--bind-address=0.0.0.0".into(),
        "--secure-port=6443".into(),
        "--kubelet-preferred-address-types=InternalIP".into(),
        format!("--cert-dir={}", pki("generated")),
        gates(layout),
    ]
}

fn controllers(layout: &Layout) -> Vec<String> {
    let pki = |name: &str| layout.pki().join(name).display().to_string();
    vec![
        format!("--kubeconfig={}", layout.kubeconfig().display()),
        format!("--service-account-private-key-file={}", pki("sa.key")),
        format!("--root-ca-file={}", pki("ca.crt")),
        format!("--cluster-signing-cert-file={}", pki("ca.crt")),
        format!("--cluster-signing-key-file={}", pki("ca.key")),
        format!("--service-cluster-ip-range={}", layout.services()),
        // Nodes come with their subnets.
        "--allocate-node-cidrs=false".into(),
        "--use-service-account-credentials=true".into(),
        "--leader-elect=false".into(),
        gates(layout),
    ]
}
