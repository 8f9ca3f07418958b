// SPDX-License-Identifier: Apache-2.0
//! Hull's wire formats: CRI v1 for the kubelet, its own service for its command line, the protocol between the
//! daemon and the monitors, the messages of NRI plugins and ttrpc, and the methods of containerd that cAdvisor calls. Also
//! the ids of pods and containers.
//!
//! No logic beyond framing, and no I/O. The gRPC half is behind the feature `cri`, because the monitor links this
//! crate too and must stay tiny.

pub mod id;
pub mod monitor;

/// CRI v1, package `runtime.v1`, generated from `cri/runtime_v1.proto`.
#[cfg(feature = "cri")]
#[allow(
    missing_docs,
    unreachable_pub,
    let_underscore_drop,
    clippy::all,
    clippy::wildcard_enum_match_arm,
    clippy::allow_attributes_without_reason,
    missing_debug_implementations,
    reason = "generated"
)]
pub mod cri {
    tonic::include_proto!("runtime.v1");

    impl std::fmt::Debug for AuthConfig {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.debug_struct("AuthConfig")
                .field("username", &self.username)
                .field("server_address", &self.server_address)
                .finish_non_exhaustive()
        }
    }
}

/// Hull's own service, package `hull.v1`, generated from `cri/hull_v1.proto`.
#[cfg(feature = "cri")]
#[allow(
    missing_docs,
    unreachable_pub,
    let_underscore_drop,
    clippy::all,
    clippy::wildcard_enum_match_arm,
    clippy::allow_attributes_without_reason,
    missing_debug_implementations,
    reason = "generated"
)]
pub mod admin {
    tonic::include_proto!("hull.v1");

    impl std::fmt::Debug for PullRequest {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.debug_struct("PullRequest").field("image", &self.image).finish_non_exhaustive()
        }
    }

    impl std::fmt::Debug for VerifyRequest {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.debug_struct("VerifyRequest").field("image", &self.image).finish_non_exhaustive()
        }
    }
}

/// The methods of containerd that cAdvisor calls, generated from `containerd/*.proto`.
#[cfg(feature = "cri")]
#[allow(
    missing_docs,
    unreachable_pub,
    let_underscore_drop,
    clippy::all,
    clippy::wildcard_enum_match_arm,
    clippy::allow_attributes_without_reason,
    missing_debug_implementations,
    reason = "generated"
)]
pub mod containerd {
    pub mod version {
        tonic::include_proto!("containerd.services.version.v1");
    }
    pub mod containers {
        tonic::include_proto!("containerd.services.containers.v1");
    }
    pub mod tasks {
        tonic::include_proto!("containerd.services.tasks.v1");
    }
}

/// The node resource interface, generated from `nri/nri_v1alpha1.proto`.
#[cfg(feature = "nri")]
#[allow(
    missing_docs,
    unreachable_pub,
    let_underscore_drop,
    clippy::all,
    clippy::wildcard_enum_match_arm,
    clippy::allow_attributes_without_reason,
    missing_debug_implementations,
    reason = "generated"
)]
pub mod nri {
    include!(concat!(env!("OUT_DIR"), "/nri.v1alpha1.rs"));
}

/// Requests and responses of ttrpc, generated from `nri/ttrpc.proto`.
#[cfg(feature = "nri")]
#[allow(
    missing_docs,
    unreachable_pub,
    let_underscore_drop,
    clippy::all,
    clippy::wildcard_enum_match_arm,
    clippy::allow_attributes_without_reason,
    missing_debug_implementations,
    reason = "generated"
)]
pub mod ttrpc {
    include!(concat!(env!("OUT_DIR"), "/ttrpc.rs"));
}

/// The descriptor set of both interfaces, encoded.
#[cfg(feature = "cri")]
pub const INTERFACE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/interface.bin"));

/// A method of a gRPC service.
#[cfg(feature = "cri")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Method {
    /// The path of its calls, as in `/runtime.v1.RuntimeService/Version`.
    pub path: &'static str,
    /// The interface that it belongs to: `cri`, `hull` or `containerd`.
    pub interface: &'static str,
    /// Its name, as in `Version`.
    pub name: &'static str,
}

/// The methods of all services.
#[cfg(feature = "cri")]
pub const METHODS: &[Method] = include!(concat!(env!("OUT_DIR"), "/methods.rs"));
