// SPDX-License-Identifier: Apache-2.0
//! The pod network as pods and the host see it.

use hull_proto::cri::{self as api};
use hull_tests::cri::shell;
use hull_tests::shell::run;
use hull_tests::{Cri, ExpectExt as _, Node, eventually, fixture};
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};

/// A container that answers HTTP on port 80 with `page`.
fn web(image: &str, page: &str) -> api::ContainerConfig {
    let script = format!("mkdir -p /w && echo {page} > /w/index.html && exec httpd -f -p 80 -h /w");
    shell("web", image, &script)
}

/// Asks from inside a container until somebody answers. (Debian's static wget dies of `-T`.)
async fn fetched(cri: &Cri, from: &str, url: &str) -> String {
    eventually(format!("{url} answers"), || async {
        let ran = cri.exec(from, &["wget", "-q", "-O", "-", url]).await.or_fail("exec wget");
        if ran.code == 0 { Ok(ran.stdout) } else { Err(ran.stderr) }
    })
    .await
}

/// Asks from the host.
async fn fetched_by_host(address: &str) -> String {
    eventually(format!("{address} answers the host"), || async {
        let ask = || {
            let mut stream = TcpStream::connect(address)?;
            stream.write_all(b"GET /index.html HTTP/1.0\r\n\r\n")?;
            let mut said = String::new();
            stream.read_to_string(&mut said).map(|_| said)
        };
        ask().map_err(|err: std::io::Error| err.to_string())
    })
    .await
}

#[tokio::test]
async fn containers_of_a_pod_meet_on_localhost() {
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let _server = cri.run(&pod, web(&image, "local")).await;
    let sidecar = cri.run_idle(&pod, "sidecar", &image).await;
    assert_eq!(fetched(&cri, &sidecar, "http://127.0.0.1/index.html").await, "local\n");
}

#[tokio::test]
async fn two_pods_reach_each_other_and_the_host_reaches_both() {
    let node = Node::start().await;
    let (cri, one, image) = node.pod("one").await;
    let two = cri.run_pod("two").await.unwrap();
    let (ip_one, ip_two) = (cri.pod_ip(&one).await, cri.pod_ip(&two).await);
    assert_ne!(ip_one, ip_two);
    let in_one = cri.run(&one, web(&image, "one")).await;
    let in_two = cri.run(&two, web(&image, "two")).await;
    assert_eq!(fetched(&cri, &in_one, &format!("http://{ip_two}/index.html")).await, "two\n");
    assert_eq!(fetched(&cri, &in_two, &format!("http://{ip_one}/index.html")).await, "one\n");
    assert!(fetched_by_host(&format!("{ip_one}:80")).await.ends_with("one\n"));
    assert!(fetched_by_host(&format!("{ip_two}:80")).await.ends_with("two\n"));
}

#[tokio::test]
async fn a_pod_reaches_a_server_on_the_host() {
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let server = TcpListener::bind((node.gateway(), 0)).unwrap();
    let port = server.local_addr().unwrap().port();
    let answering = std::thread::spawn(move || {
        let (mut stream, from) = server.accept().unwrap();
        stream.write_all(b"from the host\n").unwrap();
        from.ip().to_string()
    });
    let script = format!("nc {} {port}", node.gateway());
    let said = cri.output(&pod, shell("client", &image, &script)).await;
    assert_eq!(said.stdout, "from the host\n", "{said:?}");
    assert_eq!(
        answering.join().unwrap(),
        cri.pod_ip(&pod).await,
        "the host sees the pod's own address"
    );
}

#[tokio::test]
async fn a_pod_has_one_address_a_route_and_loopback() {
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let ip = cri.pod_ip(&pod).await;
    let said = cri.output(&pod, shell("probe", &image, "ip -o addr; ip route")).await.stdout;
    assert!(said.contains(&format!("inet {ip}/24")), "{said}");
    assert!(said.contains("inet 127.0.0.1/8"), "{said}");
    assert!(said.contains(&format!("default via {}", node.gateway())), "{said}");
}

#[tokio::test]
async fn addresses_survive_a_restart_and_are_given_back() {
    let mut node = Node::start().await;
    let (cri, one, _image) = node.pod("one").await;
    let ip = cri.pod_ip(&one).await;
    node.kill();
    node.start_again().await;
    assert_eq!(cri.pod_ip(&one).await, ip);
    let two = cri.run_pod("two").await.unwrap();
    assert_ne!(cri.pod_ip(&two).await, ip, "the address of a running pod was given out again");
    cri.remove_all_pods().await.unwrap();
    node.nothing_is_left().await;
}

