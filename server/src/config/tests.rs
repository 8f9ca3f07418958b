// SPDX-License-Identifier: Apache-2.0
//! Merging, origins and messages as values, and the freshness of the generated texts.

use super::{Config, Driver, Origin, default_file, keys, load, reference};
use std::fs;
use std::path::{Path, PathBuf};

fn written(files: &[(&str, &str)]) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let main = dir.path().join("config.toml");
    (dir, main)
}

#[test]
fn nothing_set_gives_the_defaults() {
    let (_dir, main) = written(&[("config.toml", "")]);
    let loaded = load(Some(&main), &[]).unwrap();
    assert_eq!(loaded.config, Config::default());
    assert!(loaded.origins.is_empty());
}

#[test]
fn the_default_file_reads_back_as_the_defaults() {
    let (_dir, main) = written(&[("config.toml", &default_file())]);
    assert_eq!(load(Some(&main), &[]).unwrap().config, Config::default());
}

#[test]
fn the_default_file_stays_right_when_everything_is_uncommented() {
    let text = default_file();
    let uncommented: String = text
        .lines()
        .map(|line| match line.strip_prefix("# ") {
            Some(rest) if rest.contains(" = ") || rest.starts_with('[') => format!("{rest}\n"),
            _ => format!("{line}\n"),
        })
        .collect();
    let (_dir, main) = written(&[("config.toml", &uncommented)]);
    let config = load(Some(&main), &[]).unwrap().config;
    assert_eq!(config.network.mtu, Some(1450));
    assert_eq!(config.image.registry[0].host, "registry.example:5000");
    assert_eq!(config.runtime.handlers["sandboxed"].pids_max, Some(512));
}

#[test]
fn every_default_is_in_the_table_of_keys() {
    fn paths(table: &toml::Table, prefix: &str, out: &mut Vec<String>) {
        for (key, value) in table {
            if let toml::Value::Table(inner) = value {
                paths(inner, &format!("{prefix}{key}."), out);
            } else {
                out.push(format!("{prefix}{key}"));
            }
        }
    }
    let mut found = Vec::new();
    paths(&toml::Table::try_from(Config::default()).unwrap(), "", &mut found);
    found.retain(|key| key != keys::REGISTRY);
    for key in found {
        assert!(keys::KEYS.iter().any(|known| known.name == key), "`{key}` has no doc in keys.rs");
    }
}

#[test]
fn the_config_page_is_fresh() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/config.md");
    if std::env::var_os("HULL_BLESS").is_some() {
        fs::write(&page, reference::markdown()).unwrap();
    }
    let have = fs::read_to_string(&page).unwrap();
    assert!(
        have == reference::markdown(),
        "docs/config.md is stale: run this test with HULL_BLESS=1"
    );
}

#[test]
fn a_later_file_wins_and_is_named_as_the_origin() {
    let (dir, main) = written(&[
        ("config.toml", "data_dir = \"/srv/a\"\n[log]\nlevel = \"warn\"\n"),
        ("config.toml.d/20-b.toml", "\n[log]\nlevel = \"debug\"\n"),
        ("config.toml.d/10-a.toml", "[log]\nlevel = \"error\"\nformat = \"json\"\n"),
        ("config.toml.d/30-off.conf", "nonsense"),
    ]);
    let loaded = load(Some(&main), &[]).unwrap();
    assert_eq!(loaded.config.log.level, "debug");
    let from = Origin::File { path: dir.path().join("config.toml.d/20-b.toml"), line: 3 };
    assert_eq!(loaded.origins["log.level"], from);
    let shown = loaded.shown();
    assert!(shown.contains("level = \"debug\"  # from "), "{shown}");
    assert!(shown.contains("20-b.toml:3"), "{shown}");
    assert!(shown.contains("socket = \"/run/hull/hull.sock\"  # from the defaults"), "{shown}");
    let (_dir, again) = written(&[("config.toml", &shown)]);
    assert_eq!(load(Some(&again), &[]).unwrap().config, loaded.config);
}

