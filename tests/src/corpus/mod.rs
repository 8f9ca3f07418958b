// SPDX-License-Identifier: Apache-2.0
//! Images in the shapes that builders give them: media types, the fields of configs and manifests, documents beside the
//! image, and how entries and layers are written.
//!
//! The lowest layer of all of them is the busybox layer of the fixtures. What is particular of each builder is from its
//! project's documents and sources, read on 2026-11-30:
//!
//! | shapes | project | document or file |
//! |---|---|---|
//! | `docker-build`, `s2i` | moby | pkg/archive/archive_linux.go, image/spec v1.2 |
//! | `buildkit` | buildkit | docs/attestations/attestation-storage.md, exporter tests |
//! | `buildah` | buildah, containers/storage | image.go; pkg/archive/archive.go, archive_linux.go |
//! | `kaniko` | kaniko 1.24 | pkg/snapshot/snapshot.go, pkg/util/tar_util.go, pkg/executor/build.go |
//! | `kaniko`, `ko`, `apko` | go-containerregistry | pkg/v1/config.go, manifest.go, tarball/layer.go |
//! | `jib` | jib | docs of the container's layers and times |
//! | `ko` | ko | pkg/build/gobuild.go |
//! | `rules-oci`, `rules-oci-docker` | rules_oci | oci/private/image.sh, image_index.sh.tpl, examples/assertion |
//! | the same | tar.bzl, rules_pkg | tar/private/tar.bzl; pkg/private/tar/tar_writer.py |
//! | `apko` | apko | pkg/build/tarball.go, layers.go, oci/image.go, oci/index.go |
//! | `nix`, `nix-build-image` | nixpkgs | build-support/docker/default.nix, stream_layered_image.py |
//! | `s2i` | source-to-image | pkg/build/strategies/sti/postexecutorstep.go, pkg/docker/docker.go |
//! | `umoci` | umoci | oci/layer/generate.go, tar_generate.go, mutate/mutate.go |
//! | `estargz` | stargz-snapshotter | docs/estargz.md, estargz/build.go |
//! | `buildkit-estargz` | buildkit | util/compression/estargz.go |
//! | `zstd-chunked` | containers/storage | pkg/chunked/compressor, pkg/chunked/internal/minimal |
//! | `both-compressions` | podman | podman-manifest-push(1), `--add-compression` |
//! | `stargz-zstd-chunked` | stargz-snapshotter | estargz/zstdchunked/zstdchunked.go |

mod archive;
mod bazel;
mod chunked;
mod containers;
mod docker;
mod go;
mod jib;
mod nix;
mod shape;

pub use shape::{Shape, Travels};

/// The shapes of all builders.
#[must_use]
pub fn all() -> Vec<Shape> {
    vec![
        docker::docker_build(),
        docker::s2i(),
        docker::buildkit(),
        containers::buildah(),
        containers::umoci(),
        go::kaniko(),
        go::ko(),
        go::apko(),
        jib::jib(),
        bazel::rules_oci(),
        bazel::rules_oci_over_docker(),
        nix::nix(),
        nix::nix_build_image(),
        chunked::estargz(),
        chunked::buildkit_estargz(),
        chunked::zstd_chunked(),
        chunked::both_compressions(),
        chunked::zstd_chunked_by_stargz(),
    ]
}
