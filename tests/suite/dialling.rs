//! How a host becomes a connection: resolvers and what is remembered of them, the guard on private addresses, socket
//! options, sockets of the Unix domain, and a system that has run out of something.
//!
//! Families F10, F11, F12, F18 and F19 of the fault matrix. What a whole system must run out of is tried in a child process.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
#[cfg(target_os = "linux")]
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sockeye::test::at_rest;
use sockeye::{
    BoxFuture, Client, ClientBuilder, Connect, Error, ErrorKind, Limits, Phase, Resolve, Resolved,
    Route, Sent, Socket, TcpKeepalive,
};

use crate::support::server::{Server, honest, until, within};

/// A client that keeps idle connections for longer than any test takes.
fn builder() -> ClientBuilder {
    let limits = Limits::default().with_idle_timeout(Duration::from_secs(600));
    Client::builder().limits(limits)
}

async fn get(client: &Client, url: String) -> String {
    let response = client.get(url).send().await.unwrap();
    response.text().await.unwrap()
}

async fn failed(client: &Client, url: String) -> Error {
    let error = client.get(url).send().await.unwrap_err();
    assert_eq!(error.sent(), Sent::Nothing, "{error}");
    assert!(error.is_connect(), "{error}");
    at_rest(client);
    error
}

fn deaf_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// Answers what it is told to, and counts.
#[derive(Default)]
struct Told {
    asked: AtomicUsize,
    answer: Mutex<Vec<SocketAddr>>,
}

