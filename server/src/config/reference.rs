// SPDX-License-Identifier: Apache-2.0
//! Texts made from the table of settings: the annotated default file, and docs/config.md.

use super::keys::{KEYS, REGISTRY, value_at};
use super::settings::Config;
use std::fmt::Write as _;

/// The defaults as a TOML table.
fn defaults() -> toml::Table {
    // A struct of plain values with text keys: there is always a TOML for it.
    toml::Table::try_from(Config::default()).unwrap_or_default()
}

/// Breaks `text` into lines of at most `width` with `prefix` before each.
fn wrapped(text: &str, prefix: &str, width: usize) -> String {
    let mut out = String::new();
    let mut line = String::from(prefix);
    for word in text.split_whitespace() {
        if line.len() > prefix.len() && line.len() + 1 + word.len() > width {
            out.push_str(line.trim_end());
            out.push('\n');
            line = String::from(prefix);
        }
        if line.len() > prefix.len() {
            line.push(' ');
        }
        line.push_str(word);
    }
    out.push_str(line.trim_end());
    out.push('\n');
    out
}

/// The annotated file: every setting at its default, with what it is for.
pub(crate) fn default_file() -> String {
    let defaults = defaults();
    let mut out = wrapped(
        "Hull's configuration. Every setting is optional; what stands here are the defaults. Files in the directory of the same name with `.d` appended (config.toml.d/*.toml) are read after it, in the order of their names. `hull config show` prints what holds and where it came from.",
        "# ",
        100,
    );
    let mut section = "";
    for key in KEYS {
        let (of, name) = key.name.rsplit_once('.').unwrap_or(("", key.name));
        out.push('\n');
        let commented = of == REGISTRY;
        if of != section {
            section = of;
            if commented {
                out.push_str("# One entry per registry that needs settings. Entries of all files add up.\n# [[image.registry]]\n");
            } else {
                let _ = writeln!(out, "[{section}]");
            }
        }
        out.push_str(&wrapped(key.doc, "# ", 100));
        // Writing to a String cannot fail.
        let _ = match value_at(&defaults, key.name) {
            Some(value) => writeln!(out, "{name} = {value}"),
            None => writeln!(out, "# {name} = {}", key.example),
        };
    }
    out
}

/// docs/config.md.
#[cfg(test)]
pub(super) fn markdown() -> String {
    let defaults = defaults();
    let mut out = String::from(
        "<!-- Made from server/src/config/keys.rs; a test fails when this page is stale:\n\
         HULL_BLESS=1 cargo test -p hull the_config_page_is_fresh -->\n\n\
         # Configuration\n\n\
         TOML in `/etc/hull/config.toml`, or where `--config` says. Every setting is optional. Files in\n\
         `config.toml.d/*.toml` are read after it in the order of their names: a later value replaces an\n\
         earlier one, `[[image.registry]]` entries add up. Flags of `hull serve` come last\n\
         (`--set KEY=VALUE` for any setting). An unknown setting is an error.\n\n\
         `hull config default` prints this as an annotated file, `hull config show` what holds and where\n\
         each value came from.\n",
    );
    let mut section = "none yet";
    for key in KEYS {
        let (of, name) = key.name.rsplit_once('.').unwrap_or(("", key.name));
        if of != section {
            section = of;
            let _ = match of {
                "" => writeln!(
                    out,
                    "\n## Top\n\n| Setting | Default | What it is for |\n|---|---|---|"
                ),
                REGISTRY => {
                    writeln!(
                        out,
                        "\n## `[[{of}]]`, any number of times\n\n| Setting | Example | What it is for |\n|---|---|---|"
                    )
                }
                _ => writeln!(
                    out,
                    "\n## `[{of}]`\n\n| Setting | Default | What it is for |\n|---|---|---|"
                ),
            };
        }
        let _ = match value_at(&defaults, key.name) {
            Some(value) => writeln!(out, "| `{name}` | `{value}` | {} |", key.doc),
            None if of == REGISTRY => {
                writeln!(out, "| `{name}` | `{}` | {} |", key.example, key.doc)
            }
            None => writeln!(out, "| `{name}` | unset | {} Example: `{}`. |", key.doc, key.example),
        };
    }
    out
}
