// SPDX-License-Identifier: Apache-2.0
//! Pods' subnets that change, are chosen, or are awaited; and destinations that see the pods' own addresses.

use crate::common::on_a_host;
use crate::support::{
    Attached, Host, at, config, eventually, fetch, id, ip, neighbour, port, run, serve, table,
    try_fetch,
};
use hull_network::{BuiltinNetwork, Config, Error};
use hull_sys::netns;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd as _;

const OLD: &str = "10.214.7.0/24";
const NEW: &str = "10.215.0.0/16";

/// The addresses of the bridge, but for link-local ones.
fn of_bridge() -> Vec<String> {
    let text = ip("-o addr show dev hulltest0 scope global");
    text.lines().map(|line| line.split_whitespace().nth(3).unwrap().to_owned()).collect()
}

fn set(host: &Host, pod_cidr: &[&str]) {
    let subnets: Vec<_> = pod_cidr.iter().map(|net| net.parse().unwrap()).collect();
    host.bridge.set_pod_cidr(&subnets).unwrap();
}

/// A host that is opened with settings of the test's own.
fn opened(pod_cidr: &[&str], change: impl FnOnce(&mut Config)) -> Host {
    let dir = tempfile::tempdir().unwrap();
    let mut settings = config(&dir, pod_cidr);
    change(&mut settings);
    Host { bridge: BuiltinNetwork::open(settings).unwrap(), dir }
}

/// The daemon was killed: the next one starts with what is on disk, and with the kubelet's subnets.
fn after_kill(host: Host, pod_cidr: &[&str]) -> Host {
    let Host { bridge, dir } = host;
    drop(bridge);
    let bridge = BuiltinNetwork::open(config(&dir, pod_cidr)).unwrap();
    Host { bridge, dir }
}

/// Whether a pod serves another, and what leaves the node has the node's address.
fn all_reach(pods: &[&Attached], outside: std::os::fd::BorrowedFd<'_>) {
    for to in pods {
        let web = SocketAddr::from((to.ip(), 80));
        let server = to.within(|| serve(web, pods.len()));
        for from in pods {
            assert_eq!(from.within(|| try_fetch(web).unwrap()), "hello", "{web}");
        }
        let seen = server.join().unwrap();
        assert_eq!(seen, pods.iter().map(|of| of.ip()).collect::<Vec<_>>(), "nobody is hidden");
        let server = netns::within(outside, || serve(at("198.51.100.2:80"), 1)).unwrap();
        assert_eq!(to.within(|| fetch("198.51.100.2:80")), "hello");
        assert_eq!(server.join().unwrap(), [at("198.51.100.1:0").ip()], "masqueraded");
    }
}

#[test]
fn subnets_of_ipv6_are_refused_where_the_mtu_is_too_small_for_them() {
    on_a_host(|| {
        let host = opened(&[OLD], |config| config.mtu = Some(1279));
        let refused = host.bridge.set_pod_cidr(&["fd00:77::/64".parse().unwrap()]).unwrap_err();
        assert!(matches!(refused, Error::MtuTooSmall { mtu: 1279, .. }), "{refused}");
        assert!(refused.hint().unwrap().contains("1280"));
        host.bridge.set_pod_cidr(&[NEW.parse().unwrap()]).unwrap();
    });
}

