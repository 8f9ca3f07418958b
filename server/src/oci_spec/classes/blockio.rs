// SPDX-License-Identifier: Apache-2.0
//! The file of classes of block I/O, in the format that containerd and CRI-O read:
//!
//! ```yaml
//! Classes:
//!   slow:
//!     - Weight: 80
//!     - Devices: [/dev/sd*, /dev/vd*]
//!       ThrottleReadBps: 50M
//! ```
//!
//! An entry without devices has the weight against all cgroups; one with devices limits each disk that a pattern
//! matches. Later entries replace parameters of earlier ones for the same disk. The whole file is checked before a
//! class of it is used: an unknown parameter may be a limit.

use super::disks::{self, Number};
use super::error::Error;
use crate::oci_spec::network::quantity;
use ::oci_spec::runtime::LinuxBlockIo;
use hull_sys::text::shown;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;

/// Longest file that is read, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Remarks begin so.
pub(super) const OF_CLASS: &str = "its class of block I/O";
/// Weights of the kernel, `blkio.weight`.
const WEIGHTS: std::ops::RangeInclusive<u128> = 10..=1000;
/// Longest name in a message, in bytes.
const NAME_BYTES: usize = 64;
/// Most names of classes in a message.
const SHOWN_MAX: usize = 16;

/// The rates of an entry, and where they are in a runtime spec.
const RATES: [(&str, &str); 4] = [
    ("ThrottleReadBps", "throttleReadBpsDevice"),
    ("ThrottleWriteBps", "throttleWriteBpsDevice"),
    ("ThrottleReadIOPS", "throttleReadIOPSDevice"),
    ("ThrottleWriteIOPS", "throttleWriteIOPSDevice"),
];

/// The file as it is written. Names of parameters are those of Go's decoder, which ignores case.
type Document = BTreeMap<String, BTreeMap<String, Vec<BTreeMap<String, Parameter>>>>;

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Parameter {
    Number(u64),
    Text(String),
    List(Vec<String>),
}

type Classes = BTreeMap<String, Vec<Entry>>;

#[derive(Debug, Default, PartialEq, Eq)]
struct Entry {
    /// Patterns; none for the weight of all devices.
    devices: Option<Vec<String>>,
    weight: Option<u64>,
    /// In the order of [`RATES`].
    rates: [Option<u64>; 4],
}

/// The parameters of a class, and remarks on entries without effect on this node.
pub(super) fn class(
    file: Option<&Path>,
    class: &str,
) -> Result<(LinuxBlockIo, Vec<String>), Error> {
    let name = || shown(class, NAME_BYTES);
    let Some(path) = file else { return Err(Error::NoFile { class: name() }) };
    let classes = read(path)?;
    let Some(entries) = classes.get(class) else {
        let path = path.display().to_string();
        return Err(Error::Unknown { class: name(), path, known: known(&classes) });
    };
    let (found, remarks) = parameters(&name(), entries, disks::matching);
    let bad = |err: serde_json::Error| file_error(path, err.to_string());
    Ok((serde_json::from_value(found).map_err(bad)?, remarks))
}

/// The names of all classes.
pub(super) fn names(path: &Path) -> Result<Vec<String>, Error> {
    Ok(read(path)?.into_keys().collect())
}

fn known(classes: &Classes) -> String {
    let names = classes.keys().take(SHOWN_MAX);
    let names: Vec<_> = names.map(|name| format!("`{}`", shown(name, NAME_BYTES))).collect();
    match classes.len().saturating_sub(SHOWN_MAX) {
        _ if names.is_empty() => "no class at all".into(),
        0 => names.join(", "),
        others => format!("{} and {others} more", names.join(", ")),
    }
}

fn file_error(path: &Path, why: String) -> Error {
    Error::File { path: path.display().to_string(), why }
}

fn read(path: &Path) -> Result<Classes, Error> {
    let bytes = hull_sys::files::read(path, FILE_BYTES_MAX);
    let bytes = bytes.map_err(|err| file_error(path, err.to_string()))?;
    let text = String::from_utf8(bytes).map_err(|_| file_error(path, "it is not text".into()))?;
    parse(&text).map_err(|why| file_error(path, why))
}

