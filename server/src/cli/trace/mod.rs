// SPDX-License-Identifier: Apache-2.0
//! `hull trace`: the start of a pod as a waterfall. Each stage of the pod, of its containers and of the pulls for it is
//! a bar on one axis of time.

mod bars;
mod chart;
mod svg;

use super::args::diagnose::{Trace, Waterfall};
use super::error::{Error, Result};
use super::format::{self, Format, OutputArgs};
use super::output;
use crate::observe::account::Account;
use chart::chart;

/// Prints the waterfall in the selected form.
pub(crate) fn print(account: &Account, args: &Trace) -> Result<()> {
    let chart = chart(account, args.all);
    if chart.stages.is_empty() {
        return Err(Error::NotFound { kind: "recorded stages of", name: account.name.clone() });
    }
    let document = |format: &Format| {
        let document = serde_json::to_value(&chart).map_err(|source| Error::Json { source })?;
        let args = OutputArgs { output: Some(format.clone()), ..OutputArgs::default() };
        format::document(&document, std::slice::from_ref(&chart.name), &args)
    };
    if let Some(format) = &args.format {
        return document(format);
    }
    match &args.output {
        Waterfall::Text => {
            output::print(&bars::text(&chart, output::terminal_width().unwrap_or(100).into()))
        }
        Waterfall::Svg => output::print(&svg::text(&chart)),
        Waterfall::Document(format) => document(format),
    }
}