impl Told {
    fn new(answer: &[SocketAddr]) -> Arc<Self> {
        let told = Self::default();
        *told.answer.lock().unwrap() = answer.to_vec();
        Arc::new(told)
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

struct Asks(Arc<Told>);

impl Resolve for Asks {
    fn resolve<'a>(&'a self, _host: &'a str) -> BoxFuture<'a, io::Result<Resolved>> {
        Box::pin(async {
            self.0.asked.fetch_add(1, Ordering::SeqCst);
            tokio::task::yield_now().await;
            Ok(Resolved {
                addrs: self.0.answer.lock().unwrap().clone(),
                ttl: None,
            })
        })
    }
}

#[tokio::test]
async fn a_hundred_dials_make_one_lookup() {
    within(async {
        let server = Server::plain(honest);
        let told = Told::new(&[server.address()]);
        let client = builder()
            .resolver(Asks(Arc::clone(&told)))
            .limits(Limits::default().with_max_connections(None))
            .build()
            .unwrap();
        let connected = client.preconnect("http://a.test/", 100).await.unwrap();
        assert_eq!(connected, 100);
        // The kernel completes a connection before the server's thread accepts it.
        until("a hundred are accepted", || server.accepted() == 100).await;
        assert_eq!(told.asked(), 1);
        at_rest(&client);
        // What the network looked like before counts no more.
        client.mark_stale();
        assert_eq!(get(&client, "http://a.test/x".into()).await, "GET /x ");
        assert_eq!(told.asked(), 2);
        at_rest(&client);
    })
    .await;
}

#[tokio::test]
async fn a_settled_host_is_not_looked_up() {
    within(async {
        let server = Server::plain(honest);
        let port = server.address().port();
        let told = Told::new(&[]);
        let client = builder()
            .resolver(Asks(Arc::clone(&told)))
            .resolve("Port.test", &[server.address()])
            .resolve("noport.test", &[([127, 0, 0, 1], 0).into()])
            .build()
            .unwrap();
        for url in [
            "http://port.test/x".to_owned(),
            "http://port.test.:7/x".to_owned(),
            format!("http://noport.test:{port}/x"),
        ] {
            assert_eq!(get(&client, url).await, "GET /x ");
        }
        assert_eq!((told.asked(), server.accepted()), (0, 3));
        let error = failed(&client, "http://sub.port.test/".into()).await;
        assert_eq!(error.kind(), ErrorKind::Resolve, "{error}");
        assert_eq!(told.asked(), 1);
    })
    .await;
}

/// Each name has turns of its own, however the dials of several names follow each other.
#[tokio::test]
async fn names_that_are_dialled_in_turn_use_all_their_addresses() {
    within(async {
        let servers = [(); 2].map(|()| Server::plain(honest));
        let told = Told::new(&servers.each_ref().map(Server::address));
        let client = builder().resolver(Asks(told)).build().unwrap();
        for dials in 1..=3 {
            for host in ["a.test", "b.test"] {
                get(&client, format!("http://{host}/")).await;
                get(&client, format!("http://{host}/")).await;
            }
            client.close_idle();
            let accepted = servers.each_ref().map(Server::accepted);
            let first = 2 * usize::div_ceil(dials, 2);
            assert_eq!(accepted, [first, 2 * dials - first]);
        }
        at_rest(&client);
    })
    .await;
}

/// F10: what changes between two lookups is found when the old addresses fail, by the same dial.
#[tokio::test]
async fn addresses_that_all_fail_are_looked_up_anew() {
    within(async {
        let server = Server::plain(honest);
        let first = Server::plain(honest);
        let told = Told::new(&[first.address()]);
        let client = builder().resolver(Asks(Arc::clone(&told))).build().unwrap();
        get(&client, "http://a.test/".into()).await;
        client.close_idle();
        // The server moves.
        drop(first);
        *told.answer.lock().unwrap() = vec![server.address()];
        assert_eq!(get(&client, "http://a.test/x".into()).await, "GET /x ");
        assert_eq!((told.asked(), server.accepted()), (2, 1));
        // It is gone for good: each call asks again, and tries the old address and the new once.
        client.close_idle();
        let (before, after) = (
            server.address(),
            SocketAddr::from(([127, 0, 0, 1], deaf_port())),
        );
        drop(server);
        *told.answer.lock().unwrap() = vec![before, after];
        let error = failed(&client, "http://a.test/".into()).await;
        assert_eq!(error.kind(), ErrorKind::Connect);
        let line = error.to_string();
        for address in [before, after] {
            let times = line.matches(&address.to_string()).count();
            assert_eq!(times, 1, "{address} in {line}");
        }
        assert_eq!(told.asked(), 3);
        failed(&client, "http://a.test/".into()).await;
        assert_eq!(told.asked(), 4);
    })
    .await;
}

/// F10, F24: a resolver that hangs, panics, or has nothing to say.
#[tokio::test(start_paused = true)]
async fn faults_of_a_resolver() {
    struct Faulty;
    impl Resolve for Faulty {
        fn resolve<'a>(&'a self, host: &'a str) -> BoxFuture<'a, io::Result<Resolved>> {
            Box::pin(async move {
                match host {
                    "hangs.test" => std::future::pending().await,
                    "panics.test" => panic!("the words of the panic"),
                    "fails.test" => Err(io::Error::new(io::ErrorKind::NotFound, "NXDOMAIN")),
                    _ => Ok(Resolved::new([])),
                }
            })
        }
    }
    let client = builder()
        .resolver(Faulty)
        .connect_timeout(Duration::from_secs(3))
        .build()
        .unwrap();
    for _ in 0..2 {
        let hanging = client.get("http://hangs.test/").send();
        let error = hanging.await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
        // The call and its dial have the same limit; the dial ends in its own turn.
        until("the dial ends", || {
            client.stats().total.connections_connecting == 0
        })
        .await;
        assert_eq!(error.phase(), Some(Phase::Resolve));
        for (host, text) in [
            ("panics.test", "the resolver panicked"),
            ("fails.test", "NXDOMAIN"),
            ("empty.test", "the name has no address"),
        ] {
            let error = failed(&client, format!("http://{host}/?secret")).await;
            assert_eq!(error.kind(), ErrorKind::Resolve, "{error}");
            assert_eq!(error.phase(), Some(Phase::Resolve));
            // A name that does not exist, or has no address, is not found by asking again (resilience 2.3, class P).
            assert_eq!(error.is_retryable(), host == "panics.test", "{error}");
            let line = error.to_string();
            assert!(line.contains(text) && line.contains(host), "{line}");
            assert!(
                !line.contains("words") && !line.contains("secret"),
                "{line}"
            );
        }
    }
}

/// A runtime that stands still keeps what it looks up to itself.
#[test]
fn a_lookup_on_a_runtime_that_stands_still() {
    /// The first question is answered after others had their turn.
    #[derive(Default)]
    struct Slow(AtomicUsize, tokio::sync::Notify);
    struct Asked(Arc<Slow>);
    impl Resolve for Asked {
        fn resolve<'a>(&'a self, _: &'a str) -> BoxFuture<'a, io::Result<Resolved>> {
            Box::pin(async {
                if self.0.0.fetch_add(1, Ordering::SeqCst) == 0 {
                    self.0.1.notify_one();
                    std::future::pending::<()>().await;
                }
                Ok(Resolved::new([IpAddr::from([127, 0, 0, 1])]))
            })
        }
    }
    let [first, second] = [(); 2].map(|()| {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
    });
    let (server, slow) = (Server::plain(honest), Arc::new(Slow::default()));
    let client = builder()
        .resolver(Asked(Arc::clone(&slow)))
        .connect_timeout(Duration::from_secs(2))
        .build()
        .unwrap();
    let url = server.url_of("a.test", "/x");
    first.block_on(async {
        tokio::select! {
            response = client.get(&url).send() => panic!("{response:?}"),
            () = slow.1.notified() => {}
        }
    });
    let text = second.block_on(within(get(&client, url)));
    assert_eq!(text, "GET /x ");
    drop(first);
    at_rest(&client);
}

/// F11: one line lists every address once, and each error once.
#[tokio::test]
async fn all_addresses_fail() {
    within(async {
        let told = Told::new(&[]);
        let port = deaf_port();
        // Twice as many as are tried, each of them twice.
        let addresses: Vec<_> = (1..=64)
            .map(|last| SocketAddr::from(([127, 0, 0, last], port)))
            .collect();
        *told.answer.lock().unwrap() = addresses.iter().flat_map(|one| [*one, *one]).collect();
        let client = builder().resolver(Asks(Arc::clone(&told))).build().unwrap();
        let error = failed(&client, "http://a.test/".into()).await;
        assert_eq!(error.kind(), ErrorKind::Connect, "{error}");
        assert_eq!(error.io_kind(), Some(io::ErrorKind::ConnectionRefused));
        let line = error.to_string();
        for (at, address) in addresses.iter().enumerate() {
            let times = line.matches(&address.to_string()).count();
            assert_eq!(times, usize::from(at < 32), "{address} in {line}");
        }
        assert_eq!(line.matches("refused").count(), 1, "{line}");
        assert!(line.len() < 1_024, "{line}");
    })
    .await;
}

#[tokio::test]
async fn private_addresses_are_denied_however_they_are_named() {
    within(async {
        let server = Server::plain(honest);
        let port = server.address().port();
        let told = Told::new(&[server.address()]);
        let client = builder()
            .resolver(Asks(Arc::clone(&told)))
            .resolve("settled.test", &[server.address()])
            .deny_private(true)
            .build()
            .unwrap();
        for (host, address) in [
            ("127.0.0.1", "127.0.0.1"),
            ("[::1]", "[::1]"),
            ("[::ffff:127.0.0.1]", "[::ffff:127.0.0.1]"),
            ("0.0.0.0", "0.0.0.0"),
            ("settled.test", "127.0.0.1"),
            ("looked-up.test", "127.0.0.1"),
        ] {
            let error = failed(&client, format!("http://{host}:{port}/")).await;
            assert_eq!(error.kind(), ErrorKind::Connect, "{error}");
            assert_eq!(error.phase(), Some(Phase::Connect));
            assert_eq!(error.io_kind(), Some(io::ErrorKind::PermissionDenied));
            assert!(!error.is_retryable(), "{error}");
            let line = error.to_string();
            assert!(
                line.contains(&format!("{address}:{port}: not dialled")),
                "{line}"
            );
            assert!(line.contains("deny_private"), "{line}");
        }
        assert_eq!(server.accepted(), 0);
        // Without the guard the same addresses are dialled.
        let open = builder().build().unwrap();
        get(&open, server.url("/")).await;
        assert_eq!(server.accepted(), 1);
    })
    .await;
}

/// The others are dialled; the error of all lists both sorts.
#[tokio::test]
async fn only_what_is_private_is_left_out() {
    within(async {
        let server = Server::plain(honest);
        // An address for documentation: nobody answers there, and none is private.
        let public = SocketAddr::from(([192, 0, 2, 1], 9));
        let told = Told::new(&[server.address(), public]);
        let client = builder()
            .resolver(Asks(Arc::clone(&told)))
            .local_address([127, 0, 0, 1].into())
            .deny_private(true)
            .build()
            .unwrap();
        // From loopback no other network is reached: the dial of the public one fails at once.
        let error = failed(&client, "http://a.test/".into()).await;
        let line = error.to_string();
        assert!(line.contains("192.0.2.1:9: "), "{line}");
        assert!(!line.contains("192.0.2.1:9: not dialled"), "{line}");
        assert!(
            line.contains(&format!("{}: not dialled", server.address())),
            "{line}"
        );
        assert!(error.is_retryable(), "{line}");
        assert_eq!(server.accepted(), 0);
    })
    .await;
}

#[tokio::test]
async fn the_server_sees_the_local_address() {
    within(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let local = IpAddr::from([127, 0, 0, 2]);
        let client = builder().local_address(local).build().unwrap();
        let url = format!("http://127.0.0.1:{port}/");
        let connecting = client.preconnect(&url, 1);
        let (connected, accepted) = tokio::join!(connecting, listener.accept());
        assert_eq!(connected.unwrap(), 1);
        assert_eq!(accepted.unwrap().1.ip(), local);
        // The other family cannot be reached from it.
        let error = failed(&client, format!("http://[::1]:{port}/")).await;
        assert_eq!(error.kind(), ErrorKind::Connect);
        let line = error.to_string();
        assert!(
            line.contains(&format!(
                "[::1]:{port}: not dialled: the local address 127.0.0.2"
            )),
            "{line}"
        );
        assert!(!error.is_retryable());
    })
    .await;
}

/// An address that is not of this machine fails like one whose ports have run out (F19).
#[tokio::test]
async fn a_local_address_of_another_machine() {
    within(async {
        let client = builder()
            .local_address([192, 0, 2, 1].into())
            .build()
            .unwrap();
        let error = failed(&client, "http://127.0.0.1:9/".into()).await;
        assert_eq!(error.io_kind(), Some(io::ErrorKind::AddrNotAvailable));
        let line = error.to_string();
        assert!(line.contains("local_address 192.0.2.1"), "{line}");
    })
    .await;
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn the_interface_is_used() {
    within(async {
        let server = Server::plain(honest);
        let url = server.url("/x");
        let client = builder()
            .interface("lo")
            .tcp_nodelay(false)
            .tcp_keepalive(TcpKeepalive::new(Duration::from_secs(30)))
            .tcp_user_timeout(Duration::from_secs(30))
            .build()
            .unwrap();
        assert_eq!(get(&client, url.clone()).await, "GET /x ");
        at_rest(&client);
        let client = builder().interface("nosuch0").build().unwrap();
        let error = failed(&client, url).await;
        assert!(error.to_string().contains("interface nosuch0: "), "{error}");
    })
    .await;
}

#[test]
fn what_excludes_each_other_is_refused() {
    struct Nowhere;
    impl Connect for Nowhere {
        fn connect<'a>(&'a self, _: &'a Route) -> BoxFuture<'a, io::Result<Socket>> {
            Box::pin(async { Err(io::ErrorKind::Other.into()) })
        }
    }
    let error = builder()
        .connector(Nowhere)
        .deny_private(true)
        .build()
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidRequest);
    assert!(error.to_string().starts_with("deny_private: "), "{error}");
    #[cfg(unix)]
    {
        let error = builder()
            .connector(Nowhere)
            .unix_socket("/a")
            .build()
            .unwrap_err();
        assert!(error.to_string().starts_with("unix_socket: "), "{error}");
    }
}

/// Runs one test of this binary, which is ignored otherwise, behind words of a shell; nothing where those fail.
#[cfg(target_os = "linux")]
fn child(test: &str, shell: &str) {
    let binary = std::env::current_exe().unwrap();
    let script = format!(
        "{shell} '{}' --exact dialling::{test} --ignored --nocapture --test-threads 1",
        binary.display()
    );
    let output = Command::new("sh").args(["-c", &script]).output().unwrap();
    let text = [output.stdout, output.stderr]
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .concat();
    if !text.contains("running 1 test") {
        println!("skipped: {text}");
        return;
    }
    assert!(output.status.success(), "{text}");
    assert!(text.contains("1 passed"), "{text}");
    println!("{text}");
}

/// F18: out of file descriptors, what is idle makes room.
#[cfg(target_os = "linux")]
#[test]
fn f18_out_of_file_descriptors() {
    child("f18_child", "ulimit -n 64 && exec");
}

#[cfg(target_os = "linux")]
#[test]
#[ignore = "run by f18_out_of_file_descriptors, with few file descriptors"]
fn f18_child() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(within(async {
        // The listeners never accept: the kernel completes the connections, and only the client's side costs descriptors.
        let listeners = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let [first, second] = listeners
            .each_ref()
            .map(|listener| format!("http://{}/", listener.local_addr().unwrap()));
        let limits = Limits::default()
            .with_max_connections(None)
            .with_idle_timeout(Duration::from_secs(600));
        let client = Client::builder().limits(limits.clone()).build().unwrap();
        client.preconnect(&first, 8).await.unwrap();
        let mut files = Vec::new();
        while let Ok(file) = std::fs::File::open("/dev/null") {
            files.push(file);
        }
        // A dial finds no descriptor, the idle ones close, and it is tried once more.
        assert_eq!(client.preconnect(&second, 1).await.unwrap(), 1);
        let stats = client.stats();
        assert_eq!(stats.total.connections_idle, 1, "{stats}");
        assert_eq!(stats.total.connections_opened, 9);
        at_rest(&client);
        // The same for a name, whose lookup needs descriptors as well.
        files.truncate(files.len() / 2);
        client.preconnect(&first, 8).await.unwrap();
        while let Ok(file) = std::fs::File::open("/dev/null") {
            files.push(file);
        }
        let named = second.replace("127.0.0.1", "localhost");
        assert_eq!(client.preconnect(named, 1).await.unwrap(), 1);
        assert_eq!(client.stats().total.connections_idle, 1);
        // The same where the client asks name servers itself.
        #[cfg(feature = "hickory")]
        {
            let names = crate::support::dns::NameServer::new(|_, _| {
                crate::support::dns::Answer::addresses(300, [[127, 0, 0, 1]])
            });
            let asking = sockeye::DnsResolver::from_servers(&[names.address()]).unwrap();
            let client = Client::builder()
                .limits(limits.clone())
                .resolver(asking)
                .build()
                .unwrap();
            files.truncate(files.len() / 2);
            client.preconnect(&first, 8).await.unwrap();
            while let Ok(file) = std::fs::File::open("/dev/null") {
                files.push(file);
            }
            let named = second.replace("127.0.0.1", "a.test");
            assert_eq!(client.preconnect(named, 1).await.unwrap(), 1);
            assert_eq!(client.stats().total.connections_idle, 1);
        }
        while let Ok(file) = std::fs::File::open("/dev/null") {
            files.push(file);
        }
        // Nothing is idle that could make room: one error that says what is missing.
        let poor = Client::new();
        for (url, kind) in [
            (first.as_str(), ErrorKind::Connect),
            ("http://localhost:9/", ErrorKind::Resolve),
        ] {
            let error = failed(&poor, url.to_owned()).await;
            assert_eq!(error.kind(), kind, "{error}");
            assert!(error.to_string().contains("os error 24"), "{error}");
            assert!(error.is_retryable());
        }
        drop(files);
        assert_eq!(poor.preconnect(&first, 1).await.unwrap(), 1);
        at_rest(&poor);
    }));
}

