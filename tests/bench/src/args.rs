// SPDX-License-Identifier: Apache-2.0
//! The command line of `cri-bench`.

use crate::size::Size;
use crate::target::Endpoint;
use crate::work::Work;
use clap::Parser;
use std::path::PathBuf;

/// Compares container runtimes: does the same work over each CRI socket, in turn, and prints medians,
/// 95th percentiles and ratios.
///
/// It starts no runtime and needs root on the node. The nth --label, --cgroup, --cgroup-parent and
/// --restart belong to the nth --endpoint: give each as often as --endpoint or not at all. Pods are in
/// the Kubernetes namespace `cri-bench` and are removed at the end. docs/bench.md says what each figure means.
#[derive(Debug, Parser)]
#[command(name = "cri-bench", version)]
pub struct Args {
    /// CRI socket of a runtime; the first one is what others are compared with.
    #[arg(long = "endpoint", value_name = "SOCKET")]
    pub endpoints: Vec<String>,
    /// Name of the runtime in the report [default: the runtime's name].
    #[arg(long = "label", value_name = "NAME")]
    pub labels: Vec<String>,
    /// Cgroup that holds the runtime's processes, and another after a comma. Without it, no CPU time is reported.
    #[arg(long = "cgroup", value_name = "PATH[,PATH]")]
    pub cgroups: Vec<String>,
    /// Parent cgroup to ask for, for pods (with the systemd driver a slice).
    #[arg(long = "cgroup-parent", value_name = "PATH")]
    pub cgroup_parents: Vec<String>,
    /// Command that restarts the daemon, for the work `restart`.
    #[arg(long = "restart", value_name = "COMMAND")]
    pub restarts: Vec<String>,
    /// An image with busybox's tools.
    #[arg(long, value_name = "REFERENCE", default_value = "docker.io/library/busybox:latest")]
    pub image: String,
    /// Images for cold pulls, which no endpoint has: as many for each round.
    #[arg(long = "pull-image", value_name = "REFERENCE")]
    pub pull_images: Vec<String>,
    /// Works to do [default: all that the options above allow].
    #[arg(long, value_delimiter = ',', value_name = "WORK,…")]
    pub only: Vec<Work>,
    /// Works to leave out.
    #[arg(long, value_delimiter = ',', value_name = "WORK,…")]
    pub skip: Vec<Work>,
    /// A look at everything with little of it; the figures mean nothing.
    #[arg(long)]
    pub quick: bool,
    /// Times that all is done [default: 3].
    #[arg(long)]
    pub rounds: Option<usize>,
    /// Numbers of pods at which memory is measured.
    #[arg(long, value_delimiter = ',', value_name = "N,…")]
    pub memory_at: Vec<usize>,
    /// Numbers of containers to ask lists at.
    #[arg(long, value_delimiter = ',', value_name = "N,…")]
    pub lists_at: Vec<usize>,
    /// Numbers of pods to restart beneath.
    #[arg(long, value_delimiter = ',', value_name = "N,…")]
    pub restart_at: Vec<usize>,
    /// Numbers of pods to start one more beside.
    #[arg(long, value_delimiter = ',', value_name = "N,…")]
    pub growth_at: Vec<usize>,
    /// Leave out the kernel floor.
    #[arg(long)]
    pub no_floor: bool,
    /// Where the pods' logs go, on the disk that is to be measured; removed at the end.
    #[arg(long, value_name = "DIR")]
    pub logs: Option<PathBuf>,
    /// Write all samples there, as JSON.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Write a chart for each metric there, as SVG.
    #[arg(long, value_name = "DIR")]
    pub svg: Option<PathBuf>,
    /// Be the bare program of the kernel floor.
    #[arg(long, hide = true, value_name = "LIVES")]
    pub be_the_floor: Option<usize>,
}