#[test]
fn the_command_line_comes_last() {
    let (_dir, main) = written(&[("config.toml", "[network]\nmtu = 9000\n")]);
    let set = ["network.mtu=1450".into(), "log.level=trace".into(), "image.pinned=[\"a\"]".into()];
    let loaded = load(Some(&main), &set).unwrap();
    assert_eq!(loaded.config.network.mtu, Some(1450));
    assert_eq!(loaded.config.log.level, "trace");
    assert_eq!(loaded.config.image.pinned, ["a"]);
    assert_eq!(loaded.origins["network.mtu"], Origin::Flag);
    for bad in ["network.mtu", "=3", "a b=3"] {
        load(Some(&main), &[bad.into()]).unwrap_err();
    }
}

#[test]
fn registries_of_all_files_add_up() {
    let (_dir, main) = written(&[
        ("config.toml", "[[image.registry]]\nhost = \"a\"\n"),
        ("config.toml.d/b.toml", "\n\n[[image.registry]]\nhost = \"b\"\nplain_http = true\n"),
    ]);
    let loaded = load(Some(&main), &[]).unwrap();
    let hosts: Vec<_> = loaded.config.image.registry.iter().map(|of| of.host.as_str()).collect();
    assert_eq!(hosts, ["a", "b"]);
    assert!(loaded.origins["image.registry.1"].to_string().ends_with("b.toml:3"), "{loaded:?}");
}

#[test]
fn an_unknown_key_names_file_line_and_the_nearest() {
    for (text, line, nearest) in [
        ("[network]\n\npod_cdir = [\"10.0.0.0/8\"]\n", 3, Some("network.pod_cidr")),
        ("statedir = \"/x\"\n", 1, Some("state_dir")),
        ("[runtime]\nlevel = \"info\"\n", 2, Some("log.level")),
        (
            "[[image.registry]]\nhost = \"a\"\nplainhttp = true\n",
            3,
            Some("image.registry.plain_http"),
        ),
        ("[entirely]\ndifferent = 1\n", 2, None),
    ] {
        let (_dir, main) = written(&[("config.toml", text)]);
        let err = load(Some(&main), &[]).unwrap_err();
        assert!(err.to_string().contains(&format!("config.toml:{line}: unknown setting")), "{err}");
        match nearest {
            Some(nearest) => assert_eq!(err.hint().unwrap(), format!("did you mean `{nearest}`?")),
            None => assert!(err.hint().unwrap().contains("config default"), "{:?}", err.hint()),
        }
    }
}

#[test]
fn a_wrong_value_names_file_and_line() {
    for (text, line) in [
        ("[network]\nmtu = \"big\"\n", 2),
        ("[network]\npod_cidr = [\"10.88.0.0\"]\n", 2),
        ("\n[log]\nformat = \"xml\"\n", 3),
        ("[network]\n\npod_cidr = []\n", 3),
        ("[network]\npod_cidr = [\"10.0.0.1/32\"]\n", 2),
        ("[network]\npod_cidr = [\"fd00::/127\"]\n", 2),
        ("\n[log]\nlevel = \"info,hull::pods=debug\"\n", 3),
        ("[[image.registry]]\nhost = \"a\"\nmirrors = [\n\"mirror.example\"]\n", 4),
        ("[[image.registry]]\nhost = \"a\"\nmirrors = [\"https://\"]\n", 3),
        ("[runtime]\nshm_bytes = \"64 bananas\"\n", 2),
        ("[network]\npod_cidr = [\"10.0.0.0/24\"]\nwait_for_pod_cidr = true\n", 3),
        ("[network]\ncluster_cidrs = [\"10.244.0.0\"]\n", 2),
        ("[runtime]\nshm_bytes = 0\n", 2),
        ("socket = \"hull.sock\"\n", 1),
        ("state_dir = \"/var/run/a/rather/deep/place\"\n", 1),
        ("[cgroup]\nparent = \"/a/../b\"\n", 2),
        ("[log\n", 1),
    ] {
        let (_dir, main) = written(&[("config.toml", text)]);
        let err = load(Some(&main), &[]).unwrap_err();
        assert!(err.to_string().contains(&format!("config.toml:{line}: ")), "{text}: {err}");
    }
}

