//! JSON in the data of an event.

use serde::de::DeserializeOwned;

use super::json::decode_json;
use super::sse::Event;
use crate::error::{Error, ErrorKind, Phase, Result, Sent};

impl Event {
    /// The data, read as JSON. What is not the expected JSON fails with [`ErrorKind::Decode`], naming the event, the place and
    /// the bytes around it.
    ///
    /// ```
    /// # fn tell(event: sockeye::Event) -> sockeye::Result<()> {
    /// #[derive(serde::Deserialize)]
    /// struct Delta { text: String }
    ///
    /// print!("{}", event.json::<Delta>()?.text);
    /// # Ok(()) }
    /// ```
    pub fn json<T: DeserializeOwned>(&self) -> Result<T> {
        decode_json(self.data().as_bytes()).map_err(|error| {
            let name: String = self.event().chars().take(MAX_SHOWN).collect();
            let text = format!(
                "the data of an event \"{}\" is not the expected JSON: {error}",
                name.escape_debug()
            );
            Error::new(ErrorKind::Decode, Some(Phase::Read), Sent::All).saying(text)
        })
    }
}

/// Characters of a type that an error shows.
const MAX_SHOWN: usize = 40;
