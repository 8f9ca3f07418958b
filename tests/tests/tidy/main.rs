// SPDX-License-Identifier: Apache-2.0
//! House rules that no lint knows, each in a file of its own. Each message says what to do instead.
//!
//! Lists of what is not put right yet lie in `allowed/`. They may only shrink: an entry that nothing needs any
//! more fails too. `HULL_BLESS=1 cargo test -p hull-tests --test tidy` writes them as they are now, unless
//! something grew.

mod allowed;
mod bans;
mod blocking;
mod circles;
mod dependencies;
mod docs;
mod house;
mod lexer;
mod links;
mod modules;
mod phrases;
mod short_docs;
mod sources;

#[track_caller]
pub(crate) fn report(wrong: &[String]) {
    assert!(wrong.is_empty(), "{} to put right:\n  {}\n", wrong.len(), wrong.join("\n  "));
}