#[test]
fn new_pods_get_new_addresses_old_ones_keep_theirs_and_the_bridge_follows() {
    on_a_host(|| {
        let outside = neighbour();
        let host = Host::with(&[OLD]);
        let old = host.attach(1, &[port(8080)]);
        set(&host, &[NEW]);
        assert_eq!(of_bridge(), ["10.214.7.1/24"], "changed when a pod needs it");
        let new = host.attach(2, &[port(8081)]);
        assert_eq!(new.got.ips[0].to_string(), "10.215.0.2/16");
        assert_eq!(new.got.gateway, at("10.215.0.1:0").ip());
        assert_eq!(of_bridge(), ["10.214.7.1/24", "10.215.0.1/16"]);
        all_reach(&[&old, &new], outside.as_fd());
        for (pod, to) in [(&old, "127.0.0.1:8080"), (&new, "127.0.0.1:8081")] {
            let server = pod.within(|| serve(SocketAddr::from((pod.ip(), 80)), 2));
            assert_eq!(fetch(to), "hello", "{to}");
            let by_pod = to.replace("127.0.0.1", "198.51.100.1");
            assert_eq!(old.within(|| fetch(&by_pod)), "hello", "{by_pod} from a pod");
            server.join().unwrap();
        }

        let host = after_kill(host, &[NEW]);
        assert_eq!(host.bridge.check().map_err(|err| err.to_string()), Ok(()));
        let third = host.attach(3, &[]);
        assert_eq!(of_bridge(), ["10.214.7.1/24", "10.215.0.1/16"], "a pod still needs both");
        all_reach(&[&old, &new, &third], outside.as_fd());

        // The pod's processes have ended: its namespace goes, then its link, then its address.
        drop(old);
        host.bridge.release(&id(1)).unwrap();
        eventually("the bridge's old address goes", || of_bridge() == ["10.215.0.1/16"]);
        eventually("the table is rewritten", || !table().contains("10.214.7.0/24"));
        all_reach(&[&new, &third], outside.as_fd());
        // Back: nothing is in its way.
        set(&host, &[OLD]);
        let fourth = host.attach(4, &[]);
        assert_eq!(fourth.got.ips[0].to_string(), "10.214.7.2/24");
        all_reach(&[&new, &fourth], outside.as_fd());
        for number in [2, 3, 4] {
            host.bridge.detach(&id(number)).unwrap();
        }
        assert_eq!(of_bridge(), ["10.214.7.1/24"]);
        host.bridge.remove().unwrap();
        assert_eq!(std::fs::read_dir(host.dir.path()).unwrap().count(), 0);
    });
}

#[test]
fn a_daemon_killed_between_the_last_pod_and_the_bridges_address_leaves_that_to_the_next() {
    on_a_host(|| {
        let host = Host::with(&[OLD]);
        let _old = host.attach(1, &[]);
        set(&host, &[NEW]);
        let _new = host.attach(2, &[]);
        // The lease is gone from the disk, and the daemon with it, before the address is.
        let lease = host.dir.path().join("leases").join(id(1) + ".json");
        std::fs::remove_file(lease).unwrap();
        ip(&format!("link delete hull{}", &id(1)[..11]));
        ip("addr add 192.0.2.77/32 dev hulltest0");
        let host = after_kill(host, &[NEW]);
        assert!(of_bridge().contains(&"10.214.7.1/24".to_owned()), "opening changes nothing");
        host.bridge.maintain().unwrap();
        assert_eq!(of_bridge(), ["10.215.0.1/16", "192.0.2.77/32"], "what is not ours stays");
        assert!(!table().contains("10.214.7.0/24"), "{}", table());
        assert!(host.bridge.attachments() == [id(2)]);
    });
}

/// Leases of releases before subnets could change do not name theirs.
#[test]
fn pods_of_an_earlier_release_keep_their_addresses_when_the_default_subnet_is_another() {
    on_a_host(|| {
        let outside = neighbour();
        let host = Host::with(&["10.88.0.0/16"]);
        let old = host.attach(1, &[port(8080)]);
        let file = host.dir.path().join("leases").join(id(1) + ".json");
        let text = std::fs::read_to_string(&file).unwrap();
        let mut lease: serde_json::Value = serde_json::from_str(&text).unwrap();
        lease.as_object_mut().unwrap().remove("subnets").unwrap();
        std::fs::write(&file, lease.to_string()).unwrap();
        std::fs::remove_dir_all(host.dir.path().join("leases-bridge")).unwrap();
        let host = after_kill(host, &[]);
        let new = host.attach(2, &[]);
        assert_eq!(new.got.ips[0].to_string(), "10.190.0.2/16");
        assert_eq!(of_bridge(), ["10.88.0.1/16", "10.190.0.1/16"]);
        all_reach(&[&old, &new], outside.as_fd());
        host.bridge.detach(&id(1)).unwrap();
        assert_eq!(of_bridge(), ["10.190.0.1/16"]);
    });
}