#[test]
fn an_address_that_is_a_name_is_refused_with_what_is_expected() {
    let text = "[metrics]\naddress = \"localhost:9999\"\n";
    let (_dir, main) = written(&[("config.toml", text)]);
    let said = load(Some(&main), &[]).unwrap_err().to_string();
    assert!(said.contains("config.toml:2: it is the string \"localhost:9999\""), "{said}");
    assert!(said.contains("must be an IP address and a port, as in \""), "{said}");
}

#[test]
fn what_is_not_a_file_is_refused_with_advice_and_the_null_device_is_empty() {
    let (_dir, main) = written(&[("config.toml", "")]);
    fs::remove_file(&main).unwrap();
    std::os::unix::fs::symlink("/dev/zero", &main).unwrap();
    let err = load(Some(&main), &[]).unwrap_err();
    assert!(err.hint().is_some_and(|hint| hint.contains("at most 1 MiB")), "{err:?}");
    load(Some(Path::new("/dev/null")), &[]).unwrap();
}

#[test]
fn names_that_begin_with_a_dot_are_not_drop_in_files() {
    let (_dir, main) = written(&[
        ("config.toml", ""),
        ("config.toml.d/.hidden.toml", "nonsense"),
        ("config.toml.d/.toml", "nonsense"),
        ("config.toml.d/a.toml", "[network]\nmtu = 1400\n"),
    ]);
    assert_eq!(load(Some(&main), &[]).unwrap().config.network.mtu, Some(1400));
}

#[test]
fn an_mtu_that_links_cannot_have_is_refused_with_its_range() {
    let v6 = "pod_cidr = [\"fd00:10::/64\"]\n";
    for (mtu, subnets, range) in [
        (10, "", "68 to 65535 bytes"),
        (67, "", "68 to 65535 bytes"),
        (65_536, "", "68 to 65535 bytes"),
        (70_000, v6, "1280 to 65535 bytes"),
        (1_279, v6, "1280 to 65535 bytes, as `network.pod_cidr` has an IPv6 subnet"),
    ] {
        let text = format!("[network]\nmtu = {mtu}\n{subnets}");
        let (_dir, main) = written(&[("config.toml", &text)]);
        let said = load(Some(&main), &[]).unwrap_err().to_string();
        assert!(said.contains(&format!("config.toml:2: {mtu} is not within {range}")), "{said}");
        assert!(said.contains("`network.mtu`"), "{said}");
    }
    for (mtu, subnets) in [(68, ""), (1_279, ""), (65_535, v6), (1_280, v6)] {
        let text = format!("[network]\nmtu = {mtu}\n{subnets}");
        let (_dir, main) = written(&[("config.toml", &text)]);
        load(Some(&main), &[]).unwrap();
    }
}

#[test]
fn an_account_in_a_mirror_is_refused_and_not_shown() {
    for (mirrors, line) in [
        ("[\n\"http://b\",\n\"https://me:hunter2@mirror.example\"]", 5),
        ("\"me:hunter2@mirror.example\"", 3),
    ] {
        let text = format!(
            "[[image.registry]]\nhost = \"a\"\nmirrors = {mirrors}\n[[image.registry]]\nhost = \"b\"\nmirrors = []\n"
        );
        let (_dir, main) = written(&[("config.toml", &text)]);
        let said = load(Some(&main), &[]).unwrap_err().to_string();
        assert!(said.contains("`image.registry.mirrors`"), "{said}");
        assert!(said.contains(&format!("config.toml:{line}: ")), "{said}");
        assert!(said.contains("@mirror.example") && !said.contains("hunter2"), "{said}");
    }
}