#[tokio::test]
async fn a_host_port_leads_to_the_pod_and_goes_with_it() {
    let node = Node::start().await;
    let cri = node.cri();
    let image = fixture::busybox();
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut config = cri.pod_config("web");
    config.port_mappings = vec![api::PortMapping {
        protocol: api::Protocol::Tcp.into(),
        container_port: 80,
        host_port: i32::from(free),
        host_ip: String::new(),
    }];
    let pod = cri.run_pod_with(config.clone()).await.unwrap();
    let _server = cri.run(&pod, web(&image, "mapped")).await;
    assert!(fetched_by_host(&format!("127.0.0.1:{free}")).await.ends_with("mapped\n"));
    assert!(fetched_by_host(&format!("{}:{free}", node.gateway())).await.ends_with("mapped\n"));

    let mut second = cri.pod_config("second");
    second.port_mappings = config.port_mappings;
    let refused = cri.run_pod_with(second).await.unwrap_err();
    assert!(refused.message().contains(&free.to_string()), "{refused}");
    assert_eq!(cri.pods().await.len(), 1, "the refused pod is not listed");

    cri.remove_all_pods().await.unwrap();
    TcpStream::connect(("127.0.0.1", free)).unwrap_err();
    node.nothing_is_left().await;
}

/// How fast it really is, is measured where the links are made.
#[tokio::test]
async fn a_pods_bandwidth_annotations_become_rates_of_its_link_and_go_with_it() {
    let mut node = Node::start().await;
    let cri = node.cri();
    let mut config = cri.pod_config("slow");
    for (way, rate) in [("ingress", "8M"), ("egress", "16M")] {
        config.annotations.insert(format!("kubernetes.io/{way}-bandwidth"), rate.into());
    }
    let pod = cri.run_pod_with(config).await.unwrap();
    let rates = || {
        let queues = run("tc", ["qdisc", "show"]).good();
        ["hull", "hulq"].map(|prefix| {
            let of = format!("dev {prefix}{} ", &pod[..11]);
            let mut lines = queues.lines().filter(|line| line.contains(&of));
            let rate = lines.find(|line| line.contains("tbf")).and_then(|line| {
                line.split(' ').skip_while(|word| *word != "rate").nth(1).map(str::to_owned)
            });
            rate.unwrap_or_default()
        })
    };
    assert_eq!(rates(), ["8Mbit", "16Mbit"]);
    node.kill();
    node.start_again().await;
    assert_eq!(rates(), ["8Mbit", "16Mbit"], "after a restart");
    cri.remove_all_pods().await.unwrap();
    node.nothing_is_left().await;
    let left = run("ip", ["-o", "link", "show"]).good();
    assert!(!left.contains(&pod[..11]), "{left}");
}

#[tokio::test]
async fn many_pods_at_once_have_addresses_of_their_own() {
    let node = Node::start().await;
    let cri = node.cri();
    let starting = (0..12).map(|number| {
        let cri = cri.clone();
        tokio::spawn(async move {
            let pod = cri.run_pod(&format!("pod-{number}")).await.unwrap();
            cri.pod_ip(&pod).await
        })
    });
    let starting: Vec<_> = starting.collect();
    let mut ips = std::collections::BTreeSet::new();
    for task in starting {
        ips.insert(task.await.unwrap());
    }
    assert_eq!(ips.len(), 12, "{ips:?}");
    cri.remove_all_pods().await.unwrap();
    node.nothing_is_left().await;
}

#[tokio::test]
async fn the_bridge_taken_away_by_hand_is_made_again() {
    let node = Node::start().await;
    let (cri, one, _image) = node.pod("one").await;
    cri.stop_pod(&one).await.unwrap();
    let _said =
        hull_tests::shell::run("ip", ["link", "delete", node.names().bridge.as_str()]).good();
    let two = cri.run_pod("two").await.unwrap();
    let image = fixture::busybox();
    let _server = cri.run(&two, web(&image, "again")).await;
    let address = format!("{}:80", cri.pod_ip(&two).await);
    assert!(fetched_by_host(&address).await.ends_with("again\n"));
}