impl Args {
    /// The endpoints with what belongs to each, or what is wrong with the options.
    ///
    /// # Errors
    /// A sentence for the user.
    pub fn endpoints(&self) -> Result<Vec<Endpoint>, String> {
        let count = self.endpoints.len();
        if count == 0 {
            return Err("give at least one --endpoint".into());
        }
        for (option, given) in [
            ("--label", self.labels.len()),
            ("--cgroup", self.cgroups.len()),
            ("--cgroup-parent", self.cgroup_parents.len()),
            ("--restart", self.restarts.len()),
        ] {
            if given != 0 && given != count {
                return Err(format!(
                    "{option} is there {given} times and --endpoint {count} times: give it for each or for none"
                ));
            }
        }
        let at = |of: &[String], number: usize| of.get(number).cloned().unwrap_or_default();
        let endpoint = |(number, socket): (usize, &String)| Endpoint {
            label: at(&self.labels, number),
            socket: socket.trim_start_matches("unix://").into(),
            cgroups: split(&at(&self.cgroups, number)),
            cgroup_parent: at(&self.cgroup_parents, number),
            restart: Some(at(&self.restarts, number)).filter(|command| !command.is_empty()),
        };
        Ok(self.endpoints.iter().enumerate().map(endpoint).collect())
    }

    /// How much is to be done.
    #[must_use]
    pub fn size(&self) -> Size {
        let mut size = if self.quick { Size::quick() } else { Size::full() };
        if let Some(rounds) = self.rounds {
            size.rounds = rounds.max(1);
        }
        for (asked, default) in [
            (&self.memory_at, &mut size.memory_at),
            (&self.lists_at, &mut size.lists_at),
            (&self.restart_at, &mut size.restart_at),
            (&self.growth_at, &mut size.growth_at),
        ] {
            if !asked.is_empty() {
                default.clone_from(asked);
                // Pods are added, never taken away, on the way from one number to the next.
                default.sort_unstable();
            }
        }
        size
    }

    /// The works to do: those named, else all that can be done with what was given.
    #[must_use]
    pub fn works(&self) -> Vec<Work> {
        let lacks = [
            (Work::Restart, self.restarts.is_empty()),
            (Work::Pull, self.pull_images.is_empty()),
            (Work::Idle, self.cgroups.is_empty()),
        ];
        let can = |work: &Work| !lacks.contains(&(*work, true));
        let wanted = |work: &Work| {
            if self.only.is_empty() { can(work) } else { self.only.contains(work) }
        };
        let mut works: Vec<Work> = Work::ALL.into_iter().filter(wanted).collect();
        works.retain(|work| !self.skip.contains(work));
        works
    }
}

fn split(paths: &str) -> Vec<String> {
    paths.split(',').filter(|path| !path.is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Args {
        Args::try_parse_from(line.split(' ')).unwrap()
    }

    #[test]
    fn what_belongs_to_an_endpoint_is_found_by_its_place() {
        let args = parse(
            "cri-bench --endpoint unix:///a --endpoint /b --label A --label B --cgroup x,y --cgroup z",
        );
        let endpoints = args.endpoints().unwrap();
        assert_eq!(endpoints[0].socket, PathBuf::from("/a"));
        assert_eq!(endpoints[0].cgroups, ["x", "y"]);
        assert_eq!((endpoints[1].label.as_str(), endpoints[1].cgroups.len()), ("B", 1));
        assert_eq!(endpoints[1].restart, None);
    }

    #[test]
    fn an_option_for_some_endpoints_only_is_refused() {
        let said =
            parse("cri-bench --endpoint /a --endpoint /b --label A").endpoints().unwrap_err();
        assert!(said.contains("--label is there 1 times"), "{said}");
    }

    #[test]
    fn what_lacks_its_option_is_not_done_unless_it_is_named() {
        let works = parse("cri-bench --endpoint /a").works();
        assert!(!works.contains(&Work::Restart) && works.contains(&Work::Pods));
        assert_eq!(parse("cri-bench --endpoint /a --only restart").works(), [Work::Restart]);
    }
}
