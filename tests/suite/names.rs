//! `DnsResolver`, which asks name servers itself, against one on loopback: what becomes of an answer, of how long it holds, and of
//! a server that errs or is silent (F10).

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use sockeye::test::at_rest;
use sockeye::{Client, DnsResolver, Error, ErrorKind, Limits, Phase, Resolve, Sent};

use crate::support::dns::{A, AAAA, Answer, NameServer, Record};
use crate::support::server::{Server, honest, until, within};

const FOUR: Ipv4Addr = Ipv4Addr::LOCALHOST;
const SIX: Ipv6Addr = Ipv6Addr::LOCALHOST;

fn resolver(names: &NameServer) -> DnsResolver {
    DnsResolver::from_servers(&[names.address()]).unwrap()
}

fn client(names: &NameServer) -> Client {
    let limits = Limits::default().with_idle_timeout(Duration::from_secs(600));
    let builder = Client::builder().limits(limits).resolver(resolver(names));
    builder.build().unwrap()
}

async fn failed(client: &Client, url: &str) -> Error {
    let error = client.get(url).send().await.unwrap_err();
    assert_eq!(error.sent(), Sent::Nothing, "{error}");
    assert!(error.is_connect(), "{error}");
    error
}

/// What a name has, and what is to be made of it: the addresses in their order, and for how long.
struct Row {
    name: &'static str,
    six: Answer,
    four: Answer,
    expected: Result<(Vec<IpAddr>, Option<u64>), &'static str>,
}

#[tokio::test]
async fn both_families_make_one_answer() {
    let four = |last| IpAddr::from([192, 0, 2, last]);
    let six = |last| IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, last]);
    let alias = |ttl, address| {
        let record = Record::address(300, address);
        Answer::Records(vec![Record::alias(ttl, "other.test"), record])
    };
    let nothing = || Answer::Records(Vec::new());
    let rows = [
        Row {
            name: "both.test",
            six: Answer::addresses(300, [six(1), six(2), six(3)]),
            four: Answer::addresses(60, [four(1), four(2)]),
            expected: Ok((vec![six(1), four(1), six(2), four(2), six(3)], Some(60))),
        },
        Row {
            name: "four.test",
            six: nothing(),
            four: Answer::addresses(60, [four(1)]),
            expected: Ok((vec![four(1)], Some(60))),
        },
        Row {
            name: "six.test",
            six: Answer::addresses(7, [six(1)]),
            four: nothing(),
            expected: Ok((vec![six(1)], Some(7))),
        },
        // The alias holds for less long than what it leads to.
        Row {
            name: "alias.test",
            six: nothing(),
            four: alias(9, four(5)),
            expected: Ok((vec![four(5)], Some(9))),
        },
        Row {
            name: "zero.test",
            six: nothing(),
            four: Answer::addresses(0, [four(1)]),
            expected: Ok((vec![four(1)], Some(0))),
        },
        // What a failing half leaves behind is asked for again soon.
        Row {
            name: "half.test",
            six: Answer::Code(2),
            four: Answer::addresses(300, [four(1)]),
            expected: Ok((vec![four(1)], Some(5))),
        },
        Row {
            name: "none.test",
            six: nothing(),
            four: nothing(),
            expected: Err("the name has no address"),
        },
        Row {
            name: "lost.test",
            six: Answer::Records(vec![Record::alias(60, "nowhere.test")]),
            four: Answer::Records(vec![Record::alias(60, "nowhere.test")]),
            expected: Err("the name has no address"),
        },
        Row {
            name: "missing.test",
            six: Answer::Code(3),
            four: Answer::Code(3),
            expected: Err("the name does not exist (NXDOMAIN)"),
        },
        Row {
            name: "broken.test",
            six: Answer::Code(2),
            four: Answer::Code(2),
            expected: Err("the name server answers with the error 2"),
        },
        // Nothing is known of one family, which is not the same as that there is nothing.
        Row {
            name: "unknown.test",
            six: nothing(),
            four: Answer::Code(5),
            expected: Err("the name server answers with the error 5"),
        },
    ];
    let told: Vec<_> = rows
        .iter()
        .map(|row| (row.name, row.six.clone(), row.four.clone()))
        .collect();
    let names = NameServer::new(move |name, kind| {
        if name == "nowhere.test" {
            return Answer::Records(Vec::new());
        }
        let known = told.iter().find(|(known, ..)| *known == name);
        let (_, six, four) = known.expect("a name of the table");
        if kind == AAAA {
            six.clone()
        } else {
            four.clone()
        }
    });
    let resolver = resolver(&names);
    for row in rows {
        let found = within(resolver.resolve(row.name)).await;
        match row.expected {
            Ok((addresses, ttl)) => {
                let found = found.unwrap();
                let expected: Vec<_> = addresses
                    .into_iter()
                    .map(|address| SocketAddr::new(address, 0))
                    .collect();
                assert_eq!(found.addrs, expected, "{}", row.name);
                assert_eq!(found.ttl, ttl.map(Duration::from_secs), "{}", row.name);
            }
            Err(text) => {
                let line = found.unwrap_err().to_string();
                assert!(line.contains(text), "{}: {line}", row.name);
            }
        }
    }
}