#[test]
fn overlapping_subnets_of_one_family_live_on_one_bridge() {
    on_a_host(|| {
        let outside = neighbour();
        let host = Host::with(&["10.214.0.0/16", "fd00:214::/64"]);
        let old = host.attach(1, &[]);
        set(&host, &["10.214.0.0/24"]);
        let new = host.attach(2, &[]);
        assert_eq!(new.got.ips[0].to_string(), "10.214.0.3/24", "the other address is in use");
        all_reach(&[&old, &new], outside.as_fd());
        host.bridge.detach(&id(1)).unwrap();
        assert_eq!(of_bridge(), ["10.214.0.1/24"], "the same address, with the other length");
        all_reach(&[&new], outside.as_fd());
        // A pod has the address that the bridge would get.
        let refused = host.bridge.set_pod_cidr(&["10.214.0.2/31".parse().unwrap()]).unwrap_err();
        assert!(matches!(refused, Error::SubnetTooSmall { .. }), "{refused}");
        let refused = host.bridge.set_pod_cidr(&["10.214.0.2/29".parse().unwrap()]);
        assert!(refused.is_ok(), "it is 10.214.0.0/29, whose gateway no pod has: {refused:?}");
        set(&host, &["10.214.0.0/24"]);
        let _third = host.attach(3, &[]);
        for number in 4..11 {
            let _more = host.attach(number, &[]);
        }
        let refused = host.bridge.set_pod_cidr(&["10.214.0.8/29".parse().unwrap()]).unwrap_err();
        assert!(matches!(refused, Error::SubnetInUse { .. }), "{refused}");
        assert!(refused.hint().unwrap().contains("remove pod"), "{refused}");
    });
}

#[test]
fn without_a_configured_subnet_one_is_chosen_that_the_host_does_not_use() {
    on_a_host(|| {
        let _outside = neighbour();
        let host = opened(&[], |_| {});
        host.bridge.check().unwrap();
        // Taken since, before the first pod.
        ip("addr add 10.190.3.1/24 dev cable0");
        host.bridge.check().unwrap();
        let pod = host.attach(1, &[]);
        assert_eq!(pod.got.ips[0].to_string(), "10.191.0.2/16");
        // It stays, also for the next daemon, when the other one is free again.
        ip("addr del 10.190.3.1/24 dev cable0");
        let host = after_kill(host, &[]);
        assert_eq!(host.attach(2, &[]).got.ips[0].to_string(), "10.191.0.3/16");
        for number in [1, 2] {
            host.bridge.detach(&id(number)).unwrap();
        }
        assert_eq!(host.attach(3, &[]).got.ips[0].addr().to_string(), "10.191.0.4");
        host.bridge.detach(&id(3)).unwrap();
        // Without pods it steps aside for a route that came later.
        ip("route add 10.191.0.0/17 via 198.51.100.2");
        let pod = host.attach(4, &[]);
        assert_eq!(pod.got.ips[0].to_string(), "10.190.0.2/16");
        eventually("the other address goes", || of_bridge() == ["10.190.0.1/16"]);
    });
}

#[test]
fn the_choice_stays_as_long_as_pods_have_addresses_of_it() {
    on_a_host(|| {
        let _outside = neighbour();
        let host = opened(&[], |_| {});
        let _pod = host.attach(1, &[]);
        ip("route add 10.190.5.0/24 via 198.51.100.2");
        assert_eq!(host.attach(2, &[]).got.ips[0].to_string(), "10.190.0.3/16");
        let host = after_kill(host, &[]);
        host.bridge.check().unwrap();
        assert_eq!(host.attach(3, &[]).got.ips[0].to_string(), "10.190.0.4/16");
    });
}

/// Companies route their networks so.
#[test]
fn a_subnet_outside_of_wider_routes_is_chosen_if_there_is_one() {
    on_a_host(|| {
        let _outside = neighbour();
        ip("route add default via 198.51.100.2");
        ip("route add 10.0.0.0/8 via 198.51.100.2");
        let host = opened(&[], |_| {});
        assert_eq!(host.attach(1, &[]).got.ips[0].to_string(), "172.27.0.2/16");
        host.bridge.detach(&id(1)).unwrap();
        for net in ["172.16.0.0/12", "192.168.0.0/16"] {
            ip(&format!("route add {net} via 198.51.100.2"));
        }
        // All candidates lie in such a route.
        host.bridge.check().unwrap();
        let _pod = host.attach(2, &[]);
        assert_eq!(of_bridge().len(), 1);
    });
}

#[test]
fn subnets_that_no_pod_can_have_are_refused_and_others_make_the_node_unready() {
    on_a_host(|| {
        let _outside = neighbour();
        let host = Host::with(&[OLD]);
        host.bridge.check().unwrap();
        for net in
            ["0.0.0.0/0", "127.3.0.0/16", "224.0.0.0/4", "128.0.0.0/1", "ff00::/64", "fe80::/64"]
        {
            let refused = host.bridge.set_pod_cidr(&[net.parse().unwrap()]).unwrap_err();
            assert!(matches!(refused, Error::SubnetUnusable { .. }), "{net}: {refused}");
        }
        for net in ["198.51.100.0/24", "198.51.0.0/16", "2001:db8::/64"] {
            set(&host, &[net]);
            let refused = host.bridge.check().unwrap_err();
            assert!(matches!(refused, Error::SubnetOverlaps { .. }), "{net}: {refused}");
        }
        set(&host, &[OLD]);
        host.bridge.check().unwrap();
    });
}

