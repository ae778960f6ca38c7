//! Finds the addresses of a name: settled ones, remembered ones, or by a lookup that all of a runtime who wait share.
//!
//! One of these a client. A lookup is a task, so that it outlives the dial that caused it as long as another one waits for
//! it; it ends with the last of them. No runtime waits for a task of another one, which may stand still. Called by `dial`;
//! what is remembered is decided in `name_cache`.

use std::any::Any;
use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::Poll;
use std::time::Duration;

use tokio::runtime::{self, Handle};
use tokio::sync::watch;
use tokio::time::Instant;

use super::dns::{Resolve, System};
use super::name_cache::{Answer, LookupId, NameCache};

/// The addresses of hosts by name in lower case, without a trailing dot.
pub(crate) type Overrides = HashMap<String, Vec<SocketAddr>>;

/// What a client knows of names.
pub(super) struct Names {
    resolver: Arc<dyn Resolve>,
    overrides: HashMap<Box<str>, Answer>,
    /// Held for a few lines; nothing is asked or woken under it.
    cache: Mutex<NameCache<Weak<Lookup>, runtime::Id>>,
}

/// A lookup that runs: it goes on for as long as one of these exists.
type Lookup = watch::Receiver<Option<Outcome>>;

/// What came of it, for all who wait.
type Outcome = Result<Answer, Arc<io::Error>>;

/// The addresses of a name.
#[derive(Debug)]
pub(super) struct Found {
    /// Never empty; port 0 stands for that of the URL.
    pub(super) answer: Answer,
    /// Whether it was known before it was asked for, so that another lookup may find something else.
    pub(super) is_remembered: bool,
}

/// How a caller comes by an answer.
enum Way {
    Known(Answer),
    Wait(Arc<Lookup>),
}

impl Names {
    pub(super) fn new(resolver: Option<Arc<dyn Resolve>>, overrides: Overrides) -> Self {
        Self {
            resolver: resolver.unwrap_or_else(|| Arc::new(System)),
            overrides: overrides
                .into_iter()
                .map(|(host, addresses)| (host.into(), addresses.into()))
                .collect(),
            cache: Mutex::default(),
        }
    }

    /// The addresses of `host`. Dropping the future leaves the lookup to the others who wait for it.
    pub(super) async fn find(self: &Arc<Self>, host: &str) -> io::Result<Found> {
        if let Some(answer) = self.settled(host) {
            return Ok(Found {
                answer: Arc::clone(answer),
                is_remembered: false,
            });
        }
        let lookup = match self.way_to(host) {
            Way::Known(answer) => {
                return Ok(Found {
                    answer,
                    is_remembered: true,
                });
            }
            Way::Wait(lookup) => lookup,
        };
        let mut told = Lookup::clone(&lookup);
        let outcome = told.wait_for(Option::is_some).await;
        match outcome.ok().and_then(|outcome| outcome.clone()) {
            Some(Ok(answer)) => Ok(Found {
                answer,
                is_remembered: false,
            }),
            Some(Err(error)) => Err(share(error)),
            None => Err(io::Error::other(
                "the lookup ended without an answer: its runtime has ended",
            )),
        }
    }

    /// All addresses of this answer have failed: the next who asks has it looked up anew.
    pub(super) fn forget(&self, host: &str, answer: &Answer) {
        self.cache().forget(host, answer);
    }

    /// The network has changed.
    pub(super) fn forget_all(&self) {
        self.cache().forget_all();
    }

    fn settled(&self, host: &str) -> Option<&Answer> {
        if self.overrides.is_empty() {
            return None;
        }
        self.overrides.get(host.strip_suffix('.').unwrap_or(host))
    }

    fn way_to(self: &Arc<Self>, host: &str) -> Way {
        let now = Instant::now();
        let mut cache = self.cache();
        if let Some(answer) = cache.answer(host, now) {
            return Way::Known(answer);
        }
        let asked = (Arc::<str>::from(host), Handle::current().id());
        let running = cache.running(&asked, now).and_then(Weak::upgrade);
        // One that ended without an answer stays as long as somebody has yet to find out.
        if let Some(lookup) = running.filter(|lookup| lookup.has_changed().is_ok()) {
            return Way::Wait(lookup);
        }
        let (sender, receiver) = watch::channel(None);
        let lookup = Arc::new(receiver);
        let mut begun = None;
        cache.begin(
            &asked,
            now,
            |id| {
                begun = Some(id);
                Arc::downgrade(&lookup)
            },
            |other| other.strong_count() == 0,
        );
        drop(cache);
        if let Some(id) = begun {
            tokio::spawn(Arc::clone(self).look_up(asked, id, sender));
        }
        Way::Wait(lookup)
    }