/// The addresses of IPv6 come first; where nobody listens at the one, the other is used.
#[tokio::test]
async fn a_call_by_name() {
    within(async {
        let server = Server::plain(honest);
        let names = NameServer::new(|_, kind| match kind {
            AAAA => Answer::addresses(300, [SIX]),
            _ => Answer::addresses(300, [FOUR]),
        });
        let client = client(&names);
        let url = server.url_of("Some.test", "/x");
        for dial in 1..=2 {
            let response = client.get(&url).send().await.unwrap();
            assert_eq!(response.connection().remote_addr, Some(server.address()));
            assert_eq!(response.text().await.unwrap(), "GET /x ");
            client.close_idle();
            // It is remembered.
            assert_eq!(names.asked("some.test", A), 1);
            assert_eq!(names.asked("some.test", AAAA), 1);
            assert_eq!(server.accepted(), dial);
        }
        // With the dot it is the same for DNS, and another host for us.
        let url = server.url_of("some.test.", "/x");
        client.get(&url).send().await.unwrap().text().await.unwrap();
        assert_eq!(names.asked("some.test", A), 2);
        at_rest(&client);
    })
    .await;
}

#[tokio::test]
async fn an_answer_holds_for_as_long_as_it_says() {
    within(async {
        let server = Server::plain(honest);
        let names = NameServer::new(|name, kind| match (name, kind) {
            (_, AAAA) => Answer::Records(Vec::new()),
            ("never.test", _) => Answer::addresses(0, [FOUR]),
            _ => Answer::addresses(1, [FOUR]),
        });
        let client = client(&names);
        let dial = async |host: &str| {
            let response = client.get(server.url_of(host, "/")).send().await.unwrap();
            response.text().await.unwrap();
            client.close_idle();
        };
        for times in 1..=3 {
            dial("never.test").await;
            assert_eq!(names.asked("never.test", A), times);
        }
        // It holds for a second, and not for long after.
        let begun = Instant::now();
        dial("second.test").await;
        let mut dials = 1;
        while names.asked("second.test", A) == 1 {
            dial("second.test").await;
            dials += 1;
        }
        let held = begun.elapsed();
        assert!(held >= Duration::from_secs(1), "{held:?}");
        assert!(dials > 2, "{dials}");
        at_rest(&client);
    })
    .await;
}

