// SPDX-License-Identifier: Apache-2.0
//! Answers of Hull's own service to people who look for a cause, as JSON documents.

use super::status;
use crate::doctor;
use crate::error::Error;
use crate::node::Node;
use crate::observe::account::{self, Unknown};
use crate::observe::load;
use crate::storage::blocking;
use hull_sys::text::shown_json;
use serde::Serialize;
use std::sync::Arc;
use tonic::{Code, Status};

/// The account of what `name` stands for.
pub(super) async fn account(node: &Arc<Node>, name: String) -> Result<String, Status> {
    let (shared, wanted) = (Arc::clone(node), name.clone());
    match blocking(move || account::account(&shared, &wanted)).await {
        Ok(account) => document(&account),
        Err(Unknown::Nothing) => Err(status::of(Error::NotNamed { name })),
        Err(Unknown::Several(names)) => {
            let why = format!("`{name}` is {}", several(&name, &names));
            Err(status::invalid("name", why))
        }
        Err(Unknown::Unreadable(source)) => Err(status::of(Error::Store { source })),
    }
}

/// The relation of a name to several objects; it reads after "is".
fn several(name: &str, names: &[String]) -> String {
    let is_whole =
        |full: &String| full.split('/').any(|part| part == name) || full.as_str() == name;
    let what = if names.iter().any(is_whole) { "the name" } else { "the beginning of the id" };
    format!("{what} of several: {}", names.join(", "))
}

/// The findings of doctor.
pub(super) async fn findings(node: &Arc<Node>, fix: bool) -> Result<String, Status> {
    document(&doctor::examine(node, fix).await)
}

/// The counters of all running containers.
pub(super) async fn load(node: &Arc<Node>) -> Result<String, Status> {
    let shared = Arc::clone(node);
    document(&blocking(move || load::read(&shared)).await)
}

/// A document as JSON, escaped for terminals.
fn document(value: &impl Serialize) -> Result<String, Status> {
    let text = serde_json::to_string(value).map_err(|err| {
        status::plain(Code::Internal, &format!("cannot write the answer as JSON: {err}"))
    })?;
    Ok(shown_json(&text).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_of_several_objects_says_how_it_is_theirs() {
        let names = ["one/web".to_owned(), "two/web".to_owned()];
        assert_eq!(several("web", &names), "the name of several: one/web, two/web");
        assert_eq!(several("3f", &names), "the beginning of the id of several: one/web, two/web");
    }
}
