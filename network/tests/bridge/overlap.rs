// SPDX-License-Identifier: Apache-2.0
//! Pod subnets beside the host's own routes.

use crate::common::on_a_host;
use crate::support::{Host, id, ip, links, neighbour};
use hull_sys::netns;

#[test]
fn a_pod_subnet_that_overlaps_a_route_is_refused_with_subnet_route_and_link() {
    for (prepare, route, link) in [
        (&["route add 10.214.7.128/25 via 198.51.100.2"][..], "10.214.7.128/25", "cable0"),
        (&["addr add 10.0.0.1/8 dev cable0"], "10.0.0.0/8", "cable0"),
        (&["addr add 10.214.7.9/32 dev lo"], "10.214.7.9/32", "lo"),
        (&["route add blackhole 10.214.7.0/24"], "10.214.7.0/24", "no link"),
        (&["route add fd00:214::/80 via 2001:db8::2"], "fd00:214::/80", "cable0"),
    ] {
        on_a_host(|| {
            let _outside = neighbour();
            prepare.iter().for_each(|line| drop(ip(line)));
            let before = links();
            let host = Host::with(&["10.214.7.0/24", "fd00:214::/64"]);
            let checked = host.bridge.check().unwrap_err();
            let refused = host.try_attach(1, &netns::create().unwrap(), &[]).unwrap_err();
            assert_eq!(checked.to_string(), refused.to_string());
            let told = refused.to_string();
            assert!(told.contains(route) && told.contains(link), "{told}");
            assert!(refused.hint().unwrap().contains("pod_cidr"), "{refused}");
            assert_eq!(links(), before, "nothing is made");
            assert!(host.bridge.attachments().is_empty());
        });
    }
}

#[test]
fn a_clusters_wider_route_and_what_the_bridge_has_already_are_no_overlap() {
    on_a_host(|| {
        let _outside = neighbour();
        ip("route add 10.0.0.0/8 via 198.51.100.2");
        ip("route add default via 198.51.100.2");
        let host = Host::new();
        host.bridge.check().unwrap();
        let _one = host.attach(1, &[]);
        // Added later: pods run, so the overlap is logged and not refused.
        ip("route add 10.214.7.128/25 via 198.51.100.2");
        ip("link set hulltest0 down");
        ip("link set hulltest0 up");
        let again = hull_network::BuiltinNetwork::open(crate::support::config(
            &host.dir,
            &["10.214.7.0/24"],
        ));
        again.unwrap().check().unwrap();
        let _two = host.attach(2, &[]);
        host.bridge.detach(&id(2)).unwrap();
    });
}
