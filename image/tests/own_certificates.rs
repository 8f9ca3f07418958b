// SPDX-License-Identifier: Apache-2.0
//! Registries whose own certificate is in their CA file, as people have it who made one by `openssl req -x509`.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod common;

use common::{Answer, Fake, TestStore, can_run, told};
use hull_image::{Cause, Error, Registry as Settings, Unreachable};
use hull_tests::image::Image;
use hull_tests::layer::Layer;
use hull_tests::registry::Registry;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::json;
use std::path::Path;
use std::process::Command;

/// Makes certificates with `openssl`.
fn openssl(dir: &Path, script: &str) {
    let made = Command::new("sh").args(["-ec", script]).current_dir(dir).output().unwrap();
    assert!(made.status.success(), "{script}: {}", String::from_utf8_lossy(&made.stderr));
}

/// A certificate as most people make one: without a word about it, openssl makes that of a CA.
fn self_signed(dir: &Path, address: &str, more: &str) {
    openssl(
        dir,
        &format!(
            "openssl req -x509 -newkey rsa:2048 -nodes -keyout own.key -out own.pem -days 2 -subj /CN=registry \
             -addext subjectAltName=IP:{address} {more}"
        ),
    );
}

/// Why a pull from a server with the certificate `dir/own.pem` fails, where `ca_file` is trusted for it, and the
/// certificate itself for another registry; `None` if it only lacks the image.
async fn failure(dir: &Path, ca_file: &str) -> Option<(Unreachable, String)> {
    failure_by(dir, ca_file, "own.pem").await
}

/// The same with another certificate for the other registry.
async fn failure_by(dir: &Path, ca_file: &str, of_other: &str) -> Option<(Unreachable, String)> {
    let _chosen_already = rustls::crypto::ring::default_provider().install_default();
    let chain = vec![CertificateDer::from_pem_file(dir.join("own.pem")).unwrap()];
    let key = PrivateKeyDer::from_pem_file(dir.join("own.key")).unwrap();
    let config = rustls::ServerConfig::builder().with_no_client_auth();
    let config = config.with_single_cert(chain, key).unwrap();
    let fake = Fake::start_tls(config, |_| Answer::of(404, ""));
    let registries = [(fake.host.as_str(), ca_file), ("reg.example.org", of_other)];
    let trusting = |(host, file): (&str, &str)| Settings {
        host: host.into(),
        ca_file: Some(dir.join(file)),
        ..Default::default()
    };
    let registries = registries.into_iter().map(trusting).collect();
    let error =
        TestStore::with(registries).pull(&format!("{}/a/b:1", fake.host)).await.unwrap_err();
    if let Error::Pull { source: Cause::Unreachable { kind, .. }, .. } = &error {
        return Some((*kind, told(&error)));
    }
    // Anything else is about the CA file itself.
    let lacks_image = matches!(&error, Error::Pull { source: Cause::NotFound { .. }, .. });
    (!lacks_image).then(|| (Unreachable::Other, told(&error)))
}

#[tokio::test]
async fn a_registry_with_a_self_signed_certificate_is_trusted_by_its_ca_file() {
    if !can_run("a_registry_with_a_self_signed_certificate_is_trusted_by_its_ca_file") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let image = Image::new(vec![Layer::new().file("x", 0o644, "x").tar()], json!({})).pack();
    let plain = Registry::start_kept(dir.path());
    plain.push("a/b", "1", &image);
    drop(plain);
    self_signed(dir.path(), "127.0.0.1", "");
    openssl(dir.path(), "openssl x509 -in own.pem -noout -text | grep CA:TRUE");
    let registry = Registry::start_tls(dir.path());
    let name = format!("{}/a/b:1", registry.host);
    let ca_file = Some(dir.path().join("own.pem"));
    let settings = Settings { host: registry.host.clone(), ca_file, ..Default::default() };
    let by_setting = TestStore::with(vec![settings]);
    let pulled = by_setting.pull(&name).await;
    assert_eq!(pulled.unwrap_or_else(|err| panic!("{}", told(&err))).id, image.id());
    // In containerd's layout: a file in the registry's directory, or one that hosts.toml names.
    for (file, hosts) in [("ca.crt", ""), ("x.pem", "hosts.toml")] {
        let settings = tempfile::tempdir().unwrap();
        let own = settings.path().join(&registry.host);
        std::fs::create_dir(&own).unwrap();
        std::fs::copy(dir.path().join("own.pem"), own.join(file)).unwrap();
        if !hosts.is_empty() {
            let text = format!("server = \"https://{}\"\nca = \"{file}\"\n", registry.host);
            std::fs::write(own.join(hosts), text).unwrap();
        }
        let path = settings.path().to_owned();
        let by_layout = TestStore::configured(|config| config.remote.config_path = Some(path));
        by_layout.pull(&name).await.unwrap_or_else(|err| panic!("{file}: {}", told(&err)));
    }
}

