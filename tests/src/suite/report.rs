// SPDX-License-Identifier: Apache-2.0
//! The report of a critest run, compared with the list of specs that may be skipped.
//!
//! The rule: what is not on the list must pass, and what is on the list must be skipped. So a spec
//! that begins to run leaves the list, and a reason that no longer holds is found.

use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt;

/// Specs that may be skipped: words in their names, how many there are, and why.
pub const SKIPS: [(&str, usize, &str); 2] = [
    ("[k8s.io] AppArmor ", 9, "this kernel has no AppArmor"),
    (" benchmark about ", 5, "measured by `make bench`; they want a file of parameters"),
];

/// [`SKIPS`] as they are on this machine: nothing of AppArmor is skipped where the kernel has it.
fn skips() -> impl Iterator<Item = (&'static str, usize, &'static str)> {
    let enabled = std::fs::read_to_string("/sys/module/apparmor/parameters/enabled");
    let apparmor = enabled.is_ok_and(|text| text.trim() == "Y");
    SKIPS.into_iter().filter(move |(words, ..)| !(apparmor && words.contains("AppArmor")))
}

/// How a spec ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// The spec passed.
    Passed,
    /// It was not run; why.
    Skipped(String),
    /// It failed; how.
    Failed(String),
}

/// The outcome of a run.
#[derive(Debug, Default)]
pub struct Report {
    /// Name → how it ended.
    pub specs: BTreeMap<String, Ended>,
}

impl Report {
    /// Reads ginkgo's report.
    ///
    /// # Errors
    /// Text that is not such a report.
    pub fn read(text: &str) -> Result<Self, String> {
        let suites: Value = serde_json::from_str(text).map_err(|err| err.to_string())?;
        let mut report = Self::default();
        let suites = suites.as_array().ok_or("it is not a list of suites")?;
        for spec in
            suites.iter().flat_map(|suite| suite["SpecReports"].as_array().into_iter().flatten())
        {
            report.take(spec)?;
        }
        if report.specs.is_empty() {
            return Err("it tells of no spec".into());
        }
        Ok(report)
    }

    fn take(&mut self, spec: &Value) -> Result<(), String> {
        let state = spec["State"].as_str().ok_or("a spec has no state")?;
        let failure = spec["Failure"]["Message"].as_str().unwrap_or_default().trim();
        let kind = spec["LeafNodeType"].as_str().unwrap_or_default();
        if kind != "It" {
            // Set-up and take-down of the suite count only when they go wrong.
            if !matches!(state, "passed" | "skipped") {
                self.specs.insert(
                    format!("the suite's {kind}"),
                    Ended::Failed(format!("{state}: {failure}")),
                );
            }
            return Ok(());
        }
        let above = spec["ContainerHierarchyTexts"].as_array().into_iter().flatten();
        let mut name: Vec<&str> = above.filter_map(Value::as_str).collect();
        name.push(spec["LeafNodeText"].as_str().unwrap_or_default());
        let ended = match state {
            "passed" => Ended::Passed,
            "skipped" if failure.is_empty() => Ended::Skipped("left out by name".into()),
            "skipped" => Ended::Skipped(failure.to_owned()),
            other => Ended::Failed(format!("{other}: {failure}")),
        };
        self.specs.insert(name.join(" "), ended);
        Ok(())
    }

    /// The numbers in words.
    #[must_use]
    pub fn summary(&self) -> String {
        let (passed, failed, skipped) = self.counts();
        format!("{} specs: {passed} passed, {failed} failed, {skipped} skipped", self.specs.len())
    }

    /// Numbers of passed, failed and skipped specs.
    #[must_use]
    pub fn counts(&self) -> (usize, usize, usize) {
        let count =
            |which: fn(&Ended) -> bool| self.specs.values().filter(|ended| which(ended)).count();
        (
            count(|ended| *ended == Ended::Passed),
            count(|ended| matches!(ended, Ended::Failed(_))),
            count(|ended| matches!(ended, Ended::Skipped(_))),
        )
    }

    /// Violations of the rule, one line for each.
    #[must_use]
    pub fn wrong(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        for (name, ended) in &self.specs {
            let listed = skips().any(|(words, ..)| name.contains(words));
            match ended {
                Ended::Failed(how) => wrong.push(format!("failed: {name}\n{}", indented(how))),
                Ended::Skipped(why) if !listed => {
                    wrong.push(format!("skipped: {name}\n{}", indented(why)))
                }
                Ended::Passed if listed => {
                    wrong.push(format!("passed, though it is on the list of skips: {name}"));
                }
                Ended::Passed | Ended::Skipped(_) => {}
            }
        }
        for (words, count, _) in skips() {
            let found = self.specs.keys().filter(|name| name.contains(words)).count();
            if found != count {
                wrong.push(format!(
                    "the list of skips says {count} specs of {words:?}, the suite has {found}"
                ));
            }
        }
        wrong
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (passed, failed, skipped) = self.counts();
        for (name, ended) in &self.specs {
            if let Ended::Skipped(why) = ended {
                let reason = skips().find(|(words, ..)| name.contains(words));
                let reason = reason.map_or(why.as_str(), |(_, _, reason)| reason);
                writeln!(f, "  skipped: {name}\n           {reason}")?;
            }
        }
        write!(
            f,
            "  {} specs: {passed} passed, {failed} failed, {skipped} skipped",
            self.specs.len()
        )
    }
}

fn indented(text: &str) -> String {
    let lines: Vec<String> = text.lines().map(|line| format!("    {line}")).collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn spec(above: &str, name: &str, state: &str, message: &str) -> Value {
        json!({
            "ContainerHierarchyTexts": [above], "LeafNodeType": "It", "LeafNodeText": name,
            "State": state, "Failure": {"Message": message},
        })
    }

    fn read(specs: &[Value]) -> Report {
        Report::read(&json!([{"SpecReports": specs}]).to_string()).unwrap_or_default()
    }

    /// The specs of the list, all skipped.
    fn listed() -> Vec<Value> {
        let one = |words: &str, number: usize| spec(words, &number.to_string(), "skipped", "");
        skips()
            .flat_map(|(words, count, _)| (0..count).map(move |number| one(words, number)))
            .collect()
    }

    #[test]
    fn what_passes_or_is_listed_is_right() {
        let mut specs = listed();
        specs.push(spec("[k8s.io] Runtime", "runs", "passed", ""));
        assert_eq!(read(&specs).wrong(), Vec::<String>::new());
        assert_eq!(read(&specs).counts(), (1, 0, listed().len()));
    }

    #[test]
    fn a_failure_an_unlisted_skip_and_a_listed_pass_are_wrong() {
        let mut specs = listed();
        specs.push(spec("[k8s.io] Runtime", "fails", "timedout", "too slow"));
        specs.push(spec("[k8s.io] Runtime", "is skipped", "skipped", "no such feature"));
        specs[0]["State"] = json!("passed");
        let wrong = read(&specs).wrong();
        assert_eq!(wrong.len(), 3, "{wrong:#?}");
        assert!(wrong.iter().any(|line| line.contains("timedout: too slow")), "{wrong:#?}");
    }

    #[test]
    fn a_list_that_names_specs_that_are_not_there_is_wrong() {
        let wrong = read(&[spec("[k8s.io] Runtime", "runs", "passed", "")]).wrong();
        assert_eq!(wrong.len(), skips().count(), "{wrong:#?}");
    }

    #[test]
    fn no_report_is_no_success() {
        for text in ["", "{}", "[]", r#"[{"SpecReports": null}]"#] {
            assert!(Report::read(text).is_err(), "{text}");
        }
    }
}
