// SPDX-License-Identifier: Apache-2.0
//! Devices by name (container device interface), as drivers describe them in files.

use hull_proto::cri as api;
use hull_tests::cri::shell;
use hull_tests::{Node, node};

const DRIVER: &str = "cdiVersion: 0.6.0
kind: vendor.com/thing
containerEdits:
  env: [THING=common]
  mounts:
    - hostPath: LIBRARY
      containerPath: /opt/thing
      options: [ro, nosuid, nodev]
devices:
  - name: loops
    containerEdits:
      deviceNodes:
        - path: /dev/thing0
          hostPath: /dev/loop-control
          permissions: r
  - name: hooked
    containerEdits:
      hooks:
        - hookName: createContainer
          path: /usr/bin/thing-hook
";

fn wants(mut config: api::ContainerConfig, devices: &[&str]) -> api::ContainerConfig {
    let device = |name: &&str| api::CdiDevice { name: (*name).into() };
    config.cdi_devices = devices.iter().map(device).collect();
    config
}

#[tokio::test]
async fn a_device_is_there_with_all_that_its_driver_says_and_nothing_else_is() {
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let looks = "echo $THING; cat /opt/thing/lib; touch /opt/thing/x 2>&1 | grep -o Read-only; \
                 (: < /dev/thing0) && echo opened; (: > /dev/thing0) 2>&1 | grep -o 'not permitted'";
    let config = wants(shell("main", &image, looks), &["vendor.com/thing=loops"]);
    let unknown = cri.create(&pod, config.clone()).await.unwrap_err();
    assert!(unknown.message().contains("`vendor.com/thing=loops`"), "{unknown}");
    assert!(unknown.message().contains(&node.cdi_dir().display().to_string()), "{unknown}");

    // The driver comes while the daemon runs.
    let library = node.host_dir().join("library");
    std::fs::create_dir(&library).unwrap();
    let _path = node::write(&library, "lib", "library\n");
    let text = DRIVER.replace("LIBRARY", &library.display().to_string());
    let _path = node::write(&node.cdi_dir(), "thing.yaml", &text);
    let said = cri.output(&pod, config).await;
    assert_eq!(said.stdout, "common\nlibrary\nRead-only\nopened\nnot permitted\n", "{said:?}");

    let without =
        cri.output(&pod, shell("without", &image, "echo $THING; ls /dev/thing0 /opt")).await;
    assert_eq!(without.stdout, "\n", "{without:?}");

    let hooked = wants(shell("hooked", &image, "true"), &["vendor.com/thing=hooked"]);
    let refused = cri.create(&pod, hooked).await.unwrap_err();
    assert!(refused.message().contains("OCI hooks"), "{refused}");
}