#[tokio::test]
async fn a_certificate_is_trusted_as_it_is_for_its_name_and_time() {
    if !can_run("a_certificate_is_trusted_as_it_is_for_its_name_and_time") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path();
    for more in ["", "-addext basicConstraints=CA:FALSE", "-addext extendedKeyUsage=serverAuth"] {
        self_signed(path, "127.0.0.1", more);
        assert_eq!(failure(path, "own.pem").await, None, "{more}");
    }
    self_signed(path, "127.0.0.2", "");
    assert_eq!(failure(path, "own.pem").await.unwrap().0, Unreachable::OtherName);

    // Issued once more with the same key, it is another certificate.
    self_signed(path, "127.0.0.1", "");
    openssl(
        path,
        "cp own.pem first.pem; openssl req -x509 -key own.key -out own.pem -days 2 -subj /CN=registry \
         -addext subjectAltName=IP:127.0.0.1 -set_serial 7",
    );
    assert_eq!(failure(path, "first.pem").await.unwrap().0, Unreachable::Certificate);

    // Signed by a CA that nobody knows; then one that has ended.
    for (days, kind) in [(2, None), (-1, Some(Unreachable::Expired))] {
        for constraint in ["CA:TRUE", "CA:FALSE"] {
            openssl(
                path,
                &format!(
                    "openssl req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -days 2 -subj /CN=ca
                     printf 'subjectAltName=IP:127.0.0.1\nbasicConstraints={constraint}\n' > extensions
                     openssl req -newkey rsa:2048 -nodes -keyout own.key -out own.csr -subj /CN=registry
                     openssl x509 -req -in own.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out own.pem \
                       -days {days} -extfile extensions"
                ),
            );
            let failed = failure(path, "own.pem").await;
            assert_eq!(failed.as_ref().map(|of| of.0), kind, "{constraint} {days}: {failed:?}");
        }
    }
}

/// The key of one server does not make a CA: of a CA file, only a CA's certificate may sign others.
#[tokio::test]
async fn a_certificate_that_is_not_of_a_ca_signs_no_others() {
    if !can_run("a_certificate_that_is_not_of_a_ca_signs_no_others") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path();
    for (extensions, is_ca) in [
        ("-addext basicConstraints=CA:TRUE", true),
        ("-addext basicConstraints=CA:TRUE -addext keyUsage=keyCertSign", true),
        ("-addext basicConstraints=CA:FALSE", false),
        ("-addext basicConstraints=critical,CA:FALSE -addext keyUsage=digitalSignature", false),
        ("-addext basicConstraints=CA:TRUE -addext keyUsage=digitalSignature", false),
        // A usage that is not one: BOOLEAN, and no bits.
        ("-addext basicConstraints=CA:FALSE -addext 2.5.29.15=DER:0101FF", false),
        ("-addext basicConstraints=CA:FALSE -addext 2.5.29.15=DER:0300", false),
        // A constraint that is not one: TRUE is 255 in DER.
        ("-addext 2.5.29.19=DER:3003010101", false),
    ] {
        self_signed(path, "127.0.0.1", extensions);
        if !extensions.contains("DER:") {
            let own = failure(path, "own.pem").await;
            assert_eq!(own, None, "{extensions}: as the server's own");
        }
        openssl(
            path,
            "mv own.pem leaf.pem; mv own.key leaf.key
             printf 'subjectAltName=IP:127.0.0.1\nbasicConstraints=CA:FALSE\n' > extensions
             openssl req -newkey rsa:2048 -nodes -keyout own.key -out own.csr -subj /CN=other
             openssl x509 -req -in own.csr -CA leaf.pem -CAkey leaf.key -CAcreateserial -out own.pem -days 2 \
               -extfile extensions",
        );
        let failed = failure_by(path, "leaf.pem", "leaf.pem").await;
        assert_eq!(failed.is_some(), !is_ca, "{extensions}: {failed:?}");
    }
}
