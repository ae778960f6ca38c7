//! Real proxies: Squid for HTTP, with and without TLS and passwords, and microsocks for SOCKS5.
//!
//! These tests need the programs and are ignored without being asked for; `.ci/run` installs them and asks. The servers behind the
//! proxies are the tests' own, so that what arrives there can be looked at.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use sockeye::test::at_rest;
use sockeye::{Client, ClientBuilder, ErrorKind, Proxy, StatusCode};

use crate::support::programs::{free_port, program};
use crate::support::server::{Peer, Server, within};

/// A program that runs in a directory of its own until it is dropped.
struct Running {
    directory: PathBuf,
    child: Child,
}

impl Running {
    fn start(directory: PathBuf, mut command: Command, port: u16) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let child = command.stderr(Stdio::null()).spawn();
        let mut running = Self {
            directory,
            child: child.expect("the program is installed"),
        };
        let begun = Instant::now();
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        while TcpStream::connect_timeout(&address, PATIENCE).is_err() {
            let ended = running.child.try_wait().unwrap();
            assert!(
                ended.is_none() && begun.elapsed() < PATIENCE,
                "{ended:?} {}",
                running.log()
            );
            std::thread::yield_now();
        }
        running
    }

    fn log(&self) -> String {
        fs::read_to_string(self.directory.join("cache.log")).unwrap_or_default()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.directory);
    }
}

struct Squid {
    plain: u16,
    #[cfg(feature = "rustls")]
    secure: u16,
    #[cfg(feature = "rustls")]
    authority: crate::support::server::Authority,
    _running: Running,
}

impl Squid {
    /// One that lets everybody pass, or those who know the password.
    fn start(asks: bool) -> Self {
        let directory = directory("squid");
        let (plain, secure) = (free_port(), free_port());
        let file = |name: &str| directory.join(name).display().to_string();
        #[cfg(feature = "rustls")]
        let authority = crate::support::server::Authority::new();
        #[cfg(feature = "rustls")]
        let https = {
            let identity = authority.local();
            fs::write(file("cert.pem"), identity.certificate_pem()).unwrap();
            fs::write(file("key.pem"), identity.key_pem()).unwrap();
            format!(
                "https_port 127.0.0.1:{secure} tls-cert={} tls-key={}",
                file("cert.pem"),
                file("key.pem")
            )
        };
        #[cfg(not(feature = "rustls"))]
        let https = format!("http_port 127.0.0.1:{secure}");
        let script = "while read -r line; do [ \"$line\" = 'user open%20sesame' ] && echo OK || echo ERR; done\n";
        fs::write(file("login.sh"), script).unwrap();
        let access = match asks {
            true => format!(
                "auth_param basic program /bin/sh {}\nauth_param basic children 1\nacl known proxy_auth REQUIRED\nhttp_access allow known\nhttp_access deny all",
                file("login.sh")
            ),
            false => "http_access allow all".to_owned(),
        };
        let configuration = format!(
            "http_port 127.0.0.1:{plain}\n{https}\n{access}\npid_filename none\ncache deny all\naccess_log none\n\
             cache_log {}\ncoredump_dir {}\nvisible_hostname squid.test\nshutdown_lifetime 0 seconds\nnetdb_filename none\n",
            file("cache.log"),
            directory.display()
        );
        fs::write(file("squid.conf"), configuration).unwrap();
        let mut command = Command::new(program("squid"));
        command.args(["-N", "-f", &file("squid.conf")]);
        let _running = Running::start(directory.clone(), command, plain);
        Self {
            plain,
            #[cfg(feature = "rustls")]
            secure,
            #[cfg(feature = "rustls")]
            authority,
            _running,
        }
    }

    fn url(&self, login: &str) -> String {
        format!("http://{login}127.0.0.1:{}", self.plain)
    }
}

/// A directory for a program that may not be run by the same user.
fn directory(name: &str) -> PathBuf {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let number = NEXT.fetch_add(1, Ordering::SeqCst);
    let path = std::env::temp_dir().join(format!("sockeye-{name}-{}-{number}", std::process::id()));
    fs::create_dir_all(&path).unwrap();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
    }
    path
}

/// The heads that arrived at a server.
type Heads = Arc<Mutex<Vec<String>>>;

