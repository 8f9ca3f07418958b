// SPDX-License-Identifier: Apache-2.0
//! Clients of the CRI socket, whatever they call it: with the path, raw or escaped, or anything else as their authority.

use hull_tests::{Node, paths, shell};

#[tokio::test]
async fn a_client_connects_in_every_way_that_programs_in_go_do() {
    let test = "a_client_connects_in_every_way_that_programs_in_go_do";
    let Some(program) = paths::grpcclient() else {
        return paths::cannot_run(test, "grpcclient (`make tools`)");
    };
    let node = Node::start().await;
    let said = shell::run(&program, [node.socket()]).good();
    assert!(said.lines().count() == 14, "{said}");
    let failed: Vec<_> = said.lines().filter(|line| !line.ends_with(": ok")).collect();
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}
