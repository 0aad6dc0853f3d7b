//! Metrics and health over HTTP, for scrapers and supervisors: off unless `--metrics` names an address.
//!
//! | Path | Answer |
//! |---|---|
//! | `/metrics` | the figures, as OpenMetrics text |
//! | `/health/live` | 200 as long as the process answers at all |
//! | `/health/ready` | 200 while requests are taken; else 503 and one word: `recovering`, `draining`, `certificate` |
//!
//! There is no TLS and no log-in here, and nothing that needs them: no code, no principal, no order. Bind
//! it to the loopback interface or a private network; the names of products and their stock can be read.
//! What a client can cost is bounded: [`CONNECTIONS_MAX`] connections, each for one request and of
//! [`CONNECTION_SECONDS_MAX`]. Whoever comes is always let in; when there is no place the oldest connection goes, which
//! is the slowest, for an answer takes milliseconds. So peers that read nothing keep nobody from being answered.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use kami_engine::Engine;
use kami_net::Server;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use crate::certificate::Certificate;
use crate::exit::{Failure, address_hint};
use crate::metrics::Reading;
use crate::time::now_ms;

/// Connections at a time.
const CONNECTIONS_MAX: usize = 64;
/// After this a connection is cut, whatever it is doing.
const CONNECTION_SECONDS_MAX: u64 = 10;
/// How long a request's head may take.
const HEAD_SECONDS_MAX: u64 = 5;
/// How many collect the figures at a time.
const READINGS_MAX: usize = 2;
const HEAD_BYTES_MAX: usize = 16 << 10;

const OPENMETRICS: HeaderValue =
    HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

/// What is watched: first a directory, later the server on it.
pub struct Watched {
    pub started_ms: u64,
    pub data: PathBuf,
    pub keys: PathBuf,
    /// Set once, when requests are answered.
    pub serving: OnceLock<(Engine, Server, Arc<Certificate>)>,
}

impl Watched {
    /// Why requests are not taken, if they are not.
    fn not_ready(&self) -> Option<&'static str> {
        match self.serving.get() {
            None => Some("recovering"),
            Some((_, server, _)) if !server.is_serving() => Some("draining"),
            Some((_, _, certificate)) if certificate.ends_ms().0 <= now_ms() => Some("certificate"),
            Some(_) => None,
        }
    }

    fn reading(&self) -> Reading {
        let serving = self.serving.get();
        let serving = serving.map(|(engine, server, certificate)| (engine, server, &**certificate));
        Reading::new(self.started_ms, self.not_ready().is_none(), (&self.data, &self.keys), serving)
    }
}

/// Takes the address.
pub fn bind(address: SocketAddr) -> Result<TcpListener, Failure> {
    TcpListener::bind(address).and_then(|listener| listener.set_nonblocking(true).map(|()| listener)).map_err(
        |error| {
            let hint = address_hint(&error, "--metrics");
            Failure::environment(format!(
                "cannot serve metrics on the address address=`{address}`: {error}; {hint}"
            ))
        },
    )
}

/// Answers for as long as it is polled.
pub async fn serve(listener: tokio::net::TcpListener, watched: Arc<Watched>) {
    let readings = Arc::new(Semaphore::new(READINGS_MAX));
    let mut open: VecDeque<Open> = VecDeque::with_capacity(CONNECTIONS_MAX);
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "a connection for metrics cannot be taken");
                // Out of descriptors, most likely: give it time.
                tokio::time::sleep(Duration::from_secs(1)).await;
                continue;
            }
        };
        open.retain(|connection| !connection.0.is_finished());
        if open.len() >= CONNECTIONS_MAX {
            open.pop_front();
        }
        let (watched, readings) = (Arc::clone(&watched), Arc::clone(&readings));
        open.push_back(Open(tokio::spawn(async move {
            let service = hyper::service::service_fn(|request| answer(request, &watched, &readings));
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .keep_alive(false)
                .header_read_timeout(Duration::from_secs(HEAD_SECONDS_MAX))
                .max_buf_size(HEAD_BYTES_MAX)
                .serve_connection(TokioIo::new(stream), service);
            // Whoever is cut asks again.
            let _ = tokio::time::timeout(Duration::from_secs(CONNECTION_SECONDS_MAX), connection).await;
        })));
    }
}

