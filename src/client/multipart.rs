//! Requests with a multipart form.

use http::HeaderValue;

use super::RequestBuilder;
use crate::body::Multipart;

impl RequestBuilder {
    /// Sends a form of parts, with the content type `multipart/form-data` and the form's boundary in it. A `content-type` of
    /// one's own cannot name the boundary, and is a mistake, as is one in a part; `send` reports it.
    ///
    /// ```no_run
    /// # async fn run() -> sockeye::Result<()> {
    /// use sockeye::Multipart;
    ///
    /// let client = sockeye::Client::new();
    /// let form = Multipart::new().text("title", "Upstream").file("film", "film.mkv");
    /// client.post("https://films.example.com/").multipart(form).await?;
    /// # Ok(()) }
    /// ```
    pub fn multipart(self, form: Multipart) -> Self {
        match form.into_body() {
            Ok((content_type, body)) => self.with_body(Ok(body), content_type),
            Err(mistake) => self.with_body(Err(mistake), HeaderValue::from_static("")),
        }
    }
}
