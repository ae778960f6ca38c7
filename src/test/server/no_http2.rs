//! In place of `http2` where the client does not speak it.

use std::io;
use std::sync::Arc;

use super::{Answerer, Place};
use crate::test::pipe::{Control, End};

/// Nothing asks for it in such a build.
pub(super) async fn serve(
    _: End,
    control: &Control,
    _: Place,
    _: Arc<dyn Answerer>,
) -> io::Result<()> {
    control.fail(
        io::ErrorKind::Unsupported,
        "HTTP/2 is not built in (feature http2)",
    );
    Ok(())
}