#[test]
fn nothing_of_it_is_left_while_another_network_attaches_pods() {
    on_a_host(|| {
        let outside = neighbour();
        let host = Host::with(&[OLD]);
        let old = host.attach(1, &[port(8080)]);
        set(&host, &[NEW]);
        let _new = host.attach(2, &[]);
        host.bridge.withdraw().unwrap();
        assert_eq!(of_bridge(), ["10.214.7.1/24", "10.215.0.1/16"], "pods need both");
        host.bridge.detach(&id(2)).unwrap();
        host.bridge.withdraw().unwrap();
        assert_eq!(of_bridge(), ["10.214.7.1/24"], "the current one is not used");
        assert!(!table().contains("10.215.0.0/16"), "{}", table());
        all_reach(&[&old], outside.as_fd());
        // Another link may have the subnet, and that is said as long as pods have addresses of it.
        assert_eq!(host.bridge.shared_subnet().unwrap(), None);
        ip("link add cni7 type bridge");
        ip("addr add 10.214.7.1/24 dev cni7");
        let shared = host.bridge.shared_subnet().unwrap().unwrap();
        assert!(shared.contains("10.214.7.0/24") && shared.contains("cni7"), "{shared}");
        ip("link del cni7");

        host.bridge.detach(&id(1)).unwrap();
        host.bridge.withdraw().unwrap();
        host.bridge.withdraw().unwrap();
        assert!(!ip("-o link show").contains("hulltest0"), "the bridge is gone");
        assert!(!run("nft", &["list", "tables"]).contains("hulltest"), "and the table");
        // Back, also for the next daemon.
        let host = after_kill(host, &[NEW]);
        let pod = host.attach(3, &[]);
        assert_eq!(of_bridge(), ["10.215.0.1/16"]);
        all_reach(&[&pod], outside.as_fd());
    });
}

/// The kernel does not change the prefix length of an IPv6 address.
#[test]
fn an_ipv6_subnet_whose_length_changes_keeps_its_gateway() {
    on_a_host(|| {
        let _outside = neighbour();
        for (before, after) in
            [("fd00:214::/64", "fd00:214::/48"), ("fd00:214::/48", "fd00:214::/64")]
        {
            let host = Host::with(&[before]);
            let old = host.attach(1, &[]);
            set(&host, &[after]);
            let new = host.attach(2, &[]);
            assert_eq!(of_bridge(), ["fd00:214::1/48"], "the wider one: {before}");
            let reaches = || {
                let web = SocketAddr::from((new.ip(), 80));
                let server = new.within(|| serve(web, 1));
                assert_eq!(fetch(&web.to_string()), "hello", "{before}");
                server.join().unwrap();
            };
            reaches();
            drop(old);
            host.bridge.detach(&id(1)).unwrap();
            assert_eq!(of_bridge(), [after.replace("::", "::1")], "{before}");
            reaches();
            host.bridge.detach(&id(2)).unwrap();
            host.bridge.remove().unwrap();
        }
    });
}

#[test]
fn a_configured_subnet_whose_gateway_a_pod_has_waits_for_that_pod() {
    on_a_host(|| {
        let host = Host::with(&[OLD]);
        let pods: Vec<Attached> = (1..=4).map(|number| host.attach(number, &[])).collect();
        assert_eq!(pods[3].got.ips[0].to_string(), "10.214.7.5/24");
        // The gateway of these is 10.214.7.5.
        let host = after_kill(host, &["10.214.7.4/30"]);
        for _ in 0..2 {
            let refused = host.bridge.check().unwrap_err();
            assert!(matches!(refused, Error::SubnetInUse { .. }), "{refused}");
        }
        assert_eq!(of_bridge(), ["10.214.7.1/24"], "the pods run on");
        host.bridge.detach(&id(4)).unwrap();
        host.bridge.check().unwrap();
        assert_eq!(host.attach(5, &[]).got.ips[0].to_string(), "10.214.7.6/30");
        assert_eq!(of_bridge(), ["10.214.7.1/24", "10.214.7.5/30"]);
    });
}