/// F19: out of ports, in a network namespace with ten of them, where the machine lets one be made.
#[cfg(target_os = "linux")]
#[test]
fn f19_out_of_ports() {
    child(
        "f19_child",
        "exec unshare -rn sh -c 'ip link set lo up && echo 40000 40009 > /proc/sys/net/ipv4/ip_local_port_range && exec \"$@\"' -",
    );
}

#[cfg(target_os = "linux")]
#[test]
#[ignore = "run by f19_out_of_ports, with few ports"]
fn f19_child() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(within(async {
        let listener = TcpListener::bind("127.0.0.1:39999").unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let client = builder().build().unwrap();
        let opened = client.preconnect(&url, 20).await.unwrap();
        assert!((1..=10).contains(&opened), "{opened}");
        let started = client.stats().total.connect_failures;
        let error = failed(&Client::new(), url.clone()).await;
        assert_eq!(error.kind(), ErrorKind::Connect, "{error}");
        assert_eq!(
            error.io_kind(),
            Some(io::ErrorKind::AddrNotAvailable),
            "{error}"
        );
        // Each of the dials failed once: nobody tried again and again.
        assert_eq!(started, 20 - opened as u64);
        at_rest(&client);
    }));
}

/// F11: the system itself refuses three addresses, each for a reason of its own, in a network namespace with routes that say so.
#[cfg(target_os = "linux")]
#[test]
fn f11_no_route() {
    child(
        "f11_child",
        "exec unshare -rn sh -c 'ip link set lo up && ip route add unreachable 203.0.113.1 \
         && ip route add prohibit 203.0.113.2 && ip route add blackhole 203.0.113.3 && exec \"$@\"' -",
    );
}

