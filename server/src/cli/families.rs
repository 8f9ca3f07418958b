// SPDX-License-Identifier: Apache-2.0
//! Runs the commands for containers, pods and images that are clients of the daemon.

use super::args::pods::Play;
use super::args::{Containers, Pods, Stored};
use super::client::Client;
use super::error::Result;
use super::inspect::What;
use super::{
    copy, disk, events, images, info, inspect, lifecycle, live, login, man, objects, play,
    port_forward, ports, processes, ps, run, stats,
};

/// Runs a command for containers.
pub(crate) async fn containers(client: Client, command: &Containers) -> Result<()> {
    match command {
        Containers::Create(args) => run::create(client, args).await,
        Containers::Start(args) => lifecycle::start(client, args).await,
        Containers::Restart(args) => lifecycle::restart(client, args).await,
        Containers::Kill(args) => lifecycle::kill(client, args).await,
        Containers::Pause(args) => lifecycle::pause(client, args, true).await,
        Containers::Unpause(args) => lifecycle::pause(client, args, false).await,
        Containers::Wait(args) => lifecycle::wait(client, args).await,
        Containers::Cp(args) => copy::copy(client, args).await,
        Containers::Top(args) if args.names.is_empty() => live::top(client, args).await,
        Containers::Top(args) => processes::top(client, args).await,
        Containers::Port(args) => ports::port(client, args).await,
        Containers::Events(args) => events::events(client, args).await,
        Containers::Update(args) => lifecycle::update(client, args).await,
        Containers::CreateContainer(args) => lifecycle::create(client, args).await,
        Containers::Checkpoint(args) => lifecycle::checkpoint(client, args).await,
    }
}

/// Runs a command for pods.
pub(crate) async fn pods(client: Client, command: &Pods) -> Result<()> {
    match command {
        Pods::List(args) => ps::pods(client, args).await,
        Pods::Play(Play::Kube(args)) => play::kube(client, args).await,
        Pods::Runp(args) => inspect::run_pod(client, args).await,
        Pods::Stopp(args) => objects::stop_pods(client, args).await,
        Pods::Rmp(args) => objects::remove_pods(client, args).await,
        Pods::Inspectp(args) => inspect::inspect(client, args, What::Pods).await,
        Pods::Statsp(args) => stats::stats(client, args, true).await,
        Pods::Metricsp(args) => info::metrics(client, &args.list).await,
        Pods::PortForward(args) => port_forward::forward(client, args).await,
    }
}

/// Runs a command for images or the node. `connected` connects to the daemon; some need none.
pub(crate) async fn stored(
    connected: impl AsyncFnOnce() -> Result<Client>,
    command: &Stored,
) -> Result<()> {
    match command {
        Stored::Tag(args) => images::tag(connected().await?, args).await,
        Stored::History(args) => images::history(connected().await?, args).await,
        Stored::Inspecti(args) => inspect::inspect(connected().await?, args, What::Images).await,
        Stored::Prune(args) => disk::prune(connected().await?, args).await,
        Stored::Df(args) => disk::df(connected().await?, args).await,
        Stored::Imagefsinfo(args) => inspect::image_fs(connected().await?, &args.output).await,
        Stored::Login(args) => login::login(args).await,
        Stored::Logout(args) => login::logout(args).await,
        Stored::Info(args) => info::info(connected().await?, &args.output).await,
        Stored::Metrics => info::daemon_metrics(connected().await?).await,
        Stored::Man(args) => man::write(&args.directory),
    }
}
