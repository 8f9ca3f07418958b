// SPDX-License-Identifier: Apache-2.0
//! `hull images verify`: prints how stored layers differ from their file lists.

use super::args::Verify;
use super::client::Client;
use super::error::{Error, Result};
use super::format::{self, Field, Format, Kind, Kinds};
use super::ps::row;
use super::{output, pull};
use hull_proto::admin as api;
use hull_sys::text::{MESSAGE_BYTES_MAX, shown};
use serde_json::json;

/// The fields of verified layers.
pub(crate) const LAYERS: Kinds = Kinds {
    verb: "images verify",
    fields: &[
        Field::always("layer", "LAYER", Kind::Id, "Diff id of the layer."),
        Field::always("bytes", "SIZE", Kind::Bytes, "Bytes that were compared."),
        Field::always("whole", "WHOLE", Kind::Flag, "Whether nothing differs."),
        Field::wide("images", "IMAGES", Kind::List, "Ids of the images that have the layer."),
        Field::never("findings", Kind::Object, "Files that differ, each with `path` and `why`."),
        Field::wide("unknown", "NOT COMPARED", Kind::Text, "Reason if it could not be compared."),
    ],
    id: "layer",
    name: "layer",
};

/// Limit on the printed findings of one layer.
const SHOWN_MAX: usize = 20;

/// Requests a verification from the daemon, and prints the differences. Any difference is an error.
pub(crate) async fn verify(mut client: Client, args: &Verify) -> Result<()> {
    let account = pull::account(args.user.as_deref(), args.password_stdin)?;
    let request = api::VerifyRequest {
        image: args.image.clone().unwrap_or_default(),
        repair: args.repair,
        username: account.name,
        password: account.password,
    };
    let answer = client.admin.verify(request).await?.into_inner();
    for image in &answer.repaired {
        output::to_stderr(&format!("repaired {}\n", output::short(image)));
    }
    for failure in &answer.failed {
        output::to_stderr(&format!("not repaired: {}\n", shown(failure, MESSAGE_BYTES_MAX)));
    }
    let broken = answer.layers.iter().filter(|layer| !is_whole(layer)).count();
    let is_plain = args.output.selected() == Format::default();
    if is_plain {
        for layer in answer.layers.iter().filter(|layer| !is_whole(layer)) {
            output::print(&lines(layer))?;
        }
    } else {
        let rows: Vec<format::Row> = answer.layers.iter().map(layer_row).collect();
        format::print(&LAYERS, &rows, &args.output)?;
    }
    if broken > 0 {
        return Err(Error::NotWhole { count: broken });
    }
    if !is_plain {
        return Ok(());
    }
    let bytes = answer.layers.iter().map(|layer| layer.bytes).sum();
    let (count, bytes) = (answer.layers.len(), output::bytes(bytes));
    output::print(&format!("{count} layers, {bytes}: no differences\n"))
}

fn layer_row(layer: &api::VerifiedLayer) -> format::Row {
    let finding = |of: &api::Finding| json!({"path": of.path, "why": of.why});
    row(json!({
        "layer": layer.diff_id,
        "bytes": layer.bytes,
        "whole": is_whole(layer),
        "images": layer.images,
        "findings": layer.findings.iter().map(finding).collect::<Vec<_>>(),
        "unknown": layer.unknown,
    }))
}

fn short(text: &str) -> String {
    shown(text, MESSAGE_BYTES_MAX)
}

fn is_whole(layer: &api::VerifiedLayer) -> bool {
    layer.findings.is_empty() && layer.unknown.is_empty()
}

fn lines(layer: &api::VerifiedLayer) -> String {
    let images: Vec<String> = layer.images.iter().map(|id| output::short(id)).collect();
    let mut text = format!("layer {} of {}\n", short(&layer.diff_id), images.join(", "));
    if !layer.unknown.is_empty() {
        text.push_str(&format!("  not compared: {}\n", short(&layer.unknown)));
    }
    for finding in layer.findings.iter().take(SHOWN_MAX) {
        text.push_str(&format!("  /{}: {}\n", short(&finding.path), short(&finding.why)));
    }
    let more = layer.findings.len().saturating_sub(SHOWN_MAX);
    if more > 0 {
        text.push_str(&format!("  and {more} more\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_findings_the_first_are_shown_and_the_others_counted() {
        let finding = |number: usize| api::Finding {
            path: format!("f\n{number}"),
            why: "it is missing".into(),
        };
        let layer = api::VerifiedLayer {
            diff_id: "sha256:ab".into(),
            images: vec![format!("sha256:{}", "cd".repeat(32))],
            bytes: 1,
            findings: (0..25).map(finding).collect(),
            unknown: String::new(),
        };
        let text = lines(&layer);
        assert!(text.starts_with("layer sha256:ab of cdcdcdcd"), "{text}");
        assert!(
            text.contains("  /f\\n0: it is missing\n") && text.ends_with("and 5 more\n"),
            "{text}"
        );
    }
}
