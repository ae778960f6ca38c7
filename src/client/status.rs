//! The rule that a status of 400 or more is an error (design D11).

use http::StatusCode;

/// Whether this status is an error. Statuses from 600 on count as those from 500 on do (ruling 9).
pub(super) fn is_error(status: StatusCode) -> bool {
    status.as_u16() >= 400
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_begin_at_400_and_have_no_end() {
        for (status, error) in [
            (200, false),
            (304, false),
            (399, false),
            (400, true),
            (599, true),
            (999, true),
        ] {
            assert_eq!(
                is_error(StatusCode::from_u16(status).unwrap()),
                error,
                "{status}"
            );
        }
    }
}