#[cfg(target_os = "linux")]
#[test]
#[ignore = "run by f11_no_route, with routes that lead nowhere"]
fn f11_child() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(within(async {
        let addresses = [1, 2, 3].map(|last| SocketAddr::from(([203, 0, 113, last], deaf_port())));
        let [unreachable, prohibited, swallowed] = addresses;
        let attempts = Attempts::default();
        let client = builder()
            .resolver(Asks(Told::new(&addresses)))
            .observer(attempts.clone())
            .build()
            .unwrap();
        let error = failed(&client, "http://a.test/".into()).await;
        assert_eq!(error.kind(), ErrorKind::Connect, "{error}");
        assert!(error.is_retryable(), "{error}");
        let line = error.to_string();
        for (address, text) in [
            (unreachable, "os error 113"),
            (prohibited, "os error 13"),
            (swallowed, "os error 22"),
        ] {
            let parts: Vec<_> = line.split(&address.to_string()).collect();
            assert_eq!(parts.len(), 2, "{address} in {line}");
            assert!(parts[1].contains(text), "{address} in {line}");
        }
        // None is tried twice.
        let words: Vec<_> = attempts.take().into_iter().map(|(_, what)| what).collect();
        assert_eq!(words, ["start four", "failed four"].repeat(3));
    }));
}

