// SPDX-License-Identifier: Apache-2.0
//! Tests of the allocator: nothing is allocated twice, and nothing is lost.

use super::*;
use proptest::prelude::*;
use std::collections::HashSet;

fn ipam(subnets: &[&str]) -> Ipam {
    let subnets = subnets.iter().map(|text| Subnet::new(text.parse().unwrap()).unwrap());
    Ipam::new(subnets.collect())
}

fn port(host_port: u16) -> PortMapping {
    PortMapping { protocol: Protocol::Tcp, container_port: 80, host_port, host_ip: None }
}

fn address(ipam: &mut Ipam, pod: &str) -> String {
    ipam.allocate(pod, &[]).unwrap().addresses[0].to_string()
}

#[test]
fn an_address_given_back_rests_until_the_others_were_used() {
    let mut ipam = ipam(&["10.0.0.0/29"]);
    assert_eq!(address(&mut ipam, "a"), "10.0.0.2");
    ipam.free("a");
    assert_eq!(address(&mut ipam, "b"), "10.0.0.3");
    assert_eq!(address(&mut ipam, "c"), "10.0.0.4");
    assert_eq!(address(&mut ipam, "d"), "10.0.0.5");
    assert_eq!(address(&mut ipam, "e"), "10.0.0.6");
    assert_eq!(address(&mut ipam, "f"), "10.0.0.2", "wraps around");
    let full = ipam.allocate("g", &[]).unwrap_err();
    assert_eq!(full.to_string(), "find a free address in 10.0.0.0/29: pods have all of them");
    assert!(full.hint().unwrap().contains("maxPods"));
    assert!(ipam.get("g").is_none());
    ipam.free("c");
    assert_eq!(address(&mut ipam, "g"), "10.0.0.4", "the only one free");
}

#[test]
fn a_pod_keeps_what_it_has() {
    let mut ipam = ipam(&["10.0.0.0/24", "fd00::/64"]);
    let first = ipam.allocate("a", &[port(80)]).unwrap();
    assert_eq!(
        first.addresses,
        ["10.0.0.2".parse::<IpAddr>().unwrap(), "fd00::2".parse().unwrap()]
    );
    let again = ipam.allocate("a", &[port(80), port(81)]).unwrap();
    assert_eq!(again.addresses, first.addresses);
    assert_eq!(again.ports, [port(80), port(81)]);
}

#[test]
fn a_port_of_another_pod_is_refused_by_name() {
    let mut ipam = ipam(&["10.0.0.0/24"]);
    ipam.allocate("a", &[port(80)]).unwrap();
    let taken = ipam.allocate("b", &[port(80)]).unwrap_err();
    assert_eq!(taken.to_string(), "publish host port tcp 80 for the pod: pod a has tcp 80");
    assert!(ipam.get("b").is_none(), "no address is kept by a pod that was refused");
    ipam.begin_release("a");
    ipam.allocate("b", &[port(80)]).unwrap_err();
    ipam.free("a");
    ipam.allocate("b", &[port(80)]).unwrap();
    assert!(matches!(ipam.allocate("c", &[port(81), port(81)]), Err(Error::PortTwice { .. })));
    let six = PortMapping { host_ip: Some("::1".parse().unwrap()), ..port(82) };
    assert!(matches!(ipam.allocate("c", &[six]), Err(Error::NoSuchFamily { .. })));
    let none = PortMapping { container_port: 0, ..port(82) };
    assert!(matches!(ipam.allocate("c", &[none]), Err(Error::NoContainerPort { .. })));
}

#[test]
fn new_subnets_are_for_new_pods_and_former_ones_stay_until_their_last_pod_goes() {
    let subnet = |text: &str| Subnet::new(text.parse().unwrap()).unwrap();
    let mut ipam = ipam(&["10.0.0.0/24"]);
    assert_eq!(address(&mut ipam, "a"), "10.0.0.2");
    ipam.set_subnets(vec![subnet("10.0.0.0/16")]).unwrap();
    assert_eq!((ipam.former(), ipam.unused_former()), (&[subnet("10.0.0.0/24")][..], vec![]));
    // Of the same numbers, but with another prefix length; the pod's own address is not given again.
    assert_eq!(address(&mut ipam, "b"), "10.0.0.3");
    ipam.set_subnets(vec![subnet("10.0.0.0/15"), subnet("fd00::/64")]).unwrap();
    let of_c = ipam.allocate("c", &[]).unwrap();
    assert_eq!(of_c.subnets, [subnet("10.0.0.0/15"), subnet("fd00::/64")]);
    assert_eq!(ipam.former().len(), 2);
    ipam.free("a");
    assert_eq!(ipam.unused_former(), [subnet("10.0.0.0/24")]);
    ipam.forget_former(&[subnet("10.0.0.0/24")]);
    // Back to a former one: it is current again.
    ipam.set_subnets(vec![subnet("10.0.0.0/16")]).unwrap();
    assert!(!ipam.former().contains(&subnet("10.0.0.0/16")));
    assert_eq!(ipam.allocate("b", &[]).unwrap().addresses.len(), 1);
    assert!(ipam.unused_former().is_empty(), "c has an address of it");
}