/// A connection, cut when this is dropped.
struct Open(JoinHandle<()>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn answer(
    request: Request<Incoming>,
    watched: &Arc<Watched>,
    readings: &Arc<Semaphore>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let reply = |status, kind, text: String| {
        let mut response = Response::new(Full::new(Bytes::from(text)));
        *response.status_mut() = status;
        response.headers_mut().insert(CONTENT_TYPE, kind);
        response
    };
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut response = reply(StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET and HEAD\n".to_owned());
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return Ok(response);
    }
    Ok(match request.uri().path() {
        "/metrics" => {
            let watched = Arc::clone(watched);
            // The semaphore is never closed. The permit stays with the thread, which goes on when its peer has gone.
            let permit = Arc::clone(readings).acquire_owned().await;
            let read = move || {
                let text = watched.reading().text();
                drop(permit);
                text
            };
            // Directories are read, and the engine's lock is taken.
            match tokio::task::spawn_blocking(read).await {
                Ok(text) => reply(StatusCode::OK, OPENMETRICS, text),
                Err(_) => reply(StatusCode::INTERNAL_SERVER_ERROR, TEXT, "no figures\n".to_owned()),
            }
        }
        "/health/live" => reply(StatusCode::OK, TEXT, "live\n".to_owned()),
        "/health/ready" => match watched.not_ready() {
            None => reply(StatusCode::OK, TEXT, "ready\n".to_owned()),
            Some(why) => reply(StatusCode::SERVICE_UNAVAILABLE, TEXT, format!("{why}\n")),
        },
        _ => reply(StatusCode::NOT_FOUND, TEXT, "/metrics, /health/live, /health/ready\n".to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;

    fn start(watched: Watched) -> SocketAddr {
        let listener = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        tokio::spawn(serve(listener, Arc::new(watched)));
        address
    }

    async fn ask(address: SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: k\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn a_server_that_is_not_open_yet_is_alive_and_not_ready() {
        let watched = Watched {
            started_ms: 1000,
            data: "nowhere".into(),
            keys: "nowhere".into(),
            serving: OnceLock::new(),
        };
        let address = start(watched);
        let ask = async |path: &str| ask(address, path).await;
        assert!(ask("/health/live").await.starts_with("HTTP/1.1 200 "));
        let ready = ask("/health/ready").await;
        assert!(ready.starts_with("HTTP/1.1 503 ") && ready.ends_with("recovering\n"), "{ready}");
        let metrics = ask("/metrics").await;
        assert!(metrics.contains("\nkami_ready 0") && metrics.ends_with("# EOF\n"), "{metrics}");
    }

    /// Sixteen that asked and did not read, or never asked, kept everybody from the figures and from the health for
    /// two minutes, which is long enough for a supervisor to end the process.
    #[tokio::test]
    async fn slow_readers_keep_nobody_from_being_answered() {
        let (data, keys) = ("nowhere".into(), "nowhere".into());
        let address = start(Watched { started_ms: 1000, data, keys, serving: OnceLock::new() });
        let mut slow = Vec::new();
        for n in 0..3 * CONNECTIONS_MAX {
            let mut stream = TcpStream::connect(address).await.unwrap();
            if n % 2 == 0 {
                stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: k\r\nX-Slow: ").await.unwrap();
            }
            slow.push(stream);
        }
        let soon = Duration::from_secs(5);
        for path in ["/health/live", "/metrics", "/health/live"] {
            let answer = tokio::time::timeout(soon, ask(address, path)).await.expect("an answer at once");
            assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        }
        // The oldest went: their end of the line is closed.
        let read = tokio::time::timeout(soon, slow[0].read(&mut [0; 16])).await.expect("cut");
        assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
    }
}