#[test]
fn where_every_candidate_is_in_use_the_error_names_them() {
    on_a_host(|| {
        let _outside = neighbour();
        for net in ["10.0.0.1/8", "172.16.0.1/12", "192.168.0.1/16"] {
            ip(&format!("addr add {net} dev cable0"));
        }
        let host = opened(&[], |_| {});
        let refused = host.bridge.check().unwrap_err();
        assert!(matches!(refused, Error::NoSubnetFree { .. }), "{refused}");
        assert!(refused.to_string().contains("192.168.190.0/24"), "{refused}");
        assert!(refused.hint().unwrap().contains("pod_cidr"));
        // Given by the kubelet, it is taken.
        set(&host, &["203.0.113.0/24"]);
        assert_eq!(host.attach(1, &[]).got.ips[0].to_string(), "203.0.113.2/24");
    });
}

#[test]
fn pods_wait_for_the_kubelets_subnet_where_that_is_set() {
    on_a_host(|| {
        let host = opened(&[], |config| config.wait_for_pod_cidr = true);
        let checked = host.bridge.check().unwrap_err();
        let refused = host.try_attach(1, &netns::create().unwrap(), &[]).unwrap_err();
        for err in [checked, refused] {
            assert!(matches!(err, Error::PodCidrAwaited), "{err}");
            assert!(err.hint().unwrap().contains("wait_for_pod_cidr"));
        }
        assert!(host.bridge.attachments().is_empty());
        set(&host, &["10.244.3.0/24"]);
        host.bridge.check().unwrap();
        assert_eq!(host.attach(1, &[]).got.ips[0].to_string(), "10.244.3.2/24");
    });
}

/// The address that a server at `to` sees a pod under.
fn seen_by(outside: &std::os::fd::OwnedFd, pod: &Attached, to: &str) -> IpAddr {
    let server = netns::within(outside.as_fd(), || serve(at(to), 1)).unwrap();
    assert_eq!(pod.within(|| fetch(to)), "hello", "{to}");
    server.join().unwrap()[0]
}

#[test]
fn the_clusters_pods_see_the_pods_own_address_and_nobody_else_does() {
    on_a_host(|| {
        let outside = neighbour();
        netns::within(outside.as_fd(), || {
            for line in [
                // The pods of another node, and somebody beyond it.
                "addr add 10.214.9.9/32 dev cable1",
                "addr add 203.0.113.9/32 dev cable1",
                "addr add fd00:214:9::9/128 dev cable1 nodad",
                "addr add 2001:db8:9::9/128 dev cable1 nodad",
                "route add 10.214.7.0/24 via 198.51.100.1",
                "route add fd00:214:7::/64 via 2001:db8::1",
            ] {
                ip(line);
            }
        })
        .unwrap();
        ip("route add default via 198.51.100.2");
        ip("route add default via 2001:db8::2");
        let cluster = ["10.214.0.0/16", "fd00:214::/32", "192.0.2.0/24"];
        let host = opened(&["10.214.7.0/24", "fd00:214:7::/64"], |config| {
            config.cluster_cidrs = cluster.iter().map(|net| net.parse().unwrap()).collect();
        });
        let pod = host.attach(1, &[port(8080)]);
        let own = [pod.got.ips[0].addr(), pod.got.ips[1].addr()];
        assert_eq!(seen_by(&outside, &pod, "10.214.9.9:80"), own[0]);
        assert_eq!(seen_by(&outside, &pod, "[fd00:214:9::9]:80"), own[1]);
        assert_eq!(seen_by(&outside, &pod, "203.0.113.9:80"), at("198.51.100.1:0").ip());
        assert_eq!(seen_by(&outside, &pod, "[2001:db8:9::9]:80"), at("[2001:db8::1]:0").ip());
        // A host port of the pod's own node leads there, and back.
        let server = pod.within(|| serve(SocketAddr::from((own[0], 80)), 1));
        assert_eq!(pod.within(|| fetch("198.51.100.1:8080")), "hello");
        server.join().unwrap();
        let text = table();
        assert!(text.contains("ip saddr 10.214.7.0/24 ip daddr 10.214.0.0/16 return"), "{text}");
        let file = host.dir.path().join("table.nft");
        std::fs::write(&file, &text).unwrap();
        run("nft", &["--check", "--file", file.to_str().unwrap()]);
        // The table is recognized as complete.
        host.bridge.check().unwrap();
        assert_eq!(table(), text);
    });
}
