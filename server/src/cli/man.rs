// SPDX-License-Identifier: Apache-2.0
//! `hull man`: man pages of hull and of its commands, from the definitions of the command line.

use super::error::{Error, Result};
use super::usage;
use clap::Command;
use std::path::Path;

/// Writes hull.1 and hull-COMMAND.1 into a directory.
pub(crate) fn write(directory: &Path) -> Result<()> {
    let mut hull = usage::command();
    hull.build();
    page(directory, &hull, "hull")?;
    for command in hull.get_subcommands().filter(|of| !of.is_hide_set()) {
        page(directory, command, &format!("hull-{}", command.get_name()))?;
    }
    Ok(())
}

fn page(directory: &Path, command: &Command, name: &str) -> Result<()> {
    let path = directory.join(format!("{name}.1"));
    let failed = || Error::io(format!("write {}", path.display()));
    let mut text = Vec::new();
    clap_mangen::Man::new(command.clone()).title(name).render(&mut text).map_err(failed())?;
    std::fs::write(&path, text).map_err(failed())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_page() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path()).unwrap();
        for name in ["hull", "hull-run", "hull-ps", "hull-play"] {
            let text = std::fs::read_to_string(dir.path().join(format!("{name}.1"))).unwrap();
            assert!(
                text.contains(".SH NAME") && text.contains(name.trim_start_matches("hull-")),
                "{name}"
            );
        }
        assert!(!dir.path().join("hull-man.1").try_exists().unwrap());
    }
}
