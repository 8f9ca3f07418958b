// SPDX-License-Identifier: Apache-2.0
//! `hull play kube` with ConfigMaps, Secrets and facts of the pod, as variables and as files.

use hull_tests::{Node, eventually, fixture, node};

const MANIFEST: &str = r#"
apiVersion: v1
kind: Pod
metadata:
  name: web
  namespace: shop
  labels: {app: web, tier: front}
  annotations: {example.org/note: "a b"}
spec:
  restartPolicy: Never
  containers:
  - name: app
    image: IMAGE
    command: [sh, -c, "$(SCRIPT)"]
    resources: {limits: {memory: 64Mi, cpu: 500m}}
    envFrom:
    - configMapRef: {name: settings}
    - {prefix: S_, secretRef: {name: key}}
    - {configMapRef: {name: nothing, optional: true}}
    env:
    - {name: URL, value: "http://$(HOST)/$$(HOST)"}
    - {name: PASSWORD, valueFrom: {secretKeyRef: {name: key, key: password}}}
    - {name: NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
    - {name: SPACE, valueFrom: {fieldRef: {fieldPath: metadata.namespace}}}
    - {name: POD_UID, valueFrom: {fieldRef: {fieldPath: metadata.uid}}}
    - {name: TIER, valueFrom: {fieldRef: {fieldPath: "metadata.labels['tier']"}}}
    - {name: NOTE, valueFrom: {fieldRef: {fieldPath: "metadata.annotations['example.org/note']"}}}
    - {name: IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}
    - {name: NODE, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}
    - {name: MEMORY, valueFrom: {resourceFieldRef: {resource: limits.memory, divisor: 1Mi}}}
    - name: SCRIPT
      value: |
        echo "$HOST $URL $PASSWORD $S_password $NAME $SPACE $TIER $NOTE $MEMORY"
        test "$NODE" = "$(cat /node)" || echo "node $NODE"
        ip addr | grep -q "inet $IP/" && echo has-its-address
        test ${#POD_UID} -eq 32 && echo has-its-uid
        cat /conf/HOST; echo; cat /conf/a/b; echo; cat /etc/one; echo
        cat /secret/password; stat -c %a /secret/password
        cat /info/labels; echo; cat /info/memory; echo; cat /all/HOST /all/password /all/name; echo
        touch /conf/x 2>/dev/null || echo read-only
        touch /data/x && echo writable
        echo end
    volumeMounts:
    - {name: conf, mountPath: /conf}
    - {name: conf, mountPath: /etc/one, subPath: HOST}
    - {name: key, mountPath: /secret}
    - {name: info, mountPath: /info}
    - {name: all, mountPath: /all}
    - {name: data, mountPath: /data}
    - {name: node, mountPath: /node}
  volumes:
  - {name: conf, configMap: {name: settings, items: [{key: HOST, path: HOST}, {key: HOST, path: a/b}]}}
  - {name: key, secret: {secretName: key, defaultMode: 0400}}
  - name: info
    downwardAPI:
      items:
      - {path: labels, fieldRef: {fieldPath: metadata.labels}}
      - {path: memory, resourceFieldRef: {containerName: app, resource: limits.memory}}
  - name: all
    projected:
      sources:
      - {configMap: {name: settings}}
      - {secret: {name: key}}
      - {downwardAPI: {items: [{path: name, fieldRef: {fieldPath: metadata.name}}]}}
  - {name: data, emptyDir: {}}
  - {name: node, hostPath: {path: NODE_FILE, type: File}}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: settings, namespace: shop}
data: {HOST: db}
---
apiVersion: v1
kind: Secret
metadata: {name: key, namespace: shop}
type: Opaque
data: {password: c2VjcmV0}
"#;

#[tokio::test]
async fn values_and_facts_reach_a_pod_as_variables_and_files() {
    let node = Node::start().await;
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap().to_lowercase();
    let node_file = node::write(&node.host_dir(), "node", &name).display().to_string();
    let text = MANIFEST.replace("IMAGE", &fixture::busybox()).replace("NODE_FILE", &node_file);
    let file = node::write(&node.host_dir(), "web.yaml", &text).display().to_string();
    let _played = node.hull(&["play", "kube", &file]).good();
    eventually("the script has ended", || async {
        let said = node.hull(&["logs", "shop/web/app"]);
        if said.stdout.contains("end\n") { Ok(()) } else { Err(format!("{said:?}")) }
    })
    .await;
    let said = node.hull(&["logs", "shop/web/app"]).good();
    let wanted = "db http://db/$(HOST) secret secret web shop front a b 64
has-its-address
has-its-uid
db
db
db
secret400
app=\"web\"
tier=\"front\"
67108864
dbsecretweb
read-only
writable
end
";
    assert_eq!(said, wanted);
    let taken = node.hull(&["play", "kube", &file]);
    let hint = taken.stderr.lines().find(|line| line.starts_with("hint: ")).unwrap_or_default();
    assert!(hint.contains("hull rm -f shop/web") && hint.contains("--replace"), "{taken:?}");
    assert!(!hint.contains("--name"), "{taken:?}");
    let _removed = node.hull(&["play", "kube", "--down", &file]).good();
    node.nothing_is_left().await;
}

#[tokio::test]
async fn what_a_manifest_cannot_have_is_named_with_what_to_do() {
    let node = Node::start().await;
    let image = fixture::busybox();
    let pod = |container: &str, spec: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: web}}\nspec:\n  containers:\n  - name: app\n    image: {image}\n{container}{spec}"
        )
    };
    for (text, error, hint) in [
        (pod("    livenessProbe: {}\n", ""), "field `livenessProbe` at line 8", "static pod"),
        (
            pod("", "  volumes: [{name: v, persistentVolumeClaim: {claimName: c}}]\n"),
            "field `persistentVolumeClaim`",
            "hostPath",
        ),
        (pod("", "  serviceAccountName: x\n"), "field `serviceAccountName`", "remove it"),
        (
            pod("    env: [{name: A, valueFrom: {configMapKeyRef: {name: c, key: k}}}]\n", ""),
            "env `A`: the file has no ConfigMap `c`",
            "add it to the file",
        ),
        (
            "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\n".to_owned(),
            "kind `Deployment` of apps/v1",
            "kind: Pod",
        ),
        (
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: web}\n".to_owned(),
            "the file has no pod",
            "kind: Pod",
        ),
        (format!("{}---\n{}", pod("", ""), pod("", "")), "document 2 of", ""),
        (
            pod("    resources: {limits: {memory: 100m}}\n", ""),
            "`100m` of memory is a fraction of a byte",
            "",
        ),
    ] {
        let file = node::write(&node.host_dir(), "bad.yaml", &text).display().to_string();
        let refused = node.hull(&["play", "kube", &file]);
        assert!(refused.code == 1 && refused.stderr.contains(error), "{error}: {refused:?}");
        let said =
            refused.stderr.lines().find(|line| line.starts_with("hint: ")).unwrap_or_default();
        assert!(said.contains(hint), "{hint}: {refused:?}");
        assert!(refused.stdout.is_empty(), "no table: {refused:?}");
    }
    let text = pod("", "  restartPolicy: Never\n");
    let file = node::write(&node.host_dir(), "good.yaml", &text).display().to_string();
    assert_eq!(node.hull(&["play", "kube", &file]).code, 0);
    let removed = node.hull(&["rm", "-f", "none", "default/web", "other"]);
    assert_eq!((removed.code, removed.stdout.trim()), (1, "default/web"), "{removed:?}");
    for name in ["`none`", "`other`"] {
        assert_eq!(removed.stderr.matches(name).count(), 1, "{removed:?}");
    }
    node.nothing_is_left().await;
}