#[test]
fn a_value_of_another_type_names_key_value_and_what_is_expected() {
    for (text, line, wanted, hint) in [
        (
            "[image]\n\nconcurrent_layers = \"4\"\n",
            3,
            "`image.concurrent_layers`: the string \"4\", a whole number",
            "`concurrent_layers = 4` under `[image]`",
        ),
        (
            "[image]\nlayer_bytes_max = \"128Q\"\n",
            2,
            "`image.layer_bytes_max`: its unit is none of k, the string \"128Q\", a whole number of bytes, such as \"64m\"",
            "`layer_bytes_max = ",
        ),
        (
            "[network]\nmtu = 1.5\n",
            2,
            "`network.mtu`: the number 1.5, a whole number",
            "mtu = 1450",
        ),
        ("[network]\nmtu = -1\n", 2, "`network.mtu`: -1, less than 0, a whole number", "1450"),
        ("[network]\nmtu = 99999999999\n", 2, "`network.mtu`: 99999999999, too large", ""),
        ("[image]\nstall_s = 99999999999999999999\n", 2, "`image.stall_s`: too large", ""),
        ("[network]\nmasquerade = \"yes\"\n", 2, "`network.masquerade`: true or false", "= true"),
        (
            "data_dir = 5\n",
            1,
            "`data_dir`: the number 5, a string",
            "`data_dir = \"/var/lib/hull\"`",
        ),
        ("data_dir = []\n", 1, "`data_dir`: a list, a string", ""),
        ("[image]\npinned = \"a\"\n", 2, "`image.pinned`: the string \"a\", a list of strings", ""),
        (
            "[network]\npod_cidr = [\n\"10.0.0.0/24\",\n5]\n",
            4,
            "`network.pod_cidr`: entry 2, the number 5, a string",
            "",
        ),
        ("[log.level]\n", 1, "`log.level`: a section, a string", "under `[log]`"),
        ("network = 3\n", 1, "`network`: the number 3, name of a section", "`[network]`"),
        ("[[network]]\nmtu = 1450\n", 1, "`network`: a list, name of a section", "`[network]`"),
        ("[image.registry]\nhost = \"a\"\n", 1, "`image.registry`: a section, list", "[image]"),
        ("[image]\nregistry = [\"a\"]\n", 2, "`image.registry`: the string \"a\", entry", ""),
        (
            "[[image.registry]]\nhost = \"a\"\nplain_http = 1\n",
            3,
            "`image.registry.plain_http`: the number 1, true or false",
            "under `[[image.registry]]`",
        ),
        ("[log]\nformat = \"xml\"\n", 2, "`log.format`: `xml`, must be `text` or `json`", ""),
    ] {
        let (_dir, main) = written(&[("config.toml", text)]);
        let err = load(Some(&main), &[]).unwrap_err();
        let said = err.to_string();
        assert!(said.contains(&format!("config.toml:{line}: ")), "{text}: {said}");
        let (key, words) = wanted.split_once(": ").unwrap();
        assert!(said.contains(key), "{text}: {said}");
        for word in words.split(", ") {
            assert!(said.contains(word), "{word} of {text}: {said}");
        }
        for rust in ["usize", "u64", "u32", "invalid type", "sequence"] {
            let (_, words) = said.rsplit_once("config.toml:").unwrap();
            assert!(!words.contains(rust), "{text}: {said}");
        }
        assert!(err.hint().unwrap().contains(hint), "{text}: {:?}", err.hint());
    }
}

