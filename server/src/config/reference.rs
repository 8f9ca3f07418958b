// SPDX-License-Identifier: Apache-2.0
//! Texts made from the table of settings: the annotated default file, and docs/config.md.

#[cfg(test)]
use super::keys::Takes;
use super::keys::{ANY_HANDLER, KEYS, REGISTRY, value_at};
use super::settings::Config;
use std::fmt::Write as _;

/// The default of every setting, as a TOML table.
pub(super) fn defaults() -> toml::Table {
    // A struct of plain values with text keys: there is always a TOML for it.
    toml::Table::try_from(Config::default()).unwrap_or_default()
}

/// Breaks `text` into lines of at most `width` bytes, each with `prefix`.
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

/// The annotated configuration file: every setting with its default and description.
pub(crate) fn default_file() -> String {
    let defaults = defaults();
    let mut out = wrapped(
        "Configuration of Hull. Every setting is optional; this file has the defaults. Files in the directory of the same name with `.d` appended (config.toml.d/*.toml) are read after this file, in the order of their names. `hull config show` prints the merged configuration, and where each value comes from.",
        "# ",
        100,
    );
    let mut section = "";
    for key in KEYS {
        let (of, name) = key.name.rsplit_once('.').unwrap_or(("", key.name));
        out.push('\n');
        if of != section {
            section = of;
            match section {
                REGISTRY => out.push_str("# One entry per registry that needs settings. The entries of all files are combined.\n# [[image.registry]]\n"),
                ANY_HANDLER => out.push_str("# One section per runtime handler; its name is that of the section.\n# [runtime.handlers.sandboxed]\n"),
                _ => {
                    // Writing to a String cannot fail.
                    let _ = writeln!(out, "[{section}]");
                }
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

/// The word for it in the column Reload.
#[cfg(test)]
fn reload(takes: Takes) -> &'static str {
    match takes {
        Takes::AtOnce => "yes",
        Takes::WithRestart => "restart",
    }
}

/// The text of docs/config.md.
#[cfg(test)]
pub(super) fn markdown() -> String {
    let defaults = defaults();
    let mut out = String::from(
        "<!-- Generated from server/src/config/keys.rs; a test fails when this page is stale:\n\
         HULL_BLESS=1 cargo test -p hull the_config_page_is_fresh -->\n\n\
         # Configuration\n\n\
         The configuration is TOML, in `/etc/hull/config.toml` or the file that `--config` names. Every setting is\n\
         optional. Files in `config.toml.d/*.toml` are read after it, in the order of their names: a later value\n\
         replaces an earlier one; `[[image.registry]]` entries and runtime handlers are combined. Options of `hull serve` come last\n\
         (`--set KEY=VALUE` for any setting). An unknown setting is an error.\n\n\
         `hull config default` prints all settings as an annotated file. `hull config show` prints the merged\n\
         configuration, and where each value comes from.\n\n\
         The daemon reads its files again when one of them changes, on SIGHUP, and on `hull reload`. Settings with\n\
         `yes` under Reload it takes over at once, for what begins from then on; the others it names, and they take\n\
         effect when it is restarted, which pods do not notice. A file that cannot be used changes nothing.\n\
         `hull config diff` prints what differs between the files and the daemon.\n\n\
         Sizes are numbers of bytes, or texts with a unit of 1024 as in `\"64m\"` or `\"1Gi\"`.\n",
    );
    let mut section = "none yet";
    for key in KEYS {
        let (of, name) = key.name.rsplit_once('.').unwrap_or(("", key.name));
        if of != section {
            section = of;
            let _ = match of {
                "" => writeln!(
                    out,
                    "\n## Top level\n\n| Setting | Default | Reload | Description |\n|---|---|---|---|"
                ),
                REGISTRY | ANY_HANDLER => {
                    let heading =
                        if of == REGISTRY { format!("[[{of}]]") } else { format!("[{of}]") };
                    writeln!(
                        out,
                        "\n## `{heading}`, any number of times\n\n| Setting | Example | Reload | Description |\n|---|---|---|---|"
                    )
                }
                _ => writeln!(
                    out,
                    "\n## `[{of}]`\n\n| Setting | Default | Reload | Description |\n|---|---|---|---|"
                ),
            };
        }
        let (reload, doc) = (reload(key.takes), key.doc);
        let _ = match value_at(&defaults, key.name) {
            Some(value) => writeln!(out, "| `{name}` | `{value}` | {reload} | {doc} |"),
            None if of == REGISTRY || of == ANY_HANDLER => {
                writeln!(out, "| `{name}` | `{}` | {reload} | {doc} |", key.example)
            }
            None => {
                writeln!(out, "| `{name}` | unset | {reload} | {doc} Example: `{}`. |", key.example)
            }
        };
    }
    out
}