/// F12: the address of IPv6 swallows what is sent to it, in a network namespace with a link that leads nowhere.
#[cfg(target_os = "linux")]
#[test]
fn f12_black_hole() {
    child(
        "f12_child",
        "exec unshare -rn sh -c 'ip link set lo up && ip link add hole0 type dummy \
         && ip link set hole0 up && ip -6 addr add fd00:99::1/64 dev hole0 nodad \
         && ip -6 neigh add fd00:99::2 lladdr 02:00:00:00:00:02 dev hole0 nud permanent && exec \"$@\"' -",
    );
}

/// Connections to addresses, as an observer is told of them.
#[cfg(target_os = "linux")]
#[derive(Clone, Default)]
struct Attempts(Arc<Mutex<Vec<(std::time::Instant, String)>>>);

#[cfg(target_os = "linux")]
impl sockeye::Observer for Attempts {
    fn interest(&self) -> sockeye::EventMask {
        sockeye::EventMask::DIALS
    }

    fn on(&self, event: &sockeye::stats::Event<'_>) {
        use sockeye::stats::Event;
        let (what, address) = match event {
            Event::ConnectStart { address, .. } => ("start", address),
            Event::ConnectEnd { address, .. } => ("end", address),
            Event::ConnectFailed { address, .. } => ("failed", address),
            _ => return,
        };
        let family = match address {
            Some(SocketAddr::V6(_)) => "six",
            Some(SocketAddr::V4(_)) => "four",
            None => "none",
        };
        let told = (std::time::Instant::now(), format!("{what} {family}"));
        self.0.lock().unwrap().push(told);
    }
}