    /// Asks the resolver, until it answers or nobody waits for it any more.
    async fn look_up(
        self: Arc<Self>,
        asked: (Arc<str>, runtime::Id),
        id: LookupId,
        sender: watch::Sender<Option<Outcome>>,
    ) {
        let mut asking = pin!(ask(&*self.resolver, &asked.0));
        let mut left = pin!(sender.closed());
        let outcome = poll_fn(|cx| {
            // What a resolver of the user's leaves behind when it panics is not used again.
            let polled = catch_unwind(AssertUnwindSafe(|| asking.as_mut().poll(cx)));
            match polled.unwrap_or_else(|panic| Poll::Ready(Err(panicked(&*panic)))) {
                Poll::Ready(outcome) => Poll::Ready(Some(outcome)),
                Poll::Pending => left.as_mut().poll(cx).map(|()| None),
            }
        })
        .await;
        let answer = match &outcome {
            Some(Ok((answer, ttl))) => Some((answer, *ttl)),
            Some(Err(_)) | None => None,
        };
        self.cache().end(&asked, id, answer, Instant::now());
        let outcome = outcome.map(|outcome| outcome.map(|(answer, _)| answer).map_err(Arc::new));
        sender.send_replace(outcome);
    }

    fn cache(&self) -> MutexGuard<'_, NameCache<Weak<Lookup>, runtime::Id>> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn ask(resolver: &dyn Resolve, host: &str) -> io::Result<(Answer, Option<Duration>)> {
    let resolved = resolver.resolve(host).await?;
    let kept = keep(&resolved.addrs);
    if kept.is_empty() {
        return Err(io::Error::new(
            io::ErrorKind::NotFound,
            "the name has no address: the resolver's answer is empty",
        ));
    }
    Ok((kept.into(), resolved.ttl))
}

/// The first addresses, each once, those of the preferred family before those of the other. Where there are too many, each
/// family has half of the places, and what the other one leaves.
fn keep(addresses: &[SocketAddr]) -> Vec<SocketAddr> {
    let is_ipv4_first = addresses.first().is_some_and(SocketAddr::is_ipv4);
    let (mut first, mut second) = (Vec::new(), Vec::new());
    for address in addresses {
        let family = match address.is_ipv4() == is_ipv4_first {
            true => &mut first,
            false => &mut second,
        };
        if family.len() < MAX_ADDRESSES && !family.contains(address) {
            family.push(*address);
        }
    }
    first.truncate((MAX_ADDRESSES / 2).max(MAX_ADDRESSES - second.len()));
    second.truncate(MAX_ADDRESSES - first.len());
    first.append(&mut second);
    first
}

/// The words of a panic may hold anything, so they stay with the panic hook.
fn panicked(_: &(dyn Any + Send)) -> io::Error {
    io::Error::other("the resolver panicked")
}

/// An error for one of those who waited.
fn share(error: Arc<io::Error>) -> io::Error {
    match error.raw_os_error() {
        Some(code) => io::Error::from_raw_os_error(code),
        None => io::Error::new(error.kind(), Shared(error)),
    }
}

#[derive(Debug)]
struct Shared(Arc<io::Error>);

impl std::fmt::Display for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for Shared {}

