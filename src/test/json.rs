//! JSON in what comes to a test double and in what it answers (feature `json`).

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::mock::When;
use super::{Received, Reply};

impl Reply {
    /// A response with this value as its body, and `content-type: application/json`. Panics if the status is none or the
    /// value cannot be serialised.
    ///
    /// ```
    /// let reply = sockeye::test::Reply::json(200, &["a", "b"]);
    /// ```
    #[track_caller]
    pub fn json<T: Serialize + ?Sized>(status: u16, value: &T) -> Self {
        match serde_json::to_vec(value) {
            Ok(body) => Self::new(status, body).header("content-type", "application/json"),
            Err(why) => panic!("a reply of the test double: {why}"),
        }
    }
}

impl Received {
    /// The content, read as JSON.
    pub fn json<T: DeserializeOwned>(&self) -> serde_json::Result<T> {
        serde_json::from_slice(&self.body)
    }
}

impl When {
    /// Only requests whose body is this value, however it is written down. Panics if it cannot be serialised.
    ///
    /// ```
    /// use sockeye::Method;
    /// use sockeye::test::MockTransport;
    ///
    /// let mock = MockTransport::new();
    /// mock.on(Method::POST, "https://a.test/users").body_json(&[1, 2]).reply(201, "");
    /// ```
    #[track_caller]
    pub fn body_json<T: Serialize + ?Sized>(self, value: &T) -> Self {
        let wanted = match serde_json::to_value(value) {
            Ok(wanted) => wanted,
            Err(why) => panic!("a rule of the mock: {why}"),
        };
        self.only_if("another JSON body", move |received| {
            received.json::<Value>().is_ok_and(|came| came == wanted)
        })
    }
}