#[test]
fn a_setting_of_the_command_line_with_another_type_is_named() {
    let (_dir, main) = written(&[("config.toml", "")]);
    let set = |setting: &str| load(Some(&main), &[setting.to_owned()]);
    for (setting, words) in [
        ("image.concurrent_layers=many", ["`image.concurrent_layers`", "\"many\"", "whole number"]),
        ("network.masquerade=1", ["`network.masquerade`", "the number 1", "true or false"]),
        ("image.pinned=a", ["`image.pinned`", "\"a\"", "a list of strings"]),
        ("network.mtu=10", ["`network.mtu`", "10 is not within", "the command line"]),
    ] {
        let err = set(setting).unwrap_err();
        let said = format!("{err} {}", err.hint().unwrap());
        assert!(words.into_iter().all(|word| said.contains(word)), "{setting}: {said}");
    }
    let hint = set("image.concurrent_layers=many").unwrap_err().hint().unwrap();
    assert_eq!(hint, "for example --set 'image.concurrent_layers=4'");
    // What takes a string needs no quotes, whatever it looks like.
    assert_eq!(set("network.bridge=5").unwrap().config.network.bridge, "5");
    assert_eq!(set("network.bridge=\"br5\"").unwrap().config.network.bridge, "br5");
}

#[test]
fn sizes_have_units() {
    let text = "[runtime]\nshm_bytes = \"128m\"\ncall_memory_bytes_max = \"1Gi\"\n[image]\nlayer_bytes_max = 4096\n";
    let (_dir, main) = written(&[("config.toml", text)]);
    let config = load(Some(&main), &["image.archive_bytes_max=1.5t".into()]).unwrap().config;
    assert_eq!(config.runtime.shm_bytes, 128 << 20);
    assert_eq!(config.runtime.call_memory_bytes_max, 1 << 30);
    assert_eq!(config.image.layer_bytes_max, 4096);
    assert_eq!(config.image.archive_bytes_max, 3 << 39);
}

#[test]
fn a_slice_is_a_parent_for_the_systemd_driver_only() {
    let config = |driver: &str| format!("[cgroup]\ndriver = {driver:?}\nparent = \"pods.slice\"\n");
    let (_dir, main) = written(&[("config.toml", &config("systemd"))]);
    assert_eq!(load(Some(&main), &[]).unwrap().config.cgroup.driver, Driver::Systemd);
    let (_dir, main) = written(&[("config.toml", &config("cgroupfs"))]);
    let err = load(Some(&main), &[]).unwrap_err();
    assert!(err.to_string().contains("cgroup.parent"), "{err}");
    assert_eq!(Config::default().cgroup.driver, Driver::Auto);
}

#[test]
fn a_file_that_was_asked_for_must_be_there() {
    load(Some(Path::new("/does/not/exist.toml")), &[]).unwrap_err();
}

#[test]
fn metrics_over_tcp_need_tls_where_other_machines_can_connect() {
    let loaded = |text: &str| {
        let (_dir, main) = written(&[("config.toml", &format!("[metrics]\n{text}\n"))]);
        load(Some(&main), &[]).map(|loaded| loaded.config.metrics).map_err(|err| err.to_string())
    };
    let tls = "tls_cert = \"/c\"\ntls_key = \"/k\"\nclient_ca = \"/a\"";
    for fine in [
        "address = \"127.0.0.1:9477\"".to_owned(),
        "address = \"[::1]:9477\"".to_owned(),
        format!("address = \"0.0.0.0:9477\"\n{tls}"),
        format!("address = \"127.0.0.1:9477\"\n{tls}"),
    ] {
        assert!(loaded(&fine).unwrap().address.is_some(), "{fine}");
    }
    for (wrong, key) in [
        ("address = \"0.0.0.0:9477\"".to_owned(), "metrics.address"),
        ("address = \"10.0.0.1:9477\"\ntls_cert = \"/c\"".to_owned(), "metrics.tls_key"),
        (format!("address = \"[::]:1\"\n{}", tls.replace("/a", "a")), "metrics.client_ca"),
        (tls.to_owned(), "metrics.address"),
    ] {
        let why = loaded(&wrong).unwrap_err();
        assert!(why.contains(key), "{wrong}: {why}");
    }
}
