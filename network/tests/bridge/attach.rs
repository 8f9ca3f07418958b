// SPDX-License-Identifier: Apache-2.0
//! Attach and detach: repeated, failed, and beside links of others.

use crate::common::on_a_host;
use crate::support::{
    Host, config, eventually, fetch, id, ip, links, port, port_at, run, serve, table,
};
use hull_network::{BuiltinNetwork, LinkState};
use hull_sys::netns;
use std::net::SocketAddr;
use std::os::fd::{AsFd as _, OwnedFd};

#[test]
fn attaching_a_pod_again_keeps_its_address() {
    on_a_host(|| {
        let host = Host::new();
        let first = host.attach(1, &[port(8080)]);
        let again = host.attach(1, &[port(8081)]);
        assert_eq!(again.got, first.got);
        let web = SocketAddr::from((again.ip(), 80));
        let server = again.within(|| serve(web, 1));
        assert_eq!(fetch("127.0.0.1:8081"), "hello");
        assert!(!table().contains("8080"), "{}", table());
        server.join().unwrap();
    });
}

#[test]
fn a_failed_attach_leaves_nothing() {
    on_a_host(|| {
        let host = Host::with(&["10.214.7.0/29"]);
        let _first = host.attach(1, &[port(8080)]);
        let (before, rules) = (links(), table());
        let netns = netns::create().unwrap();
        let left = |why: &str| {
            assert_eq!((links(), table()), (before.clone(), rules.clone()), "{why}");
            assert_eq!(host.bridge.attachments(), [id(1)], "{why}");
            assert_eq!(
                std::fs::read_dir(host.dir.path().join("leases")).unwrap().count(),
                1,
                "{why}"
            );
        };

        let err = host.try_attach(2, &netns, &[port(8080)]).unwrap_err();
        assert!(err.to_string().contains(&id(1)), "{err}");
        left("port taken");
        let no_netns = OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
        host.try_attach(2, &no_netns, &[port(8081)]).unwrap_err();
        left("no namespace");
        netns::within(netns.as_fd(), || ip("link add eth0 type veth peer name eth1")).unwrap();
        let err = host.try_attach(2, &netns, &[]).unwrap_err();
        assert!(err.to_string().contains("eth0"), "{err}");
        left("eth0 is there");
        let others: Vec<_> = (3..7).map(|number| host.attach(number, &[])).collect();
        let err = host.try_attach(2, &netns::create().unwrap(), &[]).unwrap_err();
        assert!(err.hint().unwrap().contains("10.214.7.0/29"), "{err}");
        assert_eq!(others.len() + 1, host.bridge.attachments().len());
        for number in 3..7 {
            host.bridge.detach(&id(number)).unwrap();
        }
        left("full");
    });
}

#[test]
fn a_link_that_is_cut_is_known_as_such() {
    on_a_host(|| {
        let host = Host::new();
        let _pod = host.attach(1, &[]);
        let state = || host.bridge.link_state(&id(1)).unwrap();
        let name = format!("hull{}", &id(1)[..11]);
        assert_eq!(state(), LinkState::Whole);
        ip(&format!("link set {name} down"));
        assert_eq!(state(), LinkState::Down);
        ip(&format!("link set {name} up nomaster"));
        assert_eq!(state(), LinkState::Unplugged);
        ip(&format!("link delete {name}"));
        assert_eq!(state(), LinkState::Missing);
        assert_eq!(host.bridge.link_state(&id(2)).unwrap(), LinkState::Elsewhere, "not attached");
    });
}

/// The name has space for a part of the id only; an existing link of that name stays untouched.
#[test]
fn a_foreign_link_of_the_pods_name_survives() {
    on_a_host(|| {
        let host = Host::new();
        let _one = host.attach(1, &[]);
        let name = format!("hull{}", &id(2)[..11]);
        ip(&format!("link add {name} type veth peer name foreign"));
        let err = host.try_attach(2, &netns::create().unwrap(), &[]).unwrap_err();
        assert!(err.hint().unwrap().contains(&name), "{err}");
        host.bridge.detach(&id(2)).unwrap();
        assert!(links().contains(&name), "{:?}", links());
        assert_eq!(host.bridge.attachments(), [id(1)]);
    });
}

