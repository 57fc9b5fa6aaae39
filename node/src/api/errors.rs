//! Errors with true HTTP codes.

use crate::api::access::Unavailable;
use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use isthmus_api::ApiError;
use isthmus_catalog::Refusal;

/// An error and its HTTP code.
#[derive(Debug)]
pub struct HttpError {
    /// The code.
    pub status: StatusCode,
    /// The words.
    pub error: ApiError,
}

impl HttpError {
    /// 400: the request is wrong at `field`.
    pub fn field(field: &str, problem: impl Into<String>) -> HttpError {
        HttpError {
            status: StatusCode::BAD_REQUEST,
            error: ApiError::new(format!("{field} is not valid")).because(problem),
        }
    }

    /// 404.
    pub fn not_found(error: impl Into<String>) -> HttpError {
        HttpError {
            status: StatusCode::NOT_FOUND,
            error: ApiError::new(error),
        }
    }
}

impl IntoResponse for HttpError {
    fn into_response(self) -> Response {
        (self.status, Json(self.error)).into_response()
    }
}

impl From<Unavailable> for HttpError {
    fn from(unavailable: Unavailable) -> HttpError {
        let error = ApiError::new("the cluster can't agree on anything now").because(unavailable.0).next(
            "no majority of kvdb's voters answers in time: see domain-ctl status, start the nodes that do not answer, then try again",
        );
        HttpError {
            status: StatusCode::SERVICE_UNAVAILABLE,
            error,
        }
    }
}

impl From<Refusal> for HttpError {
    fn from(refusal: Refusal) -> HttpError {
        let status = match refusal {
            Refusal::UnknownNode(_) | Refusal::UnknownDomain(_) | Refusal::UnknownVolume(_) => {
                StatusCode::NOT_FOUND
            }
            Refusal::Invalid(_) => StatusCode::BAD_REQUEST,
            Refusal::NotFormed => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::CONFLICT,
        };
        HttpError {
            status,
            error: ApiError::new(refusal.to_string()),
        }
    }
}