#[cfg(target_os = "linux")]
impl Attempts {
    /// What was told since the last time, and how long after the first of it each was.
    fn take(&self) -> Vec<(Duration, String)> {
        let told = std::mem::take(&mut *self.0.lock().unwrap());
        let first = told.first().map(|(at, _)| *at);
        told.into_iter()
            .map(|(at, what)| (at - first.unwrap(), what))
            .collect()
    }
}

#[cfg(target_os = "linux")]
#[test]
#[ignore = "run by f12_black_hole, with an address that swallows everything"]
fn f12_child() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(within(async {
        let server = Server::plain(honest);
        let port = server.address().port();
        let hole = SocketAddr::new("fd00:99::2".parse().unwrap(), port);
        let told = Told::new(&[hole, server.address()]);
        let attempts = Attempts::default();
        let client = builder()
            .resolver(Asks(told))
            .observer(attempts.clone())
            .build()
            .unwrap();
        let response = client.get("http://a.test/x").send().await.unwrap();
        assert_eq!(response.connection().remote_addr, Some(server.address()));
        assert_eq!(response.text().await.unwrap(), "GET /x ");
        let events = attempts.take();
        let words: Vec<_> = events.iter().map(|(_, what)| what.as_str()).collect();
        // The first attempt is given up when the second has won; that is no failure of its own.
        assert_eq!(
            words[..3],
            ["start six", "start four", "end four"],
            "{events:?}"
        );
        let head_start = events[1].0;
        assert!(head_start >= Duration::from_millis(250), "{events:?}");
        assert!(head_start < Duration::from_secs(2), "{events:?}");
        let stats = client.stats().total;
        assert_eq!((stats.connections_opened, stats.connect_failures), (1, 0));
        // For 30 s the address that was overtaken is tried last.
        client.close_idle();
        assert_eq!(get(&client, "http://a.test/y".into()).await, "GET /y ");
        let words: Vec<_> = attempts.take().into_iter().map(|(_, what)| what).collect();
        assert_eq!(words, ["start four", "end four"]);
        assert_eq!(server.accepted(), 2);
        at_rest(&client);
        // Where there is nothing but the hole, the connect limit ends it.
        let client = builder()
            .connect_timeout(Duration::from_millis(500))
            .build()
            .unwrap();
        let error = client
            .get(format!("http://{hole}/"))
            .send()
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
        assert_eq!(error.phase(), Some(Phase::Connect));
        until("the dial ends", || {
            client.stats().total.connections_connecting == 0
        })
        .await;
        at_rest(&client);
    }));
}
