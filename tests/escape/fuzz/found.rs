// SPDX-License-Identifier: Apache-2.0
//! Faults that the fuzzer found, each as a test of its own.

use hull_proto::cri as api;
use hull_tests::cri::{idle, resources};
use hull_tests::{ExpectExt as _, Node};
use tonic::Code;

/// Longer than what a message holds: what comes behind it must not be lost.
fn long() -> String {
    "x".repeat(10_000)
}

#[tokio::test]
async fn a_limit_that_the_kernel_refuses_is_the_callers_fault_and_the_message_names_its_file() {
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let id = cri.run_idle(&pod, "main", &image).await;
    let cpuset_cpus = "0,".repeat(5_000) + "9999";
    let linux = Some(api::LinuxContainerResources { cpuset_cpus, ..Default::default() });
    let request =
        api::UpdateContainerResourcesRequest { container_id: id, linux, ..Default::default() };
    let refused = cri.runtime.clone().update_container_resources(request).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
    assert!(refused.message().contains("cpuset.cpus"), "{refused}");
}

#[tokio::test]
async fn a_container_that_cannot_start_as_it_is_configured_is_a_failed_precondition() {
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let mut config = idle("main", &image);
    resources(&mut config).cpuset_cpus = long();
    let refused = match cri.create(&pod, config).await {
        Err(refused) => refused,
        Ok(made) => cri.start(&made).await.unwrap_err(),
    };
    let codes = [Code::InvalidArgument, Code::FailedPrecondition];
    assert!(codes.contains(&refused.code()), "{refused}");
    let made = cri.create(&pod, idle("second", &image)).await.or_fail("create another");
    cri.start(&made).await.or_fail("start another");
}
