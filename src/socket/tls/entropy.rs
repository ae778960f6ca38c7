//! Gathers what the random numbers of TLS begin with before the first handshake of a process, on a thread that may wait for it.
//!
//! aws-lc-rs measures the jitter of the processor for that, which takes tens of milliseconds and is done in the first draw.
//! Done in a handshake, it would hold up everything else of its runtime. `dial` starts it beside the look-up and the
//! connecting, so that little of it is left to wait for; `handshake` waits.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::task::spawn_blocking;

use super::provider;

/// Gathered once a process, whatever asks first.
static ENTROPY: Entropy = Entropy::new();

/// Begins to gather, unless that was done before; waits for nothing. Called in a runtime.
pub(in crate::socket) fn gather() {
    ENTROPY.gather(draw);
}

/// Whatever follows draws random numbers without a wait. May be dropped at any time; once it has been through, it costs a load.
pub(super) async fn gathered() {
    ENTROPY.gathered(draw).await;
}

/// The first draw. If it fails, so does the handshake, which has an error for it.
fn draw() {
    let _ = provider::default_provider().secure_random.fill(&mut [0]);
}

struct Entropy {
    gathered: OnceLock<()>,
    begun: AtomicBool,
}

impl Entropy {
    const fn new() -> Self {
        Self {
            gathered: OnceLock::new(),
            begun: AtomicBool::new(false),
        }
    }

    fn gather(&'static self, draw: impl FnOnce() + Send + 'static) {
        if self.gathered.get().is_none() && !self.begun.swap(true, Ordering::Relaxed) {
            drop(spawn_blocking(|| self.draw(draw)));
        }
    }

    async fn gathered(&'static self, draw: impl FnOnce() + Send + 'static) {
        if self.gathered.get().is_some() {
            return;
        }
        // On a thread of the own runtime even where another gathers: one with a paused clock sees then that something runs.
        let _ = spawn_blocking(|| self.draw(draw)).await;
    }

    /// Draws, or waits for the one that does.
    fn draw(&self, draw: impl FnOnce()) {
        self.gathered.get_or_init(draw);
    }
}

#[cfg(test)]
mod tests {
    use std::future::ready;
    use std::sync::atomic::AtomicUsize;
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    fn entropy() -> &'static Entropy {
        Box::leak(Box::new(Entropy::new()))
    }

    /// Draws only once its runtime has gone on meanwhile.
    fn patient() -> (mpsc::Sender<()>, impl FnOnce() + Send + 'static) {
        let (go_on, gone_on) = mpsc::channel();
        let draw = move || {
            let waited = gone_on.recv_timeout(Duration::from_secs(10));
            waited.expect("the runtime goes on while entropy is gathered");
        };
        (go_on, draw)
    }

    #[tokio::test]
    async fn the_runtime_goes_on_while_it_is_gathered() {
        let entropy = entropy();
        let (go_on, draw) = patient();
        let others = async { go_on.send(()).expect("it is being gathered") };
        tokio::join!(entropy.gathered(draw), others);
        assert!(entropy.gathered.get().is_some());
    }

    #[tokio::test]
    async fn what_was_begun_before_is_waited_for_and_not_done_again() {
        static DRAWN: AtomicUsize = AtomicUsize::new(0);
        let entropy = entropy();
        let (go_on, draw) = patient();
        entropy.gather(move || {
            draw();
            DRAWN.fetch_add(1, Ordering::Relaxed);
        });
        let again = || {
            DRAWN.fetch_add(1, Ordering::Relaxed);
        };
        entropy.gather(again);
        // A handshake that is given up takes nothing from the others.
        tokio::select! {
            biased;
            () = entropy.gathered(again) => panic!("nothing has gone on yet"),
            () = ready(()) => {}
        }
        go_on.send(()).expect("it is being gathered");
        entropy.gathered(again).await;
        entropy.gather(again);
        entropy.gathered(again).await;
        assert_eq!(DRAWN.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn a_draw_that_panics_is_no_end() {
        let entropy = entropy();
        entropy.gathered(|| panic!("no entropy today")).await;
        assert!(entropy.gathered.get().is_none());
        entropy.gathered(|| {}).await;
        assert!(entropy.gathered.get().is_some());
    }

    #[tokio::test]
    async fn a_handshake_gathers_first() {
        let (ours, theirs) = tokio::io::duplex(1024);
        drop(theirs);
        let socket = super::super::Socket::from_io(ours);
        let config = super::super::TlsConfig::default();
        let versions = crate::config::HttpVersions::Auto;
        let shaken = super::super::handshake(&config, "example.test", versions, socket).await;
        assert!(shaken.is_err());
        assert!(ENTROPY.gathered.get().is_some());
    }
}