fn parse(text: &str) -> Result<Classes, String> {
    if text.trim().is_empty() {
        return Ok(Classes::new());
    }
    let document: Document =
        serde_saphyr::from_str(text).map_err(|err| err.without_snippet().to_string())?;
    let mut all = Classes::new();
    for (key, classes) in document {
        if !key.eq_ignore_ascii_case("Classes") {
            return Err(format!(
                "it has `{}`, and only `Classes` is known",
                shown(&key, NAME_BYTES)
            ));
        }
        for (name, entries) in classes {
            let of_class = |why| format!("class `{}`: {why}", shown(&name, NAME_BYTES));
            let entries: Result<_, String> = entries.iter().map(entry).collect();
            all.insert(name.clone(), entries.map_err(of_class)?);
        }
    }
    Ok(all)
}

fn entry(parameters: &BTreeMap<String, Parameter>) -> Result<Entry, String> {
    let mut entry = Entry::default();
    for (key, value) in parameters {
        let is = |name: &str| key.eq_ignore_ascii_case(name);
        let slot = RATES.iter().position(|(name, _)| is(name));
        match (slot, value) {
            (Some(slot), value) => entry.rates[slot] = Some(whole(key, value)?),
            (None, value) if is("Weight") => {
                let weight = whole(key, value)?;
                if !WEIGHTS.contains(&weight.into()) {
                    return Err(format!("{key} {weight} is not within 10 to 1000"));
                }
                entry.weight = Some(weight);
            }
            (None, Parameter::List(patterns)) if is("Devices") => {
                patterns.iter().try_for_each(|pattern| disks::check(pattern))?;
                entry.devices = Some(patterns.clone());
            }
            (None, _) if is("Devices") => return Err(format!("{key} is not a list of paths")),
            (None, _) => {
                let known: Vec<_> = RATES.iter().map(|(name, _)| *name).collect();
                return Err(format!(
                    "`{}` is none of Devices, Weight, {}",
                    shown(key, NAME_BYTES),
                    known.join(", ")
                ));
            }
        }
    }
    if entry.devices.is_none() && entry.rates.iter().any(Option::is_some) {
        return Err("an entry has rates and no Devices, and rates are limits of disks".into());
    }
    Ok(entry)
}

/// A parameter that is a number, or a quantity such as `50M`.
fn whole(key: &str, value: &Parameter) -> Result<u64, String> {
    let text = match value {
        Parameter::Number(number) => return Ok(*number),
        Parameter::Text(text) => text,
        Parameter::List(_) => return Err(format!("{key} is a list, and must be a number")),
    };
    let number = quantity(text.trim()).and_then(|number| u64::try_from(number).ok());
    number.ok_or_else(|| format!("{key} `{}` is not a number such as 50M", shown(text, NAME_BYTES)))
}

