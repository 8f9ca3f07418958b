// SPDX-License-Identifier: Apache-2.0
//! Registries that misbehave, over plain HTTP on loopback: the name of the repository says how.

use hull_tests::ExpectExt as _;
use hull_tests::image::{Image, Packed, digest};
use hull_tests::layer::{Compression, Layer};
use hull_tests::random::Random;
use serde_json::json;
use std::sync::Arc;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// Longest head of a request that is read, in bytes.
const HEAD_BYTES_MAX: usize = 16 << 10;

/// A response: status line, further headers, body, and how much of the body is sent.
struct Response {
    status: &'static str,
    headers: String,
    body: Vec<u8>,
    sent: usize,
}

impl Response {
    fn new(status: &'static str, media_type: &str, body: impl Into<Vec<u8>>) -> Self {
        let body = body.into();
        let sent = body.len();
        Self { status, headers: format!("Content-Type: {media_type}\r\n"), body, sent }
    }

    fn with(mut self, header: &str) -> Self {
        self.headers.push_str(header);
        self.headers.push_str("\r\n");
        self
    }
}

/// The image of all repositories; its only layer does not compress.
fn packed() -> Packed {
    let mut random = Random::new(19);
    let noise: Vec<u8> = (0..5_000).flat_map(|_| random.next().to_le_bytes()).collect();
    let mut image = Image::new(Vec::new(), json!({"Cmd": ["/x"]}));
    image.layers = vec![(Layer::new().file("noise", 0o644, noise).tar(), Compression::Gzip)];
    image.pack()
}

fn error(code: &str, message: &str) -> Vec<u8> {
    json!({"errors": [{"code": code, "message": message}]}).to_string().into_bytes()
}

fn respond(packed: &Packed, head: &str) -> Response {
    let path = head.split_whitespace().nth(1).unwrap_or_default();
    let how = path.trim_start_matches("/v2/").split('/').next().unwrap_or_default();
    let is_layer = packed.blobs.get(1).is_some_and(|blob| path.ends_with(&blob.digest()));
    if path.contains("/manifests/") {
        return manifest(packed, how, head);
    }
    let blob = packed.blobs.iter().find(|blob| path.ends_with(&blob.digest()));
    let Some(blob) = blob.filter(|_| !(how == "gone" && is_layer)) else {
        let body = error("BLOB_UNKNOWN", "blob unknown to registry");
        return Response::new("404 Not Found", "application/json", body);
    };
    let mut response = Response::new("200 OK", "application/octet-stream", blob.bytes.clone());
    if is_layer && how == "cut" {
        response.sent = response.body.len() / 3;
    }
    if is_layer && how == "corrupt" {
        let middle = response.body.len() / 2;
        response.body[middle] ^= 1;
    }
    response
}

fn manifest(packed: &Packed, how: &str, head: &str) -> Response {
    let json = "application/json";
    let plain = "text/plain";
    match how {
        "busy" => Response::new(
            "429 Too Many Requests",
            json,
            error("TOOMANYREQUESTS", "You have reached your pull rate limit"),
        )
        .with("Retry-After: 0"),
        "down" => Response::new("503 Service Unavailable", plain, "no healthy upstream")
            .with("Retry-After: 0"),
        "page" => Response::new("200 OK", "text/html", "<html><title>Sign in</title></html>"),
        "blocked" => Response::new("403 Forbidden", "text/html", "<html>Blocked</html>"),
        "gateway" => Response::new("403 Forbidden", plain, "access denied by rule 7"),
        "missing" => {
            Response::new("404 Not Found", json, error("MANIFEST_UNKNOWN", "manifest unknown"))
        }
        "tls" => Response::new(
            "400 Bad Request",
            plain,
            "Client sent an HTTP request to an HTTPS server.",
        ),
        "private" if !head.to_lowercase().contains("\r\nauthorization: basic") => {
            Response::new("401 Unauthorized", json, error("UNAUTHORIZED", "log in"))
                .with("WWW-Authenticate: Basic realm=\"zoo\"")
        }
        "private" => Response::new("401 Unauthorized", json, error("UNAUTHORIZED", "wrong"))
            .with("WWW-Authenticate: Basic realm=\"zoo\""),
        "token" => Response::new("401 Unauthorized", json, error("UNAUTHORIZED", "log in"))
            .with("WWW-Authenticate: Bearer realm=\"http://127.0.0.1:1/token\",service=\"zoo\""),
        "chart" => {
            let config = json!({"mediaType": "application/vnd.cncf.helm.config.v1+json",
                                "digest": digest(b"{}"), "size": 2});
            let chart = json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config,
                               "layers": []});
            Response::new("200 OK", MANIFEST, chart.to_string())
        }
        _ => Response::new("200 OK", MANIFEST, packed.manifest.bytes.clone()),
    }
}

async fn serve(mut stream: TcpStream, packed: Arc<Packed>) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let byte = stream.read_u8().await?;
        head.push(byte);
        if head.len() > HEAD_BYTES_MAX {
            return Ok(());
        }
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    if head.starts_with("GET /v2/silent/") {
        return std::future::pending().await;
    }
    let Response { status, headers, body, sent } = respond(&packed, &head);
    let length = body.len();
    let top = format!(
        "HTTP/1.1 {status}\r\n{headers}Content-Length: {length}\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(top.as_bytes()).await?;
    stream.write_all(&body[..sent]).await?;
    stream.shutdown().await
}

/// Serves as long as the test runs. Gives the address.
pub(crate) async fn start() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.or_fail("listen on loopback");
    let address = listener.local_addr().or_fail("ask for the address").to_string();
    let packed = Arc::new(packed());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, Arc::clone(&packed)));
        }
    });
    address
}
