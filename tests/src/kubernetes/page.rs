// SPDX-License-Identifier: Apache-2.0
//! The page docs/conformance-kubernetes.md: every command that runs specs writes its own section.

use crate::expect::ExpectExt;
use crate::shell;
use std::fs;
use std::path::Path;

const HEAD: &str = "<!-- `make e2e`, `make e2e-gates` and `make e2e-node` write the sections of this page. -->\n\n\
    # Kubernetes' own tests on Hull\n";

/// Writes the section `heading` of the page `file`; the others stay.
pub fn replace(file: &Path, heading: &str, body: &str) {
    let page = fs::read_to_string(file).unwrap_or_default();
    let text = replaced(&page, heading, body);
    fs::write(file, text).or_fail(format!("write {}", file.display()));
}

fn replaced(page: &str, heading: &str, body: &str) -> String {
    let mut sections: Vec<(String, String)> = Vec::new();
    for part in page.split("\n## ").skip(1) {
        let (title, body) = part.split_once('\n').unwrap_or((part, ""));
        sections.push((title.to_owned(), body.trim().to_owned()));
    }
    match sections.iter_mut().find(|(title, _)| title == heading) {
        Some((_, old)) => body.trim().clone_into(old),
        None => sections.push((heading.to_owned(), body.trim().to_owned())),
    }
    let sections = sections.iter().map(|(title, body)| format!("\n## {title}\n\n{body}\n"));
    format!("{HEAD}{}", sections.collect::<String>())
}

/// The date in UTC, as `date` prints it.
#[must_use]
pub fn today() -> String {
    shell::run("date", ["-u", "+%Y-%m-%d"]).good().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_is_replaced_and_the_others_stay() {
        let page = replaced("", "One", "first\n\n### Below\n\n- a");
        let page = replaced(&page, "Two", "second");
        let page = replaced(&page, "One", "third\n");
        assert_eq!(page, format!("{HEAD}\n## One\n\nthird\n\n## Two\n\nsecond\n"));
        assert_eq!(replaced(&page, "Two", "second"), page);
    }
}
