//! Proxies of the environment, as a process finds it: who reads it, when, and what a mistake in it does.
//!
//! Which variable counts is a table beside the code. Here the same process is started again with variables of its own. 0.0.0.0
//! is no address of this machine to anybody but Linux, which refuses a connection to it at once where nobody listens.

use std::process::Command;

use sockeye::{Client, ErrorKind};

use super::proxy;
use crate::support::peer::World;

/// Runs one of the tests below in a process with these variables and no others that matter.
fn run(test: &str, variables: &[(&str, &str)]) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([
        "--exact",
        &format!("proxies::environment::{test}"),
        "--ignored",
    ]);
    for name in ["http_proxy", "https_proxy", "all_proxy", "no_proxy"] {
        command.env_remove(name).env_remove(name.to_uppercase());
    }
    let output = command.envs(variables.iter().copied()).output().unwrap();
    let shown = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{variables:?} {shown}");
    assert!(shown.contains("1 passed"), "{shown}");
}

#[test]
fn a_client_reads_the_environment_unless_it_is_told_where_to_go() {
    // Nobody listens there, which the error then tells.
    run(
        "calls_fail_at_the_proxy",
        &[
            ("http_proxy", "http://user:s3cret@127.0.0.1:9"),
            ("HTTPS_PROXY", "127.0.0.1:9"),
        ],
    );
    run("calls_fail_at_the_proxy", &[("ALL_PROXY", "127.0.0.1:9")]);
    run(
        "calls_go_without_a_proxy",
        &[("all_proxy", "127.0.0.1:9"), ("NO_PROXY", "0.0.0.0")],
    );
    run(
        "calls_go_without_a_proxy",
        &[("HTTP_PROXY", "127.0.0.1:9"), ("REQUEST_METHOD", "GET")],
    );
    run("calls_go_without_a_proxy", &[]);
}

#[test]
fn a_mistake_is_told_by_name() {
    run(
        "the_mistake_is_told",
        &[("HTTP_PROXY", "ftp://user:s3cret@proxy.test")],
    );
    run(
        "the_mistake_is_told",
        &[("HTTP_PROXY", "http://user:s3cret@proxy.test:99999")],
    );
}

#[tokio::test]
#[ignore = "run by a_client_reads_the_environment_unless_it_is_told_where_to_go"]
async fn calls_fail_at_the_proxy() {
    let builder = Client::builder;
    for client in [Client::new(), builder().build().unwrap()] {
        let error = client.get("http://0.0.0.0:9/").send().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Proxy, "{error}");
        let shown = format!("{error} {error:?}");
        assert!(shown.contains("http://127.0.0.1:9"), "{shown}");
        assert!(!shown.contains("s3cret"), "{shown}");
        // This machine is not the proxy's: nobody listens here, either.
        let error = client.get("http://localhost:9/").send().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Connect, "{error}");
    }
    for client in [
        builder().no_proxy().build().unwrap(),
        builder().deny_private(true).build().unwrap(),
    ] {
        let error = client.get("http://0.0.0.0:9/").send().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Connect, "{error}");
    }
    let other = builder().proxy(proxy("127.0.0.1:10")).build().unwrap();
    let error = other.get("http://0.0.0.0:9/").send().await.unwrap_err();
    assert!(error.to_string().contains("127.0.0.1:10"), "{error}");
    let request = Client::new().get("http://0.0.0.0:9/").no_proxy();
    let error = request.send().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Connect, "{error}");
    // A connector leads where it leads.
    let world = World::new();
    let client = world.client();
    let call = tokio::spawn(client.get("http://a.test/").send());
    let mut connection = world.accept().await;
    assert_eq!(connection.host, "a.test");
    assert_eq!(connection.read_request().await.target(), "/");
    drop(connection);
    call.await.unwrap().unwrap_err();
}

#[tokio::test]
#[ignore = "run by a_client_reads_the_environment_unless_it_is_told_where_to_go"]
async fn calls_go_without_a_proxy() {
    let error = Client::new()
        .get("http://0.0.0.0:9/")
        .send()
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Connect, "{error}");
}

/// A client that cannot fail to be made fails the calls rather than go another way than its user wanted.
#[tokio::test]
#[ignore = "run by a_mistake_is_told_by_name"]
async fn the_mistake_is_told() {
    let client = Client::new();
    let by_call = client.get("http://0.0.0.0:9/").send().await.unwrap_err();
    let in_advance = client.preconnect("http://0.0.0.0:9/", 1).await.unwrap_err();
    let by_build = Client::builder().build().unwrap_err();
    for error in [by_call, in_advance, by_build] {
        assert_eq!(error.kind(), ErrorKind::InvalidRequest, "{error}");
        let shown = format!("{error} {error:?}");
        assert!(shown.contains("HTTP_PROXY"), "{shown}");
        assert!(
            !shown.contains("s3cret") && !shown.contains("user"),
            "{shown}"
        );
    }
    // It concerns no other calls.
    let error = client.get("http://localhost:9/").send().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Connect, "{error}");
    let request = client.get("http://0.0.0.0:9/").no_proxy();
    assert_eq!(request.send().await.unwrap_err().kind(), ErrorKind::Connect);
}