#[test]
fn a_foreign_link_of_the_bridges_name_is_an_error_with_a_hint() {
    on_a_host(|| {
        ip("link add hulltest0 type veth peer name hulltest1");
        let host = Host::new();
        let err = host.bridge.check().unwrap_err();
        assert!(err.hint().unwrap().contains("ip link delete hulltest0"), "{err}");
        host.try_attach(1, &netns::create().unwrap(), &[]).unwrap_err();
        host.bridge.remove().unwrap_err();
        assert!(host.bridge.attachments().is_empty());
        assert!(links().contains(&"hulltest0".to_owned()));
    });
}

#[test]
fn detach_leaves_nothing_and_may_run_any_number_of_times() {
    on_a_host(|| {
        let host = Host::new();
        let before = links();
        let keeps = host.attach(12, &[port(8082)]);
        let (after_one, rules) = (links(), table());
        for netns_gone in [false, true] {
            let pod = host.attach(13, &[port(8083), port_at(8084, "127.0.0.1")]);
            assert!(table().contains("8083") && table().contains("8084"), "{}", table());
            if netns_gone {
                drop(pod);
            }
            for _ in 0..3 {
                host.bridge.detach(&id(13)).unwrap();
            }
            assert_eq!((links(), table()), (after_one.clone(), rules.clone()));
            assert_eq!(host.bridge.attachments(), [id(12)]);
        }
        assert!(host.bridge.remove().is_err(), "a pod is attached");
        host.bridge.detach(&id(12)).unwrap();
        host.bridge.detach(&id(99)).unwrap();
        host.bridge.detach("../../etc/passwd").unwrap_err();
        host.bridge.remove().unwrap();
        drop(keeps);
        assert_eq!(links(), before);
        assert_eq!(run("nft", &["list", "tables"]), "");
        assert!(!host.dir.path().join("leases").try_exists().unwrap());
    });
}

#[test]
fn a_pod_let_go_keeps_its_address_until_its_link_is_gone() {
    // With its namespace, or by us when somebody holds on to that.
    for held in [false, true] {
        on_a_host(|| {
            let host = Host::new();
            let before = host.attach(1, &[port(8085)]);
            host.bridge.release(&id(1)).unwrap();
            assert_eq!(host.bridge.attachments(), [id(1)]);
            // What the next daemon would know, were this one killed now.
            let next = BuiltinNetwork::open(config(&host.dir, &["10.214.7.0/24"])).unwrap();
            assert_eq!(next.attachments(), [id(1)]);
            assert_ne!(host.attach(2, &[port(8085)]).ip(), before.ip());
            let _held = held.then_some(before.netns);
            eventually("its address is given back", || host.bridge.attachments() == [id(2)]);
            assert!(!links().contains(&before.got.host_link));
            host.bridge.release(&id(1)).unwrap();
        });
    }
}

#[test]
fn a_pod_attached_again_while_it_leaves_keeps_all_it_has() {
    on_a_host(|| {
        let host = Host::new();
        let first = host.attach(1, &[]);
        host.bridge.release(&id(1)).unwrap();
        let again = host.attach(1, &[port(8086)]);
        assert_eq!(again.ip(), first.ip());
        drop(first.netns);
        drop(host.attach(2, &[]));
        host.bridge.release(&id(2)).unwrap();
        eventually("the other is gone", || host.bridge.attachments() == [id(1)]);
        assert!(links().contains(&again.got.host_link) && table().contains("8086"));
    });
}

#[test]
fn a_full_subnet_has_room_for_who_comes_right_after_one_that_left() {
    on_a_host(|| {
        let host = Host::with(&["10.214.7.0/30"]);
        for number in 1..20 {
            let pod = host.attach(number, &[]);
            let refused = host.try_attach(99, &netns::create().unwrap(), &[]).unwrap_err();
            assert!(refused.to_string().contains("free address"), "{refused}");
            drop(pod);
            host.bridge.release(&id(number)).unwrap();
        }
    });
}