#[tokio::test]
async fn a_name_that_does_not_exist() {
    within(async {
        let names = NameServer::new(|_, _| Answer::Code(3));
        let client = client(&names);
        for asked in 1..=2 {
            let error = failed(&client, "http://missing.test/?secret").await;
            assert_eq!(error.kind(), ErrorKind::Resolve, "{error}");
            assert_eq!(error.phase(), Some(Phase::Resolve));
            assert_eq!(error.io_kind(), Some(io::ErrorKind::NotFound));
            let line = error.to_string();
            assert!(line.contains("missing.test"), "{line}");
            assert!(
                line.contains("the name does not exist (NXDOMAIN)"),
                "{line}"
            );
            assert!(!line.contains("secret"), "{line}");
            // A failure is not remembered, by the crate below neither.
            assert_eq!(names.asked("missing.test", A), asked);
            at_rest(&client);
        }
    })
    .await;
}

/// However many there are, each family has its share of those that are tried (security D1).
#[tokio::test]
async fn answers_are_capped() {
    within(async {
        let names = NameServer::new(|_, kind| match kind {
            AAAA => Answer::addresses(300, [SIX]),
            _ => Answer::addresses(300, (1..=60).map(|last| [127, 0, 0, last])),
        });
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let client = client(&names);
        let error = failed(&client, &format!("http://many.test:{port}/")).await;
        assert_eq!(error.kind(), ErrorKind::Connect, "{error}");
        let line = error.to_string();
        assert!(line.contains(&format!("[::1]:{port}")), "{line}");
        for last in 1..=60 {
            let is_tried = line.contains(&format!("127.0.0.{last}:{port}"));
            assert_eq!(is_tried, last <= 31, "127.0.0.{last} in {line}");
        }
        at_rest(&client);
    })
    .await;
}

#[tokio::test]
async fn a_server_that_never_answers_runs_into_the_connect_limit() {
    within(async {
        let names = NameServer::new(|_, _| Answer::Silence);
        let client = Client::builder()
            .resolver(resolver(&names))
            .connect_timeout(Duration::from_millis(300))
            .build()
            .unwrap();
        let error = client.get("http://a.test/").send().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
        assert_eq!(error.phase(), Some(Phase::Resolve));
        assert!(error.is_connect(), "{error}");
        assert_eq!(names.asked("a.test", A), 1);
        until("the dial ends", || {
            client.stats().total.connections_connecting == 0
        })
        .await;
        at_rest(&client);
    })
    .await;
}

/// Many networks lose the questions about one family: that costs 50 ms, not the five seconds that a server has to answer.
#[tokio::test]
async fn a_server_that_is_silent_about_one_family() {
    for silent in [A, AAAA] {
        let names = NameServer::new(move |_, kind| match kind {
            kind if kind == silent => Answer::Silence,
            A => Answer::addresses(300, [FOUR]),
            _ => Answer::addresses(300, [SIX]),
        });
        let begun = Instant::now();
        let found = within(resolver(&names).resolve("a.test")).await.unwrap();
        let took = begun.elapsed();
        let other: IpAddr = if silent == A { SIX.into() } else { FOUR.into() };
        assert_eq!(found.addrs, [SocketAddr::new(other, 0)]);
        assert_eq!(found.ttl, Some(Duration::from_secs(5)));
        assert!(took >= Duration::from_millis(50), "{took:?}");
        assert!(took < Duration::from_secs(4), "{took:?}");
        assert_eq!(names.questions().len(), 2, "{:?}", names.questions());
    }
}

/// A client outlives a runtime, and its resolver with it.
#[test]
fn two_runtimes_one_resolver() {
    let server = Server::plain(honest);
    let names = NameServer::new(|_, kind| match kind {
        A => Answer::addresses(0, [FOUR]),
        _ => Answer::Records(Vec::new()),
    });
    let client = client(&names);
    for number in 1..=3 {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(within(async {
            let response = client.get(server.url_of("a.test", "/")).send().await;
            assert_eq!(response.unwrap().text().await.unwrap(), "GET / ");
        }));
        assert_eq!(names.asked("a.test", A), number);
    }
}
