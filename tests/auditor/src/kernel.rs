// SPDX-License-Identifier: Apache-2.0
//! Answers of the kernel to system calls, socket families and keys.

use hull_sys::audit::{PROBES, add_key as add, find_key as find, session_keyring};
use rustix::net::{AddressFamily, SocketType, socket};
use serde_json::{Map, Value, json};

/// Families from 0 up to this one are tried; Linux 6.18 has 46.
const FAMILIES: u16 = 48;
/// No socket has this type. The kernel looks at the type before it looks for the family's module, so
/// it answers EINVAL for every family number that exists, loaded or not.
const NO_TYPE: u32 = 15;

/// The answer to each probe, by its name.
pub(crate) fn calls() -> Value {
    let answer = |probe: &hull_sys::audit::Probe| match probe.make() {
        Ok(answer) => answer.name(),
        Err(err) => err.to_string(),
    };
    let answers = PROBES.iter().map(|probe| (probe.name.to_owned(), json!(answer(probe))));
    Value::Object(answers.collect::<Map<_, _>>())
}

/// Numbers of the socket families that a filter lets through to the kernel.
pub(crate) fn families() -> Value {
    let passes = |family: &u16| {
        let tried = socket(AddressFamily::from_raw(*family), SocketType::from_raw(NO_TYPE), None);
        matches!(tried, Ok(_) | Err(rustix::io::Errno::INVAL))
    };
    json!((0..FAMILIES).filter(passes).collect::<Vec<_>>())
}

/// The session keyring's number, or the error.
pub(crate) fn keyring() -> Value {
    session_keyring().map_or_else(|err| json!(err.to_string()), |number| json!(number))
}

/// `added` and the session keyring's number.
pub(crate) fn add_key(name: &str) -> String {
    match add(name, b"secret") {
        Ok(_) => format!("added {}", keyring()),
        Err(err) => err.to_string(),
    }
}

/// `found` and the key's content, or the error.
pub(crate) fn find_key(name: &str) -> String {
    match find(name) {
        Ok(content) => format!("found {}", String::from_utf8_lossy(&content)),
        Err(err) => err.to_string(),
    }
}