/// A script that answers with method, path and body, and keeps the heads.
fn keeping(heads: &Heads) -> impl Fn(Peer) -> Script + Send + 'static {
    let heads = Arc::clone(heads);
    move |mut peer: Peer| -> Script {
        let heads = Arc::clone(&heads);
        Box::pin(async move {
            while let Some(request) = peer.request().await {
                heads.lock().unwrap().push(request.head.clone());
                let mut answer = format!("{} {} ", request.method, request.path).into_bytes();
                answer.extend_from_slice(&request.body);
                peer.answer(answer).await;
            }
        })
    }
}

/// What runs for a connection.
type Script = sockeye::BoxFuture<'static, ()>;

fn builder(proxy_url: &str) -> ClientBuilder {
    Client::builder().proxy(Proxy::all(proxy_url).unwrap())
}

/// What a client through a proxy does with a server, and that the server learns nothing of the proxy's password.
async fn exercise(client: &Client, url: &str, heads: &Heads) {
    let get = client.get(url).send().await.unwrap();
    assert!(get.connection().proxy().is_some());
    assert_eq!(get.text().await.unwrap(), "GET /x?y=z ");
    let again = client.get(url).send().await.unwrap();
    assert!(again.reused());
    again.bytes().await.unwrap();
    let body = vec![b'x'; 200_000];
    let post = client.post(url).body(body.clone()).send().await.unwrap();
    let answered = post.bytes().await.unwrap();
    assert_eq!(answered.len(), body.len() + "POST /x?y=z ".len());
    let head = client.head(url).send().await.unwrap();
    assert_eq!(head.status(), StatusCode::OK);
    let heads = heads.lock().unwrap().join("").to_ascii_lowercase();
    assert!(heads.contains("get /x?y=z http/1.1"), "{heads}");
    assert!(!heads.contains("proxy-authorization"), "{heads}");
    at_rest(client);
}

const LOGIN: &str = "user:open%20sesame@";

#[tokio::test]
#[ignore = "needs squid: run by .ci/run"]
async fn interop_squid_forwards() {
    let heads = Heads::default();
    let server = Server::plain(keeping(&heads));
    for asks in [false, true] {
        let squid = Squid::start(asks);
        within(async {
            let client = builder(&squid.url(if asks { LOGIN } else { "" }))
                .build()
                .unwrap();
            exercise(&client, &server.url("/x?y=z"), &heads).await;
            // Nobody listens there: what Squid says of it is a response.
            let error = client.get("http://127.0.0.1:9/").send().await.unwrap_err();
            assert!(
                error
                    .status()
                    .is_some_and(|status| status.is_server_error()),
                "{error}"
            );
        })
        .await;
    }
    let squid = Squid::start(true);
    within(async {
        for login in ["", "user:wrong@"] {
            let client = builder(&squid.url(login)).build().unwrap();
            let error = client.get(server.url("/x")).send().await.unwrap_err();
            assert_eq!(
                error.status(),
                Some(StatusCode::PROXY_AUTHENTICATION_REQUIRED),
                "{error}"
            );
            at_rest(&client);
        }
    })
    .await;
}

/// An upgrade to a server without TLS goes through a tunnel, which Squid makes to any port here.
#[tokio::test]
#[ignore = "needs squid: run by .ci/run"]
async fn interop_squid_makes_tunnels() {
    let heads = Heads::default();
    let server = Server::plain(keeping(&heads));
    let squid = Squid::start(true);
    within(async {
        let client = builder(&squid.url(LOGIN)).build().unwrap();
        let request = client.get(server.url("/x")).upgrade("echo");
        let response = request.send().await.unwrap();
        assert_eq!(response.text().await.unwrap(), "GET /x ");
        let heads = heads.lock().unwrap().join("").to_ascii_lowercase();
        assert!(
            heads.contains("upgrade: echo") && !heads.contains("via:"),
            "{heads}"
        );
        assert!(!heads.contains("proxy-authorization"), "{heads}");
        let request = client.get("http://127.0.0.1:9/").upgrade("echo");
        let error = request.send().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Proxy, "{error}");
        assert!(
            error
                .proxy_status()
                .is_some_and(|status| status.is_server_error()),
            "{error}"
        );
        for (login, expected) in [("", "set credentials"), ("user:wrong@", "they are wrong")] {
            let client = builder(&squid.url(login)).build().unwrap();
            let request = client.get(server.url("/x")).upgrade("echo");
            let error = request.send().await.unwrap_err();
            assert_eq!(
                error.proxy_status(),
                Some(StatusCode::PROXY_AUTHENTICATION_REQUIRED)
            );
            let text = error.to_string();
            assert!(text.contains(expected) && text.contains("Basic"), "{text}");
            at_rest(&client);
        }
        at_rest(&client);
    })
    .await;
}