#[test]
fn the_bridges_address_in_a_former_subnet_is_given_to_no_pod_and_no_pods_address_to_the_bridge() {
    let subnet = |text: &str| Subnet::new(text.parse().unwrap()).unwrap();
    let mut ipam = ipam(&["10.0.0.8/29"]);
    assert_eq!(address(&mut ipam, "a"), "10.0.0.10");
    ipam.set_subnets(vec![subnet("10.0.0.0/28")]).unwrap();
    let given: Vec<_> = (0..11).map(|number| address(&mut ipam, &format!("b{number}"))).collect();
    assert!(!given.contains(&"10.0.0.9".into()), "{given:?}");
    assert!(!given.contains(&"10.0.0.10".into()), "{given:?}");
    assert!(matches!(ipam.allocate("c", &[]), Err(Error::SubnetFull { .. })));
    ipam.free("a");
    ipam.forget_former(&[subnet("10.0.0.8/29")]);
    // Both are free by now, and the first is the gateway of the former subnet: it cannot come back.
    let last = [address(&mut ipam, "c"), address(&mut ipam, "d")];
    assert_eq!(last, ["10.0.0.9", "10.0.0.10"]);
    assert_eq!(ipam.set_subnets(vec![subnet("10.0.0.8/29")]), Err("c".to_owned()));
    assert_eq!(ipam.subnets(), [subnet("10.0.0.0/28")]);
}

/// The allocator looks only at one interval of addresses, and at the holders of the same port.
#[test]
fn the_next_of_four_thousand_pods_is_given_its_own_by_few_looks() {
    let mut ipam = ipam(&["10.0.0.0/20", "fd00::/64"]);
    for number in 0..4_000_u16 {
        ipam.allocate(&format!("pod{number}"), &[port(number + 1)]).unwrap();
    }
    assert_eq!((ipam.taken_v4.all().len(), ipam.taken_v6.all().len()), (1, 1));
    assert!(ipam.ports.values().all(|holders| holders.len() == 1));
    assert_eq!(address(&mut ipam, "next"), "10.0.15.162");
    let taken = ipam.allocate("other", &[port(2_000)]).unwrap_err();
    assert!(taken.to_string().contains("pod pod1999 has"), "{taken}");
    // The rest of the subnet, and one that was given back long ago.
    for number in 0..91 {
        ipam.allocate(&format!("more{number}"), &[]).unwrap();
    }
    ipam.allocate("last", &[]).unwrap();
    ipam.free("pod3000");
    assert_eq!(ipam.taken_v4.all().len(), 2);
    assert_eq!(address(&mut ipam, "again"), "10.0.11.186");
    check(&ipam);
}

#[derive(Debug, Clone)]
enum Step {
    Give(u8, Option<u16>),
    Leave(u8),
    Free(u8),
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let pod = 0..12_u8;
    let step = prop_oneof![
        4 => (pod.clone(), proptest::option::of(80..84_u16)).prop_map(|(pod, port)| Step::Give(pod, port)),
        1 => pod.clone().prop_map(Step::Leave),
        3 => pod.prop_map(Step::Free),
        1 => Just(Step::Restart),
    ];
    proptest::collection::vec(step, 1..120)
}

/// An allocator after a restart, with the leases of `from`.
fn restarted(from: &Ipam) -> Ipam {
    let mut to = Ipam::new(from.subnets.clone());
    for (pod, lease) in &from.leases {
        to.adopt(pod.clone(), Lease { releasing: false, ..lease.clone() }).unwrap();
    }
    to
}

fn check(ipam: &Ipam) {
    let mut seen = HashSet::new();
    for lease in ipam.leases.values() {
        for (ip, subnet) in lease.addresses.iter().zip(ipam.subnets()) {
            assert!(subnet.assigns(*ip) && *ip != subnet.gateway(), "{ip} is not for a pod");
            assert!(seen.insert(*ip), "{ip} was given twice");
        }
    }
    let runs = [&ipam.taken_v4, &ipam.taken_v6].into_iter().flat_map(IntervalSet::all);
    let taken: u128 = runs.map(|(first, last)| last - first + 1).sum();
    assert_eq!(seen.len() as u128, taken, "an address is taken by nobody");
    assert!(seen.iter().all(|ip| ipam.taken(*ip).contains(bits(*ip))), "one is not taken");
    let ports: Vec<_> = ipam.leases.values().flat_map(|lease| &lease.ports).collect();
    assert_eq!(ports.len(), ipam.ports.values().map(Vec::len).sum::<usize>());
    for (number, port) in ports.iter().enumerate() {
        assert!(!ports[..number].iter().any(|other| other.clashes(port)), "{port} was given twice");
    }
}

proptest! {
    /// However pods come and go, over restarts too: no address and no port is had by two, none is
    /// lost, and a pod is refused only if there is none.
    #[test]
    fn nothing_is_given_twice_and_nothing_is_lost(steps in steps()) {
        // Five and six addresses for twelve pods: full again and again.
        let mut ipam = ipam(&["10.0.0.0/29", "fd00::/125"]);
        for step in steps {
            match step {
                Step::Give(pod, wanted) => {
                    let pod = format!("pod{pod}");
                    let before = ipam.get(&pod).cloned();
                    let ports: Vec<_> = wanted.into_iter().map(port).collect();
                    match ipam.allocate(&pod, &ports) {
                        Ok(lease) => {
                            if let Some(before) = before {
                                prop_assert_eq!(before.addresses, lease.addresses);
                            }
                        }
                        Err(Error::SubnetFull { .. }) => prop_assert_eq!(ipam.leases.len(), 5),
                        Err(err) => {
                            let taken = matches!(err, Error::PortTaken { .. });
                            prop_assert!(taken, "{}", err);
                            prop_assert_eq!(before.as_ref(), ipam.get(&pod));
                        }
                    }
                }
                Step::Leave(pod) => drop(ipam.begin_release(&format!("pod{pod}"))),
                Step::Free(pod) => ipam.free(&format!("pod{pod}")),
                Step::Restart => ipam = restarted(&ipam),
            }
            check(&ipam);
        }
    }
}
