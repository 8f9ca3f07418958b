// SPDX-License-Identifier: Apache-2.0
//! Ports of its own in a program's arguments or error (pure). Any other number is none: it may be a time, an id, a
//! secret, or the port of a peer.

/// Options and words before a port or an address.
const BEFORE: [&str; 9] =
    ["-p", "port", "--port", "-port", "--http-port", "--listen", "-listen", "--bind", "-b"];

/// Ports in an error: `port 80`, `0.0.0.0:80`, `:::80`, `('0.0.0.0', 80)`.
pub(super) fn of_line(line: &str) -> Vec<u16> {
    let words = line.split(|c: char| c.is_whitespace() || "'\"(),;".contains(c));
    of(words.map(|word| word.trim_end_matches(['.', ':'])))
}

/// Ports in an argument and the one after it: `-p 80`, `--port=80`, `--listen 0.0.0.0:80`, `listen 80`.
pub(super) fn of_args<'a>(args: impl Iterator<Item = &'a str>) -> Vec<u16> {
    of(args.flat_map(|arg| arg.split(|c: char| c.is_whitespace() || "'\";|&()<>".contains(c))))
}

fn of<'a>(words: impl Iterator<Item = &'a str>) -> Vec<u16> {
    let (mut found, mut before) = (Vec::new(), "");
    for word in words.filter(|word| !word.is_empty()) {
        let named = match word.split_once('=') {
            Some((name, value)) if is_name(name) => Some(value),
            Some(_) => None,
            None if BEFORE.contains(&before) || before == "listen" || is_own(before) => Some(word),
            None => None,
        };
        let port = named.and_then(number).or_else(|| with_address(named.unwrap_or(word)));
        found.extend(port.filter(|port| *port > 0));
        before = word;
    }
    found
}

fn is_name(option: &str) -> bool {
    let name = option.trim_start_matches('-').to_ascii_lowercase();
    name == "port" || name == "listen" || name == "bind" || name.ends_with("-port")
}

fn number(word: &str) -> Option<u16> {
    word.parse().ok()
}

/// The port after an address of the pod itself.
fn with_address(word: &str) -> Option<u16> {
    let (address, port) = word.rsplit_once(':')?;
    (address.is_empty() || is_own(address)).then(|| number(port)).flatten()
}

fn is_own(address: &str) -> bool {
    matches!(address, "*" | "::" | "[::]" | "localhost" | "0.0.0.0" | "127.0.0.1" | "[::1]" | "::1")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_of_its_own_are_told_from_other_numbers() {
        for (line, wanted) in [
            ("bind() to 0.0.0.0:8080 failed (98: Address already in use)", &[8080][..]),
            ("Error: listen EADDRINUSE: address already in use :::8080", &[8080]),
            ("listen tcp :80: bind: permission denied", &[80]),
            ("bind on address ('0.0.0.0', 8000): address already in use", &[8000]),
            ("port 80 is taken", &[80]),
            ("10:33:22 pid 4711: bind: Address already in use", &[]),
            ("[Errno 98] error 42", &[]),
            ("connect to 10.0.0.1:5432: address in use", &[]),
        ] {
            assert_eq!(of_line(line), wanted, "{line}");
        }
        for (args, wanted) in [
            (&["httpd", "-f", "-p", "80"][..], &[80][..]),
            (&["sh", "-c", "exec app --port=80 --listen 0.0.0.0:81"], &[80, 81]),
            (&["nginx", "-g", "listen 8080;"], &[8080]),
            (&["nc", "-l", "-p", "127.0.0.1:9"], &[9]),
            (&["sleep", "80"], &[]),
            (&["curl", "http://x:80/", "--retries=80", "--token", "1234"], &[]),
            (&["app", "--db", "10.0.0.1:5432", "-u", "1000:1000"], &[]),
        ] {
            assert_eq!(of_args(args.iter().copied()), wanted, "{args:?}");
        }
    }
}