#[cfg(feature = "rustls")]
#[tokio::test]
#[ignore = "needs squid: run by .ci/run"]
async fn interop_squid_with_tls_on_each_leg() {
    use sockeye::TlsConfig;

    use crate::support::server::{Authority, TLS13};
    let heads = Heads::default();
    let servers = Authority::new();
    let plain = Server::plain(keeping(&heads));
    let secure = Server::tls(servers.local().server(TLS13), keeping(&heads));
    let squid = Squid::start(true);
    let trusting = |authority: &Authority| {
        let builder = TlsConfig::builder().only_roots(authority.pem());
        builder.build().unwrap()
    };
    within(async {
        let by_tls = format!("https://{LOGIN}localhost:{}", squid.secure);
        for (proxy_url, url) in [
            (squid.url(LOGIN), secure.url_of("localhost", "/x?y=z")),
            (by_tls.clone(), secure.url_of("localhost", "/x?y=z")),
            (by_tls.clone(), plain.url("/x?y=z")),
        ] {
            let proxy = Proxy::all(&proxy_url)
                .unwrap()
                .tls(trusting(&squid.authority));
            let client = Client::builder().tls(trusting(&servers)).proxy(proxy);
            let client = client.build().unwrap();
            exercise(&client, &url, &heads).await;
        }
        // Each leg has roots of its own.
        for (proxies, expected) in [
            (&servers, ErrorKind::Proxy),
            (&squid.authority, ErrorKind::Tls),
        ] {
            let proxy = Proxy::all(&by_tls).unwrap().tls(trusting(proxies));
            let client = Client::builder()
                .tls(trusting(&squid.authority))
                .proxy(proxy);
            let client = client.build().unwrap();
            let error = client
                .get(secure.url_of("localhost", "/"))
                .send()
                .await
                .unwrap_err();
            assert_eq!(error.kind(), expected, "{error}");
        }
    })
    .await;
}

#[cfg(feature = "socks")]
#[tokio::test]
#[ignore = "needs microsocks: run by .ci/run"]
async fn interop_microsocks() {
    let start = |login: &[&str]| {
        let port = free_port();
        let mut command = Command::new(program("microsocks"));
        command
            .args(["-i", "127.0.0.1", "-p", &port.to_string()])
            .args(login);
        (Running::start(directory("microsocks"), command, port), port)
    };
    let (_open, open) = start(&[]);
    let (_locked, locked) = start(&["-u", "user", "-P", "open sesame"]);
    let heads = Heads::default();
    let server = Server::plain(keeping(&heads));
    within(async {
        for (scheme, login, port) in [
            ("socks5", "", open),
            ("socks5h", "", open),
            ("socks5h", LOGIN, open),
            ("socks5", LOGIN, locked),
            ("socks5h", LOGIN, locked),
        ] {
            let client = builder(&format!("{scheme}://{login}127.0.0.1:{port}"))
                .build()
                .unwrap();
            for host in ["127.0.0.1", "localhost"] {
                exercise(&client, &server.url_of(host, "/x?y=z"), &heads).await;
            }
            let error = client.get("http://127.0.0.1:9/").send().await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Proxy, "{error}");
            assert!(error.to_string().contains("code 5"), "{error}");
            at_rest(&client);
        }
        for (login, expected) in [
            ("", "set user and password"),
            ("user:wrong@", "refused user and password"),
        ] {
            let client = builder(&format!("socks5h://{login}127.0.0.1:{locked}"))
                .build()
                .unwrap();
            let error = client.get(server.url("/x")).send().await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Proxy, "{error}");
            assert!(error.to_string().contains(expected), "{error}");
            at_rest(&client);
        }
    })
    .await;
}

/// For a program to start on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);
