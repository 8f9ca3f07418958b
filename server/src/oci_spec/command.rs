// SPDX-License-Identifier: Apache-2.0
//! Arguments, environment and working directory: merged from config and image.

use super::Error;
use ::oci_spec::image::ImageConfiguration;
use hull_proto::cri;

const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The arguments of the process. A command in the config replaces entrypoint and arguments of the image; arguments
/// alone replace only the image's arguments.
pub(crate) fn args(
    config: &cri::ContainerConfig,
    image: &ImageConfiguration,
) -> Result<Vec<String>, Error> {
    let of_image = image.config().as_ref();
    let list = |of: Option<&Option<Vec<String>>>| of.cloned().flatten().unwrap_or_default();
    let (mut args, rest) = if config.command.is_empty() {
        let cmd = list(of_image.map(oci_spec::image::Config::cmd));
        let rest = if config.args.is_empty() { cmd } else { config.args.clone() };
        (list(of_image.map(oci_spec::image::Config::entrypoint)), rest)
    } else {
        (config.command.clone(), config.args.clone())
    };
    args.extend(rest);
    if args.first().is_none_or(String::is_empty) {
        return Err(Error::NoCommand);
    }
    Ok(args)
}

/// The environment: the image's, then the config's. Later values replace earlier ones.
pub(super) fn env(
    config: &cri::ContainerConfig,
    image: &ImageConfiguration,
    hostname: &str,
    home: &str,
) -> Result<Vec<String>, Error> {
    let mut env: Vec<String> = vec![DEFAULT_PATH.into()];
    if !hostname.is_empty() {
        set(&mut env, "HOSTNAME", hostname);
    }
    if config.tty {
        set(&mut env, "TERM", "xterm");
    }
    let of_image = image.config().as_ref().and_then(|of| of.env().clone()).unwrap_or_default();
    for entry in &of_image {
        if let Some((name, value)) = entry.split_once('=') {
            set(&mut env, name, value);
        }
    }
    for pair in &config.envs {
        let value = std::str::from_utf8(&pair.value).map_err(|_| Error::Bad {
            field: "config.envs",
            value: pair.key.clone(),
            why: "its value is not text",
        })?;
        check_variable("config.envs", &pair.key, value)?;
        set(&mut env, &pair.key, value);
    }
    if !home.is_empty() && env.iter().all(|entry| !entry.starts_with("HOME=")) {
        env.push(format!("HOME={home}"));
    }
    Ok(env)
}

/// Refuses a variable that is not possible in an environment, `environ(7)`.
pub(crate) fn check_variable(field: &'static str, name: &str, value: &str) -> Result<(), Error> {
    let bad = |why| Err(Error::Bad { field, value: name.to_owned(), why });
    if name.is_empty() || name.contains(['=', '\0']) {
        return bad("it is not the name of a variable");
    }
    if value.contains('\0') {
        return bad("its value contains a NUL");
    }
    Ok(())
}

fn set(env: &mut Vec<String>, name: &str, value: &str) {
    let entry = format!("{name}={value}");
    let prefix = &entry[..=name.len()];
    match env.iter_mut().find(|have| have.starts_with(prefix)) {
        Some(have) => *have = entry,
        None => env.push(entry),
    }
}

/// The working directory: the config's, else the image's, else `/`.
pub(super) fn cwd(config: &cri::ContainerConfig, image: &ImageConfiguration) -> String {
    let of_image =
        image.config().as_ref().and_then(|of| of.working_dir().clone()).unwrap_or_default();
    let cwd = if config.working_dir.is_empty() { of_image } else { config.working_dir.clone() };
    if cwd.starts_with('/') { cwd } else { format!("/{cwd}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(json: &str) -> ImageConfiguration {
        serde_json::from_str(&format!(
            r#"{{"architecture":"amd64","os":"linux","rootfs":{{"type":"layers","diff_ids":[]}},"config":{json}}}"#
        ))
        .unwrap()
    }

    #[test]
    fn command_and_args_replace_what_the_image_has() {
        let of_image = image(r#"{"Entrypoint":["/entry"],"Cmd":["a","b"]}"#);
        let made = |command: &[&str], given: &[&str]| {
            let list = |of: &[&str]| of.iter().map(ToString::to_string).collect();
            let config = cri::ContainerConfig {
                command: list(command),
                args: list(given),
                ..Default::default()
            };
            args(&config, &of_image).unwrap().join(" ")
        };
        assert_eq!(made(&[], &[]), "/entry a b");
        assert_eq!(made(&[], &["x"]), "/entry x");
        assert_eq!(made(&["sh"], &[]), "sh");
        assert_eq!(made(&["sh"], &["-c"]), "sh -c");
        args(&cri::ContainerConfig::default(), &image("{}")).unwrap_err();
    }

    #[test]
    fn the_configs_environment_wins() {
        let of_image = image(r#"{"Env":["A=1","PATH=/opt"]}"#);
        let envs = vec![cri::KeyValue { key: "A".into(), value: b"2".to_vec() }];
        let config = cri::ContainerConfig { envs, ..Default::default() };
        let env = env(&config, &of_image, "web", "/root").unwrap();
        assert_eq!(env, ["PATH=/opt", "HOSTNAME=web", "A=2", "HOME=/root"]);
    }
}
