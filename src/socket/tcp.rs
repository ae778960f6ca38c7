//! Opens a TCP connection to one of several addresses: a race with head starts (RFC 8305 section 5).
//!
//! The attempts begin in the order given, each 250 ms after the one before, or at once when one has failed; the first to
//! connect wins, and the others are dropped. All of it is one future, polled by the dial's task: nothing is spawned, and
//! dropping the future closes every socket that it has opened. What is learnt of the addresses goes into [`Penalties`].
//! `dial` calls this; the order is made in `addresses`.

use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::slice;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep_until};

use super::addresses::Penalties;
use super::tcp_options::TcpOptions;
use crate::stats::{DialTold, StepTold};

/// Every attempt of a dial that failed, in the order in which they began, after the addresses that a setting excludes.
pub(super) type Failures = Vec<(SocketAddr, io::Error)>;

/// Connects to the address that is first to accept.
pub(super) async fn connect(
    addresses: &[SocketAddr],
    options: &TcpOptions,
    penalties: &Penalties,
    told: Option<DialTold<'_>>,
) -> Result<TcpStream, Failures> {
    race(addresses, penalties, |address| {
        tell(told, Some(address), options.connect(address))
    })
    .await
}

/// Tells of the beginning and the end of a connection to one address.
pub(super) async fn tell<T>(
    told: Option<DialTold<'_>>,
    address: Option<SocketAddr>,
    connecting: impl Future<Output = io::Result<T>>,
) -> io::Result<T> {
    let step = StepTold::connect(told, address);
    let connected = connecting.await;
    match &connected {
        Ok(_) => step.connected(),
        Err(error) => step.failed(error.kind()),
    }
    connected
}

/// What `connect` makes of the first address that it succeeds for.
async fn race<T, F>(
    addresses: &[SocketAddr],
    penalties: &Penalties,
    connect: impl Fn(SocketAddr) -> F,
) -> Result<T, Failures>
where
    F: Future<Output = io::Result<T>>,
{
    // Nobody to race against: no timer, and nothing allocated.
    if let [address] = *addresses {
        let attempt = OnlyAttempt {
            address,
            penalties: Some(penalties),
        };
        let stream = connect(address)
            .await
            .map_err(|error| vec![(address, error)])?;
        attempt.connected();
        return Ok(stream);
    }
    let mut race = Race {
        waiting: addresses.iter(),
        connect,
        penalties,
        attempts: Vec::new(),
    };
    let begun = race.begin_next().unwrap_or_else(Instant::now);
    let mut head_start = pin!(sleep_until(begun + HEAD_START));
    poll_fn(|cx| race.poll(cx, head_start.as_mut())).await
}

/// Penalises its address when it is dropped, failed or unfinished, unless it has connected.
struct OnlyAttempt<'a> {
    address: SocketAddr,
    penalties: Option<&'a Penalties>,
}

impl OnlyAttempt<'_> {
    fn connected(mut self) {
        if let Some(penalties) = self.penalties.take() {
            penalties.clear(self.address);
        }
    }
}

impl Drop for OnlyAttempt<'_> {
    fn drop(&mut self) {
        if let Some(penalties) = self.penalties {
            penalties.penalise(self.address, Instant::now());
        }
    }
}

/// Attempts that run beside each other.
struct Race<'a, C, F> {
    waiting: slice::Iter<'a, SocketAddr>,
    connect: C,
    penalties: &'a Penalties,
    /// In the order in which they began.
    attempts: Vec<Attempt<F>>,
}

struct Attempt<F> {
    address: SocketAddr,
    begun: Instant,
    state: State<F>,
}

enum State<F> {
    Running(Pin<Box<F>>),
    Failed(io::Error),
}

