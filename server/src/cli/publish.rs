// SPDX-License-Identifier: Apache-2.0
//! Parses the values of --publish. Pure.

use super::error::{Error, Result};
use hull_proto::cri as api;
use std::net::IpAddr;
use std::ops::RangeInclusive;

fn bad(text: &str, why: String) -> Error {
    Error::BadFlag { flag: "--publish", value: text.to_owned(), why }
}

/// Parses all values of --publish.
pub(crate) fn publish_all(texts: &[String]) -> Result<Vec<api::PortMapping>> {
    let mut all = Vec::new();
    for text in texts {
        all.extend(publish(text)?);
        if all.len() > PORTS_MAX {
            return Err(bad(text, format!("a pod may have {PORTS_MAX} ports")));
        }
    }
    Ok(all)
}

/// Most published ports of a pod: each is a rule of its own.
const PORTS_MAX: usize = 4096;

/// Parses `[[ip:][host]:]container[/protocol]`, where both ports may be ranges of the same length, as in
/// `8000-8010:8000-8010`; an IPv6 address is in brackets. Without a host port it is 0: any free one.
pub(crate) fn publish(text: &str) -> Result<Vec<api::PortMapping>> {
    let bad = |why: String| bad(text, why);
    let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = match protocol {
        "tcp" => api::Protocol::Tcp,
        "udp" => api::Protocol::Udp,
        "sctp" => api::Protocol::Sctp,
        other => return Err(bad(format!("`{other}` is none of tcp, udp, sctp"))),
    };
    let (rest, container) = ports.rsplit_once(':').unwrap_or(("", ports));
    let (ip, host) = match rest.rsplit_once(':') {
        Some((ip, host)) => (ip, host),
        None => ("", rest),
    };
    let bare = ip.strip_prefix('[').and_then(|ip| ip.strip_suffix(']')).unwrap_or(ip);
    if !bare.is_empty() && bare.parse::<IpAddr>().is_err() {
        return Err(bad(format!("`{bare}` is not an IP address")));
    }
    let container = ports_of(container).map_err(bad)?;
    let host = if host.is_empty() { None } else { Some(ports_of(host).map_err(bad)?) };
    if let Some(host) = &host
        && host.len() != container.len()
    {
        let (host, container) = (host.len(), container.len());
        return Err(bad(format!("its ranges have {host} and {container} ports")));
    }
    let mapping = |(container_port, host_port): (u16, u16)| api::PortMapping {
        protocol: protocol as i32,
        container_port: i32::from(container_port),
        host_port: i32::from(host_port),
        host_ip: bare.to_owned(),
    };
    Ok(match host {
        Some(host) => container.zip(host).map(mapping).collect(),
        None => container.map(|port| mapping((port, 0))).collect(),
    })
}

/// Parses a port, or a range as in `8000-8010`.
fn ports_of(text: &str) -> Result<RangeInclusive<u16>, String> {
    let port = |text: &str| match text.parse::<u16>() {
        Ok(number) if number > 0 => Ok(number),
        _ => Err(format!("`{text}` is not a port, 1 to 65535")),
    };
    let Some((first, last)) = text.split_once('-') else {
        let one = port(text)?;
        return Ok(one..=one);
    };
    let (first, last) = (port(first)?, port(last)?);
    if first > last {
        return Err(format!("range `{text}` ends before it begins"));
    }
    Ok(first..=last)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ports_are_read_in_every_form() {
        for (text, ip, host, container, protocol) in [
            ("8080:80", "", 8080, 80, api::Protocol::Tcp),
            ("127.0.0.1:8080:80/udp", "127.0.0.1", 8080, 80, api::Protocol::Udp),
            ("[::1]:53:5353/sctp", "::1", 53, 5353, api::Protocol::Sctp),
            ("80", "", 0, 80, api::Protocol::Tcp),
            ("127.0.0.1::53/udp", "127.0.0.1", 0, 53, api::Protocol::Udp),
        ] {
            let [port] = publish(text).unwrap().try_into().unwrap();
            assert_eq!(
                (port.host_ip.as_str(), port.host_port, port.container_port),
                (ip, host, container)
            );
            assert_eq!(port.protocol(), protocol);
        }
    }

    #[test]
    fn ranges_of_ports_have_the_same_length() {
        let pairs = |text: &str| -> Vec<(i32, i32)> {
            let all = publish(text).unwrap();
            all.iter().map(|of| (of.host_port, of.container_port)).collect()
        };
        assert_eq!(pairs("8000-8002:80-82/udp"), [(8000, 80), (8001, 81), (8002, 82)]);
        assert_eq!(pairs("[::1]:7-7:9"), [(7, 9)]);
        assert_eq!(pairs("65534-65535"), [(0, 65534), (0, 65535)]);
        for (text, why) in [
            ("8000-8010:80-82", "11 and 3 ports"),
            ("8000:80-81", "1 and 2 ports"),
            ("9-8:9-8", "ends before it begins"),
            ("1-65536:1-65536", "not a port"),
            ("0-1:0-1", "not a port"),
            ("1-2-3", "not a port"),
            ("-", "not a port"),
        ] {
            let said = publish(text).unwrap_err().to_string();
            assert!(said.contains(why), "{text}: {said}");
        }
        publish_all(&["1-65535".to_owned()]).unwrap_err();
    }

    #[test]
    fn a_bad_port_says_why() {
        for (text, why) in [
            ("", "`` is not a port"),
            ("0:80", "`0` is not a port"),
            ("80:65536", "`65536` is not a port"),
            ("host:80:80", "`host` is not an IP"),
            ("80:80/icmp", "`icmp` is none of"),
            ("::1:80:80x", "`80x`"),
        ] {
            let err = publish(text).unwrap_err().to_string();
            assert!(err.contains(why), "{text}: {err}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_a_parser_panic(text in "\\PC{0,40}") {
            let _either = publish(&text);
        }

        #[test]
        fn a_port_reads_back(host in 1_u16.., container in 1_u16..) {
            let [port] = publish(&format!("{host}:{container}")).unwrap().try_into().unwrap();
            prop_assert_eq!((port.host_port, port.container_port), (i32::from(host), i32::from(container)));
        }
    }
}
