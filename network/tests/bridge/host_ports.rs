// SPDX-License-Identifier: Apache-2.0
//! Host ports, over TCP and UDP.

use crate::common::on_a_host;
use crate::support::{
    Host, PATIENCE, at, bridge_netfilter, fetch, neighbour, port, port_at, serve, try_fetch,
};
use hull_network::{PortMapping, Protocol};
use hull_sys::netns;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd as _;

#[test]
fn host_ports_are_reached_from_everywhere() {
    for filtered in [false, true] {
        on_a_host(|| {
            bridge_netfilter(filtered);
            let outside = neighbour();
            let host = Host::new();
            let ports = [
                port(8080),
                port_at(8081, "198.51.100.1"),
                port_at(8082, "127.0.0.1"),
                port_at(8083, "0.0.0.0"),
            ];
            let pod = host.attach(3, &ports);
            let other = host.attach(4, &[]);
            let web = SocketAddr::from((pod.ip(), 80));
            let server = pod.within(|| serve(web, 14));
            for (place, to) in [
                ("loopback", "127.0.0.1:8080"),
                ("own address", "198.51.100.1:8080"),
                ("gateway", "10.214.7.1:8080"),
                ("one address", "198.51.100.1:8081"),
                ("loopback only", "127.0.0.1:8082"),
                ("unspecified", "198.51.100.1:8083"),
            ] {
                assert_eq!(fetch(to), "hello", "{place} of the host, {filtered}");
            }
            netns::within(outside.as_fd(), || {
                for to in ["198.51.100.1:8080", "198.51.100.1:8081", "198.51.100.1:8083"] {
                    assert_eq!(fetch(to), "hello", "{to} from outside");
                }
                try_fetch(at("198.51.100.1:8082")).unwrap_err();
            })
            .unwrap();
            try_fetch(at("10.214.7.1:8081")).unwrap_err();
            for to in ["10.214.7.1:8080", "198.51.100.1:8080"] {
                assert_eq!(
                    pod.within(|| fetch(to)),
                    "hello",
                    "{to} from the pod itself, {filtered}"
                );
                assert_eq!(
                    other.within(|| fetch(to)),
                    "hello",
                    "{to} from another pod, {filtered}"
                );
            }
            assert_eq!(fetch("127.0.0.1:8083"), "hello");
            let seen = server.join().unwrap();
            let from_outside = seen.iter().filter(|ip| **ip == at("198.51.100.2:0").ip()).count();
            assert_eq!(from_outside, 3, "who calls from outside is not hidden: {seen:?}");
        });
    }
}

#[test]
fn udp_host_ports_lead_to_the_pod_and_back() {
    on_a_host(|| {
        let outside = neighbour();
        let host = Host::new();
        let pod = host.attach(5, &[PortMapping { protocol: Protocol::Udp, ..port(5353) }]);
        let address = (pod.ip(), 80);
        let socket = pod.within(|| UdpSocket::bind(address).unwrap());
        let echo = std::thread::spawn(move || {
            let mut text = [0; 16];
            for _ in 0..2 {
                let (length, from) = socket.recv_from(&mut text).unwrap();
                socket.send_to(&text[..length], from).unwrap();
            }
        });
        let ask = |to: &str| {
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            socket.connect(to).unwrap();
            socket.send(b"ping").unwrap();
            let mut text = [0; 16];
            let length = socket.recv(&mut text).unwrap();
            assert_eq!(&text[..length], b"ping", "{to}");
        };
        ask("127.0.0.1:5353");
        netns::within(outside.as_fd(), || ask("198.51.100.1:5353")).unwrap();
        echo.join().unwrap();
    });
}