impl<T, C, F> Race<'_, C, F>
where
    C: Fn(SocketAddr) -> F,
    F: Future<Output = io::Result<T>>,
{
    /// `head_start` ends when the next attempt may begin.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        mut head_start: Pin<&mut Sleep>,
    ) -> Poll<Result<T, Failures>> {
        loop {
            let mut failed = false;
            for attempt in &mut self.attempts {
                let State::Running(connecting) = &mut attempt.state else {
                    continue;
                };
                match connecting.as_mut().poll(cx) {
                    Poll::Pending => {}
                    Poll::Ready(Ok(stream)) => {
                        let (address, begun) = (attempt.address, attempt.begun);
                        self.won(address, begun);
                        return Poll::Ready(Ok(stream));
                    }
                    Poll::Ready(Err(error)) => {
                        self.penalties.penalise(attempt.address, Instant::now());
                        attempt.state = State::Failed(error);
                        failed = true;
                    }
                }
            }
            // A failed attempt needs no more time for itself, so the next one does not wait for the rest of it.
            let may_begin =
                failed || (self.waiting.len() > 0 && head_start.as_mut().poll(cx).is_ready());
            let begun = may_begin.then(|| self.begin_next()).flatten();
            if let Some(begun) = begun {
                head_start.as_mut().reset(begun + HEAD_START);
            } else if self.running().next().is_some() {
                return Poll::Pending;
            } else {
                return Poll::Ready(Err(self.take_failures()));
            }
        }
    }

    /// Begins the attempt that is next in line; `None` if there is none.
    fn begin_next(&mut self) -> Option<Instant> {
        let address = *self.waiting.next()?;
        let begun = Instant::now();
        self.attempts.push(Attempt {
            address,
            begun,
            state: State::Running(Box::pin((self.connect)(address))),
        });
        Some(begun)
    }

    /// Overtaken are the attempts that had a whole head start and still lost. One that began with the winner, or after
    /// it, may have been as fast.
    fn won(&mut self, address: SocketAddr, begun: Instant) {
        self.penalties.clear(address);
        let now = Instant::now();
        for attempt in self.running() {
            if begun.saturating_duration_since(attempt.begun) >= HEAD_START {
                self.penalties.penalise(attempt.address, now);
            }
        }
        self.attempts.clear();
    }

    fn take_failures(&mut self) -> Failures {
        let attempts = self.attempts.drain(..);
        attempts
            .filter_map(|attempt| match attempt.state {
                State::Failed(error) => Some((attempt.address, error)),
                State::Running(_) => None,
            })
            .collect()
    }
}

impl<C, F> Race<'_, C, F> {
    fn running(&self) -> impl Iterator<Item = &Attempt<F>> {
        self.attempts
            .iter()
            .filter(|attempt| matches!(attempt.state, State::Running(_)))
    }
}

/// The limit has struck. An attempt that had less than a head start is not to blame for that while an older one runs: with
/// a penalty of its own it would be behind the older one again in every dial, and never get more time than in this one.
impl<C, F> Drop for Race<'_, C, F> {
    fn drop(&mut self) {
        let now = Instant::now();
        for (place, attempt) in self.running().enumerate() {
            if place == 0 || now.saturating_duration_since(attempt.begun) >= HEAD_START {
                self.penalties.penalise(attempt.address, now);
            }
        }
    }
}