/// The parameters as a runtime spec has them, with the disks that `matching` finds for a pattern.
fn parameters(
    class: &str,
    entries: &[Entry],
    matching: impl Fn(&str) -> std::collections::BTreeSet<Number>,
) -> (Value, Vec<String>) {
    let mut found = json!({});
    let mut remarks = Vec::new();
    let mut weights: BTreeMap<Number, u64> = BTreeMap::new();
    let mut rates: [BTreeMap<Number, u64>; 4] = Default::default();
    for entry in entries {
        let Some(patterns) = &entry.devices else {
            if let Some(weight) = entry.weight {
                found["weight"] = weight.into();
            }
            continue;
        };
        let disks: Vec<_> = patterns.iter().flat_map(|pattern| matching(pattern)).collect();
        if disks.is_empty() {
            let patterns = shown(patterns.join(", "), NAME_BYTES * 4);
            remarks.push(format!("{OF_CLASS} `{class}` limits {patterns}, and no disk is there"));
        }
        for disk in disks {
            if let Some(weight) = entry.weight {
                weights.insert(disk, weight);
            }
            for (rates, rate) in rates.iter_mut().zip(entry.rates) {
                if let Some(rate) = rate {
                    rates.insert(disk, rate);
                }
            }
        }
    }
    let list = |of: &BTreeMap<Number, u64>, key: &str| -> Value {
        of.iter()
            .map(|((major, minor), value)| json!({"major": major, "minor": minor, key: value}))
            .collect()
    };
    if !weights.is_empty() {
        found["weightDevice"] = list(&weights, "weight");
    }
    for ((_, key), of) in RATES.iter().zip(&rates).filter(|(_, of)| !of.is_empty()) {
        found[*key] = list(of, "rate");
    }
    (found, remarks)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    const FILE: &str = "\
Classes:
  slow:
    - Weight: 80
    - Devices:
        - /dev/vd[a-z]
        - /dev/sd[a-z]
      ThrottleReadBps: 50M
      ThrottleWriteBps: 10Mi
      throttlereadiops: 10k
      ThrottleWriteIOPS: \"5k\"
      Weight: 50
    - Devices: [/dev/vda]
      ThrottleReadBps: 100M
  plain:
    - Weight: 400
";

    #[test]
    fn a_class_is_what_the_file_says_and_later_entries_replace_earlier_ones() {
        let classes = parse(FILE).unwrap();
        assert_eq!(classes.keys().collect::<Vec<_>>(), ["plain", "slow"]);
        let disks = |pattern: &str| match pattern {
            "/dev/vd[a-z]" => [(254, 0), (254, 16)].into(),
            "/dev/vda" => [(254, 0)].into(),
            _ => [].into(),
        };
        let (found, remarks) = parameters("slow", &classes["slow"], disks);
        let rate = |minor: u32, rate: u64| json!({"major": 254, "minor": minor, "rate": rate});
        let weight = |minor: u32| json!({"major": 254, "minor": minor, "weight": 50});
        assert_eq!(
            found,
            json!({
                "weight": 80,
                "weightDevice": [weight(0), weight(16)],
                "throttleReadBpsDevice": [rate(0, 100_000_000), rate(16, 50_000_000)],
                "throttleWriteBpsDevice": [rate(0, 10 << 20), rate(16, 10 << 20)],
                "throttleReadIOPSDevice": [rate(0, 10_000), rate(16, 10_000)],
                "throttleWriteIOPSDevice": [rate(0, 5_000), rate(16, 5_000)],
            })
        );
        assert!(remarks.is_empty(), "{remarks:?}");
        let io: LinuxBlockIo = serde_json::from_value(found.clone()).unwrap();
        assert_eq!(json!(io), found, "a spec has all of them");
    }

    #[test]
    fn an_entry_whose_disks_are_not_there_is_a_remark() {
        let classes = parse(FILE).unwrap();
        let (found, remarks) = parameters("slow", &classes["slow"], |_| [].into());
        assert_eq!(found, json!({"weight": 80}));
        assert_eq!(remarks.len(), 2, "{remarks:?}");
        assert!(remarks[1].starts_with(OF_CLASS) && remarks[1].contains("/dev/vda"), "{remarks:?}");
    }

    #[test]
    fn a_file_that_is_wrong_anywhere_is_refused_with_the_place() {
        for (text, said) in [
            ("Klasses: {}", "only `Classes`"),
            ("Classes: {a: [{Weight: 5}]}", "class `a`: Weight 5 is not within 10 to 1000"),
            ("Classes: {a: [{Weight: x}]}", "not a number"),
            ("Classes: {a: [{ThrottleReadBps: 5}]}", "no Devices"),
            ("Classes: {a: [{Throttle: 5}]}", "`Throttle` is none of Devices, Weight"),
            ("Classes: {a: [{Devices: /dev/sda}]}", "not a list"),
            ("Classes: {a: [{Devices: [sda]}]}", "below /dev"),
            ("Classes: {a: [{Devices: [/dev/sda], ThrottleReadBps: -1}]}", ""),
            ("Classes: [", ""),
            ("Classes: 5", ""),
        ] {
            let why = parse(text).unwrap_err();
            assert!(why.contains(said), "{text}: {why}");
        }
        assert!(parse("").unwrap().is_empty() && parse("Classes: {}").unwrap().is_empty());
    }

    #[test]
    fn an_unknown_class_is_refused_with_the_names_there_are() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("blockio.yaml");
        let missing = class(Some(&path), "slow").unwrap_err();
        assert!(missing.to_string().contains("blockio.yaml"), "{missing}");
        fs::write(&path, FILE).unwrap();
        let unknown = class(Some(&path), "fast").unwrap_err();
        assert!(unknown.to_string().contains("only `plain`, `slow`"), "{unknown}");
        assert!(unknown.hint().unwrap().contains("blockio.resources.beta.kubernetes.io/pod"));
        let (plain, _) = class(Some(&path), "plain").unwrap();
        assert_eq!(plain.weight(), Some(400));
        assert_eq!(names(&path).unwrap(), ["plain", "slow"]);
        fs::write(&path, "Classes: {}").unwrap();
        let none = class(Some(&path), "fast").unwrap_err();
        assert!(none.to_string().contains("no class at all"), "{none}");
    }
}