/// Addresses of one answer, or of one override; more are ignored or refused (security D1).
pub(crate) const MAX_ADDRESSES: usize = 32;

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::Notify;
    use tokio::time::{advance, sleep, timeout};

    use super::super::dns::Resolved;
    use super::*;
    use crate::error::BoxFuture;

    /// Answers after a time, counts, and tells of lookups that were dropped.
    #[derive(Default)]
    struct Fake {
        asked: AtomicUsize,
        dropped: AtomicUsize,
        after: Duration,
        ttl: Option<Duration>,
        wake: Notify,
    }

    struct Unfinished<'a>(&'a Fake, bool);

    impl Drop for Unfinished<'_> {
        fn drop(&mut self) {
            if !self.1 {
                self.0.dropped.fetch_add(1, Ordering::SeqCst);
                self.0.wake.notify_one();
            }
        }
    }

    impl Resolve for Arc<Fake> {
        fn resolve<'a>(&'a self, host: &'a str) -> BoxFuture<'a, io::Result<Resolved>> {
            Box::pin(async move {
                let number = self.asked.fetch_add(1, Ordering::SeqCst) + 1;
                let mut unfinished = Unfinished(self, false);
                sleep(self.after).await;
                unfinished.1 = true;
                let address = [192, 0, 2, u8::try_from(number % 250).unwrap()];
                match host {
                    "missing.test" => Err(io::Error::new(io::ErrorKind::NotFound, "no such name")),
                    "empty.test" => Ok(Resolved::new([])),
                    "panic.test" => panic!("a secret of the resolver"),
                    "many.test" => Ok(Resolved {
                        addrs: (0..2_000)
                            .map(|port: u16| ([192, 0, 2, 1], port / 2).into())
                            .collect(),
                        ttl: None,
                    }),
                    "both.test" | "few.test" => {
                        let fours = if host == "few.test" { 3 } else { 40 };
                        let six =
                            (0..40).map(|last| ([0x2001, 0xdb8, 0, 0, 0, 0, 0, last], 0).into());
                        let four = (0..fours).map(|last| ([192, 0, 2, last], 0).into());
                        Ok(Resolved {
                            addrs: six.chain(four).collect(),
                            ttl: None,
                        })
                    }
                    _ => Ok(Resolved {
                        addrs: vec![(address, 0).into()],
                        ttl: self.ttl,
                    }),
                }
            })
        }
    }

    fn names(fake: Fake) -> (Arc<Fake>, Arc<Names>) {
        let fake = Arc::new(fake);
        let names = Names::new(Some(Arc::new(Arc::clone(&fake))), Overrides::new());
        (fake, Arc::new(names))
    }

    fn slow(seconds: u64) -> Fake {
        Fake {
            after: Duration::from_secs(seconds),
            ..Fake::default()
        }
    }

    fn asked(fake: &Fake) -> usize {
        fake.asked.load(Ordering::SeqCst)
    }

    #[tokio::test(start_paused = true)]
    async fn a_hundred_at_once_make_one_lookup() {
        let (fake, names) = names(slow(1));
        let tasks: Vec<_> = (0..100)
            .map(|_| {
                let names = Arc::clone(&names);
                tokio::spawn(async move { names.find("a.test").await.unwrap().answer })
            })
            .collect();
        let mut answers = Vec::new();
        for task in tasks {
            answers.push(task.await.unwrap());
        }
        assert_eq!(answers.len(), 100);
        assert!(
            answers
                .iter()
                .all(|answer| Arc::ptr_eq(answer, &answers[0]))
        );
        assert_eq!(asked(&fake), 1);
        assert!(names.find("a.test").await.unwrap().is_remembered);
        assert_eq!(asked(&fake), 1);
        assert!(!names.find("b.test").await.unwrap().is_remembered);
        assert_eq!(asked(&fake), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn who_leaves_does_not_take_the_lookup_along() {
        let (fake, names) = names(slow(5));
        let stays = {
            let names = Arc::clone(&names);
            // It joins, although it did not begin the lookup.
            async move {
                sleep(Duration::from_secs(1)).await;
                names.find("a.test").await
            }
        };
        let stays = tokio::spawn(stays);
        let leaves = timeout(Duration::from_secs(2), names.find("a.test"));
        assert!(leaves.await.is_err());
        assert!(stays.await.unwrap().is_ok());
        assert_eq!((asked(&fake), fake.dropped.load(Ordering::SeqCst)), (1, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_to_leave_ends_it() {
        let (fake, names) = names(slow(3_600));
        for round in 1..=3 {
            let leaves = timeout(Duration::from_secs(2), names.find("a.test"));
            assert!(leaves.await.is_err());
            fake.wake.notified().await;
            assert_eq!(asked(&fake), round);
            assert_eq!(fake.dropped.load(Ordering::SeqCst), round);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_lookup_that_hangs_is_not_joined_for_ever() {
        let (fake, names) = names(slow(3_600));
        let mut waiting = Vec::new();
        for _ in 0..5 {
            let names = Arc::clone(&names);
            waiting.push(tokio::spawn(async move { names.find("a.test").await }));
            tokio::task::yield_now().await;
            advance(Duration::from_secs(4)).await;
        }
        // At 0, 4, 8, 12 and 16 s: the fourth finds the first too old.
        assert_eq!(asked(&fake), 2);
        waiting.iter().for_each(tokio::task::JoinHandle::abort);
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_expires_when_its_time_is_over() {
        let told = Some(Duration::from_secs(7));
        for (ttl, holds) in [(None, 30), (told, 7)] {
            let (fake, names) = names(Fake {
                ttl,
                ..Fake::default()
            });
            let first = names.find("a.test").await.unwrap().answer;
            advance(Duration::from_secs(holds - 1)).await;
            assert_eq!(names.find("a.test").await.unwrap().answer, first);
            advance(Duration::from_secs(1)).await;
            let second = names.find("a.test").await.unwrap();
            assert_ne!(second.answer, first);
            assert!(!second.is_remembered);
            assert_eq!(asked(&fake), 2);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_has_failed_or_is_stale_is_looked_up_anew() {
        let (fake, names) = names(Fake::default());
        let first = names.find("a.test").await.unwrap().answer;
        names.forget("a.test", &first);
        let second = names.find("a.test").await.unwrap().answer;
        names.forget("a.test", &first);
        assert_eq!(names.find("a.test").await.unwrap().answer, second);
        names.forget_all();
        assert!(!names.find("a.test").await.unwrap().is_remembered);
        assert_eq!(asked(&fake), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn faults_of_a_resolver_are_errors_and_not_remembered() {
        let (fake, names) = names(Fake::default());
        let mut expected = 0;
        for (host, kind, text) in [
            ("missing.test", io::ErrorKind::NotFound, "no such name"),
            (
                "empty.test",
                io::ErrorKind::NotFound,
                "the name has no address: the resolver's answer is empty",
            ),
            ("panic.test", io::ErrorKind::Other, "the resolver panicked"),
        ] {
            for _ in 0..2 {
                let error = names.find(host).await.unwrap_err();
                assert_eq!((error.kind(), error.to_string()), (kind, text.to_owned()));
                expected += 1;
                assert_eq!(asked(&fake), expected);
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn addresses_are_bounded_and_none_comes_twice() {
        let (_, names) = names(Fake::default());
        let answer = names.find("many.test").await.unwrap().answer;
        let ports: Vec<_> = answer.iter().map(SocketAddr::port).collect();
        assert_eq!(ports, (0..32).collect::<Vec<u16>>());
    }

    /// Where one family leads nowhere the other must be there to be tried (RFC 8305 section 4).
    #[tokio::test(start_paused = true)]
    async fn no_family_takes_the_place_of_the_other() {
        let (_, names) = names(Fake::default());
        for (host, sixes) in [("both.test", 16), ("few.test", 29)] {
            let answer = names.find(host).await.unwrap().answer;
            let (six, four) = answer.split_at(sixes);
            assert_eq!(answer.len(), 32);
            for (family, is_four) in [(six, false), (four, true)] {
                assert!(family.iter().all(|address| address.is_ipv4() == is_four));
                assert!(family.is_sorted(), "the first ones, in their order");
            }
            assert_eq!(six[0].to_string(), "[2001:db8::]:0");
            assert_eq!(four[0].to_string(), "192.0.2.0:0");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_settled_is_never_looked_up() {
        let fake = Arc::new(Fake::default());
        let settled: SocketAddr = ([192, 0, 2, 99], 8080).into();
        let overrides = Overrides::from([("a.test".to_owned(), vec![settled])]);
        let names = Names::new(Some(Arc::new(Arc::clone(&fake))), overrides);
        let names = Arc::new(names);
        for host in ["a.test", "a.test."] {
            assert_eq!(*names.find(host).await.unwrap().answer, [settled]);
        }
        assert_eq!(asked(&fake), 0);
        names.find("b.a.test").await.unwrap();
        assert_eq!(asked(&fake), 1);
    }

    #[test]
    fn no_runtime_waits_for_another_one() {
        let (fake, names) = names(slow(0));
        let [first, second] = [(); 2].map(|()| {
            tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap()
        });
        // The lookup is begun on a runtime that never polls it.
        let begun = {
            let _inside = first.enter();
            match names.way_to("a.test") {
                Way::Wait(lookup) => lookup,
                Way::Known(_) => panic!("nothing is known yet"),
            }
        };
        assert!(second.block_on(names.find("a.test")).is_ok());
        assert_eq!(asked(&fake), 1);
        // What one has found out the others know.
        assert!(first.block_on(names.find("a.test")).unwrap().is_remembered);
        drop(begun);
    }
}