/// How long an attempt has before the next one begins beside it: the Connection Attempt Delay that RFC 8305 section 8
/// recommends. It is above the round trip to nearly every peer, so that the first attempt normally is the only one.
const HEAD_START: Duration = Duration::from_millis(250);

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::io::ErrorKind;
    use std::net::TcpListener;
    use std::rc::Rc;

    use socket2::{Domain, Socket, Type};
    use tokio::time::{sleep, timeout};

    use super::*;

    /// What becomes of an attempt.
    #[derive(Clone, Copy, Debug)]
    enum Fate {
        /// It connects after so many milliseconds.
        Connects(u64),
        /// It fails after so many milliseconds.
        Fails(u64),
        Hangs,
    }

    use Fate::{Connects, Fails, Hangs};

    fn nth(number: usize) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, u8::try_from(number).unwrap()], 80))
    }

    /// What was seen of a race.
    #[derive(Debug, PartialEq, Eq)]
    struct Seen {
        /// The winner, or those that failed; `None` if the limit struck.
        outcome: Option<Result<usize, Vec<usize>>>,
        /// Milliseconds until then.
        took: u128,
        /// Milliseconds at which the attempts began.
        begun: Vec<u128>,
        penalised: Vec<usize>,
    }

    /// Counts the attempts that exist.
    struct Alive(Rc<RefCell<usize>>);

    impl Alive {
        fn new(count: &Rc<RefCell<usize>>) -> Self {
            *count.borrow_mut() += 1;
            Self(Rc::clone(count))
        }
    }

    impl Drop for Alive {
        fn drop(&mut self) {
            *self.0.borrow_mut() -= 1;
        }
    }

    async fn run(fates: &[Fate], limit: Option<u64>, penalties: &Penalties) -> Seen {
        let start = Instant::now();
        let begun = RefCell::new(Vec::new());
        let alive = Rc::new(RefCell::new(0));
        let addresses: Vec<_> = (0..fates.len()).map(nth).collect();
        let number = |address| addresses.iter().position(|other| *other == address);
        let racing = race(&addresses, penalties, |address| {
            let number = number(address).unwrap();
            assert_eq!(number, begun.borrow().len(), "one after the other");
            begun.borrow_mut().push(start.elapsed().as_millis());
            let (alive, fate) = (Alive::new(&alive), fates[number]);
            async move {
                let _alive = alive;
                let wait = |milliseconds| sleep(Duration::from_millis(milliseconds));
                match fate {
                    // Without a wait, not even for a timer that is over at once.
                    Connects(0) => Ok(number),
                    Fails(0) => Err(io::Error::other("at once")),
                    Connects(after) => {
                        wait(after).await;
                        Ok(number)
                    }
                    Fails(after) => {
                        wait(after).await;
                        Err(io::Error::other("later"))
                    }
                    Hangs => std::future::pending().await,
                }
            }
        });
        let limit = Duration::from_millis(limit.unwrap_or(1_000_000));
        let outcome = timeout(limit, racing).await.ok();
        assert_eq!(*alive.borrow(), 0, "every attempt is dropped");
        let now = Instant::now();
        Seen {
            outcome: outcome.map(|outcome| {
                outcome.map_err(|failures| {
                    let failed = failures.into_iter().map(|(address, _)| address);
                    failed.map(|address| number(address).unwrap()).collect()
                })
            }),
            took: start.elapsed().as_millis(),
            begun: begun.into_inner(),
            penalised: (0..fates.len())
                .filter(|number| penalties.holds(nth(*number), now))
                .collect(),
        }
    }

    async fn check(
        fates: &[Fate],
        outcome: Result<usize, &[usize]>,
        took: u128,
        begun: &[u128],
        penalised: &[usize],
    ) {
        let expected = Seen {
            outcome: Some(outcome.map_err(<[usize]>::to_vec)),
            took,
            begun: begun.to_vec(),
            penalised: penalised.to_vec(),
        };
        let penalties = Penalties::default();
        assert_eq!(run(fates, None, &penalties).await, expected, "{fates:?}");
    }

    async fn check_limit(fates: &[Fate], limit: u64, begun: &[u128], penalised: &[usize]) {
        let expected = Seen {
            outcome: None,
            took: u128::from(limit),
            begun: begun.to_vec(),
            penalised: penalised.to_vec(),
        };
        let seen = run(fates, Some(limit), &Penalties::default()).await;
        assert_eq!(seen, expected, "{fates:?} within {limit} ms");
    }

    #[tokio::test(start_paused = true)]
    async fn the_only_address() {
        check(&[Connects(0)], Ok(0), 0, &[0], &[]).await;
        check(&[Connects(900)], Ok(0), 900, &[0], &[]).await;
        check(&[Fails(0)], Err(&[0]), 0, &[0], &[0]).await;
        check(&[Fails(900)], Err(&[0]), 900, &[0], &[0]).await;
    }

    #[tokio::test(start_paused = true)]
    async fn no_address_at_all_is_a_failure_without_attempts() {
        check(&[], Err(&[]), 0, &[], &[]).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_quick_first_address_is_the_only_one_that_is_tried() {
        check(&[Connects(0), Connects(0)], Ok(0), 0, &[0], &[]).await;
        check(&[Connects(249), Connects(0)], Ok(0), 249, &[0], &[]).await;
    }

    #[tokio::test(start_paused = true)]
    async fn each_attempt_has_a_head_start() {
        check(&[Hangs, Connects(10)], Ok(1), 260, &[0, 250], &[0]).await;
        check(
            &[Hangs, Hangs, Hangs, Connects(10), Connects(0)],
            Ok(3),
            760,
            &[0, 250, 500, 750],
            &[0, 1, 2],
        )
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_to_connect_wins_even_if_it_began_first() {
        // The second began last and is as fast for all that is known.
        check(&[Connects(300), Connects(100)], Ok(0), 300, &[0, 250], &[]).await;
        check(&[Connects(900), Hangs], Ok(0), 900, &[0, 250], &[]).await;
        // Both at once: the one that began first.
        check(&[Connects(350), Connects(100)], Ok(0), 350, &[0, 250], &[]).await;
        check(&[Connects(351), Connects(100)], Ok(1), 350, &[0, 250], &[0]).await;
        check(
            &[Hangs, Connects(400), Hangs],
            Ok(1),
            650,
            &[0, 250, 500],
            &[0],
        )
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_begins_the_next_attempt_at_once() {
        check(&[Fails(0), Connects(0)], Ok(1), 0, &[0, 0], &[0]).await;
        check(&[Fails(40), Connects(5)], Ok(1), 45, &[0, 40], &[0]).await;
        // The head start is counted anew from then.
        check(
            &[Fails(40), Hangs, Connects(5)],
            Ok(2),
            295,
            &[0, 40, 290],
            &[0, 1],
        )
        .await;
        // Also the failure of one that did not begin last.
        check(
            &[Fails(300), Hangs, Connects(5)],
            Ok(2),
            305,
            &[0, 250, 300],
            &[0],
        )
        .await;
        // Two failures in the same moment begin one attempt while another runs.
        check(
            &[Fails(300), Fails(50), Hangs, Connects(5)],
            Ok(3),
            555,
            &[0, 250, 300, 550],
            &[0, 1, 2],
        )
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn an_attempt_that_had_no_whole_head_start_is_not_overtaken() {
        // The second ran for 60 ms only when the third began.
        check(
            &[Fails(310), Hangs, Connects(400)],
            Ok(2),
            710,
            &[0, 250, 310],
            &[0],
        )
        .await;
        check(
            &[Hangs, Fails(60), Connects(10)],
            Ok(2),
            320,
            &[0, 250, 310],
            &[0, 1],
        )
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn when_all_fail_all_are_listed_in_the_order_of_their_beginning() {
        check(
            &[Fails(0), Fails(0), Fails(0)],
            Err(&[0, 1, 2]),
            0,
            &[0, 0, 0],
            &[0, 1, 2],
        )
        .await;
        check(
            &[Fails(900), Fails(10), Fails(700)],
            Err(&[0, 1, 2]),
            960,
            &[0, 250, 260],
            &[0, 1, 2],
        )
        .await;
        let many = [Fails(1); 32];
        let expected: Vec<usize> = (0..32).collect();
        let begun: Vec<u128> = (0..32).collect();
        check(&many, Err(&expected), 32, &begun, &expected).await;
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_that_comes_twice_is_tried_twice() {
        let penalties = Penalties::default();
        let count = RefCell::new(0);
        let addresses = [nth(1), nth(1)];
        let outcome = race(&addresses, &penalties, |_| {
            *count.borrow_mut() += 1;
            let first = *count.borrow() == 1;
            async move {
                if first {
                    Err(io::Error::other("refused"))
                } else {
                    Ok(())
                }
            }
        });
        assert!(outcome.await.is_ok());
        assert_eq!(count.into_inner(), 2);
        assert!(!penalties.holds(nth(1), Instant::now()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_limit_that_strikes_penalises_whoever_ran() {
        check_limit(&[Hangs], 100, &[0], &[0]).await;
        check_limit(&[Hangs], 1_000, &[0], &[0]).await;
        check_limit(&[Hangs, Hangs], 100, &[0], &[0]).await;
        check_limit(&[Hangs; 3], 501, &[0, 250, 500], &[0, 1]).await;
        check_limit(&[Hangs; 3], 900, &[0, 250, 500], &[0, 1, 2]).await;
        // The second had 50 ms only, and must come first in the next dial.
        check_limit(&[Hangs, Connects(80)], 300, &[0, 250], &[0]).await;
        check_limit(&[Connects(900), Hangs], 600, &[0, 250], &[0, 1]).await;
        // Nobody older is left to blame.
        check_limit(&[Fails(90), Hangs], 100, &[0, 90], &[0, 1]).await;
        check_limit(&[Fails(270), Hangs, Hangs], 400, &[0, 250, 270], &[0, 1]).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_dial_that_was_never_polled_blames_nobody() {
        let penalties = Penalties::default();
        drop(race(&[nth(0)], &penalties, |_| async { Ok(()) }));
        drop(race(&[nth(0), nth(1)], &penalties, |_| async { Ok(()) }));
        assert!(!penalties.holds(nth(0), Instant::now()));
        assert!(!penalties.holds(nth(1), Instant::now()));
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_connects_is_forgiven() {
        for (fates, winner) in [
            (vec![Connects(5)], 0),
            (vec![Connects(5), Hangs], 0),
            (vec![Hangs, Connects(5)], 1),
        ] {
            let penalties = Penalties::default();
            penalties.penalise(nth(winner), Instant::now());
            let seen = run(&fates, None, &penalties).await;
            assert_eq!(seen.outcome, Some(Ok(winner)));
            assert!(!seen.penalised.contains(&winner), "{fates:?}");
        }
    }

    fn bound(ip: [u8; 4]) -> (SocketAddr, Socket) {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from((ip, 0)).into()).unwrap();
        let address = socket.local_addr().unwrap().as_socket().unwrap();
        (address, socket)
    }

    /// An address that hangs: a listener that never accepts, with a full backlog. The sockets must be kept.
    #[cfg(target_os = "linux")]
    fn silent() -> (SocketAddr, Vec<Socket>) {
        let (address, listener) = bound([127, 0, 0, 1]);
        listener.listen(0).unwrap();
        let mut sockets = vec![listener];
        loop {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            let connected = socket.connect_timeout(&address.into(), Duration::from_millis(50));
            sockets.push(socket);
            if connected.is_err() {
                return (address, sockets);
            }
            assert!(sockets.len() < 16, "the backlog never fills");
        }
    }

    /// An address that refuses: its port is taken, and nobody listens. The socket must be kept.
    fn refusing() -> (SocketAddr, Socket) {
        bound([127, 0, 0, 1])
    }

    #[tokio::test]
    async fn a_refused_address_hands_over_to_the_next() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let ((refused, _kept), open) = (refusing(), listener.local_addr().unwrap());
        let penalties = Penalties::default();
        let tcp = connect(&[refused, open], &TcpOptions::default(), &penalties, None)
            .await
            .unwrap();
        assert_eq!(tcp.peer_addr().unwrap(), open);
        assert!(tcp.nodelay().unwrap());
        assert!(penalties.holds(refused, Instant::now()));
        assert!(!penalties.holds(open, Instant::now()));
    }

    #[tokio::test]
    async fn refused_addresses_are_all_listed() {
        let penalties = Penalties::default();
        let kept = [refusing(), refusing(), refusing()];
        let addresses: Vec<_> = kept.iter().map(|(address, _)| *address).collect();
        let failures = connect(&addresses, &TcpOptions::default(), &penalties, None)
            .await
            .unwrap_err();
        assert!(failures.iter().map(|(address, _)| address).eq(&addresses));
        for (address, error) in &failures {
            assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{address}");
            assert!(penalties.holds(*address, Instant::now()), "{address}");
        }
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn a_silent_address_is_overtaken() {
        let (silent, _kept) = silent();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let open = listener.local_addr().unwrap();
        let penalties = Penalties::default();
        let begun = Instant::now();
        let tcp = connect(&[silent, open], &TcpOptions::default(), &penalties, None)
            .await
            .unwrap();
        assert_eq!(tcp.peer_addr().unwrap(), open);
        assert!(begun.elapsed() >= HEAD_START);
        assert!(penalties.holds(silent, Instant::now()));
        assert!(!penalties.holds(open, Instant::now()));
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn a_silent_address_is_penalised_when_the_limit_strikes() {
        let (silent, _kept) = silent();
        let penalties = Penalties::default();
        let limit = Duration::from_millis(20);
        assert!(
            timeout(
                limit,
                connect(&[silent], &TcpOptions::default(), &penalties, None)
            )
            .await
            .is_err()
        );
        assert!(penalties.holds(silent, Instant::now()));
    }
}
