//! A small command for fetching URLs, and a show of what the client does under load.
//!
//! ```text
//! cargo run --release --example fetch                            # the show, against servers of its own
//! cargo run --release --example fetch -- -vw https://example.com # a fetch, explained and drawn
//! cargo run --release --example fetch -- --help
//! ```
//!
//! Read it in this order:
//!
//! - `transfer.rs`: how a request is made and how its response is streamed, with everything that is known of it
//! - `demo.rs`: how one client serves many tasks, how errors are told apart, and what the statistics say
//! - `failure.rs`: how an error of the library becomes an exit code
//! - `args.rs` reads the command line, `draw.rs` draws tables and bars, `server.rs` is the other side of the show

mod args;
mod demo;
mod draw;
mod failure;
mod server;
mod transfer;

use std::io::{self, Write};
use std::process::ExitCode;

use args::Task;
use failure::{Exit, Failure};

fn main() -> ExitCode {
    let ended = match args::parse(std::env::args_os().skip(1)) {
        Ok(Task::Help) => print(args::HELP),
        Ok(task) => run(task),
        Err(message) => Err(Failure::new(
            Exit::Usage,
            format!("{message} (see fetch --help)"),
        )),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.tell();
            failure.exit.into()
        }
    }
}

fn run(task: Task) -> Result<(), Failure> {
    let runtime = tokio::runtime::Runtime::new()
        .map_err(|error| Failure::new(Exit::Differed, format!("no tokio runtime: {error}")))?;
    let ended = runtime.block_on(async {
        match task {
            Task::Help => Ok(()),
            Task::Demo => demo::run().await,
            Task::Fetch(options) => transfer::fetch(&options).await,
        }
    });
    // Looking up a name blocks a thread of the runtime. After a timeout nobody wants to wait for that thread.
    runtime.shutdown_background();
    ended
}

/// Writes to stdout. Unlike `print!` it does not panic when the reader has gone away.
fn print(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()?;
    Ok(())
}
